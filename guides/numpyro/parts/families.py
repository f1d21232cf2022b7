"""`Diagonal`, `RankOne`, `Full`, `Flow`: families of one factor over R^n; see `guides.parts.families`."""

from math import prod
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.nn import softplus
from jax.scipy.linalg import solve_triangular
from numpyro.distributions import Distribution, biject_to, constraints
from numpyro.distributions.transforms import AffineTransform, IndependentTransform, ReshapeTransform

from guides.parts.families import factors
from guides.parts.families.products import LEAST_VARIANCE
from guides.parts.looks.latents import Latent
from ppl_models.numpyro.parts.distributions import RankOneNormal, diagonal_normal
from ppl_models.numpyro.parts.flows.splines import MonotonicSpline
from ppl_models.numpyro.parts.likelihoods import at_least, bounded_exp
from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Number, Whole
from ppl_models.programs.numpyro import layers

from ...parts.checks import refuse_alone


def _diagonal_matrix(diagonal: Array) -> Array:
    """(*batch, n) -> (*batch, n, n)."""
    return diagonal[..., None] * jnp.eye(diagonal.shape[-1], dtype=diagonal.dtype)


def _tril(diagonal: Array, below: Array) -> Array:
    """(*batch, n) and (*batch, n (n - 1) / 2) -> a lower triangular matrix, (*batch, n, n)."""
    rows, columns = jnp.tril_indices(diagonal.shape[-1], -1)
    return _diagonal_matrix(diagonal).at[..., rows, columns].set(below)


@checked
class Diagonal:
    """See `guides.parts.families.Diagonal`."""

    units, bent, estimated = "diagonal", False, True

    def __init__(self, least: Whole = 0) -> None:
        self.least = least

    def count(self, n: int, precision_weighted: bool = False) -> int:
        """2 n: a mean and a log scale each."""
        return 2 * n

    def residual(self, raw: Array, loc: Array | float, scale: Array | float) -> Distribution:
        """m = loc + shift, s = scale * exp(r), |r| < 5."""
        shift, log_scale = jnp.split(raw, 2, -1)
        return diagonal_normal(loc + shift, at_least(scale * bounded_exp(log_scale), self.least))

    def precision_weighted(self, raw: Array, loc: Array, scale: Array) -> Distribution:
        """1/s^2 = 1/v + 1/scale^2, m = shift + (loc/scale^2) s^2 with v = softplus(.) + 1e-5, a variance."""
        shift, spread = jnp.split(raw, 2, -1)
        prior = 1 / jnp.square(scale)
        precision = 1 / (softplus(spread) + LEAST_VARIANCE) + prior
        return diagonal_normal(shift + loc * prior / precision, at_least(jax.lax.rsqrt(precision), self.least))


class RankOne:
    """Precision diagonal plus rank one: C^-1 = diag(d) + u u^T (Rezende et al. 2014)."""

    units, bent = "diagonal", False

    def count(self, n: int, precision_weighted: bool = False) -> int:
        """3 n: a mean, a log scale and a vector entry each."""
        return 3 * n

    def residual(self, raw: Array, loc: Array | float, scale: Array | float) -> Distribution:
        """m = loc + shift, d = exp(-2 r) / scale^2, u = vector / scale."""
        shift, log_scale, vector = jnp.split(raw, 3, -1)
        return RankOneNormal(loc + shift, (scale * bounded_exp(log_scale)) ** -2, vector / scale)

    def precision_weighted(self, raw: Array, loc: Array, scale: Array) -> Distribution:
        """C^-1 = diag(d + 1/scale^2) + u u^T, m = shift + C loc/scale^2; shift as in `Full`."""
        shift, spread, u = jnp.split(raw, 3, -1)
        prior = 1 / jnp.square(scale)
        d = softplus(spread) + 1e-5 + prior
        h = loc * prior / d
        ratio = u / d
        eta = 1 / (1 + (u * ratio).sum(-1, keepdims=True))
        return RankOneNormal(shift + h - eta * ratio * (u * h).sum(-1, keepdims=True), d, u)


