"""`ROWS` of products of arrays: of matrices and vectors, convolutions, attention, distances."""

from collections.abc import Sequence
from math import inf, sqrt
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .rows import floating, named


def _scaled(x: Array, factor: complex) -> Array:
    return x if factor == 1 else x * (factor if floating(x) else int(factor.real))


def _sum_of(x: Array, product: Array, beta: complex, alpha: complex) -> Array:
    """`beta x + alpha product`, where what stands in x is not looked at for a beta of zero."""
    found = _scaled(product, alpha)
    return jnp.broadcast_to(found, product.shape) if beta == 0 else _scaled(x, beta) + found


def _addmm(x: Array, a: Array, b: Array, beta: complex = 1, alpha: complex = 1) -> Array:
    return _sum_of(x, a @ b, beta, alpha)


def _addbmm(x: Array, a: Array, b: Array, beta: complex = 1, alpha: complex = 1) -> Array:
    return _sum_of(x, jnp.einsum("bij,bjk->ik", a, b), beta, alpha)


def _addr(x: Array, a: Array, b: Array, beta: complex = 1, alpha: complex = 1) -> Array:
    return _sum_of(x, jnp.outer(a, b), beta, alpha)


def _each(given: Sequence[int], dims: int) -> list[int]:
    """A setting for each of the dims, all of which share one that is given alone."""
    return list(given) * dims if len(given) == 1 else list(given)


def _convolution(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Array:
    dims = x.ndim - 2
    stride, padding, dilation = _each(stride, dims), _each(padding, dims), _each(dilation, dims)
    settings: dict[str, Any] = {"rhs_dilation": dilation, "feature_group_count": groups}
    if transposed:  # the gradient of a convolution: strides lie between the entries of x
        reach = [d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], padding, strict=True)]
        edges = [(r, r + more) for r, more in zip(reach, _each(output_padding, dims), strict=True)]
        split = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)
        weight = jnp.flip(split.reshape(-1, *split.shape[2:]), range(2, 2 + dims))
        found = lax.conv_general_dilated(x, weight, [1] * dims, edges, lhs_dilation=stride, **settings)
    else:
        found = lax.conv_general_dilated(x, weight, stride, [(p, p) for p in padding], **settings)
    return found if bias is None else found + bias.reshape(-1, *[1] * dims)


def _convolution_backward(
    gradient: Array, x: Array, weight: Array, bias_sizes: Any, *settings: Any
) -> tuple[Array | None, ...]:
    *settings, (of_x, of_weight, of_bias) = settings
    pull = jax.vjp(lambda x, weight: _convolution(x, weight, None, *settings), x, weight)[1]
    for_x, for_weight = pull(gradient) if of_x or of_weight else (None, None)
    for_bias = jnp.sum(gradient, (0, *range(2, gradient.ndim))) if of_bias else None
    return (for_x if of_x else None), (for_weight if of_weight else None), for_bias


def _trilinear(
    a: Array, b: Array, c: Array, expand_a: Any, expand_b: Any, expand_c: Any, summed: Any, unroll_dim: int = 1
) -> Array:
    product = jnp.expand_dims(a, expand_a) * jnp.expand_dims(b, expand_b) * jnp.expand_dims(c, expand_c)
    return jnp.sum(product, tuple(summed)) if summed else product


def _distances(a: Array, b: Array, p: float, compute_mode: int | None = None) -> Array:
    apart = jnp.abs(a[..., :, None, :] - b[..., None, :, :])
    if p == inf:
        return jnp.max(apart, -1, initial=0)
    if p == 0:
        return jnp.sum(jnp.minimum(jnp.ceil(apart), 1), -1)
    if p == 1:
        return jnp.sum(apart, -1)
    return jnp.sqrt(jnp.sum(apart * apart, -1)) if p == 2 else jnp.sum(apart**p, -1) ** (1 / p)


