"""Distributions of images: autoregressive over pixels, and over the channels of one as mixtures of logistics."""

from collections.abc import Callable
from math import prod

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import log_softmax

from .distributions import DiscretizedLogistic
from .likelihoods import Logistic
from .nets import PixelCNN


class AutoregressiveImage(TorchDistribution):
    """Images, as flat rows in the order C, H, W, drawn pixel by pixel.

        p(x | c) = prod_i p(x_i | x_1, ..., x_{i-1}, c)

    A density takes one pass of the network for all pixels, a draw one incremental pass (`PixelCNN.generate`).

    Args:
        net: gives the numbers of every pixel from the image and the context, each from the pixels before it.
        context: c, (*batch, context).
        pixel: from the numbers of a pixel, (*any, output), to the distribution of its values, event (channels,).
    """

    arg_constraints = {"context": constraints.real_vector}

    def __init__(
        self,
        net: PixelCNN,
        context: Tensor,
        pixel: Callable[[Tensor], torch.distributions.Distribution],
        validate_args: bool | None = None,
    ) -> None:
        self.net, self.context, self.pixel = net, context, pixel
        super().__init__(context.shape[:-1], torch.Size([prod(net.image)]), validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: "AutoregressiveImage | None" = None) -> "AutoregressiveImage":
        """The same distribution with batch dimensions added on the left."""
        new = self._get_checked_instance(AutoregressiveImage, _instance)
        new.net, new.pixel = self.net, self.pixel
        new.context = self.context.expand(torch.Size(batch_shape) + self.context.shape[-1:])
        super(AutoregressiveImage, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def support(self) -> constraints.Constraint:
        """The support of the values of a pixel."""
        outputs = self.net.last.out_channels
        support = self.pixel(self.context.new_zeros(outputs)).support
        while isinstance(support, type(constraints.real_vector)):
            support = support.base_constraint
        return constraints.independent(support, 1)

    def check_value(self, value: Tensor) -> None:
        """Raise ValueError if a value is outside the support; a density would cost a pass of the network."""
        self._validate_sample(value)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, (*batch,)."""
        if self._validate_args:
            self._validate_sample(value)
        batch = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        images = value.expand(*batch, value.shape[-1]).reshape(-1, *self.net.image)
        context = self.context.expand(*batch, self.context.shape[-1]).reshape(len(images), self.context.shape[-1])
        each = self.pixel(self.net(images, context)).log_prob(images.permute(0, 2, 3, 1))
        return each.sum((-2, -1)).reshape(batch)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        """Draws, (*sample_shape, *batch, D)."""
        batch = torch.Size(sample_shape) + self.batch_shape
        context = self.context.expand(*batch, self.context.shape[-1]).reshape(prod(batch), self.context.shape[-1])
        drawn = self.net.generate(context, lambda params: self.pixel(params).sample())
        return drawn.reshape(*batch, -1)


class LogisticMixture(TorchDistribution):
    """A pixel of several channels, each one of `levels` grey levels k / (levels - 1): one component for all of them.

        P(x) = sum_k pi_k prod_c P_logistic(x_c; m_ck, s_ck),      m_ck = mu_ck + sum_{c' < c} a_cc'k x_c'

    P_logistic integrates a logistic density over the bin of a level (`DiscretizedLogistic`). Locations and scales are
    of values scaled to [-1, 1], so that a_cc'k x_c' vanishes at mid grey.

    Args:
        logits: of pi, (*batch, components).
        loc: mu, (*batch, components, channels).
        scale: s > 0, likewise.
        mixing: a, (*batch, components, channels, channels), of which the strictly lower part is read.
        levels: number of grey levels.

    Source: Salimans et al. 2017, "PixelCNN++" (arXiv 1701.05517), eq. 1 to 3.
    """

    arg_constraints = {"logits": constraints.real_vector, "loc": constraints.independent(constraints.real, 2)}

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        mixing: Tensor,
        levels: int = 256,
        validate_args: bool | None = None,
    ) -> None:
        self.logits, self.loc, self.scale = log_softmax(logits, -1), loc, scale
        self.mixing, self.levels = mixing.tril(-1), levels
        super().__init__(logits.shape[:-1], loc.shape[-1:], validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """Grey levels in [0, 1], for each channel."""
        return constraints.independent(DiscretizedLogistic.support, 1)

    def expand(self, batch_shape: torch.Size, _instance: "LogisticMixture | None" = None) -> "LogisticMixture":
        """The same distribution with batch dimensions added on the left."""
        new = self._get_checked_instance(LogisticMixture, _instance)
        batch, rank = torch.Size(batch_shape), len(self.batch_shape)
        for name in ("logits", "loc", "scale", "mixing"):
            value = getattr(self, name)
            setattr(new, name, value.expand(batch + value.shape[rank:]))
        new.levels = self.levels
        super(LogisticMixture, new).__init__(batch, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _channels(self, x: Tensor) -> DiscretizedLogistic:
        """Of every component and channel given the channels before it, x (*batch, channels) in [0, 1]."""
        loc = self.loc + (self.mixing @ (2 * x - 1)[..., None, :, None]).squeeze(-1)
        return DiscretizedLogistic(0.5 + 0.5 * loc, 0.5 * self.scale, self.levels, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of the levels of a pixel in nats, (*batch,)."""
        if self._validate_args:
            self._validate_sample(value)
        each = self._channels(value).log_prob(value[..., None, :]).sum(-1)
        return torch.logsumexp(self.logits + each, -1)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws on the grid of levels, (*sample_shape, *batch, channels)."""
        wide = self.expand(torch.Size(sample_shape) + self.batch_shape)
        component = torch.distributions.Categorical(logits=wide.logits).sample()
        x = torch.full_like(wide.loc[..., 0, :], 0.5)
        for c in range(self.event_shape[0]):
            each = wide._channels(x).sample()[..., c]
            x[..., c] = each.gather(-1, component[..., None]).squeeze(-1)
        return x


class PixelMixture(nn.Module):
    """A pixel's `LogisticMixture` from the numbers that a network gives.

    Scales are at least e^-7 in units of [-1, 1], and the mixing of channels is a tanh.

    Args:
        channels: of a pixel.
        levels: number of grey levels.
        components: of the mixture.

    Attributes:
        output: numbers a pixel: components (1 + 2 channels + channels (channels - 1) / 2).

    Source: as for `LogisticMixture`; the floor of the scales by its authors' code.
    """

    def __init__(self, channels: int, levels: int = 256, components: int = 10) -> None:
        super().__init__()
        self.channels, self.levels, self.components = channels, levels, components
        self.output = components * (1 + 2 * channels + channels * (channels - 1) // 2)

    def forward(self, params: Tensor) -> LogisticMixture:
        """(*batch, output) -> the distribution of a pixel, batch (*batch), event (channels,)."""
        k, c = self.components, self.channels
        logits, loc, log_scale, mixing = params.split([k, k * c, k * c, k * c * (c - 1) // 2], -1)
        loc, log_scale = loc.unflatten(-1, (k, c)), log_scale.unflatten(-1, (k, c))
        matrix = loc.new_zeros(*loc.shape, c)
        if c > 1:
            row, column = torch.tril_indices(c, c, -1, device=params.device)
            matrix = matrix.flatten(-2).index_copy(-1, row * c + column, mixing.tanh().unflatten(-1, (k, -1)))
            matrix = matrix.unflatten(-1, (c, c))
        return LogisticMixture(logits, loc, log_scale.clamp(min=-7).exp(), matrix, self.levels)


def mixture_of(likelihood: nn.Module, channels: int, components: int) -> tuple[PixelMixture | None, int]:
    """(the mixture of a logistic likelihood, None of any other; how many numbers the network gives a pixel)."""
    if not isinstance(likelihood, Logistic):
        return None, likelihood.count * channels
    mixture = PixelMixture(channels, likelihood.levels, components)
    return mixture, mixture.output
