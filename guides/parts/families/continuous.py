"""`Diagonal`, `RankOne`, `Full`, `Flow`: families of one factor over R^n, around a prior or as a product with it."""

from collections.abc import Sequence
from math import prod
from typing import Annotated, Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.transforms import AffineTransform, IndependentTransform, ReshapeTransform
from torch.nn.functional import normalize, softplus

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Number, Whole
from ppl_models.parts.distributions import RankOneNormal, diagonal_normal
from ppl_models.parts.flows.splines import MonotonicSpline
from ppl_models.parts.likelihoods import at_least, bounded_exp
from ppl_models.programs.pyro import layers

from ..checks import refuse_alone
from ..looks.latents import Latent
from . import factors
from .products import LEAST_VARIANCE


def _tril(diagonal: Tensor, below: Tensor) -> Tensor:
    """(*batch, n) and (*batch, n (n - 1) / 2) -> a lower triangular matrix, (*batch, n, n)."""
    n = diagonal.shape[-1]
    rows, columns = torch.tril_indices(n, n, -1, device=diagonal.device)
    tril = torch.diag_embed(diagonal)
    # out of place: an in-place write would hide the dependence from those who trace it
    index = (rows * n + columns).expand_as(below)
    return tril.flatten(-2).scatter(-1, index, below).unflatten(-1, (n, n))


@checked
class Diagonal:
    """Independent entries: N(m, diag s^2).

    Args:
        least: no standard deviation is below it: s is sqrt(least^2 + s^2) of the s below.
    """

    units, bent, estimated = "diagonal", False, True

    def __init__(self, least: Whole = 0) -> None:
        self.least = least

    def count(self, n: int, precision_weighted: bool = False) -> int:
        """2 n: a mean and a log scale each."""
        return 2 * n

    def residual(self, raw: Tensor, loc: Tensor | float, scale: Tensor | float) -> TorchDistributionMixin:
        """m = loc + shift, s = scale * exp(r), |r| < 5."""
        shift, log_scale = raw.chunk(2, -1)
        return diagonal_normal(loc + shift, at_least(scale * bounded_exp(log_scale), self.least))

    def precision_weighted(self, raw: Tensor, loc: Tensor, scale: Tensor) -> TorchDistributionMixin:
        """1/s^2 = 1/v + 1/scale^2, m = shift + (loc/scale^2) s^2 with v = softplus(.) + 1e-5, a variance.

        The shift stands for the (estimate/v) s^2 of the source, whose gradient by the estimate vanishes as v grows.

        Source: Sonderby et al. 2016 (arXiv 1602.02282), eq. 17 to 19.
        """
        shift, spread = raw.chunk(2, -1)
        prior = scale.square().reciprocal()
        precision = 1 / (softplus(spread) + LEAST_VARIANCE) + prior
        return diagonal_normal(shift + loc * prior / precision, at_least(precision.rsqrt(), self.least))


class RankOne:
    """Precision diagonal plus rank one: C^-1 = diag(d) + u u^T (Rezende et al. 2014)."""

    units, bent = "diagonal", False

    def count(self, n: int, precision_weighted: bool = False) -> int:
        """3 n: a mean, a log scale and a vector entry each."""
        return 3 * n

    def residual(self, raw: Tensor, loc: Tensor | float, scale: Tensor | float) -> TorchDistributionMixin:
        """m = loc + shift, d = exp(-2 r) / scale^2, u = vector / scale."""
        shift, log_scale, vector = raw.chunk(3, -1)
        return RankOneNormal(loc + shift, (scale * bounded_exp(log_scale)) ** -2, vector / scale)

    def precision_weighted(self, raw: Tensor, loc: Tensor, scale: Tensor) -> TorchDistributionMixin:
        """C^-1 = diag(d + 1/scale^2) + u u^T, m = shift + C loc/scale^2; shift as in `Full`."""
        shift, spread, u = raw.chunk(3, -1)
        prior = scale.square().reciprocal()
        d = softplus(spread) + 1e-5 + prior
        h = loc * prior / d
        ratio = u / d
        eta = 1 / (1 + (u * ratio).sum(-1, keepdim=True))
        return RankOneNormal(shift + h - eta * ratio * (u * h).sum(-1, keepdim=True), d, u)


