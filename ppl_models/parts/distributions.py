"""Distributions that Pyro lacks, and the divergences between the Gaussians of this collection."""

from math import log, pi

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, constraints, register_kl
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid, softplus


class StandardNormal(nn.Module):
    """N(0, I) over vectors, on the device and in the dtype of the module that it is part of.

    Args:
        size: n, the length of the vector.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(size), persistent=False)
        self.register_buffer("scale", torch.ones(size), persistent=False)

    def forward(self) -> dist.Independent:
        """The distribution, event shape (n,)."""
        return diagonal_normal(self.loc, self.scale)


class _DiagonalNormal(dist.Independent):
    """N(loc, diag scale^2) over vectors, of which a plate of as many rows as it has makes no views."""

    def expand(self, batch_shape: torch.Size, _instance: dist.Independent | None = None) -> dist.Independent:
        """The same distribution over this batch shape."""
        same = _instance is None and torch.Size(batch_shape) == self.batch_shape
        return self if same else super().expand(batch_shape, _instance)


def diagonal_normal(loc: Tensor, scale: Tensor) -> dist.Independent:
    """N(loc, diag scale^2) over vectors: `dist.Normal(loc, scale).to_event(1)`.

    While validation is off, parameters of one shape are taken as they are, where the constructor makes a view of each.
    """
    if loc.shape != scale.shape or dist.Normal._validate_args:
        return dist.Normal(loc, scale).to_event(1)
    normal = dist.Normal.__new__(dist.Normal)
    normal.loc, normal.scale = loc, scale
    torch.distributions.Distribution.__init__(normal, loc.shape)  # as torch's own `Normal.expand` does
    return _DiagonalNormal(normal, 1)


class RankOneNormal(TorchDistribution):
    """Gaussian whose precision is diagonal plus rank one: N(loc, C) with C^-1 = diag(d) + u u^T.

    With eta = 1 / (1 + u^T D^-1 u), everything is O(n) (matrix inversion and determinant lemmas):

        C       = D^-1 - eta D^-1 u u^T D^-1,          log|C| = log eta - log|D|
        sample  = loc + R e,  e ~ N(0, I),  R = D^-1/2 - [(1 - sqrt eta) / (u^T D^-1 u)] D^-1 u u^T D^-1/2

    Args:
        loc: mean, (*batch, n).
        diagonal: d > 0, (*batch, n).
        vector: u, (*batch, n).

    Source: Rezende, Mohamed, Wierstra 2014, "Stochastic Backpropagation", section 4.3 (arXiv 1401.4082).
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "diagonal": constraints.independent(constraints.positive, 1),
        "vector": constraints.real_vector,
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, diagonal: Tensor, vector: Tensor, validate_args: bool | None = None) -> None:
        self.loc, self.diagonal, self.vector = broadcast_all(loc, diagonal, vector)
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: "RankOneNormal | None" = None) -> "RankOneNormal":
        """The same distribution with batch dimensions added on the left."""
        new = self._get_checked_instance(RankOneNormal, _instance)
        shape = torch.Size(batch_shape) + self.event_shape
        new.loc, new.diagonal, new.vector = (t.expand(shape) for t in (self.loc, self.diagonal, self.vector))
        super(RankOneNormal, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def quadratic(self) -> Tensor:
        """u^T D^-1 u, (*batch,)."""
        return (self.vector.square() / self.diagonal).sum(-1)

    @property
    def mean(self) -> Tensor:
        """The mean, (*batch, n)."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The diagonal of C, (*batch, n)."""
        # 1 / d_i - eta (u_i / d_i)^2 as a product: a difference would fall to zero, or below, for a large u
        share = self.vector.square() / self.diagonal
        quadratic = share.sum(-1, keepdim=True)
        return (1 + (quadratic - share).clamp(min=0)) / (self.diagonal * (1 + quadratic))

    @property
    def covariance_matrix(self) -> Tensor:
        """C in full, (*batch, n, n): for tests and pictures, it is O(n^2)."""
        ratio = self.vector / self.diagonal
        outer = ratio.unsqueeze(-1) * ratio.unsqueeze(-2)
        return torch.diag_embed(1 / self.diagonal) - outer / (1 + self.quadratic)[..., None, None]

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        """Reparametrized draws, (*sample_shape, *batch, n)."""
        shape = self._extended_shape(sample_shape)
        return self.of_noise(torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device))

    def of_noise(self, noise: Tensor) -> Tensor:
        """loc + R e of the noise e, (*sample_shape, *batch, n) both."""
        e = noise * self.diagonal.rsqrt()
        along = self._weight.unsqueeze(-1) * (self.vector * e).sum(-1, keepdim=True)
        return self.loc + e - along * self.vector / self.diagonal

    def noise_of(self, value: Tensor) -> Tensor:
        """The noise e of a value, the inverse of `of_noise`."""
        delta = value - self.loc
        along = (self._weight * (1 + self.quadratic).sqrt()).unsqueeze(-1) * (self.vector * delta).sum(-1, keepdim=True)
        return (delta + along * self.vector / self.diagonal) * self.diagonal.sqrt()

    @property
    def _weight(self) -> Tensor:
        """(1 - sqrt eta) / (u^T D^-1 u), written without the 0 / 0 at u = 0, (*batch,)."""
        root = (1 + self.quadratic).sqrt()
        return 1 / (root * (1 + root))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, (*batch,)."""
        if self._validate_args:
            self._validate_sample(value)
        delta = value - self.loc
        mahalanobis = (self.diagonal * delta.square()).sum(-1) + (self.vector * delta).sum(-1).square()
        log_det_precision = self.diagonal.log().sum(-1) + self.quadratic.log1p()
        n = self.event_shape[0]
        return 0.5 * (log_det_precision - mahalanobis - n * log(2 * pi))

    def entropy(self) -> Tensor:
        """Differential entropy in nats, (*batch,)."""
        n = self.event_shape[0]
        log_det_precision = self.diagonal.log().sum(-1) + self.quadratic.log1p()
        return 0.5 * (n * (1 + log(2 * pi)) - log_det_precision)


class _Levels(type(constraints.unit_interval)):
    """[0, 1] as the home of grey levels: its values have probabilities, not densities."""

    is_discrete = True

    def __init__(self) -> None:
        super().__init__(0.0, 1.0)


class DiscretizedLogistic(TorchDistribution):
    """A logistic density integrated over the bins of `levels` grey levels x = k / (levels - 1) in [0, 1].

        P(x) = sigmoid((x + h - loc) / scale) - sigmoid((x - h - loc) / scale),     h = 1 / (2 (levels - 1))

    with the first bin open to -inf and the last to +inf, so that the levels' probabilities sum to one.

    Source: Kingma et al. 2016 (arXiv 1606.04934), appendix; Salimans et al. 2017 (arXiv 1701.05517), eq. 2.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = _Levels()

    def __init__(self, loc: Tensor, scale: Tensor, levels: int = 256, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: "DiscretizedLogistic | None" = None) -> "DiscretizedLogistic":
        """The same distribution with batch dimensions added on the left."""
        new = self._get_checked_instance(DiscretizedLogistic, _instance)
        new.loc, new.scale, new.levels = self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.levels
        super(DiscretizedLogistic, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """The location clipped to [0, 1]: the mean up to the mass beyond the ends."""
        return self.loc.clamp(0, 1)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws on the grid of levels, (*sample_shape, *batch)."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            tiny = torch.finfo(self.loc.dtype).eps
            u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device).clamp(tiny, 1 - tiny)
            x = self.loc + self.scale * (u.log() - (-u).log1p())
            return (x.clamp(0, 1) * (self.levels - 1)).round() / (self.levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of the level in nats, (*batch,)."""
        if self._validate_args:
            self._validate_sample(value)
        half = 0.5 / (self.levels - 1)
        upper, lower = (value + half - self.loc) / self.scale, (value - half - self.loc) / self.scale
        # log(s(b) - s(a)) = log s(b) + log s(-a) + log(1 - e^(a-b)): no cancellation in either tail
        inside = logsigmoid(upper) + logsigmoid(-lower) + torch.log(-torch.expm1(-2 * half / self.scale))
        log_prob = torch.where(value > half, inside, -softplus(-upper))
        return torch.where(value < 1 - half, log_prob, torch.where(value > half, -softplus(lower), log_prob))


def diagonal_moments(q: torch.distributions.Distribution) -> tuple[Tensor, Tensor] | None:
    """(loc, scale) of a diagonal Gaussian over vectors, None for anything else."""
    if isinstance(q, Independent) and isinstance(q.base_dist, Normal) and q.reinterpreted_batch_ndims == 1:
        return q.base_dist.loc, q.base_dist.scale
    return None


def _kl_to_diagonal(mean: Tensor, variance: Tensor, log_det: Tensor, p: Independent) -> Tensor:
    """KL(N(mean, C) || N(m, diag s^2)) from diag C and log|C|, (*batch,)."""
    moments = diagonal_moments(p)
    if moments is None:
        raise NotImplementedError
    loc, scale = moments
    quadratic = (variance + (mean - loc).square()) / scale.square()
    return 0.5 * ((quadratic - 1 + 2 * scale.log()).sum(-1) - log_det)


@register_kl(RankOneNormal, Independent)
def _kl_rank_one_independent(q: RankOneNormal, p: Independent) -> Tensor:
    log_det = -q.diagonal.log().sum(-1) - q.quadratic.log1p()
    return _kl_to_diagonal(q.loc, q.variance, log_det, p)


@register_kl(MultivariateNormal, Independent)
def _kl_multivariate_independent(q: MultivariateNormal, p: Independent) -> Tensor:
    tril = q.scale_tril
    log_det = 2 * tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return _kl_to_diagonal(q.loc, tril.square().sum(-1), log_det, p)


@register_kl(RankOneNormal, RankOneNormal)
def _kl_rank_one_rank_one(q: RankOneNormal, p: RankOneNormal) -> Tensor:
    # E_q (z - p.loc)^T P (z - p.loc) = sum d (var + delta^2) + |R^T u|^2 + (u^T delta)^2: d and u of p, var and R of q
    delta = q.loc - p.loc
    along = (q.vector * p.vector / q.diagonal).sum(-1, keepdim=True)
    root = (p.vector - q._weight.unsqueeze(-1) * along * q.vector) * q.diagonal.rsqrt()
    expected = p.diagonal * (q.variance + delta.square()) + root.square()
    log_ratio = q.diagonal.log().sum(-1) + q.quadratic.log1p() - p.diagonal.log().sum(-1) - p.quadratic.log1p()
    return 0.5 * (expected.sum(-1) + (p.vector * delta).sum(-1).square() - q.event_shape[0] + log_ratio)
