"""The matrix: every model with every guide does what a pair is for, and is what `benchmarks.collection` says of it."""

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

from benchmarks import collection, matrix
from ppl_models.factorization import compare
from ppl_models.inference import ancestral, decode, elbo, load, save
from ppl_models.inference.pyro.passes.losses import estimate
from ppl_models.parts.arguments.kinds import no_guide
from ppl_models.runs.naming import names
from tests.helpers.cases import few
from tests.helpers.collection import DENSITIES, PAIRS, pair
from tests.helpers.flows import shake

PAGE = Path(__file__).parents[2] / "docs" / "collection.md"
EVERY = [*PAIRS, *((model, None) for model in DENSITIES)]
every_pair = pytest.mark.parametrize(
    ("model", "guide"), few(EVERY, lambda model, guide: model != "sere-maf" or guide == "self-reflective")
)
# the faithful guide of every model, and guides that few models take
OFTEN = {None, "faithful", "bidirectional", "merging", "recurrent", "infused"}
# the models on which docstrings of guides show them; that of `Faithful` shows a program of its own
SHOWN = {name: "hierarchical-vae" for name in collection.GUIDES if name != "faithful"}
SHOWN |= {"bidirectional": "biva", "merging": "matnet", "recurrent": "draw", "infused": "infusion"}


def often(model: str, guide: str | None) -> bool:
    return guide == "self-reflective" if model == "sere-maf" else guide in OFTEN


def documented(program: object) -> str:
    """The docstring of a program's class, whose doctests pytest runs, in one line."""
    return " ".join(inspect.getdoc(type(program)).split())


def sites_of(model: nn.Module, x: Tensor) -> dict[str, dict]:
    """What a run of a model has at its random sites, in their order."""
    nodes = poutine.trace(model).get_trace(x).nodes
    samples = {name: node for name, node in nodes.items() if node["type"] == "sample" and name != "data"}
    return {name: node for name, node in samples.items() if not node["infer"].get("_deterministic")}


@contextmanager
def without_checks_of_values() -> Iterator[None]:
    """They read numbers."""
    with pyro.validation_enabled(False):
        yield


def loss_of(model: nn.Module, guide: nn.Module | None, x: Tensor, particles: int = 1) -> Tensor:
    """The loss of a step of the seed 0, with gradients for all that it depends on."""
    pyro.set_rng_seed(0)
    loss, found = estimate(elbo, model, guide or no_guide, (x,), particles=particles, nesting=1)
    for terms in found:
        parts = terms.log_likelihood, terms.log_p, terms.log_q, terms.kl
        assert all(each.shape in ((particles, len(x)), (1, len(x))) for part in parts for each in part.values())
    for module in filter(None, (model, guide)):
        module.zero_grad(set_to_none=True)
    loss.backward()
    return loss


@every_pair
def test_the_documented_factorization_and_the_verdict_of_the_table(model, guide):
    p, q, x = pair(model, guide)
    report = compare(p, q, x[:3])
    assert str(report.model) in documented(p)
    assert [*sites_of(p, x)] == re.findall(r"p\((\w+)", str(report.model))
    assert (report.verdict, {site: tuple(us) for site, us in report.missing.items()}) == collection.expected(
        model, guide
    )
    if SHOWN.get(guide) == model:
        assert str(report.guide) in documented(q) and report.verdict in documented(q)


@pytest.mark.parametrize(
    ("model", "guide"),
    few(EVERY, often),
)
def test_what_a_pair_is_for(model, guide, tmp_path):
    p, q, x = pair(model, guide)
    programs = {"model": p, **({} if q is None else {"guide": q})}

    # shapes: a guide draws the model's latents
    sites = sites_of(p, x)
    latents = {name: node["value"].shape for name, node in sites.items() if not node["is_observed"]}
    drawn = {} if q is None else q(x)
    assert {name: value.shape for name, value in drawn.items()} == latents
    assert sum(node["value"][0].numel() for node in sites.values() if node["is_observed"]) == x.shape[1]

    # what is drawn of the data has their shape, from the prior and from the posterior
    assert ancestral(p, x).shape == p(n=len(x)).shape == x.shape
    if drawn:
        assert decode(p, drawn, x, draws=True).shape == x.shape

    # gradients: none is lacking, nor zero away from weights that start there
    for module in programs.values():
        shake(module, 0.1)
    first = loss_of(p, q, x)
    parameters = {f"{part}.{n}": w for part, module in programs.items() for n, w in module.named_parameters()}
    assert torch.isfinite(first)
    assert [name for name, w in parameters.items() if w.grad is None or not w.grad.abs().sum() > 0] == []

    # files: another pair of the same sizes is made the same one
    save(tmp_path / "pair.safetensors", programs)
    r, s, _ = pair(model, guide, seed=1)
    if parameters:
        assert not torch.equal(loss_of(r, s, x), first)
    load(tmp_path / "pair.safetensors", {"model": r, **({} if s is None else {"guide": s})})
    assert torch.equal(loss_of(r, s, x), first)

    # the meta device, which has shapes and no numbers: nothing is put on the CPU by hand, and no number is read
    with without_checks_of_values():
        there = {part: module.to("meta") for part, module in programs.items()}
        loss = loss_of(p, q, x.to("meta"), particles=3)
    assert loss.is_meta and loss.shape == ()
    assert all(tensor.is_meta for module in there.values() for tensor in module.state_dict().values())
    assert [n for n, w in nn.ModuleDict(there).named_parameters() if w.grad is None or not w.grad.is_meta] == []


@pytest.mark.parametrize(("model", "guide"), collection.REFUSED)
def test_a_hole_is_an_error_that_says_why(model, guide):
    with pytest.raises(ValueError, match=re.escape(collection.hole(model, guide).says)) as told:
        pair(model, guide)
    assert str(told.value).startswith(f"guide {names.catalogue('guide')[guide].__name__}: ")


def test_every_model_and_guide_is_in_the_matrix():
    assert {*collection.MODELS} == {*names.catalogue("model")} and {*collection.GUIDES} == {*names.catalogue("guide")}
    assert len(collection.PAIRS) + len(collection.REFUSED) == len(collection.MODELS) * len(collection.GUIDES)
    assert all(any((m, g) in collection.REFUSED for m in each.models for g in each.guides) for each in collection.HOLES)


def test_the_tables_of_the_page_are_those_of_the_matrix():
    assert f"\n{matrix.systems()}\n" in PAGE.read_text() and f"\n{matrix.matrix()}\n" in PAGE.read_text()
