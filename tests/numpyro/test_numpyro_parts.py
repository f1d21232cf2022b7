"""The parts in JAX: equal to torch's for the same weights, in double precision, and initially distributed alike."""

import math
from functools import partial

import numpy as np
import pytest

pytest.importorskip("numpyro")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pyro
import torch
from numpyro import handlers
from numpyro.distributions.kl import kl_divergence
from numpyro.infer import TraceMeanField_ELBO
from scipy import stats
from torch import nn

from ppl_models.numpyro import SeReVAE
from ppl_models.numpyro.parts import bijectors, distributions, likelihoods, nets
from ppl_models.numpyro.parts.nets import layers
from ppl_models.numpyro.parts.program import Constant, Program, named_constants, named_parameters, with_parameters
from ppl_models.numpyro.weights import like_torch
from ppl_models.parts import (
    bijectors as torch_bijectors,
    distributions as torch_distributions,
    likelihoods as torch_likelihoods,
    nets as torch_nets,
)
from tests.helpers.cases import few
from tests.helpers.precision import close, jnps, shaken

pytestmark = pytest.mark.usefixtures("wide")

KEY = jax.random.key(0)


# Networks


@pytest.mark.parametrize(
    ("name", "args", "options", "shapes"),
    [
        ("Net", ([3, 4], 5, 8), {}, [(7, 1, 3), (2, 4)]),
        ("Net", ([3, 4], 5, 8), {"depth": 0, "norm": True, "gain": 0.1}, [(7, 1, 3), (2, 4)]),
        ("Net", ([3], 5, 8), {"depth": 2, "norm": True}, [(6, 3)]),
        ("Net", ([], 5, 8), {"norm": True, "gain": 0.1}, []),
        ("Net", ([], 5, 8), {"depth": 0}, []),
        ("Block", (6,), {}, [(2, 3, 6)]),
        ("ConvBlock", (3,), {}, [(2, 3, 5, 4)]),
        ("ConvEncoder", ((3, 9, 5), 5, 4), {"depth": 2}, [(2, 3, 3 * 9 * 5)]),
        ("ConvEncoder", ((1, 5, 3), 5, 4), {"depth": 0}, [(2, 15)]),
        ("ConvNet", ([4, 3], (2, 9, 5)), {"channels": 4, "depth": 2}, [(2, 3, 4), (3, 3)]),
        ("ConvNet", ([4], (2, 5, 15), (3, 4, 11), 4), {}, [(6, 3, 4), (3, 3 * 4 * 11)]),
        ("ConvNet", ([4], (1, 3, 2), (1, 9, 2), 4, 0), {}, [(3, 4), (3, 18)]),
    ],
)
def test_networks_are_torchs(name, args, options, shapes):
    theirs = shaken(getattr(torch_nets, name)(*args, **options))
    ours = getattr(nets, name)(*args, **options, key=KEY)
    assert {n: tuple(p.shape) for n, p in theirs.named_parameters()} == {
        n: p.shape for n, p in named_parameters(ours).items()
    }
    assert list(named_parameters(ours)) == [n for n, _ in theirs.named_parameters()]
    ours = like_torch(ours, theirs)
    inputs = [torch.randn(shape) for shape in shapes]
    close(eqx.filter_jit(ours)(*jnps(*inputs)), theirs(*inputs))


@pytest.mark.parametrize("bias", [True, False])
def test_linear_and_layer_norm_are_torchs(bias):
    theirs, x = nn.Linear(3, 4, bias=bias), torch.randn(5, 2, 3)
    close(like_torch(nets.Linear(3, 4, bias, key=KEY), theirs)(*jnps(x)), theirs(x))
    theirs = shaken(nn.LayerNorm(3))
    close(like_torch(nets.LayerNorm(3), theirs)(*jnps(x)), theirs(x))


@pytest.mark.parametrize(("old", "new"), [(1, 3), (4, 28), (5, 9), (9, 5), (7, 7), (26, 44), (14, 46), (39, 33)])
def test_interpolate_is_torchs_where_its_rounding_shows_too(old, new):
    x = torch.arange(2.0 * old * 3).reshape(1, 2, old, 3)
    close(nets.interpolate(*jnps(x), (new, 3)), nn.functional.interpolate(x, size=(new, 3)), rtol=0, atol=0)
    close(nets.interpolate(*jnps(x.mT), (3, new)), nn.functional.interpolate(x.mT, size=(3, new)), rtol=0, atol=0)


