"""Convolutional networks of flat rows: of images to features, of vectors to images, of maps to maps."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from ..arguments.sizes import halvings
from .perceptrons import Net


class ConvBlock(nn.Module):
    """Residual block h + conv(silu(conv(silu(h)))), 3 x 3, the second convolution starting at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
        self.outer = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, h: Tensor) -> Tensor:
        """(n, channels, height, width) -> the same."""
        return h + self.outer(silu(self.inner(silu(h))))


class ConvEncoder(nn.Module):
    """Images, given as flat rows, to feature vectors: strided convolutions with residual blocks, then a linear layer.

    Args:
        image: (channels, height, width) of a row.
        output: number of features.
        channels: of the first convolution; doubled at each halving of the image.
        depth: residual blocks at each resolution.
    """

    def __init__(self, image: Sequence[int], output: int, channels: int = 16, depth: int = 1) -> None:
        super().__init__()
        self.image = tuple(image)
        layers: list[nn.Module] = [nn.Conv2d(image[0], channels, 3, padding=1)]
        height, width = image[1:]
        while max(height, width) > 7:
            layers += [*(ConvBlock(channels) for _ in range(depth)), nn.SiLU()]
            layers += [nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)]
            channels, height, width = 2 * channels, (height + 1) // 2, (width + 1) // 2
        layers += [*(ConvBlock(channels) for _ in range(depth)), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(channels * height * width, output)

    def forward(self, x: Tensor) -> Tensor:
        """(*batch, channels * height * width) -> (*batch, output)."""
        batch = x.shape[:-1]
        h = self.layers(x.reshape(-1, *self.image))
        return self.last(h.flatten(1)).reshape(*batch, -1)


class ConvNet(nn.Module):
    """Vectors, and optionally an image, to an image: the residual-convolutional counterpart of `Net`.

    The vectors give a small map by a linear layer, which is enlarged (nearest neighbour) with residual blocks at each
    size; an image input, resized to the output, joins by a 3 x 3 convolution before the blocks of the last size.

    Args:
        inputs: width of each vector.
        image: (channels, height, width) of the output.
        context: (channels, height, width) of an image input, given as flat rows, or None.
        channels: of the last map; doubled at each halving.
        depth: residual blocks at each size.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        image: Sequence[int],
        context: Sequence[int] | None = None,
        channels: int = 16,
        depth: int = 1,
    ) -> None:
        super().__init__()
        self.depth = depth
        self.image, self.context = tuple(image), None if context is None else tuple(context)
        self.sizes = halvings(image[1:])[::-1]
        widths = [min(channels * 2**i, 128) for i in range(len(self.sizes))][::-1]
        self.start = (widths[0], *self.sizes[0])
        self.first = nn.ModuleList(nn.Linear(n, prod(self.start), bias=i == 0) for i, n in enumerate(inputs))
        self.blocks = nn.ModuleList(ConvBlock(w) for w in widths for _ in range(depth))
        self.narrow = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, widths[1:], strict=False))
        self.join = None if context is None else nn.Conv2d(context[0], widths[-1], 3, padding=1)
        self.last = nn.Conv2d(widths[-1], image[0], 3, padding=1)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Vectors (*batch, n_i), then the flat context (*batch, c h w) if there is one -> (*batch, C * H * W)."""
        vectors = inputs if self.join is None else inputs[:-1]
        h = sum(layer(v) for layer, v in zip(self.first, vectors, strict=True))
        batch = h.shape[:-1] if self.join is None else torch.broadcast_shapes(h.shape[:-1], inputs[-1].shape[:-1])
        h = h.expand(*batch, h.shape[-1]).reshape(-1, *self.start)
        for i in range(len(self.sizes)):
            if i:
                h = interpolate(self.narrow[i - 1](h), size=self.sizes[i])
            if self.join is not None and i == len(self.sizes) - 1:
                c = inputs[-1].expand(*batch, inputs[-1].shape[-1]).reshape(-1, *self.context)
                h = h + self.join(interpolate(c, size=self.sizes[-1]))
            for j in range(self.depth):
                h = self.blocks[i * self.depth + j](h)
        return self.last(silu(h)).reshape(*batch, -1)


class MapNet(nn.Module):
    """A map to a larger one of features: a 3 x 3 convolution, then residual blocks at each size on the way.

    Args:
        map: (channels, height, width) of the input, given as flat rows.
        output: channels.
        sizes: (height, width) of the maps on the way (nearest neighbour), the output's last.
        channels: of them.
        depth: residual blocks at each size.
    """

    def __init__(
        self,
        map: Sequence[int],  # noqa: A002
        output: int,
        sizes: Sequence[tuple[int, ...]],
        channels: int = 16,
        depth: int = 1,
    ) -> None:
        super().__init__()
        self.map, self.sizes, self.depth = tuple(map), list(sizes), depth
        self.first = nn.Conv2d(map[0], channels, 3, padding=1)
        self.blocks = nn.ModuleList(ConvBlock(channels) for _ in sizes for _ in range(depth))
        self.last = nn.Conv2d(channels, output, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(*batch, channels * height * width) -> (*batch, output * height' * width')."""
        h = self.first(z.reshape(-1, *self.map))
        for i, size in enumerate(self.sizes):
            h = interpolate(h, size=size)
            for block in self.blocks[i * self.depth : (i + 1) * self.depth]:
                h = block(h)
        return self.last(silu(h)).reshape(*z.shape[:-1], -1)


def between(shape: Sequence[int], output: Sequence[int], hidden: int, depth: int) -> Net | MapNet:
    """A network from one state of a hierarchy to the next, or to data: `Net` for vectors, `MapNet` for maps."""
    if len(shape) == 1:
        return Net(shape, prod(output), hidden, depth, norm=True)
    return MapNet(shape, output[0], [tuple(output[1:])], shape[0], depth)
