"""`ROWS` of normalizations: of layers, batches and groups, and softmax, with their gradients."""

from collections.abc import Sequence
from math import prod
from typing import Any

import jax.numpy as jnp
import torch
from jax import Array, lax

from .rows import along, cast, named

Gradients = tuple[Array | None, ...]


def _standard(x: Array, over: Sequence[int], eps: float) -> tuple[Array, Array, Array]:
    """Centred and scaled entries, with what was taken off and multiplied."""
    mean = jnp.mean(x, over, keepdims=True)
    rstd = lax.rsqrt(jnp.mean(jnp.square(x - mean), over, keepdims=True) + eps)
    return (x - mean) * rstd, mean, rstd


def _through(gradient: Array, standard: Array, rstd: Array, over: Sequence[int]) -> Array:
    """The gradient of `_standard`."""
    along_it = jnp.mean(gradient * standard, over, keepdims=True)
    return rstd * (gradient - jnp.mean(gradient, over, keepdims=True) - standard * along_it)


def _affine(x: Array, weight: Array | None, bias: Array | None) -> Array:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _channels(x: Array | None, dims: int) -> Array | None:
    """A vector over the second of so many dims."""
    return None if x is None else x.reshape(-1, *[1] * (dims - 2))


def _layer_norm(x: Array, shape: Sequence[int], weight: Array | None, bias: Array | None, eps: float) -> Any:
    over = tuple(range(x.ndim - len(shape), x.ndim))
    found, mean, rstd = _standard(x, over, eps)
    return _affine(found, weight, bias), mean, rstd


def _layer_norm_backward(
    gradient: Array,
    x: Array,
    shape: Sequence[int],
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
    asked: Sequence[bool],
) -> Gradients:
    batch = tuple(range(x.ndim - len(shape)))
    standard = (x - mean) * rstd
    inner = gradient if weight is None else gradient * weight
    return (
        _through(inner, standard, rstd, tuple(range(len(batch), x.ndim))) if asked[0] else None,
        jnp.sum(gradient * standard, batch) if asked[1] and weight is not None else None,
        jnp.sum(gradient, batch) if asked[2] and bias is not None else None,
    )


def _group_norm(
    x: Array, weight: Array | None, bias: Array | None, n: int, c: int, inside: int, groups: int, eps: float
) -> tuple[Array, Array, Array]:
    found, mean, rstd = _standard(x.reshape(n, groups, -1), (2,), eps)
    found = _affine(found.reshape(x.shape), _channels(weight, x.ndim), _channels(bias, x.ndim))
    return found, mean[..., 0], rstd[..., 0]


def _group_norm_backward(
    gradient: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    n: int,
    c: int,
    inside: int,
    groups: int,
    asked: Sequence[bool],
) -> Gradients:
    standard = (x.reshape(n, groups, -1) - mean[..., None]) * rstd[..., None]
    inner = gradient if weight is None else gradient * _channels(weight, x.ndim)
    through = _through(inner.reshape(n, groups, -1), standard, rstd[..., None], (2,)).reshape(x.shape)
    others = (0, *range(2, x.ndim))
    return (
        through if asked[0] else None,
        jnp.sum(gradient * standard.reshape(x.shape), others) if asked[1] else None,
        jnp.sum(gradient, others) if asked[2] else None,
    )


def _batch_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Array, ...]:
    """With the running moments after it, last."""
    others, dims = (0, *range(2, x.ndim)), x.ndim
    if not training:
        rstd = lax.rsqrt(running_var + eps)
        found = (x - _channels(running_mean, dims)) * _channels(rstd, dims)
        mean = rstd = jnp.zeros((0,), x.dtype)
    else:
        found, mean, rstd = _standard(x, others, eps)
        mean, rstd = mean.reshape(-1), rstd.reshape(-1)
        if running_mean is not None:
            running_mean = (1 - momentum) * running_mean + momentum * mean
        if running_var is not None:
            count = prod(x.shape[d] for d in others)
            var = jnp.var(x, others) * (count / max(count - 1, 1))
            running_var = (1 - momentum) * running_var + momentum * var
    return _affine(found, _channels(weight, dims), _channels(bias, dims)), mean, rstd, running_mean, running_var


def _batch_norm_alone(x: Array, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *settings: float) -> Any:
    if training and (mean is not None or var is not None):
        raise NotImplementedError("native_batch_norm writes its running moments; the functional one gives them")
    return _batch_norm(x, weight, bias, mean, var, training, *settings)[:3]


def _batch_norm_backward(
    gradient: Array,
    x: Array,
    weight: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    mean: Array | None,
    rstd: Array | None,
    training: bool,
    eps: float,
    asked: Sequence[bool],
) -> Gradients:
    others, dims = (0, *range(2, x.ndim)), x.ndim
    if not training:
        mean, rstd = running_mean, lax.rsqrt(running_var + eps)
    mean, rstd = _channels(mean, dims), _channels(rstd, dims)
    standard = (x - mean) * rstd
    inner = gradient if weight is None else gradient * _channels(weight, dims)
    through = _through(inner, standard, rstd, others) if training else inner * rstd
    return (
        through if asked[0] else None,
        jnp.sum(gradient * standard, others) if asked[1] else None,
        jnp.sum(gradient, others) if asked[2] else None,
    )


def _batch_norm_no_stats(x: Array, weight: Any, bias: Any, training: bool, momentum: float, eps: float) -> Any:
    return _batch_norm(x, weight, bias, None, None, True, momentum, eps)[:3]


def _exponentials(x: Array, dim: int) -> tuple[Array, Array]:
    shifted = x - lax.stop_gradient(jnp.max(x, dim, keepdims=True, initial=-jnp.inf))
    return shifted, jnp.exp(shifted)


def _softmax(x: Array, dim: int, half_to_float: bool = False) -> Array:
    _, found = _exponentials(x, dim)
    return found / jnp.sum(found, dim, keepdims=True)


def _log_softmax(x: Array, dim: int, half_to_float: bool = False) -> Array:
    shifted, found = _exponentials(x, dim)
    return shifted - jnp.log(jnp.sum(found, dim, keepdims=True))


def _safe_softmax(x: Array, dim: int, dtype: torch.dtype | None = None) -> Array:
    x = cast(x, dtype)
    return jnp.where(jnp.all(x == -jnp.inf, dim, keepdims=True), 0, _softmax(x, dim))


def _softmax_backward(gradient: Array, found: Array, dim: int, dtype: torch.dtype) -> Array:
    return found * (gradient - jnp.sum(gradient * found, dim, keepdims=True)) if found.ndim else found * 0


def _log_softmax_backward(gradient: Array, found: Array, dim: int, dtype: torch.dtype) -> Array:
    return gradient - jnp.exp(found) * jnp.sum(gradient, dim, keepdims=True) if found.ndim else found * 0


ROWS = named(
    {
        "native_layer_norm": _layer_norm,
        "native_layer_norm_backward": _layer_norm_backward,
        "native_group_norm": _group_norm,
        "native_group_norm_backward": _group_norm_backward,
        "native_batch_norm": _batch_norm_alone,
        "native_batch_norm_backward": _batch_norm_backward,
        "_native_batch_norm_legit_functional": _batch_norm,
        "_native_batch_norm_legit.no_stats": _batch_norm_no_stats,
        "_softmax": along(_softmax),
        "_softmax_backward_data": _softmax_backward,
        "_log_softmax": along(_log_softmax),
        "_log_softmax_backward_data": _log_softmax_backward,
        "_safe_softmax": along(_safe_softmax),
    }
)
