"""Ports of `ppl_models.parts.nets.ladder`: a code to an image, and an image to features, by way of several scales."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import silu

from ppl_models.parts.arguments.sizes import scales, shared_among

from .convolutions import ConvBlock
from .layers import Conv, Linear, interpolate


class Pyramid(eqx.Module):
    """Port of `ppl_models.parts.nets.ladder.Pyramid`; `key` seeds the weights."""

    strided: tuple[Conv, ...]
    blocks: tuple[ConvBlock, ...]
    depth: int = eqx.field(static=True)

    def __init__(self, image: Sequence[int], channels: int = 16, depth: int = 1, *, key: Array) -> None:
        self.depth = depth
        widths = [image[0], *(channels * 2**k for k in range(len(scales(image))))]
        keys = iter(jax.random.split(key, (depth + 1) * len(widths)))
        self.strided = tuple(Conv(a, b, 3, stride=2, padding=1, key=next(keys)) for a, b in pairwise(widths))
        self.blocks = tuple(ConvBlock(width, key=next(keys)) for width in widths[1:] for _ in range(depth))

    def __call__(self, x: Array) -> list[Array]:
        """(n, channels, height, width) -> the maps, the largest first."""
        maps = []
        for i, layer in enumerate(self.strided):
            x = layer(silu(x) if i else x)
            for block in self.blocks[i * self.depth : (i + 1) * self.depth]:
                x = block(x)
            maps.append(x)
        return maps


class PyramidEncoder(eqx.Module):
    """Port of `ppl_models.parts.nets.ladder.PyramidEncoder`; `key` seeds the weights."""

    pyramid: Pyramid
    heads: tuple[Linear, ...]
    image: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, image: Sequence[int], output: int, channels: int = 16, depth: int = 1, *, key: Array) -> None:
        self.image = tuple(image)
        sizes = scales(image)
        own, *keys = jax.random.split(key, len(sizes) + 1)
        self.pyramid = Pyramid(image, channels, depth, key=own)
        shares = shared_among(output, len(sizes))
        widths = [channels * 2**k * prod(size) for k, size in enumerate(sizes)]
        self.heads = tuple(Linear(width, share, key=k) for width, share, k in zip(widths, shares, keys, strict=True))

    def __call__(self, x: Array) -> Array:
        """(*batch, channels * height * width) -> (*batch, output)."""
        maps = self.pyramid(x.reshape(-1, *self.image))
        features = [head(silu(h).reshape(len(h), -1)) for head, h in zip(self.heads, maps, strict=True)]
        return jnp.concatenate(features, -1).reshape(*x.shape[:-1], -1)


class LadderNet(eqx.Module):
    """Port of `ppl_models.parts.nets.ladder.LadderNet`; `key` seeds the weights."""

    codes: tuple[Linear, ...]
    narrow: tuple[Conv, ...]
    blocks: tuple[ConvBlock, ...]
    pyramid: Pyramid | None
    last: Conv
    image: tuple[int, ...] = eqx.field(static=True)
    sizes: tuple[int, ...] = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    maps: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    context: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        sizes: Sequence[int],
        image: Sequence[int],
        context: int | None = None,
        channels: int = 16,
        depth: int = 1,
        *,
        key: Array,
    ) -> None:
        self.image, self.sizes, self.depth = tuple(image), tuple(sizes), depth
        self.maps = tuple((channels * 2**k, *size) for k, size in enumerate(scales(image)))
        keys = iter(jax.random.split(key, (depth + 2) * len(self.maps) + 1))
        self.codes = tuple(Linear(n, prod(m), key=next(keys)) for n, m in zip(sizes, self.maps, strict=True))
        self.narrow = tuple(Conv(b[0], a[0], 1, key=next(keys)) for a, b in pairwise(self.maps))
        self.blocks = tuple(ConvBlock(m[0], key=next(keys)) for m in self.maps for _ in range(depth))
        self.context = None if context is None else (context, *image[1:])
        self.pyramid = None if context is None else Pyramid(self.context, channels, depth, key=next(keys))
        self.last = Conv(self.maps[0][0], image[0], 3, padding=1, key=next(keys))

    def __call__(self, z: Array, context: Array | None = None) -> Array:
        """(*batch, sum of sizes), and the flat context (*batch, c h w) if there is one -> (*batch, C * H * W)."""
        batch = z.shape[:-1]
        skips: list[Array] = []
        if context is not None:
            batch = jnp.broadcast_shapes(batch, context.shape[:-1])
            skips = self.pyramid(jnp.broadcast_to(context, (*batch, context.shape[-1])).reshape(-1, *self.context))
        codes = jnp.broadcast_to(z, (*batch, z.shape[-1])).reshape(prod(batch), -1)
        parts = jnp.split(codes, list(accumulate(self.sizes))[:-1], -1)
        h = None
        for k in reversed(range(len(self.maps))):
            if h is not None:
                h = interpolate(self.narrow[k](h), self.maps[k][1:])
            entering = self.codes[k](parts[k]).reshape(-1, *self.maps[k])
            h = entering if h is None else h + entering
            h = h + skips[k] if skips else h
            for block in self.blocks[k * self.depth : (k + 1) * self.depth]:
                h = block(h)
        return self.last(interpolate(silu(h), self.image[1:])).reshape(*batch, -1)
