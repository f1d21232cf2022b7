"""The ports of families, chains, pixels and `evaluate` against the numbers by hand that their twins are held to."""

import math
from statistics import fmean, stdev

import numpy as np
import pytest

pytest.importorskip("numpyro")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers

from guides.numpyro import Ladder, SelfReflective
from guides.numpyro.infused import InfusedNormal
from guides.numpyro.parts import families
from guides.numpyro.parts.encoders import BottomUpChain
from guides.numpyro.parts.families import Spread, gaussian_base
from ppl_models.inference.numpyro import evaluate
from ppl_models.numpyro.parts.pixels import LogisticMixture, PixelMixture
from tests.helpers import pixels_by_hand as pixels
from tests.helpers.families_by_hand import (
    CHAIN_FEATURES,
    CHAIN_W1,
    CHAIN_W2,
    CHAIN_X,
    FACTORS,
    SPLINE,
    SPLINE_LOC,
    SPLINE_SCALE,
    SPLINE_SLOPE,
    SPLINE_VALUES,
    TWO,
    inverse_softplus,
)

pytestmark = pytest.mark.usefixtures("x64")

KEY = jax.random.key(0)
X = np.array([-1.0, 0.5, 2.0, 3.5, -0.7])


def array(value: object) -> object:
    return jnp.asarray(value) if isinstance(value, tuple) else value


def close(found: object, expected: object, rtol: float = 1e-9, atol: float = 1e-10) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=rtol, atol=atol)


# Families


@pytest.mark.parametrize("name", FACTORS)
def test_factors_by_hand(name):
    case = FACTORS[name]
    family = getattr(families, case.family)()
    assert family.count(len(case.mean), case.method == "precision_weighted") == len(case.raw)
    q = getattr(family, case.method)(jnp.asarray(case.raw), array(case.loc), array(case.scale))
    mean, covariance = np.array(case.mean), np.array(case.covariance)
    for z in (mean, mean + covariance.diagonal() ** 0.5, mean - np.linspace(0.1, 1.0, len(mean))):
        square = (z - mean) @ np.linalg.solve(covariance, z - mean)
        expected = -0.5 * (square + np.linalg.slogdet(2 * np.pi * covariance)[1])
        close(q.log_prob(jnp.asarray(z)), expected, 1e-8)


def test_the_spline_of_a_flow_by_hand():
    q = families.Flow(bins=2).residual(jnp.asarray(SPLINE), SPLINE_LOC, SPLINE_SCALE)
    spline, affine = q.transforms
    for base, value in SPLINE_VALUES.items():
        close(affine(spline(jnp.array([base]))), [value])
    zero = jnp.array([0.0])
    close(spline.log_abs_det_jacobian(zero, spline(zero)), [math.log(SPLINE_SLOPE)])


def test_a_joint_density_is_shared_out_equally():
    q = Spread(dist.Normal(jnp.arange(6.0).reshape(3, 2), 1.0).to_event(2), 1)
    assert (q.batch_shape, q.event_shape, q.sample(KEY, (4,)).shape) == ((3,), (2,), (4, 3, 2))
    total = sum(-0.5 * (1 - k) ** 2 - 0.5 * math.log(2 * math.pi) for k in range(6))
    close(q.log_prob(jnp.ones((5, 3, 2))), np.full((5, 3), total / 3))


def test_the_base_of_a_prior_by_hand():
    loc, scale, shape, transforms = gaussian_base(dist.Normal(jnp.array([1.0, 2.0]), 0.2).to_event(1))
    assert (loc.tolist(), scale.tolist(), shape, transforms) == ([1.0, 2.0], [0.2, 0.2], (2,), [])
    loc, scale, shape, _ = gaussian_base(dist.Normal(jnp.array([1.0, 2.0]), 3.0))
    assert loc.tolist() == [[1.0], [2.0]] and scale.tolist() == [[3.0], [3.0]] and shape == ()
    assert gaussian_base(dist.Laplace(0.0, 1.0)) is None


# Features and factors


def test_the_chain_of_a_ladder_begins_at_the_last_latent():
    chain = BottomUpChain(["z1", "z2"], 2, 2, 0, key=KEY)
    for i, weight in enumerate((CHAIN_W1, CHAIN_W2)):
        where = (lambda c, i=i: c.nets[i].first[0].weight), (lambda c, i=i: c.nets[i].first[0].bias)
        chain = eqx.tree_at(where[0], chain, jnp.asarray(weight))
        chain = eqx.tree_at(where[1], chain, jnp.zeros(2))
    found = chain(jnp.asarray([CHAIN_X]))
    for name, expected in CHAIN_FEATURES.items():
        close(found[name], [expected], 1e-3)


def chain(x):
    """Scales 1, 0.2 and 3, each layer around twice the layer above."""
    with numpyro.plate("data", len(x)):
        z1 = numpyro.sample("z1", dist.Normal(jnp.ones(1), 1.0).to_event(1))
        z2 = numpyro.sample("z2", dist.Normal(2 * z1, 0.2).to_event(1))
        z3 = numpyro.sample("z3", dist.Normal(2 * z2, 3.0).to_event(1))
        numpyro.sample("x", dist.Normal(z3, 1.0).to_event(1), obs=x)


