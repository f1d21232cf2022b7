"""Layers as torch has them, with its names, its shapes and its distributions of initial weights."""

from collections.abc import Sequence
from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.nn import silu


class Linear(eqx.Module):
    """x W^T + b, W (output, inputs), b (output,), over any leading dimensions: `torch.nn.Linear`.

    Weights and biases start uniform on +-1 / sqrt(inputs).
    """

    weight: Array
    bias: Array | None

    def __init__(self, inputs: int, output: int, bias: bool = True, *, key: Array) -> None:
        keys = jax.random.split(key)
        self.weight = _uniform(keys[0], (output, inputs), inputs)
        self.bias = _uniform(keys[1], (output,), inputs) if bias else None

    def __call__(self, x: Array) -> Array:
        """(*batch, inputs) -> (*batch, output)."""
        y = jnp.matmul(x, self.weight.T)
        return y if self.bias is None else y + self.bias


class LayerNorm(eqx.Module):
    """w (x - mean) / sqrt(variance + 1e-5) + b over the last dimension: `torch.nn.LayerNorm`."""

    weight: Array
    bias: Array

    def __init__(self, width: int) -> None:
        self.weight, self.bias = jnp.ones(width), jnp.zeros(width)

    def __call__(self, x: Array) -> Array:
        """(*batch, width) -> the same."""
        centered = x - x.mean(-1, keepdims=True)
        return centered * lax.rsqrt(jnp.square(centered).mean(-1, keepdims=True) + 1e-5) * self.weight + self.bias


class Conv(eqx.Module):
    """Two-dimensional cross-correlation, weight (output, inputs, k, l), bias (output,): `torch.nn.Conv2d`.

    Args:
        inputs, output: channels.
        kernel: k = l, or (k, l).
        stride, padding: of both dims.
        bias: whether there is one.
        key: of the initial weights, uniform on +-1 / sqrt(inputs k l).
    """

    weight: Array
    bias: Array | None
    stride: int = eqx.field(static=True)
    padding: int = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        output: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        *,
        key: Array,
    ) -> None:
        keys = jax.random.split(key)
        size = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
        self.weight = _uniform(keys[0], (output, inputs, *size), inputs * prod(size))
        self.bias = _uniform(keys[1], (output,), inputs * prod(size)) if bias else None
        self.stride, self.padding = stride, padding

    def __call__(self, x: Array) -> Array:
        """(n, inputs, height, width) -> (n, output, height', width')."""
        stride, padding = (self.stride,) * 2, [(self.padding,) * 2] * 2
        y = lax.conv_general_dilated(x, self.weight, stride, padding)
        return y if self.bias is None else y + self.bias[:, None, None]


class Silu(eqx.Module):
    """x sigmoid(x), as a layer: it keeps its place, and so the numbers of those after it, as in torch."""

    def __call__(self, x: Array) -> Array:
        """Any shape -> the same."""
        return silu(x)


def interpolate(x: Array, size: Sequence[int]) -> Array:
    """The nearest neighbour on another grid, row i from row floor(i * old / new): (n, c, *old) -> (n, c, *size)."""
    for axis, new in zip((-2, -1), size, strict=True):
        old = x.shape[axis]
        # in single precision, as torch computes it: the product may fall short of a whole number
        index = np.arange(new, dtype=np.float32) * (np.float32(old) / np.float32(new))
        x = x if old == new else jnp.take(x, np.minimum(index.astype(int), old - 1), axis)
    return x


def _uniform(key: Array, shape: tuple[int, ...], fan: int) -> Array:
    draw = _spread if isinstance(key, jax.core.Tracer) else _spread_once
    return draw(key, shape, fan**-0.5)


def _spread(key: Array, shape: tuple[int, ...], bound: float) -> Array:
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


# Compiled for each shape of a model's layers, to run once: without optimization that takes a quarter of the time.
_spread_once = jax.jit(_spread, static_argnums=1, compiler_options={"xla_backend_optimization_level": 0})


def zeroed(layer: Linear | Conv) -> Linear | Conv:
    """The layer with zeros for its numbers."""
    return jax.tree.map(jnp.zeros_like, layer)
