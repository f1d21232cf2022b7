"""The ports of families, chains, pixels and `evaluate` against the numbers by hand that their twins are held to."""

import math
from functools import partial
from statistics import fmean, stdev
from types import SimpleNamespace

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
from guides.numpyro.parts.families import Spread
from guides.numpyro.parts.units import Units, in_units
from ppl_models.inference.numpyro import evaluate
from ppl_models.numpyro.parts.pixels import LogisticMixture, PixelMixture
from ppl_models.numpyro.parts.program import Constant
from tests.helpers import pixels_by_hand as pixels
from tests.helpers.families_by_hand import (
    CHAIN_FEATURES,
    CHAIN_W1,
    CHAIN_W2,
    CHAIN_X,
    FACTORS,
    PARENTS,
    RAW,
    SHIFTED,
    SLOPE,
    TWO,
    UNITS_LOC,
    UNITS_ROOT,
    ByHand,
    inverse_softplus,
)
from tests.helpers.precision import quick

pytestmark = pytest.mark.usefixtures("x64")

KEY = jax.random.key(0)
X = np.array([-1.0, 0.5, 2.0, 3.5, -0.7])


def array(value: object) -> object:
    return jnp.asarray(value) if isinstance(value, tuple) else value


def close(found: object, expected: object, rtol: float = 1e-9, name: str = "") -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=rtol, atol=1e-10, err_msg=name)


# Families


def points(case: ByHand) -> list[np.ndarray]:
    mean = np.array(case.mean)
    return [mean, mean + np.array(case.covariance).diagonal() ** 0.5, mean - np.linspace(0.1, 1.0, len(mean))]


def test_factors_by_hand():
    def found() -> dict[str, list]:
        densities = {}
        for name, case in FACTORS.items():
            family = getattr(families, case.family)()
            assert family.count(len(case.mean), case.method == "precision_weighted") == len(case.raw)
            q = getattr(family, case.method)(jnp.asarray(case.raw), array(case.loc), array(case.scale))
            densities[name] = [q.log_prob(jnp.asarray(z)) for z in points(case)]
        return densities

    for name, densities in quick(found)().items():
        mean, covariance = np.array(FACTORS[name].mean), np.array(FACTORS[name].covariance)
        for z, density in zip(points(FACTORS[name]), densities, strict=True):
            square = (z - mean) @ np.linalg.solve(covariance, z - mean)
            expected = -0.5 * (square + np.linalg.slogdet(2 * np.pi * covariance)[1])
            close(density, expected, 1e-8, name)


