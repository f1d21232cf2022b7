"""`ROWS` of operations that read entries by their places."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from .rows import along, named

INSIDE = "promise_in_bounds"  # torch refuses places that are not there


def places(index: Array, dim: int) -> tuple[Array, ...]:
    """Places of an index over one dim, which lie as its own entries do in all others."""
    grid = [lax.broadcasted_iota(jnp.int32, index.shape, d) for d in range(index.ndim)]
    grid[dim] = index
    return tuple(grid)


def whole(indices: Sequence[Array | None]) -> tuple[Array | slice, ...]:
    """Places for `index` and its relatives.

    Raises:
        NotImplementedError: one is a mask, of which shapes would depend on values.
    """
    if any(i is not None and i.dtype in (jnp.bool_, jnp.uint8) for i in indices):
        raise NotImplementedError("an index that is a mask")
    return tuple(slice(None) if i is None else i for i in indices)


def _gather(x: Array, dim: int, index: Array, sparse_grad: bool = False) -> Array:
    if x.ndim == 0 or index.size == 0:
        return jnp.broadcast_to(x, index.shape) if index.size else jnp.zeros(index.shape, x.dtype)
    return x.at[places(index.reshape(index.shape or (1,)), dim % x.ndim)].get(mode=INSIDE).reshape(index.shape)


def _index(x: Array, indices: Sequence[Array | None]) -> Array:
    return x.at[whole(indices)].get(mode=INSIDE)


def _index_select(x: Array, dim: int, index: Array) -> Array:
    return x if x.ndim == 0 else jnp.take(x, index.reshape(-1), dim, mode="clip")


def _embedding_backward(
    gradient: Array, indices: Array, rows: int, padding_idx: int, scale_grad_by_freq: bool
) -> Array:
    flat, each = indices.reshape(-1), gradient.reshape(-1, gradient.shape[-1])
    each = jnp.where((flat == padding_idx)[:, None], 0, each)
    if scale_grad_by_freq:
        each = each / jnp.zeros(rows, each.dtype).at[flat].add(1)[flat][:, None]
    return jnp.zeros((rows, each.shape[-1]), each.dtype).at[flat].add(each, mode=INSIDE)


def _search(
    edges: Array,
    x: Array,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Array | None = None,
) -> Array:
    x, side = jnp.asarray(x), side or ("right" if right else "left")
    if sorter is not None:
        edges = jnp.take_along_axis(edges, sorter, -1)
    if edges.ndim == 1:
        return jnp.searchsorted(edges, x, side=side)
    rows = jax.vmap(lambda edges, x: jnp.searchsorted(edges, x, side=side))
    return rows(edges.reshape(-1, edges.shape[-1]), x.reshape(-1, x.shape[-1])).reshape(x.shape)


def _is_in(x: Array, others: Array, assume_unique: bool = False, invert: bool = False) -> Array:
    found = jnp.any(jnp.asarray(x)[..., None] == jnp.asarray(others).reshape(-1), -1)
    return ~found if invert else found


ROWS = named(
    {
        "gather": _gather,
        "index.Tensor _unsafe_index.Tensor": _index,
        "index_select": _index_select,
        "take": lambda x, index: x.reshape(-1).at[index].get(mode=INSIDE),
        "embedding": lambda weight, indices, *_, **__: jnp.take(weight, indices, 0, mode="clip"),
        "embedding_dense_backward": _embedding_backward,
        "searchsorted.Tensor searchsorted.Scalar": _search,
        "bucketize.Tensor bucketize.Scalar": lambda x, edges, out_int32=False, right=False: _search(
            edges, x, right=right
        ),
        "isin.Tensor_Tensor isin.Tensor_Scalar isin.Scalar_Tensor": _is_in,
        "index_fill.int_Scalar index_fill.int_Tensor": along(
            lambda x, d, index, value: jnp.moveaxis(jnp.moveaxis(x, d, 0).at[index.reshape(-1)].set(value), 0, d)
        ),
    },
    single=False,
)