def uniform(fan: int, gain: float = 1.0) -> stats.rv_continuous:
    return stats.uniform(-gain * fan**-0.5, 2 * gain * fan**-0.5)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (partial(nets.Linear, 9, 2), {"weight": uniform(9), "bias": uniform(9)}),
        (partial(layers.Conv, 2, 3, 3), {"weight": uniform(18), "bias": uniform(18)}),
        (partial(nets.Net, [], 2, gain=0.5), {"constant": stats.norm(0, 0.05)}),
        (
            partial(nets.Net, [3], 2, 5, gain=0.1),
            {"first.0.weight": uniform(3), "last.weight": uniform(5, 0.1), "last.bias": uniform(5)},
        ),
    ],
)
def test_initial_weights_have_torchs_distribution(build, expected):
    drawn = jax.jit(jax.vmap(lambda key: named_parameters(build(key=key))))(jax.random.split(KEY, 400))
    for name, distribution in expected.items():
        # Kolmogorov-Smirnov on at least 800 independent draws: of 10^4 that are right one fails, and the seed is fixed
        assert stats.kstest(np.ravel(drawn[name]), distribution.cdf).pvalue > 1e-4


def test_initial_scales_are_those_of_torchs_modules():
    args, options = ([4], (1, 5, 5), (1, 2, 2)), {"channels": 6}
    theirs, ours = torch_nets.ConvNet(*args, **options), nets.ConvNet(*args, **options, key=KEY)
    for name, p in theirs.named_parameters():
        found = named_parameters(ours)[name]
        if "outer" in name:
            assert not p.any() and not found.any()
        else:
            # the root mean square of N draws, uniform, is known to rms * sqrt((9 / 5 - 1) / 4 N): 5 of both errors
            error = 5 * math.sqrt(0.2 * 2 / p.numel())
            assert abs(np.log(np.sqrt(np.square(found).mean()) / p.square().mean().sqrt().item())) < max(error, 0.1)
    theirs, ours = torch_nets.Net([3], 2, 5, depth=2, norm=True), nets.Net([3], 2, 5, depth=2, norm=True, key=KEY)
    for value, count in ((0, 7), (1, 3)):
        alike = [n for n, p in theirs.named_parameters() if (p == value).all()]
        assert alike == [n for n, p in named_parameters(ours).items() if (p == value).all()] and len(alike) == count


def test_networks_refuse_what_torchs_do():
    for args, options in ((([0], 3), {}), (([2], 0), {}), (([2], 3), {"hidden": 0}), (([2], 3), {"depth": -1})):
        with pytest.raises(ValueError, match="want positive widths") as theirs:
            torch_nets.Net(*args, **options)
        with pytest.raises(ValueError, match="want positive widths") as ours:
            nets.Net(*args, **options, key=KEY)
        assert str(ours.value) == str(theirs.value)
    with pytest.raises(ValueError):  # noqa: PT011 (a missing input)
        nets.Net([2, 3], 4, key=KEY)(jnp.zeros(2))


def test_a_bias_is_put_where_the_output_has_it():
    for net in (nets.Net([2], 3, 4, key=KEY), nets.Net([2], 3, depth=0, key=KEY), nets.Net([], 3, key=KEY)):
        moved = net.with_bias(net.bias + 1)
        x = [jnp.ones(2)] * len(net.first)
        np.testing.assert_allclose(moved(*x), net(*x) + 1)


# Distributions


def pair(seed: int, n: int = 4, batch: tuple[int, ...] = (3,), size: float = 1.0):
    """The same rank-one Gaussian in both languages."""
    generator = torch.Generator().manual_seed(seed)
    loc, diagonal, vector = (torch.randn(*batch, n, generator=generator) for _ in range(3))
    arguments = loc, 0.2 + diagonal.square(), size * vector
    return distributions.RankOneNormal(*jnps(*arguments)), torch_distributions.RankOneNormal(*arguments)


@pytest.mark.parametrize("size", [0.0, 1e-6, 1.0, 100.0])
def test_rank_one_normal_is_torchs(size):
    ours, theirs = pair(0, size=size)
    z = torch.randn(5, 3, 4)
    close(ours.log_prob(*jnps(z)), theirs.log_prob(z), rtol=1e-11)
    close(ours.entropy(), theirs.entropy())
    close(ours.mean, theirs.mean)
    close(ours.variance, theirs.variance)
    close(ours.covariance_matrix, theirs.covariance_matrix)
    assert ours.event_shape == (4,) and ours.batch_shape == (3,) and ours.has_rsample


