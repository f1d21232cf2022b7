"""Ports of `ppl_models.parts.nets`: residual perceptrons and convolutions that broadcast over leading dimensions.

Weights have the names and the shapes that they have in torch, and initially its distributions. A tuple stands where
torch has a `Sequential`, and activations keep their places in it.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid, silu

from ppl_models.parts.checked import checked
from ppl_models.parts.checks import check_network
from ppl_models.parts.sizes import halvings

from .layers import Conv as Conv, LayerNorm as LayerNorm, Linear as Linear, Silu as Silu, interpolate as interpolate


class Block(eqx.Module):
    """Pre-normalized residual block h + W2 silu(W1 LayerNorm(h)); W2 starts at zero, so it starts as identity."""

    norm: LayerNorm
    inner: Linear
    outer: Linear

    def __init__(self, width: int, *, key: Array) -> None:
        keys = jax.random.split(key)
        self.norm = LayerNorm(width)
        self.inner = Linear(width, width, key=keys[0])
        self.outer = _zeros(Linear(width, width, key=keys[1]))

    def __call__(self, h: Array) -> Array:
        """(*batch, width) -> (*batch, width)."""
        return h + self.outer(silu(self.inner(self.norm(h))))


@checked
class Net(eqx.Module):
    """Port of `ppl_models.parts.Net`; `key` seeds the weights."""

    first: tuple[Linear, ...]
    blocks: tuple[Block | LayerNorm, ...]
    last: Linear | None
    constant: Array | None

    def __init__(
        self,
        inputs: Sequence[int],
        output: int,
        hidden: int = 256,
        depth: int = 1,
        gain: float = 1.0,
        norm: bool = False,
        *,
        key: Array,
    ) -> None:
        check_network(inputs, output, hidden, depth)
        deep = bool(inputs) and depth > 0
        keys = iter(jax.random.split(key, len(inputs) + depth + 1))
        width = hidden if deep else output
        first = [Linear(n, width, bias=i == 0, key=next(keys)) for i, n in enumerate(inputs)]
        self.first = tuple(first if deep else (_scaled(layer, gain) for layer in first))
        blocks = [Block(hidden, key=next(keys)) for _ in range(depth if deep else 0)]
        self.blocks = (*blocks, LayerNorm(hidden)) if norm and deep else tuple(blocks)
        self.last = _scaled(Linear(hidden, output, key=next(keys)), gain) if deep else None
        self.constant = None if inputs else gain * 0.1 * jax.random.normal(next(keys), (output,))

    @property
    def bias(self) -> Array:
        """The bias of the output, (output,)."""
        return _bias(self)

    def with_bias(self, value: Array) -> Self:
        """The same network with another bias of the output: where an initial value is put."""
        return eqx.tree_at(_bias, self, value)

    def __call__(self, *inputs: Array) -> Array:
        """(*batch, n_i) each -> (*batch, output); batches broadcast. Without inputs: (output,)."""
        if self.constant is not None:
            return self.constant
        h = None
        for layer, x in zip(self.first, inputs, strict=True):
            h = layer(x) if h is None else h + layer(x)
        if self.last is None:
            return h
        for block in self.blocks:
            h = block(h)
        return self.last(h)


class Gated(eqx.Module):
    """Port of `ppl_models.parts.nets.Gated`; `key` seeds the weights."""

    images: tuple[Linear, ...]

    def __init__(self, inputs: Sequence[int], output: int, *, key: Array) -> None:
        keys = jax.random.split(key, len(inputs))
        layers = (Linear(n, 2 * output, i == 0, key=k) for i, (n, k) in enumerate(zip(inputs, keys, strict=True)))
        self.images = tuple(_normal(layer, sum(inputs), key=k) for layer, k in zip(layers, keys, strict=True))

    def __call__(self, *inputs: Array) -> Array:
        """(*batch, n_i) each -> (*batch, output); batches broadcast."""
        h = None
        for layer, x in zip(self.images, inputs, strict=True):
            h = layer(x) if h is None else h + layer(x)
        value, gate = jnp.split(h, 2, -1)
        return value * sigmoid(gate)


@checked
class GatedNet(eqx.Module):
    """Port of `ppl_models.parts.GatedNet`; `key` seeds the weights."""

    first: tuple[Gated, ...]
    second: Gated
    last: Linear

    def __init__(self, inputs: Sequence[int], output: int, hidden: int = 300, *, key: Array) -> None:
        check_network(inputs, output, hidden, 1)
        *own, second, last = jax.random.split(key, len(inputs) + 2)
        self.first = tuple(Gated([n], hidden, key=k) for n, k in zip(inputs, own, strict=True))
        self.second = Gated([hidden] * len(inputs), hidden, key=second)
        self.last = _normal(Linear(hidden, output, key=last), hidden, key=last)

    def __call__(self, *inputs: Array) -> Array:
        """(*batch, n_i) each -> (*batch, output); batches broadcast."""
        return self.last(self.second(*(gated(x) for gated, x in zip(self.first, inputs, strict=True))))


class LSTM(eqx.Module):
    """Port of `ppl_models.parts.LSTM`; `key` seeds the weights."""

    first: tuple[Linear, ...]
    recurrent: Linear
    beginning: Array

    def __init__(self, inputs: Sequence[int], hidden: int, *, key: Array) -> None:
        own, *keys = jax.random.split(key, len(inputs) + 1)
        self.first = tuple(
            Linear(n, 4 * hidden, i == 0, key=k) for i, (n, k) in enumerate(zip(inputs, keys, strict=True))
        )
        self.recurrent = Linear(hidden, 4 * hidden, bias=False, key=own)
        self.beginning = jnp.zeros(2 * hidden)

    def start(self, *batch: int) -> tuple[Array, Array]:
        """(h, c) before the first step, (*batch, hidden) each."""
        h, c = jnp.split(self.beginning, 2)
        return jnp.broadcast_to(h, (*batch, len(h))), jnp.broadcast_to(c, (*batch, len(c)))

    def __call__(self, state: tuple[Array, Array], *inputs: Array) -> tuple[Array, Array]:
        """(h, c) after a step, from (h, c) before it and (*batch, n_i) each; batches broadcast."""
        h, c = state
        gates = self.recurrent(h)
        for layer, x in zip(self.first, inputs, strict=True):
            gates = gates + layer(x)
        i, f, g, o = jnp.split(gates, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        return sigmoid(o) * jnp.tanh(c), c


class ConvBlock(eqx.Module):
    """Residual block h + conv(silu(conv(silu(h)))), 3 x 3, the second convolution starting at zero."""

    inner: Conv
    outer: Conv

    def __init__(self, channels: int, *, key: Array) -> None:
        keys = jax.random.split(key)
        self.inner = Conv(channels, channels, 3, padding=1, key=keys[0])
        self.outer = _zeros(Conv(channels, channels, 3, padding=1, key=keys[1]))

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


def _zeros(layer: Linear | Conv) -> Linear | Conv:
    return jax.tree.map(jnp.zeros_like, layer)


def _scaled(layer: Linear, gain: float) -> Linear:
    return eqx.tree_at(lambda layer: layer.weight, layer, layer.weight * gain)


def _normal(layer: Linear, fan: int, *, key: Array) -> Linear:
    """The layer with weights from N(0, 2 / fan)."""
    weight = (2 / fan) ** 0.5 * jax.random.normal(jax.random.fold_in(key, 1), layer.weight.shape)
    return eqx.tree_at(lambda layer: layer.weight, layer, weight)


def _bias(net: Net) -> Array:
    if net.constant is not None:
        return net.constant
    return net.first[0].bias if net.last is None else net.last.bias
