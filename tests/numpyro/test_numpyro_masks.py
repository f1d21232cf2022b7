"""Masks of latents in NumPyro, of whole events and of single entries; see `tests/guides/test_masked_latents.py`."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import norm

from guides import numpyro as guides
from ppl_models.inference.numpyro import terms
from tests.helpers.cases import few
from tests.helpers.precision import quick

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


OFTEN = ("MeanField", "inside"), ("SelfReflective", "log normal"), ("SelfReflective", "outside")


@pytest.mark.parametrize(("make", "name"), few(product(("MeanField", "SelfReflective"), PRIORS), lambda *c: c in OFTEN))
def test_what_is_masked_out_counts_in_neither(make, name, x64):
    """With 4,000 weights of an untrained guide the evidence of what is there, within five standard errors."""
    model, kept = model_of(name), np.broadcast_to(PRIORS[name][1], (3, 2))
    guide = getattr(guides, make)(model, X, hidden=4, key=KEY)

    def numbers(x):
        found = terms(model, guide, (x,), particles=4000, key=KEY)
        return found.log_w, found.kl["z"], found.log_q["z"] - found.log_p["z"]

    log_w, kl, ratio = quick(numbers)(jnp.asarray(X))
    if name != "gamma":  # whose evidence is another
        weights = np.exp(log_w)
        exact = np.exp((norm(0.0, 1.25**0.5).logpdf(X) * kept).sum(-1))
        assert (abs(weights.mean(0) - exact) < 5 * weights.std(0) / 4000**0.5 + 1e-12).all()
    assert (abs(kl.mean(0) - ratio.mean(0)) < 5 * ratio.std(0) / 4000**0.5 + 1e-12).all()
    assert (kl[:, ~kept.any(-1)] == 0).all()
    if not (make == "MeanField" and name in ("log normal", "gamma")) and name != "gamma":  # in closed form
        np.testing.assert_allclose(kl[0], kl[1], rtol=1e-12)


def test_factors_that_couple_entries_want_masks_of_events():
    guide = guides.MeanField(model_of("inside"), X, hidden=4, family="full", key=KEY)
    with pytest.raises(ValueError, match="guide MeanField: site 'z' has a mask of single entries .*family='diagonal'"):
        jax.eval_shape(numpyro.handlers.seed(guide, 0), X)