class Full:
    """Any covariance, by its Cholesky factor."""

    units, bent, rooted = "full", False, True

    def count(self, n: int, precision_weighted: bool = False) -> int:
        """A mean, and the log diagonal and the rest of a Cholesky factor; a square root of any form in a product."""
        return n + n * n if precision_weighted else 2 * n + n * (n - 1) // 2

    def residual(self, raw: Array, loc: Array | float, scale: Array | float) -> Distribution:
        """m = loc + shift, L = diag(scale) (diag(exp r) + strictly lower part)."""
        n = int(((9 + 8 * raw.shape[-1]) ** 0.5 - 3) / 2 + 0.5)  # solves 2 n + n (n - 1) / 2 = size
        shift, log_diagonal, below = jnp.split(raw, [n, 2 * n], -1)
        tril = jnp.asarray(scale, raw.dtype)[..., None] * _tril(bounded_exp(log_diagonal), below)
        return dist.MultivariateNormal(loc + shift, scale_tril=tril)

    def precision_weighted(self, raw: Array, loc: Array, scale: Array) -> Distribution:
        """P = T T^T + diag(1/scale^2), m = shift + P^-1 loc/scale^2; T any square matrix, 0.7 I at raw = 0."""
        n = loc.shape[-1]
        shift, root = raw[..., :n], raw[..., n:].reshape(*raw.shape[:-1], n, n) + 0.7 * jnp.eye(n, dtype=raw.dtype)
        prior = 1 / jnp.square(scale)
        precision = root @ root.mT + _diagonal_matrix(prior)
        lower = jnp.linalg.cholesky(precision)
        column = jnp.broadcast_to((loc * prior)[..., None], (*precision.shape[:-1], 1))
        pulled = solve_triangular(lower, solve_triangular(lower, column, lower=True), lower=True, trans=1)[..., 0]
        return dist.MultivariateNormal(shift + pulled, precision_matrix=precision)