def _distances_backward(gradient: Array, a: Array, b: Array, p: float, distances: Array) -> Array:
    apart, gradient, distances = a[..., :, None, :] - b[..., None, :, :], gradient[..., None], distances[..., None]
    size = jnp.abs(apart)
    if p == 0:
        return jnp.zeros_like(a)
    if p == inf:
        each = jnp.where(size == distances, jnp.sign(apart), 0) * gradient
    elif p == 1:
        each = jnp.sign(apart) * gradient
    elif p == 2:
        each = jnp.where(distances == 0, 0, gradient * apart / distances)
    else:
        slope = jnp.sign(apart) * size ** (p - 1) * gradient / distances ** (p - 1)
        each = jnp.where((distances == 0) | ((size == 0) & (p < 1)), 0, slope)
    return jnp.sum(each, -2)


def _pairs(x: Array, p: float = 2.0) -> Array:
    """Distances of each pair once."""
    first, second = np.triu_indices(x.shape[0], 1)
    return jnp.diagonal(_distances(x[first][:, None], x[second][:, None], p), 0, -2, -1).reshape(-1)


def _pairs_backward(gradient: Array, x: Array, p: float, distances: Array) -> Array:
    first, second = np.triu_indices(x.shape[0], 1)
    each = _distances_backward(
        gradient[:, None, None], x[first][:, None], x[second][:, None], p, distances[:, None, None]
    )[:, 0]
    return jnp.zeros_like(x).at[first].add(each).at[second].add(-each)


def _weight_norm(v: Array, g: Array, dim: int = 0) -> tuple[Array, Array]:
    norm = jnp.sqrt(jnp.sum(v * v, tuple(d for d in range(v.ndim) if d != dim), keepdims=True))
    return v * (g / norm), norm


def _weight_norm_backward(gradient: Array, v: Array, g: Array, norm: Array, dim: int) -> tuple[Array, Array]:
    others = tuple(d for d in range(v.ndim) if d != dim)
    along_it = jnp.sum(gradient * v, others, keepdims=True) / norm
    return g / norm * (gradient - v * along_it / norm), along_it


def _attention(
    query: Array,
    key: Array,
    value: Array,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    attn_mask: Array | None = None,
    scale: float | None = None,
) -> tuple[Array, Array]:
    if dropout_p:
        raise NotImplementedError("attention with dropout draws")
    scores = jnp.einsum("...qd,...kd->...qk", query, key) * (1 / sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -inf)
    if attn_mask is not None:
        scores = jnp.where(attn_mask, scores, -inf) if attn_mask.dtype == bool else scores + attn_mask
    total = jax.scipy.special.logsumexp(scores, -1, keepdims=True)
    return jnp.einsum("...qk,...kd->...qd", jnp.exp(scores - total), value), total[..., 0]


def _attention_backward(
    gradient: Array,
    query: Array,
    key: Array,
    value: Array,
    out: Array,
    logsumexp: Array,
    dropout_p: float,
    is_causal: bool,
    **settings: Any,
) -> tuple[Array, Array, Array]:
    pull = jax.vjp(lambda q, k, v: _attention(q, k, v, dropout_p, is_causal, **settings)[0], query, key, value)[1]
    return pull(gradient)


ROWS = named(
    {
        "mm bmm mv": lambda a, b: a @ b,
        "dot": lambda a, b: jnp.sum(a * b),
        "vdot": lambda a, b: jnp.vdot(a, b),
        "addmm addmv baddbmm": _addmm,
        "addbmm": _addbmm,
        "addr": _addr,
        "convolution": _convolution,
        "convolution_backward": _convolution_backward,
        "_trilinear": _trilinear,
        "_cdist_forward": _distances,
        "_cdist_backward": _distances_backward,
        "_euclidean_dist": lambda a, b: _distances(a, b, 2),
        "_pdist_forward": _pairs,
        "_pdist_backward": _pairs_backward,
        "_weight_norm_interface": _weight_norm,
        "_weight_norm_interface_backward": _weight_norm_backward,
        "_scaled_dot_product_flash_attention_for_cpu": _attention,
        "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    }
)
