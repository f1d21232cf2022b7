"""From stored values to the numbers a model sees: scaling, binarization, dequantization and the logit.

A transform is called with the values of a `Data` as they are stored, grey levels 0 .. levels - 1 for images,
and returns float32 of the same shape on the same device. All the randomness of a data set lives here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Is, Number, Seed


@dataclass(frozen=True)
class Identity:
    """Real data as they are: y = v, in the units of the file, any shape."""

    def __call__(self, values: Tensor) -> Tensor:
        """y = v as float32."""
        return values.float()

    def to_unit(self, y: Tensor) -> Tensor:
        """y itself: real data have no scale to undo."""
        return y


@dataclass(frozen=True)
class Redrawn:
    """Real data known by their means and standard deviations, side by side in a row: y ~ N(m, s^2) at each call.

    Rows (..., 2 D) are stored, and (..., D) come of them: codes of data, drawn anew at each access.
    """

    stored: ClassVar[int] = 2  # numbers for each that a model sees

    def __call__(self, values: Tensor) -> Tensor:
        """y = m + s e, e ~ N(0, I), float32, (..., D)."""
        mean, deviation = values.float().chunk(2, -1)
        return mean + deviation * torch.randn_like(mean)

    def to_unit(self, y: Tensor) -> Tensor:
        """y itself: real data have no scale to undo."""
        return y


@checked
@dataclass(frozen=True)
class Scale:
    """Grey levels on [0, 1]: y = v / (levels - 1), v in 0 .. levels - 1, any shape.

    Raises ValueError unless `levels` is an integer of at least 2.
    """

    levels: Annotated[int, Number(whole=True, least=2)]

    def __call__(self, values: Tensor) -> Tensor:
        """y = v / (levels - 1), float32."""
        return values.float() / (self.levels - 1)

    def to_unit(self, y: Tensor) -> Tensor:
        """y itself, which lies in [0, 1] already."""
        return y


@checked
@dataclass(frozen=True)
class Binarize:
    """Binary images: y ~ Bernoulli(v / (levels - 1)) independently for each pixel, any shape.

    Without `seed` every call draws anew from torch's generator of the device (dynamic binarization). With
    `seed` every call starts the same stream, so equal calls give equal images; the draw of a datum then
    depends on its place in the call, which is why `load` fixes held-out parts by one call on the whole part.
    The stream, and so the fixed draw, is one of the CPU and another of an accelerator.

    Raises ValueError unless `levels` is an integer of at least 2.
    Source: Salakhutdinov and Murray 2008 (static); Burda et al. 2016, arXiv 1509.00519 (dynamic).
    """

    levels: Annotated[int, Number(whole=True, least=2)]
    seed: Seed | None = None

    def __call__(self, values: Tensor) -> Tensor:
        """y ~ Bernoulli(v / (levels - 1)), float32 zeros and ones."""
        generator = None
        if self.seed is not None:
            generator = torch.Generator(device=values.device).manual_seed(self.seed)
        return torch.bernoulli(values.float() / (self.levels - 1), generator=generator)

    def to_unit(self, y: Tensor) -> Tensor:
        """y itself, which lies in [0, 1] already."""
        return y


@checked
@dataclass(frozen=True)
class Dequantize:
    """Grey levels made continuous: y = (v + u) / levels in [0, 1), u ~ Uniform[0, 1) anew at each call.

    With `seed` the noise of a row is always the same, wherever it stands, as in data that were dequantized once: it is
    computed from the row's own levels (`fixed_noise`).

    Raises ValueError unless `levels` is an integer of at least 2.
    Source: Uria, Murray, Larochelle 2013, arXiv 1306.0186; Theis et al. 2016, arXiv 1511.01844.
    """

    levels: Annotated[int, Number(whole=True, least=2)]
    seed: Seed | None = None

    def __call__(self, values: Tensor) -> Tensor:
        """y = (v + u) / levels, float32; floor(levels y) is v again."""
        v = values.float()
        noise = torch.rand_like(v) if self.seed is None else fixed_noise(values, self.seed)
        # Rounding to float32 carries v + u up to v + 1, the next grey level, about once in 10^5 pixels.
        noisy = torch.minimum(v + noise, torch.nextafter(v + 1, v))
        return noisy / self.levels

    def to_unit(self, y: Tensor) -> Tensor:
        """y itself, which lies in [0, 1] already."""
        return y


@checked
@dataclass(frozen=True)
class Logit:
    """Grey levels on the real line: y = logit(alpha + (1 - 2 alpha) u), u = `Dequantize(levels)`(v).

    `alpha` (the lambda of the MAF paper) keeps y finite; it is 1e-6 there for MNIST and 0.05 for CIFAR-10. `seed` is
    that of `Dequantize`: with one the noise of a row is always the same, as in the MAF paper.
    Raises ValueError unless `levels` is an integer of at least 2 and 0 < alpha < 1/2.
    Source: Dinh et al. 2017, arXiv 1605.08803; Papamakarios et al. 2017, arXiv 1705.07057.
    """

    levels: Annotated[int, Number(whole=True, least=2)]
    alpha: Annotated[float, Number(above=0, below=0.5)] = 1e-6
    seed: Seed | None = None

    def __call__(self, values: Tensor) -> Tensor:
        """y = logit(alpha + (1 - 2 alpha) u), float32, at most log((1 - alpha) / alpha) in size."""
        u = Dequantize(self.levels, self.seed)(values)
        # Not 1 - white: near white that is of the size of alpha and would drown in rounding.
        white = self.alpha + (1 - 2 * self.alpha) * u
        black = self.alpha + (1 - 2 * self.alpha) * (1 - u)
        return white.log() - black.log()

    def to_unit(self, y: Tensor) -> Tensor:
        """u = (sigmoid(y) - alpha) / (1 - 2 alpha), cut off to [0, 1] so that any sample is a picture."""
        return ((torch.sigmoid(y) - self.alpha) / (1 - 2 * self.alpha)).clamp(0.0, 1.0)

    def log_abs_det(self, y: Tensor) -> Tensor:
        """Logarithm of |det dy/du|: sum_i [log(1 - 2 alpha) - log s(y_i) - log(1 - s(y_i))], s the sigmoid.

        `y` is (..., D), the result (...), in nats: log p(u) = log p(y) + log_abs_det(y).
        """
        return (math.log1p(-2 * self.alpha) + softplus(-y) + softplus(y)).sum(-1)


def fixed_noise(values: Tensor, seed: int) -> Tensor:
    """Uniform numbers in [0, 1) for the entries of rows (..., D), float32, that depend on the row and the seed alone.

    Hashed by the finalizer of SplitMix64 (Steele, Lea, Flood 2014), row first and then row and place.
    """
    place = torch.arange(values.shape[-1], device=values.device)
    row = (values.long() * _mixed(place + seed * 1_000_003)).sum(-1, keepdim=True)
    return ((_mixed(_mixed(row) + place) >> 40) & (2**24 - 1)).float() / 2**24


def _mixed(z: Tensor) -> Tensor:
    """The finalizer of SplitMix64, of 64-bit integers that wrap."""
    z = z * -7046029254386353131  # 0x9e3779b97f4a7c15 of the Weyl sequence
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        z = (z ^ ((z >> shift) & (2 ** (64 - shift) - 1))) * factor
    return z ^ ((z >> 31) & (2**33 - 1))


Transform = Identity | Scale | Binarize | Dequantize | Logit | Redrawn
"""What turns the numbers of a file into those that a model sees: one of these."""

Word = Literal["default", "binarize", "dequantize", "logit", "redraw", "none"]  # for one that the data tell
Wanted = (
    Word | Annotated[Transform, Is("a transform such as Logit(256, 0.05)", lambda value: isinstance(value, Transform))]
)
"""Which transform a caller wants: by a word, or the transform itself."""
