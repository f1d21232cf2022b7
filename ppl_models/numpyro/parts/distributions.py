"""Distributions that NumPyro lacks, and the divergences between the Gaussians of this collection."""

from collections.abc import Sequence
from math import log, pi

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.nn import log_sigmoid, sigmoid, softplus
from numpyro.distributions import (
    ExpandedDistribution,
    Independent,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
    constraints,
)
from numpyro.distributions.kl import kl_divergence
from numpyro.distributions.util import binary_cross_entropy_with_logits, validate_sample


class StandardNormal(eqx.Module):
    """N(0, I) over vectors of length `size`: nothing to train, and nothing that is an array."""

    size: int = eqx.field(static=True)

    def __call__(self) -> Independent:
        """The distribution, event shape (n,), in JAX's own precision, which is that of NumPyro's draws."""
        return diagonal_normal(jnp.zeros(self.size), jnp.ones(self.size))


def diagonal_normal(loc: Array, scale: Array) -> Independent:
    """N(loc, diag scale^2) over vectors: `dist.Normal(loc, scale).to_event(1)`."""
    return dist.Normal(loc, scale).to_event(1)


class RankOneNormal(dist.Distribution):
    """Port of `ppl_models.parts.RankOneNormal`: N(loc, C) with C^-1 = diag(d) + u u^T."""

    arg_constraints = {
        "loc": constraints.real_vector,
        "diagonal": constraints.independent(constraints.positive, 1),
        "vector": constraints.real_vector,
    }
    support = constraints.real_vector
    reparametrized_params = ["loc", "diagonal", "vector"]

    def __init__(self, loc: Array, diagonal: Array, vector: Array, *, validate_args: bool | None = None) -> None:
        self.loc, self.diagonal, self.vector = jnp.broadcast_arrays(loc, diagonal, vector)
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int]) -> "RankOneNormal":
        """The same distribution with batch dimensions added on the left."""
        shape = (*batch_shape, *self.event_shape)
        arguments = (jnp.broadcast_to(a, shape) for a in (self.loc, self.diagonal, self.vector))
        return RankOneNormal(*arguments, validate_args=self._validate_args)

    @property
    def quadratic(self) -> Array:
        """u^T D^-1 u, (*batch,)."""
        return (jnp.square(self.vector) / self.diagonal).sum(-1)

    @property
    def mean(self) -> Array:
        """The mean, (*batch, n)."""
        return self.loc

    @property
    def variance(self) -> Array:
        """The diagonal of C, (*batch, n)."""
        # 1 / d_i - eta (u_i / d_i)^2 as a product: a difference would fall to zero, or below, for a large u
        share = jnp.square(self.vector) / self.diagonal
        quadratic = share.sum(-1, keepdims=True)
        return (1 + jnp.maximum(quadratic - share, 0)) / (self.diagonal * (1 + quadratic))

    @property
    def covariance_matrix(self) -> Array:
        """C in full, (*batch, n, n): for tests and pictures, it is O(n^2)."""
        ratio = self.vector / self.diagonal
        outer = ratio[..., :, None] * ratio[..., None, :]
        inverse = jnp.eye(self.event_shape[0], dtype=ratio.dtype) / self.diagonal[..., None]
        return inverse - outer / (1 + self.quadratic)[..., None, None]

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Reparametrized draws, (*sample_shape, *batch, n)."""
        return self.of_noise(jax.random.normal(key, self.shape(sample_shape), self.loc.dtype))

    def of_noise(self, noise: Array) -> Array:
        """loc + R e of the noise e, (*sample_shape, *batch, n) both."""
        e = noise * self.diagonal**-0.5
        along = self._weight[..., None] * (self.vector * e).sum(-1, keepdims=True)
        return self.loc + e - along * self.vector / self.diagonal

    def noise_of(self, value: Array) -> Array:
        """The noise e of a value, the inverse of `of_noise`."""
        delta = value - self.loc
        along = (self._weight * jnp.sqrt(1 + self.quadratic))[..., None] * (self.vector * delta).sum(-1, keepdims=True)
        return (delta + along * self.vector / self.diagonal) * jnp.sqrt(self.diagonal)

    @property
    def _weight(self) -> Array:
        """(1 - sqrt eta) / (u^T D^-1 u), written without the 0 / 0 at u = 0, (*batch,)."""
        root = jnp.sqrt(1 + self.quadratic)
        return 1 / (root * (1 + root))

    @property
    def _log_det_precision(self) -> Array:
        return jnp.log(self.diagonal).sum(-1) + jnp.log1p(self.quadratic)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Log-density in nats, (*batch,)."""
        delta = value - self.loc
        mahalanobis = (self.diagonal * jnp.square(delta)).sum(-1) + jnp.square((self.vector * delta).sum(-1))
        return 0.5 * (self._log_det_precision - mahalanobis - self.event_shape[0] * log(2 * pi))

    def entropy(self) -> Array:
        """Differential entropy in nats, (*batch,)."""
        return 0.5 * (self.event_shape[0] * (1 + log(2 * pi)) - self._log_det_precision)