@pytest.mark.parametrize("size", [0.0, 1.0, 30.0])
def test_rank_one_draws_have_the_covariance(size):
    """R R^T = C exactly, with R read off the draws as a linear map of the noise."""
    ours, _ = pair(1, 4, (), size)
    drawn, noise = ours.sample(KEY, (50,)), jax.random.normal(KEY, (50, 4))
    root = np.linalg.lstsq(np.asarray(noise), np.asarray(drawn - ours.loc), rcond=None)[0].T
    np.testing.assert_allclose(noise @ root.T, drawn - ours.loc, atol=1e-10)
    np.testing.assert_allclose(root @ root.T, ours.covariance_matrix, rtol=1e-9, atol=1e-10)


def test_rank_one_normal_as_numpyro_uses_distributions():
    ours, _ = pair(2)
    z = ours.sample(KEY)
    wide = ours.expand((5, 3))
    assert isinstance(wide, distributions.RankOneNormal) and wide.batch_shape == (5, 3)
    assert wide.sample(KEY, (2,)).shape == (2, 5, 3, 4)
    np.testing.assert_allclose(wide.log_prob(z), np.broadcast_to(ours.log_prob(z), (5, 3)))
    # a pytree, which jit and vmap take and give
    np.testing.assert_allclose(jax.jit(jax.vmap(lambda q, z: q.log_prob(z)))(ours, z), ours.log_prob(z))
    assert jax.jit(lambda q: q)(ours).batch_shape == (3,)
    # draws carry gradients
    gradient = jax.grad(lambda u: distributions.RankOneNormal(ours.loc, ours.diagonal, u).sample(KEY).sum())(
        ours.vector
    )
    assert jnp.isfinite(gradient).all() and jnp.abs(gradient).max() > 0
    with pytest.raises(ValueError, match="invalid diagonal parameter"):
        distributions.RankOneNormal(ours.loc, -ours.diagonal, ours.vector)
    with handlers.seed(rng_seed=0), numpyro.plate("data", 3):
        assert numpyro.sample("z", pair(2, batch=())[0]).shape == (3, 4)


def test_standard_normal_has_nothing_to_train():
    prior = distributions.StandardNormal(3)
    assert jax.tree.leaves(prior) == [] and prior().event_shape == (3,) and prior().batch_shape == ()
    x = torch.randn(5, 3)
    close(prior().log_prob(*jnps(x)), torch_distributions.StandardNormal(3)().log_prob(x))


@pytest.mark.parametrize("levels", few([2, 16, 256], lambda levels: levels == 16))
def test_discretized_logistic_is_torchs(levels):
    loc, log_scale = torch.randn(3, 7), torch.randn(3, 7, requires_grad=True)
    x = torch.randint(levels, (5, 3, 7)).double() / (levels - 1)
    theirs = torch_distributions.DiscretizedLogistic(loc, log_scale.exp(), levels).log_prob(x)

    def log_prob(log_scale: jax.Array) -> jax.Array:
        return distributions.DiscretizedLogistic(*jnps(loc), jnp.exp(log_scale), levels).log_prob(*jnps(x))

    close(log_prob(*jnps(log_scale)), theirs, rtol=1e-10)
    theirs.sum().backward()
    close(jax.grad(lambda s: log_prob(s).sum())(*jnps(log_scale)), log_scale.grad, rtol=1e-8, atol=1e-10)
    every = jnp.arange(levels)[:, None, None] / (levels - 1)
    ours = distributions.DiscretizedLogistic(*jnps(loc, log_scale.exp()), levels)
    np.testing.assert_allclose(jnp.exp(ours.log_prob(every)).sum(0), 1, rtol=1e-10)
    close(ours.mean, torch_distributions.DiscretizedLogistic(loc, log_scale.exp(), levels).mean)


