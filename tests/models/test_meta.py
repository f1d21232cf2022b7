"""Families, likelihoods and objectives on the meta device, which has shapes and no numbers: none is read or on the CPU.

Every pair is there in `test_matrix`.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from guides.parts.conditionals import FAMILIES
from ppl_models.inference import (
    elbo,
    free_bits,
    importance_weighted,
    info_vae,
    mmd,
    moment_matching,
    moments,
    soft_free_bits,
    unregularized,
)
from ppl_models.inference.pyro.passes.losses import estimate
from ppl_models.runs.naming import names
from tests.helpers.cases import few
from tests.helpers.collection import GUIDE_SIZES, SIZES, WIDTH

OBJECTIVES: dict[str, tuple[Callable, dict[str, Any]]] = {
    "elbo": (elbo, {}),
    "elbo, weighted": (elbo, {"beta": 0.5, "data_size": 50}),
    "elbo, sampled": (elbo, {"analytic": False}),
    "free bits": (free_bits, {}),
    "free bits, by unit": (partial(free_bits, per="unit"), {}),
    "free bits, by sample": (partial(free_bits, per="sample"), {}),
    "soft free bits": (soft_free_bits, {}),
    "importance weighted": (importance_weighted, {}),
    "doubly reparametrized": (importance_weighted, {"gradient": "doubly-reparametrized"}),
    "unregularized": (unregularized, {}),
    "InfoVAE": (partial(info_vae, alpha=0.5, lambda_=10.0), {}),
    "InfoVAE, inverse multiquadric": (
        partial(info_vae, alpha=0.5, lambda_=10.0, discrepancy=partial(mmd, kernel="imq")),
        {},
    ),
    "InfoVAE, linear": (
        partial(info_vae, alpha=0.5, lambda_=10.0, discrepancy=partial(mmd, estimator="linear")),
        {},
    ),
    "InfoVAE, moments": (partial(info_vae, alpha=0.5, lambda_=10.0, discrepancy=moments), {}),
    "moment matching": (moment_matching, {}),
}


@pytest.fixture(autouse=True)
def without_checks_of_values() -> Iterator[None]:
    """They read numbers."""
    dist.enable_validation(False)
    yield
    dist.enable_validation(True)


def pair(model: str, guide: str, family: Any = None, **sizes: Any) -> tuple[nn.Module, nn.Module, Tensor]:
    """A pair built on the CPU and moved, and rows of data."""
    x = torch.bernoulli(torch.full((4, WIDTH), 0.5))
    program = names.catalogue("model")[model](**SIZES[model], **sizes)
    family = {} if family is None else {"family": family}
    network = names.catalogue("guide")[guide](program, x, **GUIDE_SIZES[guide], **family)
    return program.to("meta"), network.to("meta"), x.to("meta")


one_pair = cache(pair)  # for all objectives


def check(model: nn.Module, guide: nn.Module, x: Tensor, particles: int, objective: Callable = elbo, **how: Any):
    """The loss, and the gradient of every parameter that it depends on, are there and on the device."""
    loss, found = estimate(objective, model, guide, (x,), particles=particles, nesting=1, **how)
    assert loss.is_meta and loss.shape == ()
    for terms in found:
        assert all(value.is_meta for part in (terms.log_likelihood, terms.log_p) for value in part.values())
    programs = nn.ModuleDict({"model": model, "guide": guide})
    programs.zero_grad(set_to_none=True)
    loss.backward()
    assert all(value.is_meta for value in programs.state_dict().values())
    apart = "model.priors." if objective is unregularized else "none"  # it has no divergence from them
    trained = {n: p for n, p in programs.named_parameters() if p.requires_grad and not n.startswith(apart)}
    assert not [n for n, p in trained.items() if p.grad is None or not p.grad.is_meta]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("model", few(["hierarchical-vae", "sere-vae"], lambda model: model == "hierarchical-vae"))
def test_every_family(model, family):
    for particles in (1, 3):
        check(*pair(model, "self-reflective", family), particles)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "gaussian:0.5", "logistic:8"])
@pytest.mark.parametrize("model", ["vae", "pixel-vae"])
def test_every_likelihood(model, likelihood):
    for particles in (1, 3):
        check(*pair(model, "mean-field", likelihood=likelihood), particles)


@pytest.mark.parametrize(
    ("names_of", "name"),
    few(
        [(pair, name) for pair in (("vae", "mean-field"), ("sere-vae", "self-reflective")) for name in OBJECTIVES],
        lambda names_of, name: names_of[0] == "vae" or name in ("elbo", "doubly reparametrized", "moment matching"),
    ),
)
def test_every_objective(names_of, name):
    objective, how = OBJECTIVES[name]
    programs = one_pair(*names_of)
    for particles in (1, 3):
        check(*programs, particles, objective, **how)