@checked
class Flow:
    """See `guides.parts.families.Flow`."""

    bound, units, bent, alone = 5.0, "copula", True, "flow"

    def __init__(self, bins: Annotated[int, Number(whole=True, least=2)] = 8) -> None:
        self.bins = bins

    def count(self, n: int, precision_weighted: bool = False) -> int:
        """A mean and a log scale each, the correlations, and 3 bins - 1 numbers a spline."""
        return 2 * n + n * (n - 1) // 2 + n * (3 * self.bins - 1)

    def residual(self, raw: Array, loc: Array | float, scale: Array | float) -> Distribution:
        """m = loc + shift, s = scale * exp(r), |r| < 5."""
        k, size = self.bins, raw.shape[-1]
        half = 3 * k + 0.5  # solves n^2 / 2 + half n = size
        n = round((half * half + 2 * size) ** 0.5 - half)
        shift, log_scale, below, splines = jnp.split(raw, [n, 2 * n, 2 * n + n * (n - 1) // 2], -1)
        splines = splines.reshape(*splines.shape[:-1], n, 3 * k - 1)
        widths, heights, slopes = jnp.split(splines, [k, 2 * k], -1)
        tril = _tril(jnp.ones_like(shift), below)
        tril = tril / jnp.linalg.norm(tril, axis=-1, keepdims=True)  # rows of length 1, or more before
        base = dist.MultivariateNormal(jnp.zeros_like(shift), scale_tril=tril)
        spline = MonotonicSpline(widths, heights, slopes, self.bound)
        affine = AffineTransform(loc + shift, scale * bounded_exp(log_scale))
        return dist.TransformedDistribution(base, [spline, affine])

    def precision_weighted(self, raw: Array, loc: Array, scale: Array) -> Distribution:
        """Raise ValueError: a flow has no precision to add up."""
        refuse_alone("precision_weighted", self.alone)


def reshaped(q: Distribution, shape: tuple[int, ...]) -> Distribution:
    """A distribution over vectors of size n as one over events of `shape`, n entries in all."""
    if q.event_shape == shape:
        return q
    if isinstance(q, dist.Independent) and isinstance(q.base_dist, dist.Normal):
        batch = q.batch_shape
        return dist.Normal(q.base_dist.loc.reshape(batch + shape), q.base_dist.scale.reshape(batch + shape)).to_event(
            len(shape)
        )
    return dist.TransformedDistribution(q, [ReshapeTransform(shape, q.event_shape)])


class Spread(Distribution):
    """See `guides.parts.families.continuous.Spread`."""

    arg_constraints: ClassVar[dict] = {}
    pytree_data_fields = ("joint",)
    pytree_aux_fields = ("dims",)

    def __init__(self, joint: Distribution, dims: int) -> None:
        self.joint, self.dims = joint, dims
        shape = joint.event_shape
        super().__init__(joint.batch_shape + shape[:dims], shape[dims:], validate_args=False)

    @property
    def has_rsample(self) -> bool:
        """Whether the joint density's draws are reparametrized."""
        return self.joint.has_rsample

    @property
    def support(self) -> constraints.Constraint:
        """The support of one index of the batch dims."""
        support: Any = self.joint.support
        while support.event_dim > len(self.event_shape) and hasattr(support, "base_constraint"):
            support = support.base_constraint
        return constraints.independent(support, len(self.event_shape) - support.event_dim)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """A draw of the joint density, (*sample_shape, *batch_shape, *event_shape)."""
        return jnp.asarray(self.joint.sample(key, sample_shape))

    def sample_with_intermediates(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Array, list[Any]]:
        """The same, and the intermediates of the joint density."""
        value, intermediates = self.joint.sample_with_intermediates(key, sample_shape)
        return jnp.asarray(value), intermediates

    def log_prob(self, value: Array, intermediates: list[Any] | None = None) -> Array:
        """The log-density in equal shares, (*sample_shape, *batch_shape)."""
        shares = self.joint.event_shape[: self.dims]
        total = jnp.asarray(self.joint.log_prob(value, *([intermediates] if intermediates else []))) / prod(shares)
        return jnp.broadcast_to(total.reshape(*total.shape, *[1] * self.dims), (*total.shape, *shares))


def on_support(q: Distribution, latent: Latent) -> Distribution:
    """A density over R^n as one of a latent: over events of its shape, on the support of its site."""
    facts = latent.facts
    q = reshaped(q, (*latent.copies, *facts.unconstrained_shape))
    q = q if facts.is_real else dist.TransformedDistribution(q, [biject_to(facts.support)])
    dims = latent.unplated_dims + len(latent.copies)
    return Spread(q, dims) if dims else q


def gaussian_base(prior: Distribution) -> tuple[Array, Array, tuple[int, ...], list] | None:
    """See `guides.parts.families.gaussian_base`."""
    base, shape, events, transforms, _ = layers(prior)
    if type(base) is not dist.Normal:
        return None
    # event dims that only a transform gives meaning to (a base without Independent) belong to the batch of the Normal
    events = max([events, *(t.domain.event_dim for t in transforms)])
    loc, scale = jnp.broadcast_to(base.loc, shape), jnp.broadcast_to(base.scale, shape)
    batch, event = shape[: len(shape) - events], shape[len(shape) - events :]
    return loc.reshape(*batch, -1), scale.reshape(*batch, -1), tuple(event), transforms


def masked_alike(q: Distribution, prior: Distribution) -> Distribution | None:
    """See `guides.parts.families.masked_alike`."""
    return factors.masked_alike(q, layers(prior).masks, uncoupled, dist.TransformedDistribution)


def uncoupled(q: Any, dims: int) -> Any:
    """See `guides.parts.families.uncoupled`."""
    if dims == 0:
        return q
    if isinstance(q, dist.Independent):
        rest = q.reinterpreted_batch_ndims - dims
        return uncoupled(q.base_dist, -rest) if rest <= 0 else q.base_dist.to_event(rest)
    if isinstance(q, dist.ExpandedDistribution):
        inner = uncoupled(q.base_dist, dims)
        return None if inner is None else inner.expand(q.batch_shape + q.event_shape[:dims])
    if isinstance(q, dist.MaskedDistribution):
        inner, kept = uncoupled(q.base_dist, dims), q._mask
        kept = kept if isinstance(kept, bool) else kept[(..., *[None] * dims)]
        return None if inner is None else inner.mask(kept)
    if isinstance(q, dist.TransformedDistribution):
        transforms = [_of_events(transform, q.event_dim - dims) for transform in q.transforms]
        inner = None if any(t is None for t in transforms) else uncoupled(q.base_dist, dims)
        return None if inner is None else dist.TransformedDistribution(inner, transforms)
    return None


def _of_events(transform: Any, dims: int) -> Any:
    """A transform of events of at most so many dims; None where it is of larger ones."""
    while isinstance(transform, IndependentTransform) and transform.domain.event_dim > dims:
        transform = transform.base_transform
    return transform if max(transform.domain.event_dim, transform.codomain.event_dim) <= dims else None
