"""`MultiScale`: bijections of images, given as flat rows, in scales of which each leaves half of its numbers as noise.

Every step is one of the whole row, and leaves the entries that are not its own as they are. So nothing is moved about:
what a scale works on, its channels among that, is a table of places in the row.
"""

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from pyro.distributions.transforms import GeneralizedChannelPermute
from pyro.distributions.transforms.generalized_channel_permute import ConditionedGeneralizedChannelPermute
from torch import Tensor, nn
from torch.distributions import AffineTransform, IndependentTransform, Transform, constraints
from torch.nn.functional import silu

from ..nets import ConvBlock
from .autoregressive import Autoregressive, affine
from .scales import Style, plan, slots


class MaskedConv(nn.Module):
    """Two numbers for each entry of a row: zeros, but for those in `changed`, which a network gives from the others.

        h = conv(x (1 - changed));   h <- ConvBlock(h), depth times;   out = changed conv(silu(h))

    The last convolution starts at zero. It is a `MaskedNet` of two levels, with convolutions.

    Args:
        size: of a row.
        places: (channels, height, width), where in a row the entries of the scale are.
        changed: of the same shape, the entries that get numbers.
        hidden: channels of the network.
        depth: residual blocks of it.
    """

    passes = 2
    places: Tensor
    at: Tensor
    changed: Tensor

    def __init__(self, size: int, places: np.ndarray, changed: np.ndarray, hidden: int, depth: int) -> None:
        super().__init__()
        channels = len(places)
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.register_buffer("at", torch.tensor(slots(size, places)), persistent=False)  # beyond the end is a zero
        self.register_buffer("changed", torch.tensor(changed, dtype=torch.get_default_dtype()), persistent=False)
        self.first = nn.Conv2d(channels, hidden, 3, padding=1)
        self.blocks = nn.Sequential(*(ConvBlock(hidden) for _ in range(depth)))
        self.last = nn.Conv2d(hidden, 2 * channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(*batch, n) -> (*batch, n, 2)."""
        image = x[..., self.places.flatten()].reshape(-1, *self.places.shape)
        h = self.last(silu(self.blocks(self.first(image * (1 - self.changed)))))
        numbers = (h.unflatten(1, (2, -1)) * self.changed).flatten(2)
        numbers = torch.cat([numbers, numbers.new_zeros(len(numbers), 2, 1)], -1)[..., self.at]
        return numbers.transpose(1, 2).reshape(*x.shape, 2)

    def transforms(self) -> list[Transform]:
        """The coupling, an affine one."""
        return [Autoregressive(self, affine)]


class OnPlaces(Transform):
    """A transform of images, applied to some places of a row; the others stay.

    Args:
        transform: of images (channels, height, width).
        places: of that shape.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, transform: Transform, places: Tensor, cache_size: int = 1) -> None:
        super().__init__(cache_size=cache_size)
        self.transform, self.places = transform, places

    def _image(self, x: Tensor) -> Tensor:
        return x[..., self.places.flatten()].unflatten(-1, self.places.shape)

    def _put(self, x: Tensor, image: Tensor) -> Tensor:
        return x.index_copy(-1, self.places.flatten(), image.flatten(-3))

    def _call(self, x: Tensor) -> Tensor:
        return self._put(x, self.transform(self._image(x)))

    def _inverse(self, y: Tensor) -> Tensor:
        return self._put(y, self.transform.inv(self._image(y)))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log|det dy/dx|, (*batch,)."""
        return self.transform.log_abs_det_jacobian(self._image(x), self._image(y))

    def with_cache(self, cache_size: int = 1) -> "OnPlaces":
        """The same map with another cache size; the map itself if it is the one asked for."""
        return self if cache_size == self._cache_size else OnPlaces(self.transform, self.places, cache_size)


class ChannelMap(nn.Module):
    """y = W (exp(s) x + b) of the channels of a scale: an activation normalization and an invertible 1 x 1 convolution.

    W = P L U starts as a random orthogonal matrix, s and b at zero.

    Args:
        places: (channels, height, width), where in a row the entries of the scale are.
    """

    places: Tensor
    permutation: Tensor

    def __init__(self, places: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("places", torch.tensor(places), persistent=False)
        start = GeneralizedChannelPermute(len(places))
        self.register_buffer("permutation", start.permutation)
        self.matrix = nn.Parameter(start.LU.detach().clone())
        self.log_scale, self.shift = (nn.Parameter(torch.zeros(len(places), 1, 1)) for _ in range(2))

    def transforms(self) -> list[Transform]:
        """The normalization, then the convolution."""
        scaled = IndependentTransform(AffineTransform(self.shift, self.log_scale.exp()), 3)
        mixed = ConditionedGeneralizedChannelPermute(self.permutation, self.matrix)
        return [OnPlaces(scaled, self.places), OnPlaces(mixed, self.places)]


class MultiScale(nn.Module):
    """Steps from images to noise.

        "real-nvp"  at each scale three couplings by checkerboards, squeeze, three couplings by channels, split; after
                    the last scale four couplings by checkerboards
        "glow"      at each scale squeeze, then a `ChannelMap` and a coupling by channels, `steps` times; then split,
                    except at the last scale

    Squeeze makes each square of 2 x 2 entries channels of one pixel, the two of its diagonal first. Split leaves the
    second half of the channels as noise ("glow" scales and shifts it, given the first half); the first half goes on.

    Args:
        image: (channels, height, width), whose sides can be halved `levels` times.
        style: "real-nvp" or "glow".
        levels: how often images are squeezed.
        hidden, depth: channels and residual blocks of the networks, see `MaskedConv`.
        steps: number of steps of each scale of "glow".
    """

    def __init__(
        self, image: Sequence[int], style: Style, levels: int, hidden: int, depth: int, steps: int = 8
    ) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            ChannelMap(places) if changed is None else MaskedConv(prod(image), places, changed, hidden, depth)
            for places, changed in plan(image, style, levels, steps)
        )

    def transforms(self) -> list[Transform]:
        """The steps, from images to noise."""
        return [transform for step in self.steps for transform in step.transforms()]