class Full:
    """Any covariance, by its Cholesky factor."""

    units, bent, rooted = "full", False, True

    def count(self, n: int, precision_weighted: bool = False) -> int:
        """A mean, and the log diagonal and the rest of a Cholesky factor; a square root of any form in a product."""
        return n + n * n if precision_weighted else 2 * n + n * (n - 1) // 2

    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        size = raw.shape[-1]
        n = int(((9 + 8 * size) ** 0.5 - 3) / 2 + 0.5)  # solves 2 n + n (n - 1) / 2 = size
        return raw[..., :n], raw[..., n : 2 * n], raw[..., 2 * n :]

    def residual(self, raw: Tensor, loc: Tensor | float, scale: Tensor | float) -> TorchDistributionMixin:
        """m = loc + shift, L = diag(scale) (diag(exp r) + strictly lower part)."""
        shift, log_diagonal, below = self._split(raw)
        tril = _tril(bounded_exp(log_diagonal), below)
        if isinstance(scale, Tensor):
            tril = scale.unsqueeze(-1) * tril
        return dist.MultivariateNormal(loc + shift, scale_tril=scale * tril if isinstance(scale, float) else tril)

    def precision_weighted(self, raw: Tensor, loc: Tensor, scale: Tensor) -> TorchDistributionMixin:
        """P = T T^T + diag(1/scale^2), m = shift + P^-1 loc/scale^2; T any square matrix, 0.7 I at raw = 0.

        The estimate has precision T T^T and information P shift. A triangular T with a positive diagonal would rest on
        saddles where an entry vanishes (0.12 nats above the truth on a linear-Gaussian twin), and raw numbers that
        were the information itself would have to follow every change of T (ten times slower).
        """
        n = loc.shape[-1]
        shift, root = raw[..., :n], raw[..., n:].unflatten(-1, (n, n)) + 0.7 * torch.eye(n).to(raw)
        prior = scale.square().reciprocal()
        precision = root @ root.mT + torch.diag_embed(prior)
        pulled = torch.cholesky_solve((loc * prior).unsqueeze(-1), torch.linalg.cholesky(precision)).squeeze(-1)
        return dist.MultivariateNormal(shift + pulled, precision_matrix=precision)


