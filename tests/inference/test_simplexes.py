"""Simplexes of thousands of entries in single precision, whose sum is 1 but for rounding: they are like any others."""

from math import isfinite

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

from guides import MeanField
from guides.numpyro import MeanField as NumPyroMeanField
from ppl_models.inference import evaluate, fit
from ppl_models.numpyro import evaluate as numpyro_evaluate
from ppl_models.parts.checks import rounding
from ppl_models.views import to_arviz

V = 4000
OFF = 1 + 1e-5  # more than 1e-6, less than what so many entries may miss


def topics(x: Tensor) -> None:
    share = pyro.sample("share", dist.Dirichlet(torch.ones(V)))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(share[:2] * V, 1.0).to_event(1), obs=x)


def shares(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Dirichlet(z.exp()[:, None].expand(-1, V)), obs=x)


def test_latent_simplexes_are_evaluated_and_exported_once_they_are_trained():
    x = torch.ones(3, 2)

    def guide(x: Tensor) -> None:  # one that misses the sum, as stick-breaking does by chance
        pyro.sample("share", dist.Delta(torch.full((V,), OFF / V), event_dim=1))

    assert not constraints.simplex.check(torch.full((V,), OFF / V))
    assert isfinite(evaluate(topics, guide, x, particles=2, progress=False).elbo)
    assert to_arviz(topics, guide, x, draws=2).posterior["share"].shape == (1, 2, V)
    assert not constraints.simplex.check(torch.full((V,), OFF / V))  # torch's own rule is as it was


def test_observed_simplexes_are_trained_on():
    x = torch.softmax(torch.randn(4, V, generator=torch.Generator().manual_seed(0)), -1)
    guide = MeanField(shares, x[:3], hidden=4)
    for data in (x, x / x.sum(-1, keepdim=True) * OFF):
        fit(shares, guide, data, steps=2, progress=False)
        evaluate(shares, guide, data, particles=2, progress=False)
    with pytest.raises(ValueError, match=r"support \(Simplex\(\)\)"):
        fit(shares, guide, x * 1.001, steps=2, progress=False)


def numpyro_shares(x: jax.Array) -> None:
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", numpyro_dist.Normal(0.0, 1.0))
        numpyro.sample("x", numpyro_dist.Dirichlet(jnp.exp(z)[:, None] * jnp.ones(V)), obs=x)


def test_observed_simplexes_have_a_density_in_numpyro():
    x = jax.nn.softmax(jax.random.normal(jax.random.key(0), (4, V))) * OFF
    guide = NumPyroMeanField(numpyro_shares, x, hidden=4, key=jax.random.key(1))
    assert isfinite(numpyro_evaluate(numpyro_shares, guide, x, particles=2, progress=False).elbo)
    with pytest.raises(ValueError, match=r"outside the support of its distribution, .*\(first in row 3\)"):
        numpyro_evaluate(numpyro_shares, guide, x.at[3].multiply(1.001), particles=2, progress=False)


def test_latent_simplexes_have_a_density_in_numpyro():
    def model(x: jax.Array) -> None:
        share = numpyro.sample("share", numpyro_dist.Dirichlet(jnp.ones(V)))
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", numpyro_dist.Normal(share[0] * V, 1.0), obs=x)

    def guide(x: jax.Array) -> None:
        numpyro.sample("share", numpyro_dist.Delta(jnp.full(V, OFF / V), event_dim=1))

    assert isfinite(numpyro_evaluate(model, guide, np.ones(3), particles=2, progress=False).elbo)
    assert not numpyro_dist.constraints.simplex(jnp.full(V, OFF / V))  # NumPyro's own rule is as it was


def test_few_entries_may_miss_no_more_than_the_libraries_allow():
    assert rounding(10, torch.finfo(torch.float64).eps) == rounding(100, 0.0) == 1e-6
    assert rounding(V, torch.finfo(torch.float32).eps) == pytest.approx(8 * V**0.5 * 2**-23)
