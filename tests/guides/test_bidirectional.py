"""Bidirectional inference: its graph, what the edges that the published one lacks cost, and what it is made of."""

from math import exp

import pyro
import pytest
import torch
from torch import Tensor

from guides import Bidirectional
from ppl_models import BIVA, DLGM, HierarchicalVAE, LinearGaussian
from ppl_models.factorization import compare
from ppl_models.inference.pyro.passes.terms import terms
from ppl_models.inference.pyro.training.fit import fit
from tests.helpers.cases import few

LINEAR = {"encoder": "linear", "depth": 0, "family": "full"}


def twin(layers: int, sizes: int = 2) -> LinearGaussian:
    """The graph of a BIVA with linear maps: z1 is top, z2 and z3 are td_{L-1} and bu_{L-1}, and so on."""
    names = [f"z{i + 1}" for i in range(2 * layers - 1)]
    parents = {name: names[: i - (i - 1) % 2] for i, name in enumerate(names) if i} | {"x": names}
    generator = torch.Generator().manual_seed(0)
    model = LinearGaussian(3, (sizes,) * len(names), parents, generator=generator)
    return model.double().requires_grad_(False)


def rows(model: LinearGaussian, n: int) -> Tensor:
    pyro.set_rng_seed(0)
    return model(n=n)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_each_latent_of_the_way_down_lacks_that_of_the_way_up_and_no_other(layers):
    model, x = BIVA(4, (2,) * layers, hidden=8), torch.eye(4)[:3]
    below = range(layers - 1, 0, -1)
    published = compare(model, Bidirectional(model, x, hidden=8), x)
    assert {row.site: [*row.missing] for row in published.rows if row.missing} == {f"td{i}": [f"bu{i}"] for i in below}
    assert published.verdict == ("unfaithful" if layers > 1 else "faithful, minimal, perfect")
    guide = Bidirectional(model, x, hidden=8, parents="needed")
    assert guide.order == [*(f"bu{i}" for i in reversed(below)), "top", *(f"td{i}" for i in below)]
    assert compare(model, guide, x).verdict == "faithful, minimal, perfect"


def test_without_layers_of_several_it_is_top_down():
    x = torch.eye(4)[:3]
    chain = HierarchicalVAE(4, (2, 2, 2), hidden=8)
    for parents in ("apart", "needed"):
        report = compare(chain, Bidirectional(chain, x, hidden=8, parents=parents), x)
        assert str(report.guide) == "q(z1 | x) q(z2 | z1, x) q(z3 | z2, x)"
    flat = DLGM(4, (2, 2), hidden=8)
    assert str(compare(flat, Bidirectional(flat, x, hidden=8), x).guide) == "q(z2 | x) q(z1 | x)"
    with pytest.raises(ValueError, match="parents\\['z1'\\] has 'z3', which this guide does not sample before it"):
        Bidirectional(chain, x, hidden=8, parents={"z1": ("z3",)})


def information(model: LinearGaussian, a: str, b: str, given: str) -> float:
    """I(a; b | given, x) of the exact posterior, in nats, from the precision Q of what is not given."""
    whitening, blocks = model._whitening(), model.blocks()
    q = whitening.mT @ whitening
    places = [torch.arange(len(q))[blocks[name]] for name in (a, b)]
    both = torch.cat(places)
    assert {a, b, given, "x"} == set(blocks)
    parts = [torch.logdet(q[p[:, None], p]) for p in (*places, both)]
    return (parts[0] + parts[1] - parts[2]).item() / 2


def test_the_price_of_two_layers_is_the_information_that_the_missing_edge_carries():
    """q(td | top, x) q(bu | top, x) at its best is the product of the two margins given top: both directions agree."""
    model = twin(2)
    x = rows(model, 3)
    found = compare(model, Bidirectional(model, x, **LINEAR), x)
    (row,) = [row for row in found.rows if row.missing]
    closed = information(model, "z2", "z3", "z1")
    assert closed > 0.5
    assert (found.gap.elbo, found.gap.forward) == pytest.approx((closed, closed), abs=1e-8)
    assert (row.site, row.price, row.nats) == ("z2", pytest.approx(closed), {"z3": pytest.approx(closed)})


CASES = [(layers, parents) for layers in (2, 3) for parents in ("apart", "needed")]


@pytest.mark.parametrize(("layers", "parents"), few(CASES, lambda *case: False))
def test_on_linear_data_the_faithful_guide_is_exact_and_the_published_one_keeps_its_gap(layers, parents):
    model = twin(layers)
    x = rows(model, 2000)
    guide = Bidirectional(model, x[:3], parents=parents, **LINEAR)
    gap = compare(model, guide, x[:3]).gap.elbo
    assert (gap < 1e-8) == (parents == "needed")
    fit(model, guide, x, steps=3000 * (layers - 1), lr=1e-2, batch_size=500, ema=0.99, progress=False, seed=0)
    with torch.no_grad():
        found = [terms(model, guide, (x,), particles=8, nesting=1, analytic=False).log_w.mean() for _ in range(10)]
    bounds = torch.stack(found)
    error = (bounds.std() / len(bounds) ** 0.5).item()
    assert error < 0.003  # nats
    assert (model.log_evidence(x).mean() - bounds.mean()).item() == pytest.approx(gap, abs=0.02)


def test_standard_deviations_can_be_held_at_one_or_more():
    """The family that the published runs take: sqrt(1 + s^2), here of raw numbers that would give e^-5."""
    model, x = BIVA(4, (2, 1), hidden=8), torch.eye(4)[:3]
    for family, least in (("diagonal:least=1", 1.0), ("diagonal", 0.0)):
        guide = Bidirectional(model, x, hidden=8, family=family)
        for factor in guide.factors.plan.values():
            network = getattr(guide.factors, factor.network)
            network.bias.data += torch.tensor([0.0, -100.0]).repeat_interleave(factor.size)
        sites = pyro.poutine.trace(guide).get_trace(x).nodes
        for name in ("bu1", "top", "td1"):
            narrow = sites[name]["fn"].base_dist.scale
            torch.testing.assert_close(narrow, torch.full_like(narrow, (least + exp(-10)) ** 0.5))


def test_draws_do_not_grow_along_a_chain_of_eleven():
    """Before any training each factor of the published sizes is within tens of nats of its prior."""
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((20, 784), 0.3))
    for family in ("diagonal", "diagonal:least=1"):
        model = BIVA(hidden=64)
        with torch.no_grad():
            found = terms(model, Bidirectional(model, x[:3], family=family, hidden=64), (x,)).kl
        assert len(found) == 11 and all(kl.mean() < 60 for kl in found.values())