def test_discretized_logistic_draws_have_the_probabilities():
    n, ours = 20_000, distributions.DiscretizedLogistic(jnp.array([0.1, 0.5]), jnp.array([0.2, 0.05]), 8)
    drawn = ours.sample(KEY, (n,))
    assert drawn.shape == (n, 2) and ours.support.is_discrete and ours.support(drawn).all() and not ours.has_rsample
    k = np.arange(8)[:, None] / 7
    found = np.isclose(np.asarray(drawn), k[..., None].swapaxes(-1, -2)).mean(1)
    probability = np.exp(ours.log_prob(k))
    # frequencies within five standard errors, of 16
    assert (np.abs(found - probability) < 5 * np.sqrt(probability * (1 - probability) / n) + 1e-12).all()
    wide = ours.expand((3, 2))
    assert wide.sample(KEY).shape == (3, 2) and jax.jit(lambda q: q.log_prob(0.0))(ours).shape == (2,)


def test_float_bernoulli_is_torchs_and_draws_floats():
    logits, x = 5 * torch.randn(4, 6), torch.bernoulli(torch.full((3, 4, 6), 0.5))
    ours, theirs = distributions.FloatBernoulli(*jnps(logits)), pyro.distributions.Bernoulli(logits=logits)
    close(ours.log_prob(*jnps(x)), theirs.log_prob(x), rtol=1e-11)
    close(ours.mean, theirs.mean)
    close(ours.variance, theirs.variance)
    drawn = ours.sample(KEY, (5000,))
    assert drawn.dtype == jnp.float64 and drawn.shape == (5000, 4, 6) and ours.support.is_discrete
    # means of 5000 draws within five standard errors, of 24
    assert (jnp.abs(drawn.mean(0) - ours.mean) < 5 * jnp.sqrt(ours.variance / 5000) + 1e-12).all()


# Divergences


def gaussians(kind: str, seed: int, batch: tuple[int, ...] = (3,)):
    """(ours, torch's) of one kind."""
    if kind == "rank-one":
        return pair(seed, batch=batch)
    generator = torch.Generator().manual_seed(seed)
    loc, scale = torch.randn(*batch, 4, generator=generator), torch.rand(*batch, 4, generator=generator) + 0.2
    if kind == "diagonal":
        return distributions.diagonal_normal(*jnps(loc, scale)), torch_distributions.diagonal_normal(loc, scale)
    tril = torch.randn(*batch, 4, 4, generator=generator).tril(-1) + torch.diag_embed(scale)
    ours = dist.MultivariateNormal(*jnps(loc), scale_tril=jnps(tril)[0])
    return ours, pyro.distributions.MultivariateNormal(loc, scale_tril=tril)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("diagonal", "diagonal"),
        ("rank-one", "diagonal"),
        ("full", "diagonal"),
        ("rank-one", "rank-one"),
        ("full", "full"),
    ],
)
def test_divergences_are_torchs(one, two):
    (q, theirs_q), (p, theirs_p) = gaussians(one, 0), gaussians(two, 1)
    expected = torch.distributions.kl_divergence(theirs_q, theirs_p)
    close(kl_divergence(q, p), expected, rtol=1e-11)
    # as plates expand them, on either side
    close(kl_divergence(q.expand((2, 3)), p), expected.expand(2, 3), rtol=1e-11)
    close(kl_divergence(q, p.expand((2, 3))), expected.expand(2, 3), rtol=1e-11)
    (p, theirs_p) = gaussians(two, 1, ())
    expected = torch.distributions.kl_divergence(theirs_q, theirs_p.expand((3,)))
    close(kl_divergence(q.expand((2, 3)), p.expand((2, 3))), expected.expand(2, 3), rtol=1e-11)


def test_no_divergence_to_what_is_not_diagonal():
    q, _ = pair(0)
    for p in (dist.Laplace(jnp.zeros((3, 4)), 1.0).to_event(1), dist.Normal(jnp.zeros((2, 3, 4)), 1.0).to_event(2)):
        assert distributions.diagonal_moments(p) is None
        with pytest.raises(NotImplementedError):
            kl_divergence(q, p)
    once, twice = (dist.TransformedDistribution(q, [dist.transforms.ExpTransform()] * n) for n in (1, 2))
    with pytest.raises(NotImplementedError):
        kl_divergence(once, twice)


def test_diagonal_moments_are_read_off_what_a_plate_has_expanded():
    base = distributions.StandardNormal(4)()
    for q in (
        base.expand((3,)),
        dist.ExpandedDistribution(base, (3,)),
        distributions.diagonal_normal(*[jnp.ones((3, 4))] * 2),
    ):
        loc, scale = distributions.diagonal_moments(q)
        assert loc.shape == scale.shape == (3, 4) and (scale == 1).all()
    assert distributions.diagonal_moments(pair(0)[0]) is None