def test_densities_by_hand():
    def normal(value: float, mean: float, deviation: float) -> float:
        return math.exp(-0.5 * ((value - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))

    def found() -> tuple[jax.Array, ...]:
        shared = Spread(dist.Normal(jnp.arange(6.0).reshape(3, 2), 1.0).to_event(2), 1)
        assert (shared.batch_shape, shared.event_shape) == ((3,), (2,))
        loc, scale, target = jnp.zeros(2), jnp.array([1.0, 2.0]), jnp.array([1.0, 3.0])
        infused = [InfusedNormal(loc, scale, target, 0.25, 0.5, channels=c) for c in (1, 2)]
        return shared.log_prob(jnp.ones((5, 3, 2))), *(q.log_prob(jnp.full(2, 0.5)) for q in infused)

    shared, one, both = quick(found)()
    close(shared, np.full((5, 3), sum(math.log(normal(1.0, k, 1.0)) for k in range(6)) / 3))
    parts = [(normal(0.5, 0, s), normal(0.5, t, 0.5)) for s, t in ((1.0, 1.0), (2.0, 3.0))]
    close(one, sum(math.log(0.75 * own + 0.25 * infused) for own, infused in parts))
    close(both, math.log(0.75 * parts[0][0] * parts[1][0] + 0.25 * parts[0][1] * parts[1][1]))


def test_what_is_linear_in_the_parents_is_added_to_the_shifts():
    units = SimpleNamespace(slope=Constant(np.array(SLOPE)))
    close(Units.shifted(units, jnp.asarray(RAW), [jnp.asarray(p) for p in PARENTS]), SHIFTED)


def test_units_of_copies_are_each_its_own():
    """A flow at rest is a Gaussian, of covariance root root^T."""
    loc, root, z = jnp.asarray(UNITS_LOC), jnp.asarray(UNITS_ROOT), np.array([[0.3, 1.9], [4.0, -2.0]])
    q = families.Flow(bins=2).residual(jnp.zeros((2, 15)), 0.0, 1.0)
    found = quick(lambda z: in_units(q, loc, root).log_prob(z))(z)
    for k in (0, 1):
        covariance = np.array(UNITS_ROOT[k]) @ np.array(UNITS_ROOT[k]).T
        gap = z[k] - np.array(UNITS_LOC[k])
        square = gap @ np.linalg.solve(covariance, gap)
        close(found[k], -0.5 * (square + np.linalg.slogdet(2 * np.pi * covariance)[1]))


def test_event_dims_are_given_back_one_by_one():
    q = dist.Normal(np.zeros((4, 2, 3)), 1.0)
    shapes = [(4,), (4, 2), (4, 2, 3)]
    assert [families.uncoupled(q.to_event(2), k).batch_shape for k in (0, 1, 2)] == shapes
    twice = dist.Independent(q.to_event(1), 1)  # one within the other
    assert [families.uncoupled(twice, k).batch_shape for k in (0, 1, 2)] == shapes
    kept = np.array([True, False, True, False])
    masked = families.uncoupled(q.to_event(2).mask(kept), 1)
    assert masked.batch_shape == (4, 2)
    assert (np.asarray(masked.log_prob(np.ones((4, 2, 3))) != 0).all(-1) == kept).all()
    assert families.uncoupled(dist.MultivariateNormal(np.zeros(3), np.eye(3)).mask(kept[0]), 1) is None


# Features and factors


def test_the_chain_of_a_ladder_begins_at_the_last_latent():
    chain = BottomUpChain(["z1", "z2"], 2, 3, 0, key=KEY)
    for i, weight in enumerate((CHAIN_W1, CHAIN_W2)):
        linear = chain.nets[i].first[0]
        linear = eqx.tree_at(lambda m: (m.weight, m.bias), linear, (jnp.asarray(weight), jnp.zeros(3)))
        chain = eqx.tree_at(lambda c, i=i: c.nets[i].first[0], chain, linear)
    found = quick(lambda c, x: c(x))(chain, jnp.asarray([CHAIN_X]))
    for name, expected in CHAIN_FEATURES.items():
        close(found[name], [expected])


def chain(x):
    """Scales 1, 0.2 and 3, each layer around twice the layer above."""
    with numpyro.plate("data", len(x)):
        z1 = numpyro.sample("z1", dist.Normal(jnp.ones(1), 1.0).to_event(1))
        z2 = numpyro.sample("z2", dist.Normal(2 * z1, 0.2).to_event(1))
        z3 = numpyro.sample("z3", dist.Normal(2 * z2, 3.0).to_event(1))
        numpyro.sample("x", dist.Normal(z3, 1.0).to_event(1), obs=x)


def drawn(make, raw):
    """latent -> (value, mean, variance) of a guide whose networks read nothing and give these numbers."""
    x = jnp.array([[0.5], [-1.0]])
    guide = make(chain, x, hidden=4, depth=0, key=KEY)
    for name, numbers in raw.items():
        network = jax.tree.map(np.zeros_like, guide.factors.children[f"q_{name}"])
        network = eqx.tree_at(lambda n: n.first[0].bias, network, np.asarray(numbers))
        guide = eqx.tree_at(lambda g, n=name: g.factors.children[f"q_{n}"], guide, network)

    def found(x):
        sites = handlers.trace(handlers.seed(guide, KEY)).get_trace(x)
        return {n: (sites[n]["value"], sites[n]["fn"].mean, sites[n]["fn"].variance) for n in raw}

    return quick(found)(x)


def test_a_ladder_multiplies_each_estimate_with_the_prior_of_its_layer():
    shifts = {"z1": (0.0, 0.0), "z2": (3.0, inverse_softplus(0.04 - 1e-5)), "z3": (4.0, inverse_softplus(1 - 1e-5))}
    found = drawn(Ladder, shifts)
    close(found["z2"][1:], [3 + 2 * found["z1"][0] * 25 / 50, np.full((2, 1), 1 / 50)])
    close(found["z3"][1:], [4 + 2 * found["z2"][0] / 9 / (10 / 9), np.full((2, 1), 0.9)])


def test_a_residual_factor_moves_in_the_units_of_the_prior():
    found = drawn(partial(SelfReflective, base="prior"), {"z1": (0.0, 0.0), "z2": (0.5, TWO), "z3": (-1.0, TWO)})
    close(found["z1"][1:], np.ones((2, 2, 1)))
    close(found["z2"][1:], [2 * found["z1"][0] + 0.5, np.full((2, 1), 0.16)])
    close(found["z3"][1:], [2 * found["z2"][0] - 1, np.full((2, 1), 36.0)])


# Pixels


def test_mixtures_of_logistics_by_hand():
    def found() -> tuple[jax.Array, ...]:
        mixing = jnp.full((2, 2, 2), 9.0).at[:, 1, 0].set(jnp.asarray(pixels.MIXING))
        q = LogisticMixture(*map(jnp.asarray, (pixels.LOGITS, pixels.LOC, pixels.SCALE)), mixing, levels=3)
        made = PixelMixture(2, levels=3, components=2)(jnp.asarray(pixels.numbers()))
        floored = PixelMixture(1, components=1)(jnp.asarray([(0.0, 0.1, raw) for raw in pixels.FLOORED]))
        return *(p.log_prob(jnp.asarray(pixels.GRID)) for p in (q, made)), floored.scale

    one, other, scale = quick(found)()
    expected = [pixels.log_mass(*x) for x in pixels.GRID]
    close(one, expected)
    close(other, expected)
    close(scale[:, 0, 0], [math.exp(v) for v in pixels.FLOORED.values()])


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