def drawn(make, raw):
    """(values, factors) of a guide whose networks read nothing and give these numbers."""
    x = jnp.array([[0.5], [-1.0]])
    guide = make(chain, x, hidden=4, depth=0, key=KEY)
    for name, numbers in raw.items():
        network = jax.tree.map(lambda leaf: 0 * leaf, guide.factors.children[f"q_{name}"])
        network = eqx.tree_at(lambda n: n.first[0].bias, network, jnp.asarray(numbers))
        guide = eqx.tree_at(lambda g, n=name: g.factors.children[f"q_{n}"], guide, network)
    sites = handlers.trace(handlers.seed(guide, KEY)).get_trace(x)
    return {n: sites[n]["value"] for n in raw}, {n: sites[n]["fn"] for n in raw}


def test_a_ladder_multiplies_each_estimate_with_the_prior_of_its_layer():
    estimates = {"z1": (0.0, 0.0), "z2": (3.0, inverse_softplus(0.04 - 1e-5)), "z3": (4.0, inverse_softplus(1 - 1e-5))}
    values, factors = drawn(Ladder, estimates)
    close(factors["z2"].mean, (3 * 25 + 2 * values["z1"] * 25) / 50)
    close(factors["z3"].mean, (4 + 2 * values["z2"] / 9) / (10 / 9))
    close(factors["z2"].variance, np.full((2, 1), 1 / 50))
    close(factors["z3"].variance, np.full((2, 1), 0.9))


def test_a_residual_factor_moves_in_the_units_of_the_prior():
    values, factors = drawn(SelfReflective, {"z1": (0.0, 0.0), "z2": (0.5, TWO), "z3": (-1.0, TWO)})
    close(factors["z1"].mean, np.ones((2, 1)))
    close(factors["z2"].mean, 2 * values["z1"] + 0.5)
    close(factors["z3"].mean, 2 * values["z2"] - 1)
    close(factors["z2"].variance, np.full((2, 1), 0.16))
    close(factors["z3"].variance, np.full((2, 1), 36.0))


def test_an_infused_normal_by_hand():
    loc, scale, target = jnp.zeros(2), jnp.array([1.0, 2.0]), jnp.array([1.0, 3.0])

    def normal(value: float, mean: float, deviation: float) -> float:
        return math.exp(-0.5 * ((value - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))

    parts = [(normal(0.5, 0, s), normal(0.5, t, 0.5)) for s, t in ((1.0, 1.0), (2.0, 3.0))]
    one = sum(math.log(0.75 * own + 0.25 * infused) for own, infused in parts)
    both = math.log(0.75 * parts[0][0] * parts[1][0] + 0.25 * parts[0][1] * parts[1][1])
    close(InfusedNormal(loc, scale, target, 0.25, 0.5).log_prob(jnp.full(2, 0.5)), one)
    close(InfusedNormal(loc, scale, target, 0.25, 0.5, channels=2).log_prob(jnp.full(2, 0.5)), both)


# Pixels


def test_mixtures_of_logistics_by_hand():
    expected = [pixels.log_mass(*x) for x in pixels.GRID]
    mixing = jnp.full((2, 2, 2), 9.0).at[:, 1, 0].set(jnp.asarray(pixels.MIXING))
    q = LogisticMixture(*map(jnp.asarray, (pixels.LOGITS, pixels.LOC, pixels.SCALE)), mixing, levels=3)
    close(q.log_prob(jnp.asarray(pixels.GRID)), expected)
    pixel = PixelMixture(2, levels=3, components=2)
    close(pixel(jnp.asarray(pixels.numbers())).log_prob(jnp.asarray(pixels.GRID)), expected)
    for raw, log_scale in pixels.FLOORED.items():
        close(PixelMixture(1, components=1)(jnp.array([0.0, 0.1, raw])).scale, [[math.exp(log_scale)]])


# evaluate


def model(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def posterior(x):
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(x / 2, 0.5**0.5))


def test_the_error_of_a_mean_over_data():
    nll = [0.25 * x**2 + 0.5 * math.log(4 * math.pi) for x in X]
    found = evaluate(model, posterior, X, particles=2, rows=4, progress=False)
    close(found.nll, fmean(nll))
    close(found.nll_error, stdev(nll) / 5**0.5)
    close(found.kl["z"], fmean(0.5 * (0.5 + x**2 / 4 - 1 - math.log(0.5)) for x in X))


def coin(x):
    k = numpyro.sample("k", dist.Bernoulli(0.3))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(k, 2.0), obs=x)


def even(x):
    numpyro.sample("k", dist.Bernoulli(0.5))


def test_the_error_of_a_mean_over_particles():
    """Weights of two sizes: how many of 40 draws had which is in the mean, and with it their deviation."""
    density = {k: sum(-((x - k) ** 2) / 8 - 0.5 * math.log(8 * math.pi) for x in X) for k in (0, 1)}
    low, high = sorted(math.exp(density[k]) * {0: 1.4, 1: 0.6}[k] for k in (0, 1))
    found = evaluate(coin, even, X, particles=40, progress=False, analytic=False)
    mean = math.exp(-5 * found.nll)
    share = (mean - low) / (high - low)
    close(40 * share, round(40 * share), 1e-8)
    assert 0 < round(40 * share) < 40
    close(found.nll_error, (share * (1 - share) * 40 / 39) ** 0.5 * (high - low) / mean / 40**0.5 / 5, 1e-8)
    close(found.elbo, ((1 - share) * math.log(low) + share * math.log(high)) / 5, 1e-8)
