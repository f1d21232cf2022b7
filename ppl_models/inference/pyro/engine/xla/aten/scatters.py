"""`ROWS` of operations that give an array other entries at some places."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import jax.numpy as jnp
from jax import Array

from .indexing import INSIDE, places, whole
from .rows import along, named
from .shapes import _as_strided, _diagonal, _select, _slice


def _cut(source: Any, index: Array) -> Any:
    """As much of a source as an index speaks of."""
    if not isinstance(source, Array) or not source.ndim:
        return source
    return source[tuple(slice(n) for n in index.shape)]


def _scattered(x: Array, dim: int, index: Array, source: Any, how: str = "set", include_self: bool = True) -> Array:
    if index.size == 0:
        return x
    index, source = index.reshape(index.shape or (1,)), source.reshape(1) if _is_scalar(source, index) else source
    return _written(x, places(index, dim), _cut(source, index), how, include_self)


def _is_scalar(source: Any, index: Array) -> bool:
    return isinstance(source, Array) and not source.ndim and not index.ndim


def _written(x: Array, at: tuple[Any, ...], source: Any, how: str, include_self: bool = True) -> Array:
    """An array with a source written at some places, or joined with what is there."""
    if x.dtype == jnp.bool_ and how != "set":  # a sum of truths is whether there is one
        found = _written(x.astype(jnp.int32), at, jnp.asarray(source).astype(jnp.int32), how, include_self)
        return found.astype(bool)
    if how in ("set", "sum", "add"):
        source = jnp.asarray(source).astype(x.dtype)
    if how == "set":
        return x.at[at].set(source, mode=INSIDE)
    if not include_self:
        neutral = {"sum": 0, "add": 0, "mean": 0, "prod": 1, "amax": _least(x), "amin": _most(x)}[how]
        x = x.at[at].set(jnp.asarray(neutral, x.dtype), mode=INSIDE)
    if how == "mean":
        ones = jnp.ones_like if include_self else jnp.zeros_like
        count = jnp.maximum(ones(x, dtype=jnp.int32).at[at].add(1, mode=INSIDE), 1)
        total = x.at[at].add(source, mode=INSIDE)
        return total / count if jnp.issubdtype(x.dtype, jnp.inexact) else total // count
    joined: dict[str, Callable[..., Array]] = {
        "sum": x.at[at].add,
        "add": x.at[at].add,
        "prod": x.at[at].multiply,
        "multiply": x.at[at].multiply,
        "amax": x.at[at].max,
        "amin": x.at[at].min,
    }
    return joined[how](source, mode=INSIDE)


def _least(x: Array) -> Any:
    return -jnp.inf if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.iinfo(x.dtype).min


def _most(x: Array) -> Any:
    return jnp.inf if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.iinfo(x.dtype).max


def _put(x: Array, indices: Sequence[Array | None], values: Array, accumulate: bool = False) -> Array:
    masks = [i for i in indices if i is not None and i.dtype in (jnp.bool_, jnp.uint8)]
    if len(masks) == len(indices) == 1 and values.size == 1:
        mask = masks[0].astype(bool).reshape(masks[0].shape + (1,) * (x.ndim - masks[0].ndim))
        value = values.reshape(()).astype(x.dtype)
        return jnp.where(mask, x + value if accumulate else value, x)
    return _written(x, whole(indices), values, "add" if accumulate else "set")


def _over_rows(how: str) -> Any:
    """Row of what is written to entries of a dim, one for each of an index."""

    def row(x: Array, d: int, index: Array, source: Array, alpha: complex = 1) -> Array:
        source = source.reshape(1) if not source.ndim else source
        source = source if alpha == 1 else source * alpha
        return _written(x, (slice(None),) * d + (index.reshape(-1),), source, how)

    return along(row)


def _index_reduce(x: Array, d: int, index: Array, source: Array, reduce: str, include_self: bool = True) -> Array:
    return _written(
        x, (slice(None),) * d + (index.reshape(-1),), source.reshape(source.shape or (1,)), reduce, include_self
    )


def _masked_scatter(x: Array, mask: Array, source: Array) -> Array:
    shape = jnp.broadcast_shapes(x.shape, mask.shape)
    x, mask = jnp.broadcast_to(x, shape), jnp.broadcast_to(mask, shape)
    order = jnp.maximum(jnp.cumsum(mask.reshape(-1)) - 1, 0).reshape(shape)
    return jnp.where(mask, jnp.take(source.reshape(-1), order, mode="clip"), x) if source.size else x


def _into(view: Callable[..., Array]) -> Any:
    """Row of an array whose view is replaced: its places are those that the view reads."""

    def row(x: Array, source: Array, *args: Any, **kwargs: Any) -> Array:
        if not x.size:
            return x
        at = view(jnp.arange(x.size).reshape(x.shape), *args, **kwargs)
        source = jnp.broadcast_to(source, at.shape).astype(x.dtype)
        return x.reshape(-1).at[at.reshape(-1)].set(source.reshape(-1), mode=INSIDE).reshape(x.shape)

    return row


def _where(x: Array, mask: Array, value: Any) -> Array:
    return jnp.where(mask, jnp.asarray(value).astype(x.dtype), x)


def _put_flat(x: Array, index: Array, source: Array, accumulate: bool = False) -> Array:
    found = _written(x.reshape(-1), (index.reshape(-1),), source.reshape(-1), "add" if accumulate else "set")
    return found.reshape(x.shape)


def _masked_scatter_backward(gradient: Array, mask: Array, sizes: Sequence[int]) -> Array:
    """The gradient of what was written, in order: as many as the mask has, and zeros."""
    mask = jnp.broadcast_to(mask, gradient.shape).reshape(-1)
    count = prod(sizes)
    at = jnp.where(mask, jnp.cumsum(mask) - 1, count)
    return jnp.zeros(count, gradient.dtype).at[at].set(gradient.reshape(-1), mode="drop").reshape(tuple(sizes))


def _kept(x: Array, mask: Array, indices: Sequence[Array | None], fill: Any) -> Array:
    """Entries where a mask is true; elsewhere places may be of nothing."""
    found = x.at[tuple(slice(None) if i is None else i for i in indices)].get(mode="clip")
    return jnp.where(mask, found, jnp.asarray(fill).astype(x.dtype))


def _kept_added(x: Array, mask: Array, indices: Sequence[Array | None], values: Array) -> Array:
    at = tuple(slice(None) if i is None else jnp.clip(i, -n, n - 1) for i, n in zip(indices, x.shape, strict=False))
    return _written(x, at, jnp.where(mask, values, 0), "add")


ROWS = named(
    {
        "scatter.src scatter.value": along(_scattered),
        "scatter.reduce scatter.value_reduce": along(
            lambda x, d, index, source, reduce: _scattered(x, d, index, source, reduce)
        ),
        "scatter_add": along(lambda x, d, index, source: _scattered(x, d, index, source, "add")),
        "scatter_reduce.two": along(_scattered),
        "index_put _unsafe_index_put": _put,
        "index_add": _over_rows("add"),
        "index_copy": _over_rows("set"),
        "index_reduce": along(_index_reduce),
        "masked_fill.Scalar masked_fill.Tensor": _where,
        "masked_scatter": _masked_scatter,
        "masked_scatter_backward": _masked_scatter_backward,
        "put": _put_flat,
        "_unsafe_masked_index": _kept,
        "_unsafe_masked_index_put_accumulate": _kept_added,
        "as_strided_scatter": _into(_as_strided),
        "slice_scatter": _into(_slice),
        "select_scatter": _into(_select),
        "diagonal_scatter": _into(_diagonal),
    },
    single=False,
)
