"""The VampPrior in NumPyro: the same density as torch's, draws of its components, the encoder with its trained numbers.

`test_numpyro_ports.py` holds pairs and their gradients to torch's.
"""

import numpy as np
import pytest

pytest.importorskip("numpyro")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import torch
from numpyro import handlers

from guides.numpyro import MeanField
from ppl_models.inference.numpyro import fit
from ppl_models.numpyro import VampVAE
from ppl_models.numpyro.parts import EncoderMixture
from ppl_models.parts import EncoderMixture as TorchMixture

KEY, SIZES = jax.random.key(0), {"latent": 2, "hidden": 5, "components": 4}
X = np.random.default_rng(0).integers(0, 2, (8, 6)).astype(np.float32)


def test_density_and_moments_are_torchs(wide):
    rng = np.random.default_rng(0)
    loc, scale, z = rng.normal(size=(5, 3)), rng.uniform(0.1, 1, (5, 3)), rng.normal(size=(4, 7, 3))
    mine = EncoderMixture(jnp.asarray(loc), jnp.asarray(scale), lambda x: x, 6)
    theirs = TorchMixture(torch.tensor(loc), torch.tensor(scale), lambda x: x, 6)
    for fn, other in ((mine, theirs), (mine.expand((4, 7)), theirs.expand([4, 7]))):
        np.testing.assert_allclose(jax.jit(fn.log_prob)(z), other.log_prob(torch.tensor(z)), rtol=1e-12)
        np.testing.assert_allclose(fn.mean, other.mean, rtol=1e-12)
        np.testing.assert_allclose(fn.variance, other.variance, rtol=1e-12)
    assert mine.expand((4, 7)).log_prob(z[0, 0]).shape == (4, 7)


def test_draws_have_the_moments_of_the_mixture(x64):
    loc, scale, n = jnp.array([[-2.0], [0.0], [1.0]]), jnp.array([[0.3], [1.0], [0.2]]), 40_000
    fn = EncoderMixture(loc, scale, lambda x: x, 1)
    draws = np.asarray(fn.sample(KEY, (n,)))
    assert draws.shape == (n, 1)
    assert abs(draws.mean() - fn.mean[0]) < 4.5 * (fn.variance[0] / n) ** 0.5
    # the error of a variance: of squares, whose own variance is that of the draws
    assert abs(draws.var() - fn.variance[0]) < 4.5 * (np.square(draws - draws.mean()).var() / n) ** 0.5


def test_a_guide_without_weights_of_its_own_trains_the_encoder_of_the_model():
    model = VampVAE(6, **SIZES, key=KEY)
    guide = MeanField(model, X[:3], key=KEY)
    assert not jax.tree.leaves(guide.own())
    run = fit(model, guide, X, steps=5, lr=1e-2, batch_size=8, progress=False)
    assert not np.array_equal(run.model.prior.network.last.weight, model.prior.network.last.weight)
    assert not np.array_equal(run.model.prior.rows, model.prior.rows)
    with handlers.seed(rng_seed=0):
        _, found = run.guide.traces(jnp.asarray(X))
    loc, scale = run.model.prior.moments(jnp.asarray(X))
    own = found["z1"]["fn"].base_dist
    np.testing.assert_allclose(own.loc, loc, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(own.scale, scale, rtol=1e-5)


@pytest.mark.parametrize(("likelihood", "low"), [("bernoulli", 0.0), ("gaussian", -3.0), ("shared-gaussian", -3.0)])
def test_pseudo_inputs_are_where_data_are(likelihood, low):
    prior = VampVAE(6, **SIZES, likelihood=likelihood, key=KEY).prior
    prior = eqx.tree_at(lambda each: each.rows, prior, jnp.full_like(prior.rows, -3.0))
    assert float(prior.pseudo_inputs.min()) == low


def test_an_unknown_encoder_is_refused():
    with pytest.raises(ValueError, match="guide MeanField: found encoder 'nets', want 'separate'"):
        MeanField(VampVAE(6, **SIZES, key=KEY), jnp.asarray(X), encoder="nets", key=KEY)


def test_it_generates():
    with numpyro.handlers.seed(rng_seed=0):
        assert VampVAE(6, **SIZES, layers=2, key=KEY)(n=3).shape == (3, 6)


def test_a_mixture_is_whole_after_a_flattening():
    """All of its arrays are leaves, so that it crosses `jax.jit` and `jax.tree.map` with its density."""
    model = VampVAE(event=6, latent=2, hidden=4, components=3, key=jax.random.key(0))
    prior = model.prior()
    leaves, form = jax.tree.flatten(prior)
    z = jnp.array([[0.5, -0.2], [0.1, 0.3]])
    again = jax.tree.unflatten(form, leaves)
    assert jnp.array_equal(again.log_prob(z), prior.log_prob(z))
    assert jnp.array_equal(jax.jit(lambda p: p.log_prob(z))(again), jax.jit(lambda p: p.log_prob(z))(prior))