# The bijection


def maps(seed: int, batch: tuple[int, ...] = ()):
    generator = torch.Generator().manual_seed(seed)
    c, d, u = (torch.randn(*batch, 5, generator=generator) for _ in range(3))
    arguments = c, 0.3 + d.square(), u
    return bijectors.RankOneAffine(*jnps(*arguments)), torch_bijectors.RankOneAffine(*arguments, cache_size=0)


@pytest.mark.parametrize("batch", [(), (3,), (4, 1)])
def test_rank_one_affine_is_torchs(batch):
    ours, theirs = maps(0, batch)
    eps = torch.randn(2, 4, 3, 5)
    z = theirs(eps)
    close(ours(*jnps(eps)), z)
    close(ours.inv(*jnps(z)), theirs.inv(z), atol=1e-12)
    close(ours.log_abs_det_jacobian(*jnps(eps, z)), theirs.log_abs_det_jacobian(eps, z))
    close(ours.inv.log_abs_det_jacobian(*jnps(z, eps)), theirs.inv.log_abs_det_jacobian(z, eps))
    assert ours.domain.event_dim == ours.codomain.event_dim == 1


def test_log_det_is_that_of_autograds_jacobian():
    t, _ = maps(1)
    eps = jax.random.normal(KEY, (5,))
    jacobian = jax.jacobian(t)(eps)
    np.testing.assert_allclose(jacobian, jnp.diag(t.scale) + jnp.outer(t.vector, t.vector), rtol=1e-12, atol=1e-12)
    sign, log_det = jnp.linalg.slogdet(jacobian)
    np.testing.assert_allclose(t.log_abs_det_jacobian(eps, t(eps)), log_det, rtol=1e-11)
    np.testing.assert_allclose(jax.jacobian(t.inv)(t(eps)) @ jacobian, np.eye(5), atol=1e-11)
    assert sign == 1


def test_the_identity_has_a_gradient():
    def far(u: jax.Array) -> jax.Array:
        t = bijectors.RankOneAffine(jnp.zeros(4), jnp.ones(4), u)
        return t.inv(jnp.ones(4)).sum() + t.log_abs_det_jacobian(jnp.ones(4), jnp.ones(4))

    assert jnp.isfinite(jax.grad(far)(jnp.zeros(4))).all()


def test_inside_a_transformed_distribution():
    (t, theirs), loc = maps(2, (3,)), torch.randn(5)
    q = dist.TransformedDistribution(distributions.diagonal_normal(*jnps(loc, 2 * torch.ones(5))), [t])
    exact = torch.distributions.TransformedDistribution(
        torch_distributions.diagonal_normal(loc, 2 * torch.ones(5)), theirs
    )
    assert q.event_shape == (5,) and q.batch_shape == (3,) and q.has_rsample
    z = torch.randn(6, 3, 5)
    close(q.log_prob(*jnps(z)), exact.log_prob(z), rtol=1e-11)
    wide = q.expand((6, 3))
    close(wide.log_prob(*jnps(z)), exact.log_prob(z), rtol=1e-11)
    # the density of a draw at the very base value drawn
    value, intermediates = wide.sample_with_intermediates(KEY)
    np.testing.assert_allclose(wide.log_prob(value, intermediates), wide.log_prob(value), rtol=1e-11)


def test_divergence_reduces_to_the_bases_if_the_transform_is_shared():
    t, twin = maps(3, (3,))[0], maps(3, (3,))[0]
    (one, _), (two, _) = gaussians("diagonal", 0), gaussians("diagonal", 1)
    one, two = (distributions.diagonal_normal(jnp.ones(5) * s, jnp.ones(5) * s) for s in (1.0, 2.0))
    q, p = dist.TransformedDistribution(one, [t]), dist.TransformedDistribution(two, [t])
    expected = np.broadcast_to(kl_divergence(one, two), 3)
    np.testing.assert_allclose(kl_divergence(q, p), expected, rtol=1e-12)
    for wide in ((q.expand((2, 3)), p.expand((2, 3))), (q.expand((2, 3)), p), (q, p.expand((2, 3)))):
        np.testing.assert_allclose(kl_divergence(*wide), np.broadcast_to(expected, (2, 3)), rtol=1e-12)
    # the same numbers in other arrays are not known to be the same, nor are fewer transforms
    assert t == t and t != twin and t.eq(twin)  # noqa: PLR0124
    assert t == bijectors.RankOneAffine(t.shift, t.scale, t.vector) and t != dist.transforms.ExpTransform()
    for other in (dist.TransformedDistribution(two, [twin]), dist.TransformedDistribution(two, [t, t])):
        with pytest.raises(NotImplementedError):
            kl_divergence(q, other)


