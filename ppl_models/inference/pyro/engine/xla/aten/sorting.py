"""`ROWS` of operations that go along a dim in order: sorts, running sums and extremes."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import torch
from jax import Array, lax

from .rows import along, as_floating, cast, named


def _order(x: Array, d: int, descending: bool = False) -> Array:
    """Where sorted entries come from; equal ones keep their order, what is not a number is the largest."""
    if not descending:
        return jnp.argsort(x, d, stable=True)
    return x.shape[d] - 1 - jnp.flip(jnp.argsort(jnp.flip(x, d), d, stable=True), d)


def _sort(x: Array, d: int, descending: bool = False, **_: Any) -> tuple[Array, Array]:
    order = _order(x, d, descending)
    return jnp.take_along_axis(x, order, d), order


def _topk(x: Array, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Array, Array]:
    def row(x: Array, d: int) -> tuple[Array, Array]:
        values, order = _sort(x, d, largest)
        return lax.slice_in_dim(values, 0, k, 1, d), lax.slice_in_dim(order, 0, k, 1, d)

    return along(row)(x, dim)


def _kth(x: Array, d: int, k: int, keepdim: bool = False) -> tuple[Array, Array]:
    values, order = _sort(x, d)
    found = lax.slice_in_dim(values, k - 1, k, 1, d), lax.slice_in_dim(order, k - 1, k, 1, d)
    return found if keepdim else (jnp.squeeze(found[0], d), jnp.squeeze(found[1], d))


def _median(x: Array, d: int, keepdim: bool = False, past_nan: bool = False) -> tuple[Array, Array]:
    """The lower one of two middles; where one entry is no number, that one, unless it is passed over."""
    values, order = _sort(x, d)
    size = x.shape[d]
    missing = jnp.isnan(x) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.zeros(x.shape, bool)
    known = size - jnp.sum(missing, d, keepdims=True)
    middle = jnp.maximum((known - 1) // 2, 0)
    if not past_nan:
        middle = jnp.where(known < size, known, middle)
    found = jnp.take_along_axis(values, middle, d), jnp.take_along_axis(order, middle, d)
    return found if keepdim else (jnp.squeeze(found[0], d), jnp.squeeze(found[1], d))


def _median_of_all(x: Array, past_nan: bool = False) -> Array:
    return _median(x.reshape(-1), 0, past_nan=past_nan)[0] if x.size else jnp.full((), jnp.nan, x.dtype)


def _running(function: Callable[..., Array]) -> Any:
    """Row of running sums and products."""

    def row(x: Array, d: int, dtype: torch.dtype | None = None) -> Array:
        x = cast(x, dtype)
        return function(x.astype(jnp.int64) if jnp.issubdtype(x.dtype, jnp.bool_) else x, d)

    return along(row)


def _running_best(better: Callable[[Array, Array], Array]) -> Any:
    """Row of running extremes, with the last places where they were met."""

    def later(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        takes = better(b[0], a[0]) | (b[0] == a[0]) | (b[0] != b[0])
        return jnp.where(takes, b[0], a[0]), jnp.where(takes, b[1], a[1])

    return along(lambda x, d: lax.associative_scan(later, (x, lax.broadcasted_iota(jnp.int64, x.shape, d)), axis=d))


ROWS = named(
    {
        "sort sort.stable": along(_sort),
        "topk": _topk,
        "kthvalue": lambda x, k, dim=-1, keepdim=False: along(_kth)(x, dim, k, keepdim),
        "median.dim": along(_median),
        "nanmedian.dim": along(lambda x, d, keepdim=False: _median(x, d, keepdim, past_nan=True)),
        "median": _median_of_all,
        "nanmedian": lambda x: _median_of_all(x, past_nan=True),
        "cumsum": _running(jnp.cumsum),
        "cumprod": _running(jnp.cumprod),
        "cummax": _running_best(jnp.greater),
        "cummin": _running_best(jnp.less),
        "logcumsumexp": along(lambda x, d: lax.cumlogsumexp(as_floating(x), d)),
    }
)