class FloatBernoulli(dist.Distribution):
    """Bernoulli(sigmoid(logits)) whose draws are of the logits' floating type, as the data are and as torch's are.

    Args:
        logits: (*batch,).
    """

    arg_constraints = {"logits": constraints.real}
    support = constraints.boolean

    def __init__(self, logits: Array, *, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(jnp.shape(logits), validate_args=validate_args)

    @property
    def mean(self) -> Array:
        """sigmoid(logits), (*batch,)."""
        return sigmoid(self.logits)

    @property
    def variance(self) -> Array:
        """mean (1 - mean), (*batch,)."""
        return sigmoid(self.logits) * sigmoid(-self.logits)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Zeros and ones, (*sample_shape, *batch)."""
        return jax.random.bernoulli(key, self.mean, self.shape(sample_shape)).astype(jnp.result_type(self.logits))

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Log-probability in nats, (*batch,)."""
        return -binary_cross_entropy_with_logits(self.logits, value)


class _Levels(type(constraints.unit_interval)):
    """[0, 1] as the home of grey levels: its values have probabilities, not densities."""

    is_discrete = True


class DiscretizedLogistic(dist.Distribution):
    """Port of `ppl_models.parts.DiscretizedLogistic`: a logistic density integrated over the bins of grey levels."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = _Levels()
    pytree_aux_fields = ("levels",)

    def __init__(self, loc: Array, scale: Array, levels: int = 256, *, validate_args: bool | None = None) -> None:
        self.loc, self.scale = jnp.broadcast_arrays(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Array:
        """The location clipped to [0, 1]: the mean up to the mass beyond the ends."""
        return jnp.clip(self.loc, 0, 1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws on the grid of levels, (*sample_shape, *batch)."""
        tiny = jnp.finfo(self.loc.dtype).eps
        u = jnp.clip(jax.random.uniform(key, self.shape(sample_shape), self.loc.dtype), tiny, 1 - tiny)
        x = self.loc + self.scale * (jnp.log(u) - jnp.log1p(-u))
        return jax.lax.stop_gradient(jnp.round(jnp.clip(x, 0, 1) * (self.levels - 1)) / (self.levels - 1))

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Log-probability of the level in nats, (*batch,)."""
        half = 0.5 / (self.levels - 1)
        upper, lower = (value + half - self.loc) / self.scale, (value - half - self.loc) / self.scale
        # log(s(b) - s(a)) = log s(b) + log s(-a) + log(1 - e^(a-b)): no cancellation in either tail
        inside = log_sigmoid(upper) + log_sigmoid(-lower) + jnp.log(-jnp.expm1(-2 * half / self.scale))
        log_prob = jnp.where(value > half, inside, -softplus(-upper))
        return jnp.where(value < 1 - half, log_prob, jnp.where(value > half, -softplus(lower), log_prob))


def diagonal_moments(q: dist.Distribution) -> tuple[Array, Array] | None:
    """(loc, scale), (*batch, n) each, of a diagonal Gaussian over vectors, expanded or not; None for anything else."""
    shape, base = q.batch_shape + q.event_shape, q
    if isinstance(base, ExpandedDistribution):
        base = base.base_dist
    if not isinstance(base, Independent) or base.reinterpreted_batch_ndims != 1:
        return None
    base = base.base_dist
    if isinstance(base, ExpandedDistribution):
        base = base.base_dist
    return (jnp.broadcast_to(base.loc, shape), jnp.broadcast_to(base.scale, shape)) if type(base) is Normal else None


def _kl_to_diagonal(mean: Array, variance: Array, log_det: Array, p: Independent) -> Array:
    """KL(N(mean, C) || N(m, diag s^2)) from diag C and log|C|, (*batch,)."""
    moments = diagonal_moments(p)
    if moments is None:
        raise NotImplementedError
    loc, scale = moments
    quadratic = (variance + jnp.square(mean - loc)) / jnp.square(scale)
    return 0.5 * ((quadratic - 1 + 2 * jnp.log(scale)).sum(-1) - log_det)


@kl_divergence.register(RankOneNormal, Independent)
def _kl_rank_one_independent(q: RankOneNormal, p: Independent) -> Array:
    return _kl_to_diagonal(q.loc, q.variance, -q._log_det_precision, p)


@kl_divergence.register(MultivariateNormal, Independent)
def _kl_multivariate_independent(q: MultivariateNormal, p: Independent) -> Array:
    log_det = 2 * jnp.log(jnp.diagonal(q.scale_tril, axis1=-2, axis2=-1)).sum(-1)
    return _kl_to_diagonal(q.loc, jnp.square(q.scale_tril).sum(-1), log_det, p)


@kl_divergence.register(RankOneNormal, RankOneNormal)
def _kl_rank_one_rank_one(q: RankOneNormal, p: RankOneNormal) -> Array:
    # E_q (z - p.loc)^T P (z - p.loc) = sum d (var + delta^2) + |R^T u|^2 + (u^T delta)^2: d and u of p, var and R of q
    delta = q.loc - p.loc
    along = (q.vector * p.vector / q.diagonal).sum(-1, keepdims=True)
    root = (p.vector - q._weight[..., None] * along * q.vector) * q.diagonal**-0.5
    expected = p.diagonal * (q.variance + jnp.square(delta)) + jnp.square(root)
    log_ratio = q._log_det_precision - p._log_det_precision
    return 0.5 * (expected.sum(-1) + jnp.square((p.vector * delta).sum(-1)) - q.event_shape[0] + log_ratio)


@kl_divergence.register(TransformedDistribution, TransformedDistribution)
def _kl_transformed(q: TransformedDistribution, p: TransformedDistribution) -> Array:
    """The divergence of the bases, where both are pushed through the same bijections, which do not change it."""
    same = len(q.transforms) == len(p.transforms) and q.event_shape == p.event_shape
    own = [type(fn).log_prob is not TransformedDistribution.log_prob for fn in (q, p)]  # of two values with one image
    if any(own) or not same or any(one != other for one, other in zip(q.transforms, p.transforms, strict=True)):
        raise NotImplementedError
    return kl_divergence(q.base_dist, p.base_dist)
