"""Likelihoods p(x | parameters): from a network's output to a distribution over the observed rows."""

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from .arguments.sizes import check_count as check_count
from .checks import (
    Arrays,
    check_batch,
    check_binary,
    check_finite,
    check_levels,
    check_likelihood,
    check_scale,
    count_of_levels,
    likelihood_of,
)
from .distributions import DiscretizedLogistic

TENSORS = Arrays(
    Tensor,
    "tensor",
    made="torch.as_tensor(...)",
    floated="{0}.float()",
    converted="{0}.to({1})",
    one="{0}.unsqueeze(0)",
    flat="{0}.flatten(1)",
    is_floating=torch.is_floating_point,
    dtype_of=lambda x: x.dtype,
)


def check_data(x: Tensor, event: int | Sequence[int], name: str = "x", dtype: torch.dtype | None = None) -> Tensor:
    """Return `x` if it is a non-empty batch of finite rows of shape `event`; say what is wrong otherwise.

    Values are read (which synchronizes a GPU) only while Pyro's validation is on; type and shape always.

    Raises:
        TypeError: not a tensor, not of a floating type, or not of `dtype` (the model's own) if that is given.
        ValueError: an empty batch, rows of another shape, NaN or infinite entries.
    """
    check_batch(TENSORS, name, x, event, dtype)
    if torch.distributions.Distribution._validate_args:
        check_finite(f"site {name!r}", torch.isfinite(x))
    return x


def rows(x: Tensor | None, n: int, event: int, likelihood: nn.Module, dtype: torch.dtype) -> int:
    """The number of data in a run of a model: the rows of x, once they are checked, or `n` if it generates.

    Args:
        x: rows (n, event), or None.
        n: read where x is None.
        event, likelihood, dtype: the model's own.

    Raises:
        TypeError, ValueError: see `check_data`, `check_count` and the likelihood's `check`.
    """
    if x is None:
        return check_count(n)
    check_data(x, event, dtype=dtype)
    likelihood.check(x)
    return len(x)


class Bernoulli(nn.Module):
    """Binary pixels: x_i ~ Bernoulli(sigmoid(logits_i)), independent; one number a pixel."""

    count = 1

    def forward(self, params: Tensor) -> TorchDistributionMixin:
        """The distribution of rows (*batch, D) from logits (*batch, D)."""
        return dist.Bernoulli(logits=params).to_event(1)

    def mean(self, params: Tensor) -> Tensor:
        """E[x] given the parameters, (*batch, D)."""
        return params.sigmoid()

    def squash(self, h: Tensor) -> Tensor:
        """Any numbers as means, (*batch, D): in (0, 1)."""
        return h.sigmoid()

    def around(self, mean: Tensor, log_scale: Tensor | None = None) -> Tensor:
        """The parameters of a mean in [0, 1], (*batch, D): its logits, within +-13.8."""
        return mean.logit(eps=1e-6)

    def check(self, x: Tensor, name: str = "x") -> None:
        """Raise ValueError unless every value is 0 or 1 (read only while Pyro's validation is on)."""
        if torch.distributions.Distribution._validate_args:
            check_binary(x[(x != 0) & (x != 1)], name)


class Gaussian(nn.Module):
    """Real values: x_i ~ N(loc_i, scale_i^2), the scale given once and for all or learned for each value.

    With `scale=None` a network gives (loc, log scale) and the log scale is kept in [-5, 5] by a tanh.
    """

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        check_scale(scale)
        self.count = 2 if scale is None else 1
        self.register_buffer("scale", None if scale is None else torch.tensor(float(scale)))

    def forward(self, params: Tensor) -> TorchDistributionMixin:
        """The distribution of rows (*batch, D) from (*batch, count * D)."""
        if self.scale is not None:
            return dist.Normal(params, self.scale).to_event(1)
        loc, log_scale = params.chunk(2, -1)
        return dist.Normal(loc, bounded_exp(log_scale)).to_event(1)

    def mean(self, params: Tensor) -> Tensor:
        """E[x] given the parameters, (*batch, D)."""
        return params if self.scale is not None else params.chunk(2, -1)[0]

    def squash(self, h: Tensor) -> Tensor:
        """Any numbers as means: they are."""
        return h

    def around(self, mean: Tensor, log_scale: Tensor | None = None) -> Tensor:
        """The parameters of a mean, (*batch, D), with one log scale for all of its values where it is learned."""
        return mean if self.scale is not None else _with_scale(mean, log_scale)

    def check(self, x: Tensor, name: str = "x") -> None:
        """Any finite value will do."""


class SharedGaussian(nn.Module):
    """Real values: x_i ~ N(loc_i, gamma^2) with one learned gamma for all values of all data; one number a value.

    log gamma starts at 0. On data near a manifold of no more dimensions than there are latents gamma goes to the
    standard deviation of what lies off it; where nothing does, to 0, and the bound to infinity.

    Source: Dai & Wipf 2019 (arXiv 1903.05789), section 2.
    """

    count = 1

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, params: Tensor) -> TorchDistributionMixin:
        """The distribution of rows (*batch, D) from their means, (*batch, D)."""
        return dist.Normal(params, self.log_scale.exp()).to_event(1)

    def mean(self, params: Tensor) -> Tensor:
        """E[x] given the parameters, (*batch, D)."""
        return params

    def squash(self, h: Tensor) -> Tensor:
        """Any numbers as means: they are."""
        return h

    def around(self, mean: Tensor, log_scale: Tensor | None = None) -> Tensor:
        """The parameters of a mean, (*batch, D)."""
        return mean

    def check(self, x: Tensor, name: str = "x") -> None:
        """Any finite value will do."""