@pytest.mark.parametrize("inputs", [(), (3,), (3, 2)])
def test_the_conditional_form_is_torchs_and_starts_near_the_identity(inputs):
    theirs, ours = (
        torch_bijectors.ConditionalRankOneAffine(6, inputs),
        bijectors.ConditionalRankOneAffine(6, inputs, key=KEY),
    )
    contexts = [torch.randn(100, n) for n in inputs]
    start = ours(*jnps(*contexts))
    assert jnp.abs(start.shift).max() < 0.6 and jnp.abs(start.scale - 1).max() < 0.5
    assert 0 < jnp.abs(start.vector).max() < 0.6
    shift, scale, _ = jnp.split(ours.net.bias, 3)
    np.testing.assert_allclose(shift, 0)
    np.testing.assert_allclose(jax.nn.softplus(scale) + 1e-3, 1)
    expected, found = shaken(theirs)(*contexts), like_torch(ours, theirs)(*jnps(*contexts))
    for name in ("shift", "scale", "vector"):
        close(getattr(found, name), getattr(expected, name))


def test_one_map_of_one_context_is_one_map():
    layer, z = bijectors.ConditionalRankOneAffine(4, [3], key=KEY), jnp.ones((2, 3))
    assert layer(z) == layer(z) and layer(z) != layer(z + 0)
    assert layer(z) != bijectors.ConditionalRankOneAffine(4, [3], key=KEY)(z)
    # also where nothing is known of the numbers; what has been through another tree is another map
    assert jax.jit(lambda m, z: jnp.array([m(z) == m(z), m(z) == m(z + 0)]))(layer, z).tolist() == [True, False]
    assert layer(z) != jax.tree.map(lambda a: a + 0, layer(z))


def test_mean_field_elbo_takes_the_divergence_of_the_bases():
    """NumPyro runs the model twice, in the guide and to score it: both bijections are recognized as one."""
    model, x = SeReVAE(6, layers=2, latent=2, hidden=4, key=KEY), jnp.eye(6)[:4]

    class Guide(Program):
        model: SeReVAE
        shift: jax.Array

        def own(self) -> "Guide":
            return eqx.tree_at(lambda guide: guide.model, self, None)

        def restored(self, own: "Guide") -> "Guide":
            return eqx.tree_at(lambda guide: guide.model, own, self.model, is_leaf=lambda node: node is None)

        def forward(self, x: jax.Array) -> None:
            model = numpyro.contrib.module.eqx_module("SeReVAE", self.model)
            with numpyro.plate("data", len(x)):
                above = []
                for i, layer in enumerate(model.bijectors):
                    base = distributions.diagonal_normal(self.shift * jnp.ones((len(x), 2)), 0.5)
                    above = [numpyro.sample(f"z{i + 1}", dist.TransformedDistribution(base, [layer(*above)]))]

    guide = Guide(model, jnp.array([0.1, 0.2]))
    parameters = {"SeReVAE$params": eqx.filter(model, eqx.is_inexact_array), "Guide$params": guide.own()}

    def by_hand(key: jax.Array) -> jax.Array:
        seeded = handlers.substitute(handlers.seed(guide, jax.random.split(key)[1]), parameters)
        drawn = handlers.trace(seeded).get_trace(x)
        scored = handlers.trace(handlers.replay(handlers.substitute(model, parameters), drawn)).get_trace(x)
        q = distributions.diagonal_normal(jnp.broadcast_to(guide.shift, (4, 2)), 0.5 * jnp.ones((4, 2)))
        divergences = [kl_divergence(q, _base(scored[name]["fn"])).sum() for name in ("z1", "z2")]
        return sum(divergences) - sum(scored[b]["fn"].log_prob(scored[b]["value"]).sum() for b in ("x1", "x2"))

    @jax.jit
    def both(parameters: dict) -> tuple[jax.Array, jax.Array]:
        found = TraceMeanField_ELBO(num_particles=2).loss(KEY, parameters, model, guide, x)
        return found, jax.vmap(by_hand)(jax.random.split(KEY, 2)).mean()

    np.testing.assert_allclose(*both(parameters), rtol=1e-11)


