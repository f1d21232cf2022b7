"""`with pyro.plate("data"):` without a size, which Pyro takes for one of any size and repeats nothing in."""

from functools import partial
from math import log, pi

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from guides import Faithful, MeanField, SelfReflective
from ppl_models.factorization import compare, factorization
from ppl_models.inference import evaluate, fit
from ppl_models.inference.pyro.passes.terms import terms
from ppl_models.programs import pyro as programs
from ppl_models.programs.record import Plate
from ppl_models.views import to_arviz


def data(x: Tensor, sized: bool) -> pyro.plate:
    return pyro.plate("data", len(x) if sized else None)


def local(x: Tensor, sized: bool = False) -> None:
    with data(x, sized):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.deterministic("grid", torch.linspace(0, 1, 11))  # as wide as no plate
        pyro.sample("x", dist.Normal(z[..., None].expand(*z.shape, x.shape[1]), 1.0).to_event(1), obs=x)


def exact(x: Tensor) -> None:
    with pyro.plate("data"):
        pyro.sample("z", dist.Normal(x.sum(-1) / (1 + x.shape[1]), (1 + x.shape[1]) ** -0.5))


def shared(x: Tensor, where: str) -> None:
    """One mean of all data, drawn inside the plate, where nothing repeats it, or outside."""
    if where == "outside":
        mu = pyro.sample("mu", dist.Normal(x.sum() * 0, 1.0))
    with pyro.plate("data", len(x) if where == "outside" else None):
        if where == "inside":
            mu = pyro.sample("mu", dist.Normal(x.sum() * 0, 1.0))
        pyro.sample("x", dist.Normal(mu + 0 * x, 1.0), obs=x)


def evidence(x: Tensor) -> Tensor:
    """log p(x) of each row: Gaussian with the covariance 1 + 1 1'."""
    n = x.shape[1]
    return -0.5 * (n * log(2 * pi) + log(1 + n) + (x**2).sum(-1) - x.sum(-1) ** 2 / (1 + n))


def test_a_plate_has_the_size_of_the_values_in_it():
    x = torch.randn(5, 2)
    run, plate = programs.run(local, (x,)), Plate("data", -1, 5, 5)
    assert run.plates == {"data": plate}
    assert run["z"].plates == run["x"].plates == (plate,) and run["grid"].plates == ()
    run = programs.run(partial(shared, where="inside"), (x[:, 0],))
    assert run["x"].plates == (plate,) and run["mu"].plates == ()


def test_structures_and_guides_are_those_of_a_plate_of_that_size():
    x = torch.randn(3, 2)
    assert str(factorization(local, x)) == "p(z) p(x | z)"
    assert str(factorization(partial(shared, where="inside"), x[:, 0])) == "p(mu) p(x | mu)"
    for structure in (Faithful, MeanField, SelfReflective):
        guide = structure(local, x, hidden=4)
        assert not guide.layout.latents["z"].is_global and guide.layout.rows.size == 3
        assert compare(local, guide, x).faithful
    assert compare(local, exact, x).faithful
    found = to_arviz(local, guide, torch.randn(5, 2), draws=4)
    assert found["posterior"]["z"].dims == ("chain", "draw", "data")
    assert found["log_likelihood"]["x"].shape == found["sample_stats"]["lp"].shape == (1, 4, 5)


@pytest.mark.parametrize("particles", [1, 4])
def test_the_exact_posterior_has_the_evidence_for_a_weight(particles, double):
    x = torch.randn(6, 3)
    found = terms(local, exact, (x,), particles=particles, analytic=False).log_w
    torch.testing.assert_close(found, evidence(x).expand(particles, 6), rtol=1e-12, atol=1e-12)
    assert evaluate(local, exact, x, particles=3, progress=False).nll == pytest.approx(-evidence(x).mean().item())


def test_a_training_is_that_with_a_size(double):
    x, histories = torch.randn(30, 3), []
    for sized in (True, False):
        pyro.set_rng_seed(0)
        model = partial(local, sized=sized)
        run = fit(model, MeanField(model, x[:3], hidden=4), x, steps=6, batch_size=10, seed=0, progress=False)
        histories.append(run.history[-1])
    first, second = ({k: v for k, v in h.items() if isinstance(v, float)} for h in histories)
    assert first["negative_elbo"] == pytest.approx(second["negative_elbo"], rel=1e-12)


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("particles", [1, 3])
def test_a_single_value_in_it_is_one_for_all_data(particles, n, double):
    x, found = torch.randn(n), {}
    for where in ("outside", "inside"):
        model = partial(shared, where=where)
        torch.manual_seed(0)
        guide = Faithful(model, torch.randn(5), hidden=4)
        assert guide.layout.latents["mu"].is_global
        torch.manual_seed(0)
        found[where] = terms(model, guide, (x,), particles=particles)
    assert found["inside"].shared == ({"mu"} if n > 1 or particles == 1 else found["inside"].shared)
    for name in ("log_p", "log_q", "log_likelihood"):
        for site, table in getattr(found["outside"], name).items():
            np.testing.assert_allclose(table.sum(1).detach(), getattr(found["inside"], name)[site].sum(1).detach())


def test_an_autoguide_that_knows_no_size_is_told_so():
    """Pyro's own makes the plates of the model again, and died of a size of -1."""
    x = torch.randn(4, 3)
    for act in (partial(fit, steps=1, progress=False), partial(evaluate, progress=False), to_arviz):
        with pytest.raises(
            ValueError, match="AutoNormal makes the model's plate 'data' again, which was given no size"
        ):
            act(local, AutoNormal(local), x)
    guide = AutoNormal(partial(local, sized=True))
    assert fit(guide.model, guide, x, steps=1, progress=False).history
