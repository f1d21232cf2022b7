"""Port of `ppl_models.parts.nets.perceptrons`: residual and gated ones that broadcast over leading dimensions.

Weights have the names and the shapes that they have in torch, and initially its distributions. A tuple stands where
torch has a `Sequential`, and activations keep their places in it.
"""

from collections.abc import Sequence
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid, silu

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.checks import check_network

from .layers import LayerNorm, Linear, zeroed


class Block(eqx.Module):
    """Pre-normalized residual block h + W2 silu(W1 LayerNorm(h)); W2 starts at zero, so it starts as identity."""

    norm: LayerNorm
    inner: Linear
    outer: Linear

    def __init__(self, width: int, *, key: Array) -> None:
        keys = jax.random.split(key)
        self.norm = LayerNorm(width)
        self.inner = Linear(width, width, key=keys[0])
        self.outer = zeroed(Linear(width, width, key=keys[1]))

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

    def __init__(self, inputs: Sequence[int], output: int, hidden: int = 300, gain: float = 1.0, *, key: Array) -> None:
        check_network(inputs, output, hidden, 1)
        *own, second, last = jax.random.split(key, len(inputs) + 2)
        self.first = tuple(Gated([n], hidden, key=k) for n, k in zip(inputs, own, strict=True))
        self.second = Gated([hidden] * len(inputs), hidden, key=second)
        self.last = _scaled(_normal(Linear(hidden, output, key=last), hidden, key=last), gain)

    def __call__(self, *inputs: Array) -> Array:
        """(*batch, n_i) each -> (*batch, output); batches broadcast."""
        return self.last(self.second(*(gated(x) for gated, x in zip(self.first, inputs, strict=True))))


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