def _base(fn: dist.Distribution) -> dist.Distribution:
    return (fn.base_dist if isinstance(fn, dist.ExpandedDistribution) else fn).base_dist


# Likelihoods


def test_a_shared_scale_is_torchs():
    ours, theirs = (module.likelihood("shared-gaussian") for module in (likelihoods, torch_likelihoods))
    assert named_parameters(ours).keys() == dict(theirs.named_parameters()).keys() == {"log_scale"}
    ours, theirs.log_scale.data = with_parameters(ours, {"log_scale": -0.7}), torch.tensor(-0.7)
    params, x = torch.randn(4, 6), torch.randn(3, 4, 6)
    close(ours(*jnps(params)).log_prob(*jnps(x)), theirs(params).log_prob(x), rtol=1e-10)
    close(ours.mean(*jnps(params)), theirs.mean(params))


@pytest.mark.parametrize(
    "spec", ["bernoulli", "gaussian", "gaussian:0.3", "unit-gaussian:0.3", "logistic", "logistic:16"]
)
def test_likelihoods_are_torchs(spec):
    ours, theirs = likelihoods.likelihood(spec), torch_likelihoods.likelihood(spec)
    assert type(ours).__name__ == type(theirs).__name__ and ours.count == theirs.count
    assert named_parameters(ours) == {} and jax.tree.leaves(ours) == []
    params = 2 * torch.randn(4, ours.count * 6)
    x = {"b": torch.bernoulli(torch.full((3, 4, 6), 0.5)), "l": torch.randint(16, (3, 4, 6)) / 15}.get(spec[0])
    x = torch.randn(3, 4, 6) if x is None else x.double()
    close(ours(*jnps(params)).log_prob(*jnps(x)), theirs(params).log_prob(x), rtol=1e-10)
    close(ours.mean(*jnps(params)), theirs.mean(params))
    drawn = ours(*jnps(params)).sample(KEY)
    assert drawn.shape == (4, 6) and drawn.dtype == jnp.float64
    ours.check(drawn)
    assert {n: float(v) for n, v in named_constants(ours).items()} == {
        n: v.item() for n, v in theirs.state_dict().items()
    }


@pytest.mark.parametrize(
    "spec", ["poisson", "bernoulli:2", "gaussian:-1", "gaussian:x", "logistic:1", "logistic:a", ""]
)
def test_wrong_likelihoods_are_called_as_torchs_are(spec):
    with pytest.raises(ValueError, match="likelihood") as theirs:
        torch_likelihoods.likelihood(spec, "VAE")
    with pytest.raises(ValueError, match="likelihood") as ours:
        likelihoods.likelihood(spec, "VAE")
    assert str(ours.value) == str(theirs.value)


def test_a_likelihood_of_the_users_passes_through():
    class Exponential(eqx.Module):
        count: int = 1

        def __call__(self, params: jax.Array) -> dist.Distribution:
            return dist.Exponential(jnp.exp(params)).to_event(1)

        def mean(self, params: jax.Array) -> jax.Array:
            return jnp.exp(-params)

        def check(self, x: jax.Array, name: str = "x") -> None:
            """Whatever comes."""

    own = Exponential()
    assert likelihoods.likelihood(own) is own
    with pytest.raises(ValueError, match="VAE: likelihood: found a LayerNorm, want a module with count"):
        likelihoods.likelihood(nets.LayerNorm(2), "VAE")


def test_bounded_exp_is_torchs():
    s = torch.linspace(-40, 40, 9)
    close(likelihoods.bounded_exp(*jnps(s)), torch_likelihoods.bounded_exp(s))


def test_check_data():
    x = jnp.zeros((3, 4))
    assert likelihoods.check_data(x, 4) is x
    good = np.zeros((3, 4), np.float32)
    assert likelihoods.check_data(good, 4, dtype=jnp.dtype("float32")) is good
    for wrong, words in (
        (x[:, :3], r"site 'x': found shape \(3, 3\), want \(n, 4\); build the model for this size"),
        (x.reshape(3, 2, 2), r"want \(n, 4\); try x.reshape\(len\(x\), -1\)"),
        (x[0], r"found shape \(4,\), want \(n, 4\); try x\[None\]"),
        (jnp.zeros(()), r"found shape \(\), want"),
        (x[:0], r"the batch is empty \(shape \(0, 4\)\)"),
        (x.at[1, 2].set(jnp.nan), r"NaN or infinite values \(first in row 1\)"),
    ):
        with pytest.raises(ValueError, match=words):
            likelihoods.check_data(wrong, 4)
    for wrong, words in (
        ([[0.0]], "site 'x': found a list, want a float array; try jnp.asarray"),
        (torch.zeros(3, 4), "found a Tensor, want a float array"),
        (jnp.zeros((3, 4), int), "found dtype int64, want a float array; try x.astype"),
        (x, "found dtype float64, want the model's float32; try x.astype"),
    ):
        with pytest.raises(TypeError, match=words):
            likelihoods.check_data(wrong, 4, dtype=jnp.dtype("float32"))


