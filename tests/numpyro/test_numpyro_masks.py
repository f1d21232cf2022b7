"""Masks of latents in NumPyro, of whole events and of single entries; see `tests/guides/test_masks.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from guides import numpyro as guides
from ppl_models.inference.numpyro import terms

KEY = jax.random.key(0)
THERE = np.array([[True, True], [True, False], [False, True]])
ROWS = np.array([True, False, True])
X = np.array([[0.5, -1.0], [2.0, 0.0], [0.0, 0.3]])
PRIORS = {
    "inside": (lambda: dist.Normal(jnp.zeros((3, 2)), 1.0).mask(jnp.asarray(THERE)).to_event(1), THERE),
    "outside": (lambda: dist.Normal(jnp.zeros((3, 2)), 1.0).to_event(1).mask(jnp.asarray(ROWS)), ROWS[:, None]),
    "expanded": (lambda: dist.Normal(0.0, 1.0).expand((3, 2)).mask(jnp.asarray(THERE)).to_event(1), THERE),
    "log normal": (lambda: dist.LogNormal(jnp.zeros((3, 2)), 1.0).mask(jnp.asarray(THERE)).to_event(1), THERE),
    "gamma": (lambda: dist.Gamma(jnp.full((3, 2), 2.0), 1.0).mask(jnp.asarray(THERE)).to_event(1), THERE),
}


def model_of(name):
    prior, kept = PRIORS[name]

    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", prior())
            z = jnp.log(z) if name in ("log normal", "gamma") else z
            mask = jnp.broadcast_to(jnp.asarray(kept), (3, 2))
            numpyro.sample("x", dist.Normal(z, 0.5).mask(mask).to_event(1), obs=x)

    return model


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("make", ["MeanField", "SelfReflective"])
def test_what_is_masked_out_counts_in_neither(make, name, x64):
    """With 4,000 weights of an untrained guide the evidence of what is there, within five standard errors."""
    model, kept = model_of(name), np.broadcast_to(PRIORS[name][1], (3, 2))
    guide = getattr(guides, make)(model, X, hidden=4, key=KEY)
    found = terms(model, guide, (X,), particles=4000, key=KEY)
    if name != "gamma":  # whose evidence is another
        weights = np.exp(found.log_w)
        exact = np.exp((dist.Normal(0.0, 1.25**0.5).log_prob(X) * kept).sum(-1))
        assert (abs(weights.mean(0) - exact) < 5 * weights.std(0) / 4000**0.5 + 1e-12).all()
        np.testing.assert_allclose(found.kl["z"][0], found.kl["z"][1], rtol=1e-12)  # in closed form
    ratio = found.log_q["z"] - found.log_p["z"]
    assert (abs(found.kl["z"].mean(0) - ratio.mean(0)) < 5 * ratio.std(0) / 60 + 1e-12).all()
    assert (found.kl["z"][:, ~kept.any(-1)] == 0).all()


@pytest.mark.parametrize("family", ["full", "flow"])
def test_factors_that_couple_entries_want_masks_of_events(family):
    guide = guides.MeanField(model_of("inside"), X, hidden=4, family=family, key=KEY)
    with pytest.raises(ValueError, match="guide MeanField: site 'z' has a mask of single entries .*family='diagonal'"):
        numpyro.handlers.seed(guide, 0)(X)
    with pytest.raises(ValueError, match="site 'z' has a mask in the model, which a guide with an order of its own"):
        guides.Faithful(model_of("inside"), X, key=KEY)