class UnitGaussian(nn.Module):
    """Values in [0, 1]: x_i ~ N(sigmoid(h_i), scale^2), so that the mean is in (0, 1); one number a value.

    Source: the released code of Zhao, Song & Ermon 2017 (arXiv 1702.08658); its images in [-1, 1] have twice the scale.
    """

    count = 1

    def __init__(self, scale: float) -> None:
        super().__init__()
        check_scale(scale)
        self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, params: Tensor) -> TorchDistributionMixin:
        """The distribution of rows (*batch, D) from the logits of their means, (*batch, D)."""
        return dist.Normal(params.sigmoid(), self.scale).to_event(1)

    def mean(self, params: Tensor) -> Tensor:
        """E[x] given the parameters, (*batch, D)."""
        return params.sigmoid()

    def squash(self, h: Tensor) -> Tensor:
        """Any numbers as means, (*batch, D): in (0, 1)."""
        return h.sigmoid()

    def around(self, mean: Tensor, log_scale: Tensor | None = None) -> Tensor:
        """The parameters of a mean in [0, 1], (*batch, D): its logits, within +-13.8."""
        return mean.logit(eps=1e-6)

    def check(self, x: Tensor, name: str = "x") -> None:
        """Any finite value will do."""


class Logistic(nn.Module):
    """Grey levels k / (levels - 1): a logistic density integrated over the bin of each level.

    Source: Salimans et al. 2017, "PixelCNN++" (arXiv 1701.05517), eq. 2, with one component.
    """

    count = 2

    def __init__(self, levels: int = 256) -> None:
        super().__init__()
        self.levels = count_of_levels(levels)

    def forward(self, params: Tensor) -> TorchDistributionMixin:
        """The distribution of rows (*batch, D) in [0, 1] from (loc, log scale), (*batch, 2 D)."""
        loc, log_scale = params.chunk(2, -1)
        # 0.5 and 0.1 are where an untrained network's zeros should point: mid grey, a wide bin
        return DiscretizedLogistic(0.5 + loc, 0.1 * bounded_exp(log_scale), self.levels).to_event(1)

    def mean(self, params: Tensor) -> Tensor:
        """The location, clipped to [0, 1], (*batch, D)."""
        return (0.5 + params.chunk(2, -1)[0]).clamp(0, 1)

    def squash(self, h: Tensor) -> Tensor:
        """Any numbers as locations, (*batch, D): in (0, 1)."""
        return h.sigmoid()

    def around(self, mean: Tensor, log_scale: Tensor | None = None) -> Tensor:
        """The parameters of a location in [0, 1], (*batch, D), with one log scale for all of its values."""
        return _with_scale(mean - 0.5, log_scale)

    def check(self, x: Tensor, name: str = "x") -> None:
        """Raise ValueError unless every value is one of the levels (read only while validation is on)."""
        if torch.distributions.Distribution._validate_args:
            k = x * (self.levels - 1)
            check_levels(x[(x < 0) | (x > 1) | ((k - k.round()).abs() > 1e-3)], name, self.levels)


def _with_scale(mean: Tensor, log_scale: Tensor) -> Tensor:
    return torch.cat([mean, log_scale.expand(mean.shape)], -1)


def in_unit(likelihood: nn.Module) -> bool:
    """Whether data of a likelihood are taken to be in [0, 1]: those of any but a Gaussian of free means."""
    return not isinstance(likelihood, Gaussian | SharedGaussian)


def bounded_exp(log_scale: Tensor, bound: float = 5.0) -> Tensor:
    """exp(bound * tanh(s / bound)): a scale that neither vanishes nor explodes, in [e^-bound, e^bound]."""
    return (bound * torch.tanh(log_scale / bound)).exp()


def at_least(scale: Tensor, least: float) -> Tensor:
    """sqrt(least^2 + scale^2): a scale that is not below `least`, and untouched where that is 0.

    With least = 1 and scale = exp(a / 2) the log-variance is softplus(a) (Maaloe et al. 2019, the authors' code).
    """
    return (least**2 + scale.square()).sqrt() if least else scale


def likelihood(spec: str | nn.Module, owner: str = "", more: Sequence[str] = ()) -> nn.Module:
    """A likelihood by name: "bernoulli", "gaussian" (learned scale), "gaussian:0.1" (fixed), "logistic:256",
    "unit-gaussian:0.1" (means in (0, 1)), "shared-gaussian" (one learned scale for all values).

    A module is passed through: it needs `count` (numbers a value), `forward(params) -> distribution`,
    `mean(params)`, `check(x, name)` and the methods `more`. `owner` is the model it is for, for messages.

    Raises:
        ValueError: an unknown name, a number that does not parse, or a module that lacks one of these.
    """
    if isinstance(spec, nn.Module):
        check_likelihood(spec, "forward", more, owner, "ppl_models.parts.Bernoulli")
        return spec
    kinds = {"bernoulli": Bernoulli, "gaussian": Gaussian, "unit-gaussian": UnitGaussian, "logistic": Logistic}
    kinds["shared-gaussian"] = SharedGaussian
    return likelihood_of(spec, kinds, owner)