def test_values_outside_the_support_are_named():
    for spec, value, words in (
        ("bernoulli", 0.5, "found the value 0.5, a Bernoulli likelihood wants 0 or 1"),
        ("logistic", 0.25, "found the value 0.25, a discretized logistic with 256 levels wants k / 255"),
        ("logistic", 2.0, "discretized logistic"),
    ):
        x = torch.tensor([[1.0, value]])
        with pytest.raises(ValueError, match=words) as theirs:
            torch_likelihoods.likelihood(spec).check(x)
        with pytest.raises(ValueError, match=words) as ours:
            likelihoods.likelihood(spec).check(*jnps(x))
        assert str(ours.value) == str(theirs.value)


def test_values_are_read_where_they_are_known_and_validation_is_on():
    x, bernoulli = jnp.full((2, 4), jnp.nan), likelihoods.likelihood("bernoulli")

    def count(x: jax.Array) -> int:
        return likelihoods.rows(x, 1, 4, bernoulli, jnp.dtype("float64"))

    with numpyro.validation_enabled(False):
        assert count(x) == 2
    assert jax.jit(lambda x: count(x))(x) == 2  # unknown numbers
    with pytest.raises(ValueError, match="NaN"):
        jax.jit(lambda: count(x))()  # known ones, inside jit
    with pytest.raises(ValueError, match="found shape"):
        jax.jit(lambda x: count(x))(x[:, :3])


def test_check_count():
    assert (
        likelihoods.check_count(3) == 3
        and likelihoods.check_count(np.int64(2)) == likelihoods.check_count(jnp.array(2)) == 2
    )
    for wrong in (0, -1, 1.5, "2", None, True, jnp.array([2, 2])):
        with pytest.raises(ValueError, match="want the number of data to generate, an integer of at least 1"):
            likelihoods.check_count(wrong)


# Programs and their parameters


class Scaled(eqx.Module):
    linear: nets.Linear
    factor: Constant


def test_constants_are_neither_trained_nor_traced():
    module = Scaled(nets.Linear(2, 1, key=KEY), Constant(0.3))
    assert list(named_parameters(module)) == ["linear.weight", "linear.bias"]
    assert named_constants(module) == {"factor": np.float64(0.3)}
    gradient = jax.jit(jax.grad(lambda m: (m.factor.value * m.linear(jnp.ones(2))).sum()))(module)
    np.testing.assert_allclose(gradient.linear.bias, 0.3)
    with jax.enable_x64(False):
        assert Constant(0.3).value == np.float32(0.3) and Constant(np.float64(0.3)).value == 0.3


def test_with_parameters():
    module = Scaled(nets.Linear(2, 1, key=KEY), Constant(0.3))
    values = named_parameters(module)
    assert with_parameters(module, values).linear.weight is values["linear.weight"]
    moved = with_parameters(module, {**values, "factor": np.float32(0.5), "linear.bias": np.ones(1, np.float32)})
    assert moved.factor.value == 0.5 and moved.factor.value.dtype == np.float32
    assert moved.linear.bias.dtype == jnp.float32 and module.factor.value == 0.3
    for wrong, words in (
        ({**values, "other": 1.0}, "Scaled: found the parameter 'other'; build the module"),
        ({"linear.bias": values["linear.bias"]}, "Scaled: found no parameter 'linear.weight'"),
        ({**values, "linear.bias": jnp.ones(2)}, r"parameter 'linear.bias' is \(2,\), want \(1,\)"),
        ({**values, "factor": jnp.ones(2)}, r"parameter 'factor' is \(2,\), want \(\)"),
    ):
        with pytest.raises(ValueError, match=words):
            with_parameters(module, wrong)
