"""`ROWS` of operations that take an array to fewer dims: sums, extremes, moments, norms."""

from math import inf, prod
from typing import Any

import jax.numpy as jnp
import torch
from jax import Array

from .rows import Row, along, as_floating, axes, cast, named


def _sum(x: Array, dim: Any = None, keepdim: bool = False, dtype: torch.dtype | None = None) -> Array:
    return jnp.sum(cast(x, dtype), axes(x, dim), keepdims=keepdim)


def _mean(x: Array, dim: Any = None, keepdim: bool = False, dtype: torch.dtype | None = None) -> Array:
    return jnp.mean(cast(x, dtype), axes(x, dim), keepdims=keepdim)


def _nansum(x: Array, dim: Any = None, keepdim: bool = False, dtype: torch.dtype | None = None) -> Array:
    return jnp.nansum(cast(x, dtype), axes(x, dim), keepdims=keepdim)


def _prod(x: Array, dim: Any = None, keepdim: bool = False, dtype: torch.dtype | None = None) -> Array:
    return jnp.prod(cast(x, dtype), axes(x, dim), keepdims=keepdim)


def _count(x: Array, dim: Any) -> int:
    return prod(x.shape[d] for d in axes(x, dim))


def _var_mean(x: Array, dim: Any = None, correction: float | None = None, keepdim: bool = False) -> tuple[Array, Array]:
    mean = jnp.mean(x, axes(x, dim), keepdims=True)
    apart = jnp.abs(x - mean) if jnp.iscomplexobj(x) else x - mean
    total = jnp.sum(apart * apart, axes(x, dim), keepdims=keepdim)
    left = max(_count(x, dim) - (1 if correction is None else correction), 0)
    return total / float(left), mean if keepdim else mean.reshape(total.shape)


def _deviation(x: Array, dim: Any = None, correction: float | None = None, keepdim: bool = False) -> Array:
    return jnp.sqrt(_var_mean(x, dim, correction, keepdim)[0])


def _deviation_mean(
    x: Array, dim: Any = None, correction: float | None = None, keepdim: bool = False
) -> tuple[Array, Array]:
    var, mean = _var_mean(x, dim, correction, keepdim)
    return jnp.sqrt(var), mean


def _logsumexp(x: Array, dim: Any, keepdim: bool = False) -> Array:
    x, over = as_floating(x), axes(x, dim)
    top = jnp.max(x, over, keepdims=True, initial=-inf)
    top = jnp.where(jnp.isinf(top), 0, top)
    total = jnp.log(jnp.sum(jnp.exp(x - top), over, keepdims=keepdim))
    return total + (top if keepdim else top.reshape(total.shape))


def _norm(x: Array, order: Any = 2, dim: Any = None, keepdim: bool = False, dtype: torch.dtype | None = None) -> Array:
    order, over = 2 if order is None else order, axes(x, dim)
    x = jnp.abs(cast(x, dtype))
    if order == inf:
        return jnp.max(x, over, keepdims=keepdim, initial=None if _count(x, dim) else 0)
    if order == -inf:
        return jnp.min(x, over, keepdims=keepdim)
    if order == 0:
        return jnp.sum(x != 0, over, keepdims=keepdim)
    if order == 1:
        return jnp.sum(x, over, keepdims=keepdim)
    if order == 2:
        return jnp.sqrt(jnp.sum(x * x, over, keepdims=keepdim))
    return jnp.sum(x**order, over, keepdims=keepdim) ** (1 / order)


def _best(value: Row, place: Row) -> Row:
    """Row of `max.dim` and `min.dim`: values, and the first places where they are."""
    return along(lambda x, d, keepdim=False: (value(x, d, keepdims=keepdim), place(x, d, keepdims=keepdim)))


def _place(place: Row) -> Row:
    """Row of `argmax` and `argmin`."""

    def row(x: Array, dim: int | None = None, keepdim: bool = False) -> Array:
        if dim is None:
            found = place(x.reshape(-1))
            return found.reshape((1,) * x.ndim) if keepdim else found
        return along(lambda x, d: place(x, d, keepdims=keepdim))(x, dim)

    return row


def _aminmax(x: Array, dim: int | None = None, keepdim: bool = False) -> tuple[Array, Array]:
    return jnp.min(x, axes(x, dim), keepdims=keepdim), jnp.max(x, axes(x, dim), keepdims=keepdim)


def _over(function: Row) -> Row:
    """Row of a reduction over some dims or all."""
    return lambda x, dim=None, keepdim=False: function(x, axes(x, dim), keepdims=keepdim)


def _ints(function: Row) -> Row:
    """Row of `any` and `all`, where no dims given as an empty list are all dims too."""
    return lambda x, dim=None, keepdim=False: function(x.astype(bool), axes(x, dim), keepdims=keepdim)


def _renorm(x: Array, p: Any, dim: int, maxnorm: float) -> Array:
    norm = _norm(x, p, [d for d in range(x.ndim) if d != dim % x.ndim], keepdim=True)
    return jnp.where(norm > maxnorm, x * (maxnorm / (norm + 1e-7)), x)


def _counts(x: Array, bins: int = 100, min: float = 0, max: float = 0) -> Array:
    if min == max:
        low, high = jnp.min(x), jnp.max(x)
        low, high = jnp.where(low == high, low - 1, low), jnp.where(low == high, high + 1, high)
    else:
        low, high = jnp.asarray(min, x.dtype), jnp.asarray(max, x.dtype)
    place = jnp.clip(jnp.floor((x - low) / (high - low) * bins), 0, bins - 1).astype(jnp.int32)
    inside = (x >= low) & (x <= high)
    return jnp.zeros(bins, x.dtype).at[place.reshape(-1)].add(inside.reshape(-1).astype(x.dtype))


ROWS = named(
    {
        "sum": lambda x, dtype=None: _sum(x, None, dtype=dtype),
        "sum.dim_IntList": _sum,
        "mean": lambda x, dtype=None: _mean(x, None, dtype=dtype),
        "mean.dim": _mean,
        "nansum": _nansum,
        "prod": lambda x, dtype=None: _prod(x, None, dtype=dtype),
        "prod.dim_int": _prod,
        "amax": _over(jnp.max),
        "amin": _over(jnp.min),
        "aminmax": _aminmax,
        "max": lambda x: jnp.max(x),
        "min": lambda x: jnp.min(x),
        "max.dim": _best(jnp.max, jnp.argmax),
        "min.dim": _best(jnp.min, jnp.argmin),
        "argmax": _place(jnp.argmax),
        "argmin": _place(jnp.argmin),
        "any any.dim any.dims": _ints(jnp.any),
        "all all.dim all.dims": _ints(jnp.all),
        "count_nonzero count_nonzero.dim_IntList": lambda x, dim=None: jnp.count_nonzero(x, axes(x, dim)),
        "var.correction": lambda x, dim=None, **given: _var_mean(x, dim, **given)[0],
        "std.correction": _deviation,
        "var_mean.correction": _var_mean,
        "std_mean.correction": _deviation_mean,
        "logsumexp": _logsumexp,
        "norm.Scalar": _norm,
        "norm.ScalarOpt_dim norm.ScalarOpt_dim_dtype": _norm,
        "linalg_vector_norm": _norm,
        "dist": lambda x, y, p=2: _norm(x - y, p),
        "renorm": _renorm,
        "histc": _counts,
        "trace": lambda x: jnp.trace(x),
    }
)