@checked
class Flow:
    """Any marginals, tied by the copula of a Gaussian: a correlated base, a monotone spline and a scale for each entry.

        z_i = m_i + s_i f_i(y_i),    y ~ N(0, R),    R = L L^T a correlation matrix,    f_i a spline on [-5, 5]

    Beyond its knots each f_i is the identity, so the tails are those of a Gaussian. With f_i the identity it is `Full`.

    Args:
        bins: of each spline.

    Source: the splines by Durkan et al. 2019 (arXiv 1906.04032), from zuko; Gaussian copulas by Han et al. 2016
    (arXiv 1506.05860).
    """

    bound, units, bent, alone = 5.0, "copula", True, "flow"

    def __init__(self, bins: Annotated[int, Number(whole=True, least=2)] = 8) -> None:
        self.bins = bins

    def count(self, n: int, precision_weighted: bool = False) -> int:
        """A mean and a log scale each, the correlations, and 3 bins - 1 numbers a spline."""
        return 2 * n + n * (n - 1) // 2 + n * (3 * self.bins - 1)

    def residual(self, raw: Tensor, loc: Tensor | float, scale: Tensor | float) -> TorchDistributionMixin:
        """m = loc + shift, s = scale * exp(r), |r| < 5."""
        k, size = self.bins, raw.shape[-1]
        half = 3 * k + 0.5  # solves n^2 / 2 + half n = size
        n = round((half * half + 2 * size) ** 0.5 - half)
        shift, log_scale, below, splines = raw.split([n, n, n * (n - 1) // 2, n * (3 * k - 1)], -1)
        widths, heights, slopes = splines.unflatten(-1, (n, 3 * k - 1)).split([k, k, k - 1], -1)
        tril = normalize(_tril(torch.ones_like(shift), below), dim=-1)
        base = dist.MultivariateNormal(torch.zeros_like(shift), scale_tril=tril)
        spline = MonotonicSpline(widths, heights, slopes, bound=self.bound, cache_size=1)
        affine = AffineTransform(loc + shift, scale * bounded_exp(log_scale), cache_size=1)
        return dist.TransformedDistribution(base, [spline, affine])

    def precision_weighted(self, raw: Tensor, loc: Tensor, scale: Tensor) -> TorchDistributionMixin:
        """Raise ValueError: a flow has no precision to add up."""
        refuse_alone("precision_weighted", self.alone)


def reshaped(q: TorchDistributionMixin, shape: tuple[int, ...]) -> TorchDistributionMixin:
    """A distribution over vectors of size n as one over events of `shape`, n entries in all."""
    if q.event_shape == shape:
        return q
    if isinstance(q, dist.Independent) and isinstance(q.base_dist, torch.distributions.Normal):
        batch = q.batch_shape
        return dist.Normal(q.base_dist.loc.reshape(batch + shape), q.base_dist.scale.reshape(batch + shape)).to_event(
            len(shape)
        )
    return dist.TransformedDistribution(q, [ReshapeTransform(q.event_shape, torch.Size(shape), cache_size=1)])


class Spread(dist.TorchDistribution):
    """A joint density whose first event dims go by the name of batch dims, as in a program without plates.

    Each index of them has an equal share of the log-density, so that the sum, which is all that counts, is right.

    Args:
        joint: the density.
        dims: how many of its event dims.
    """

    arg_constraints: ClassVar[dict] = {}

    def __init__(self, joint: TorchDistributionMixin, dims: int) -> None:
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
        support = self.joint.support
        while support.event_dim > len(self.event_shape) and hasattr(support, "base_constraint"):
            support = support.base_constraint
        return constraints.independent(support, len(self.event_shape) - support.event_dim)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw of the joint density, (*sample_shape, *batch_shape, *event_shape)."""
        return self.joint.rsample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density in equal shares, (*sample_shape, *batch_shape)."""
        shares = self.joint.event_shape[: self.dims]
        total = self.joint.log_prob(value) / prod(shares)
        return total[(..., *[None] * self.dims)].expand(*total.shape, *shares)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "Spread":
        """The same over more batch dims to the left of those it spreads over."""
        return Spread(self.joint.expand(torch.Size(batch_shape)[: -self.dims]), self.dims)


def on_support(q: TorchDistributionMixin, latent: Latent) -> TorchDistributionMixin:
    """A density over R^n as one of a latent: over events of its shape, on the support of its site."""
    facts = latent.facts
    q = reshaped(q, (*latent.copies, *facts.unconstrained_shape))
    q = q if facts.is_real else dist.TransformedDistribution(q, [biject_to(facts.support).with_cache()])
    dims = latent.unplated_dims + len(latent.copies)
    return Spread(q, dims) if dims else q


def gaussian_base(prior: TorchDistributionMixin) -> tuple[Tensor, Tensor, tuple[int, ...], list] | None:
    """The parts of a prior that is a diagonal Gaussian pushed through bijections: (loc, scale, shape, transforms).

    loc and scale are vectors (*batch, n) of the base, `shape` is the base's event shape. None for any other prior.
    """
    base, shape, events, transforms, _ = layers(prior)
    if type(base) not in (dist.Normal, torch.distributions.Normal):
        return None
    # event dims that only a transform gives meaning to (a base without Independent) belong to the batch of the Normal
    events = max([events, *(t.domain.event_dim for t in transforms)])
    loc, scale = (t if t.shape == shape else t.expand(shape) for t in (base.loc, base.scale))
    batch, event = shape[: len(shape) - events], shape[len(shape) - events :]
    if events != 1:
        loc, scale = loc.reshape(*batch, -1), scale.reshape(*batch, -1)
    return loc, scale, tuple(event), transforms


def masked_alike(q: TorchDistributionMixin, prior: TorchDistributionMixin) -> TorchDistributionMixin | None:
    """A factor with the masks of its prior (`factors.masked_alike`)."""
    return factors.masked_alike(q, layers(prior).masks, uncoupled, dist.TransformedDistribution)


def uncoupled(q: Any, dims: int) -> Any:
    """A distribution with its leftmost event dims taken for batch dims; None where it couples what is along them."""
    if dims == 0:
        return q
    if isinstance(q, torch.distributions.Independent):
        rest = q.reinterpreted_batch_ndims - dims
        return uncoupled(q.base_dist, -rest) if rest <= 0 else q.base_dist.to_event(rest)
    if isinstance(q, dist.MaskedDistribution):
        inner, kept = uncoupled(q.base_dist, dims), q._mask
        kept = kept[(..., *[None] * dims)] if isinstance(kept, Tensor) else kept
        return None if inner is None else inner.mask(kept)
    if isinstance(q, torch.distributions.TransformedDistribution):
        transforms = [_of_events(transform, q.event_dim - dims) for transform in q.transforms]
        inner = None if any(t is None for t in transforms) else uncoupled(q.base_dist, dims)
        return None if inner is None else dist.TransformedDistribution(inner, transforms)
    return None


def _of_events(transform: Any, dims: int) -> Any:
    """A transform of events of at most so many dims; None where it is of larger ones."""
    while isinstance(transform, IndependentTransform) and transform.domain.event_dim > dims:
        transform = transform.base_transform
    return transform if max(transform.domain.event_dim, transform.codomain.event_dim) <= dims else None
