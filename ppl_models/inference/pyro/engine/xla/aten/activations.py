"""`ROWS` of the nonlinearities of networks, with their gradients."""

from math import pi, sqrt

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import erf

from .rows import as_floating, named


def _silu_backward(gradient: Array, x: Array) -> Array:
    gate = jax.nn.sigmoid(x)
    return gradient * gate * (1 + x * (1 - gate))


def _softplus(x: Array, beta: float = 1, threshold: float = 20) -> Array:
    scaled = x * beta
    return jnp.where(scaled > threshold, x, jnp.log1p(jnp.exp(scaled)) / beta)


def _softplus_backward(gradient: Array, x: Array, beta: float, threshold: float) -> Array:
    return jnp.where(x * beta > threshold, gradient, gradient * jax.nn.sigmoid(x * beta))


def _elu(x: Array, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Array:
    return jnp.where(x > 0, x * scale, jnp.expm1(x * input_scale) * (alpha * scale))


def _elu_backward(gradient: Array, alpha: float, scale: float, input_scale: float, is_result: bool, x: Array) -> Array:
    if is_result:
        below = input_scale * (x + alpha * scale)
    else:
        below = input_scale * alpha * scale * jnp.exp(x * input_scale)
    return gradient * jnp.where(x <= 0, below, scale)


_SIXTH = float(np.float32(1 / 6))  # torch's, of whatever precision
_CUBE, _ROOT = 0.044715, sqrt(2 / pi)


def _gelu(x: Array, approximate: str = "none") -> Array:
    if approximate == "tanh":
        return 0.5 * x * (1 + jnp.tanh(_ROOT * (x + _CUBE * x * x * x)))
    return 0.5 * x * (1 + erf(x * sqrt(0.5)))


def _gelu_backward(gradient: Array, x: Array, approximate: str = "none") -> Array:
    if approximate == "tanh":
        inner = jnp.tanh(_ROOT * (x + _CUBE * x * x * x))
        return gradient * 0.5 * (1 + inner + x * (1 - inner * inner) * _ROOT * (1 + 3 * _CUBE * x * x))
    return gradient * (0.5 * (1 + erf(x * sqrt(0.5))) + x * jnp.exp(-0.5 * x * x) / sqrt(2 * pi))


def _mish_backward(gradient: Array, x: Array) -> Array:
    gate, inner = jax.nn.sigmoid(x), jnp.tanh(jax.nn.softplus(x))
    return gradient * (inner + x * gate * (1 - inner * inner))


def _log_sigmoid(x: Array) -> tuple[Array, Array]:
    small = jnp.exp(-jnp.abs(x))
    return jnp.minimum(x, 0) - jnp.log1p(small), small


def _log_sigmoid_backward(gradient: Array, x: Array, small: Array) -> Array:
    below = x < 0
    return gradient * (jnp.where(below, 1, 0) - jnp.where(below, 1, -1) * small / (1 + small))


def _hardswish_backward(gradient: Array, x: Array) -> Array:
    return jnp.where(x <= -3, 0, jnp.where(x < 3, gradient * (x / 3 + 0.5), gradient))


def _hardshrink_backward(gradient: Array, x: Array, lambd: float) -> Array:
    return jnp.where((x >= -lambd) & (x <= lambd), 0, gradient)


def _softshrink(x: Array, lambd: float = 0.5) -> Array:
    return jnp.where(x > lambd, x - lambd, jnp.where(x < -lambd, x + lambd, x * 0))


def _glu_backward(gradient: Array, x: Array, dim: int) -> Array:
    a, b = jnp.split(x, 2, dim)
    gate = jax.nn.sigmoid(b)
    return jnp.concatenate([gradient * gate, gradient * a * gate * (1 - gate)], dim)


def _glu(x: Array, dim: int = -1) -> Array:
    a, b = jnp.split(x, 2, dim)
    return a * jax.nn.sigmoid(b)


def _leaky_relu_backward(gradient: Array, x: Array, negative_slope: float, is_result: bool) -> Array:
    return jnp.where(x > 0, gradient, gradient * negative_slope)


def _prelu_backward(gradient: Array, x: Array, weight: Array) -> tuple[Array, Array]:
    return jnp.where(x > 0, gradient, gradient * weight), jnp.where(x > 0, 0, x * gradient)


ROWS = named(
    {
        "relu": lambda x: jnp.maximum(x, 0),
        "threshold": lambda x, threshold, value: jnp.where(x <= threshold, value, x),
        "threshold_backward": lambda gradient, x, threshold: jnp.where(x <= threshold, 0, gradient),
        "sigmoid": lambda x: jax.nn.sigmoid(as_floating(x)),
        "sigmoid_backward": lambda gradient, found: gradient * (1 - found) * found,
        "tanh_backward": lambda gradient, found: gradient * (1 - found * found),
        "silu": lambda x: x * jax.nn.sigmoid(x),
        "silu_backward": _silu_backward,
        "softplus": _softplus,
        "softplus_backward": _softplus_backward,
        "elu": _elu,
        "elu_backward": _elu_backward,
        "celu": lambda x, alpha=1.0: _elu(x, alpha, 1, 1 / alpha),
        "leaky_relu": lambda x, negative_slope=0.01: jnp.where(x > 0, x, x * negative_slope),
        "leaky_relu_backward": _leaky_relu_backward,
        "_prelu_kernel": lambda x, weight: jnp.where(x > 0, x, weight * x),
        "_prelu_kernel_backward": _prelu_backward,
        "gelu": _gelu,
        "gelu_backward": _gelu_backward,
        "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
        "mish_backward": _mish_backward,
        "log_sigmoid_forward": _log_sigmoid,
        "log_sigmoid_backward": _log_sigmoid_backward,
        "hardtanh": lambda x, low=-1, high=1: jnp.clip(x, low, high),
        "hardtanh_backward": lambda gradient, x, low, high: jnp.where((x <= low) | (x >= high), 0, gradient),
        "hardsigmoid": lambda x: jnp.clip(x + 3, 0, 6) / 6,
        "hardsigmoid_backward": lambda gradient, x: jnp.where((x > -3) & (x < 3), gradient * _SIXTH, 0),
        "hardswish": lambda x: x * jnp.clip(x + 3, 0, 6) / 6,
        "hardswish_backward": _hardswish_backward,
        "hardshrink": lambda x, lambd=0.5: jnp.where((x >= -lambd) & (x <= lambd), 0, x),
        "hardshrink_backward softshrink_backward": _hardshrink_backward,
        "softshrink": _softshrink,
        "native_dropout_backward": lambda gradient, mask, scale: as_floating(gradient) * mask * scale,
        "glu": _glu,
        "glu_backward": _glu_backward,
    }
)
