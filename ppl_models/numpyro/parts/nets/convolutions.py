"""Port of `ppl_models.parts.nets.convolutions`: of images to features, of vectors to images, of maps to maps."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import silu

from ppl_models.parts.arguments.sizes import halvings

from .layers import Conv, Linear, Silu, interpolate, zeroed
from .perceptrons import Net


class ConvBlock(eqx.Module):
    """Residual block h + conv(silu(conv(silu(h)))), 3 x 3, the second convolution starting at zero."""

    inner: Conv
    outer: Conv

    def __init__(self, channels: int, *, key: Array) -> None:
        keys = jax.random.split(key)
        self.inner = Conv(channels, channels, 3, padding=1, key=keys[0])
        self.outer = zeroed(Conv(channels, channels, 3, padding=1, key=keys[1]))

    def __call__(self, h: Array) -> Array:
        """(n, channels, height, width) -> the same."""
        return h + self.outer(silu(self.inner(silu(h))))


class ConvEncoder(eqx.Module):
    """Port of `ppl_models.parts.ConvEncoder`; `key` seeds the weights."""

    layers: tuple[Conv | ConvBlock | Silu, ...]
    last: Linear
    image: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, image: Sequence[int], output: int, channels: int = 16, depth: int = 1, *, key: Array) -> None:
        self.image = tuple(image)
        key, own = jax.random.split(key)
        layers: list[Conv | ConvBlock | Silu] = [Conv(image[0], channels, 3, padding=1, key=own)]
        height, width = image[1:]
        while max(height, width) > 7:
            key, own, *keys = jax.random.split(key, depth + 2)
            layers += [*(ConvBlock(channels, key=k) for k in keys), Silu()]
            layers += [Conv(channels, 2 * channels, 3, stride=2, padding=1, key=own)]
            channels, height, width = 2 * channels, (height + 1) // 2, (width + 1) // 2
        own, *keys = jax.random.split(key, depth + 1)
        self.layers = (*layers, *(ConvBlock(channels, key=k) for k in keys), Silu())
        self.last = Linear(channels * height * width, output, key=own)

    def __call__(self, x: Array) -> Array:
        """(*batch, channels * height * width) -> (*batch, output)."""
        h = x.reshape(-1, *self.image)
        for layer in self.layers:
            h = layer(h)
        return self.last(h.reshape(len(h), -1)).reshape(*x.shape[:-1], -1)


class ConvNet(eqx.Module):
    """Port of `ppl_models.parts.ConvNet`; `key` seeds the weights."""

    first: tuple[Linear, ...]
    blocks: tuple[ConvBlock, ...]
    narrow: tuple[Conv, ...]
    join: Conv | None
    last: Conv
    depth: int = eqx.field(static=True)
    context: tuple[int, ...] | None = eqx.field(static=True)
    sizes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    start: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        inputs: Sequence[int],
        image: Sequence[int],
        context: Sequence[int] | None = None,
        channels: int = 16,
        depth: int = 1,
        *,
        key: Array,
    ) -> None:
        self.depth, self.context = depth, None if context is None else tuple(context)
        self.sizes = tuple(halvings(image[1:])[::-1])
        widths = [min(channels * 2**i, 128) for i in range(len(self.sizes))][::-1]
        self.start = (widths[0], *self.sizes[0])
        keys = iter(jax.random.split(key, len(inputs) + (depth + 1) * len(widths) + 1))
        self.first = tuple(Linear(n, prod(self.start), i == 0, key=next(keys)) for i, n in enumerate(inputs))
        self.blocks = tuple(ConvBlock(w, key=next(keys)) for w in widths for _ in range(depth))
        self.narrow = tuple(Conv(a, b, 1, key=next(keys)) for a, b in pairwise(widths))
        self.join = None if context is None else Conv(context[0], widths[-1], 3, padding=1, key=next(keys))
        self.last = Conv(widths[-1], image[0], 3, padding=1, key=next(keys))

    def __call__(self, *inputs: Array) -> Array:
        """Vectors (*batch, n_i), then the flat context (*batch, c h w) if there is one -> (*batch, C * H * W)."""
        vectors = inputs if self.join is None else inputs[:-1]
        h = sum(layer(v) for layer, v in zip(self.first, vectors, strict=True))
        batch = h.shape[:-1] if self.join is None else jnp.broadcast_shapes(h.shape[:-1], inputs[-1].shape[:-1])
        h = jnp.broadcast_to(h, (*batch, h.shape[-1])).reshape(-1, *self.start)
        for i, size in enumerate(self.sizes):
            if i:
                h = interpolate(self.narrow[i - 1](h), size)
            if self.join is not None and i == len(self.sizes) - 1:
                c = jnp.broadcast_to(inputs[-1], (*batch, inputs[-1].shape[-1])).reshape(-1, *self.context)
                h = h + self.join(interpolate(c, size))
            for block in self.blocks[i * self.depth : (i + 1) * self.depth]:
                h = block(h)
        return self.last(silu(h)).reshape(*batch, -1)


class MapNet(eqx.Module):
    """Port of `ppl_models.parts.nets.MapNet`; `key` seeds the weights."""

    first: Conv
    blocks: tuple[ConvBlock, ...]
    last: Conv
    map: tuple[int, ...] = eqx.field(static=True)
    sizes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    depth: int = eqx.field(static=True)

    def __init__(
        self,
        map: Sequence[int],  # noqa: A002
        output: int,
        sizes: Sequence[tuple[int, ...]],
        channels: int = 16,
        depth: int = 1,
        *,
        key: Array,
    ) -> None:
        self.map, self.sizes, self.depth = tuple(map), tuple(sizes), depth
        first, last, *keys = jax.random.split(key, 2 + len(sizes) * depth)
        self.first = Conv(map[0], channels, 3, padding=1, key=first)
        self.blocks = tuple(ConvBlock(channels, key=own) for own in keys)
        self.last = Conv(channels, output, 3, padding=1, key=last)

    def __call__(self, z: Array) -> Array:
        """(*batch, channels * height * width) -> (*batch, output * height' * width')."""
        h = self.first(z.reshape(-1, *self.map))
        for i, size in enumerate(self.sizes):
            h = interpolate(h, size)
            for block in self.blocks[i * self.depth : (i + 1) * self.depth]:
                h = block(h)
        return self.last(silu(h)).reshape(*z.shape[:-1], -1)


def between(shape: Sequence[int], output: Sequence[int], hidden: int, depth: int, *, key: Array) -> Net | MapNet:
    """A network from one state of a hierarchy to the next, or to data: `Net` for vectors, `MapNet` for maps."""
    if len(shape) == 1:
        return Net(shape, prod(output), hidden, depth, norm=True, key=key)
    return MapNet(shape, output[0], [tuple(output[1:])], shape[0], depth, key=key)
