"""Convolutional ladders: codes of several scales to an image, and an image to features of several scales.

Without batch normalization, which would make an image depend on those beside it and on the mode of the module: blocks
are residual and start as the identity.

Source: after Zhao, Song, Ermon 2017, "Learning Hierarchical Features from Generative Models" (arXiv 1702.08396).
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from ..arguments.sizes import scales, shared_among
from .convolutions import ConvBlock


class Pyramid(nn.Module):
    """An image to its maps at every scale: strided convolutions with residual blocks.

    Args:
        image: (channels, height, width).
        channels: of the largest map; doubled at each halving.
        depth: residual blocks at each scale.
    """

    def __init__(self, image: Sequence[int], channels: int = 16, depth: int = 1) -> None:
        super().__init__()
        self.depth = depth
        widths = [image[0], *(channels * 2**k for k in range(len(scales(image))))]
        self.strided = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(ConvBlock(width) for width in widths[1:] for _ in range(depth))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, channels, height, width) -> the maps, the largest first."""
        maps = []
        for i, layer in enumerate(self.strided):
            x = layer(silu(x) if i else x)
            for block in self.blocks[i * self.depth : (i + 1) * self.depth]:
                x = block(x)
            maps.append(x)
        return maps


class PyramidEncoder(nn.Module):
    """Images, given as flat rows, to features that come from maps of every scale, not from the smallest alone.

    Args:
        image: (channels, height, width) of a row.
        output: number of features, shared evenly among the scales, the smallest of which takes the rest.
        channels, depth: see `Pyramid`.
    """

    def __init__(self, image: Sequence[int], output: int, channels: int = 16, depth: int = 1) -> None:
        super().__init__()
        self.image = tuple(image)
        self.pyramid = Pyramid(image, channels, depth)
        sizes = scales(image)
        shares = shared_among(output, len(sizes))
        widths = [channels * 2**k * prod(size) for k, size in enumerate(sizes)]
        self.heads = nn.ModuleList(nn.Linear(width, share) for width, share in zip(widths, shares, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """(*batch, channels * height * width) -> (*batch, output)."""
        maps = self.pyramid(x.reshape(-1, *self.image))
        features = [head(silu(h).flatten(1)) for head, h in zip(self.heads, maps, strict=True)]
        return torch.cat(features, -1).reshape(*x.shape[:-1], -1)


class LadderNet(nn.Module):
    """A code whose parts enter at different scales, and optionally an image, to an image.

        h_K = W_K l_K + e_K;     h_k = blocks(up(h_{k+1}) + W_k l_k + e_k);     output = conv(up(h_1))

    where l_k is the part of the code for scale k and e_k the map of the image input at that scale.

    Args:
        sizes: of the parts of the code, that of the largest map first, one for each of the `scales`.
        image: (channels, height, width) of the output.
        context: channels of an image input of the same height and width, given as flat rows, or None.
        channels, depth: see `Pyramid`.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        image: Sequence[int],
        context: int | None = None,
        channels: int = 16,
        depth: int = 1,
    ) -> None:
        super().__init__()
        self.image, self.sizes, self.depth = tuple(image), list(sizes), depth
        self.maps = [(channels * 2**k, *size) for k, size in enumerate(scales(image))]
        self.codes = nn.ModuleList(nn.Linear(n, prod(m)) for n, m in zip(sizes, self.maps, strict=True))
        self.narrow = nn.ModuleList(nn.Conv2d(b[0], a[0], 1) for a, b in pairwise(self.maps))
        self.blocks = nn.ModuleList(ConvBlock(m[0]) for m in self.maps for _ in range(depth))
        self.context = None if context is None else (context, *image[1:])
        self.pyramid = None if context is None else Pyramid(self.context, channels, depth)
        self.last = nn.Conv2d(self.maps[0][0], image[0], 3, padding=1)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """(*batch, sum of sizes), and the flat context (*batch, c h w) if there is one -> (*batch, C * H * W)."""
        batch = z.shape[:-1]
        skips: list[Tensor] = []
        if context is not None:
            batch = torch.broadcast_shapes(batch, context.shape[:-1])
            skips = self.pyramid(context.expand(*batch, context.shape[-1]).reshape(-1, *self.context))
        parts = z.expand(*batch, z.shape[-1]).reshape(prod(batch), -1).split(self.sizes, -1)
        h = None
        for k in reversed(range(len(self.maps))):
            if h is not None:
                h = interpolate(self.narrow[k](h), size=self.maps[k][1:])
            entering = self.codes[k](parts[k]).reshape(-1, *self.maps[k])
            h = entering if h is None else h + entering
            h = h + skips[k] if skips else h
            for block in self.blocks[k * self.depth : (k + 1) * self.depth]:
                h = block(h)
        return self.last(interpolate(silu(h), size=self.image[1:])).reshape(*batch, -1)
