"""`ROWS` of operations that move entries about: views, cuts, joins, pads."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .rows import Row, dtype_of, named


def _expand(x: Array, size: Sequence[int], implicit: bool = False) -> Array:
    own = (1,) * (len(size) - x.ndim) + x.shape
    return jnp.broadcast_to(x, [n if s == -1 else s for s, n in zip(size, own, strict=True)])


def _squeeze(x: Array, dim: Any = None) -> Array:
    dims = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    return jnp.squeeze(x, tuple({d % x.ndim for d in dims if x.ndim and x.shape[d] == 1}))


def _transpose(x: Array, a: int = 0, b: int = 1) -> Array:
    return jnp.swapaxes(x, a, b) if x.ndim else x


def _slice(x: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Array:
    first, last, step = slice(start, end, step).indices(x.shape[dim])
    return lax.slice_in_dim(x, first, max(first, last), step, dim)


def _select(x: Array, dim: int, index: int) -> Array:
    return lax.index_in_dim(x, index, dim, keepdims=False)


def _cuts(x: Array, sizes: Sequence[int], dim: int = 0) -> list[Array]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [lax.slice_in_dim(x, end - size, end, 1, dim) for size, end in zip(sizes, ends, strict=True)]


def _split(x: Array, size: int, dim: int = 0) -> list[Array]:
    whole = x.shape[dim]
    if not whole:
        return [x]
    return _cuts(x, [min(size, whole - at) for at in range(0, whole, size)], dim)


def _unbind(x: Array, dim: int = 0) -> list[Array]:
    return [_select(x, dim, i) for i in range(x.shape[dim])]


def _cat(arrays: Sequence[Array], dim: int = 0) -> Array:
    # an empty vector goes with everything, as it always did in torch
    kept = [x for x in arrays if x.shape != (0,)] or arrays[:1]
    return jnp.concatenate(kept, dim)


def _repeat(x: Array, times: Sequence[int]) -> Array:
    return jnp.tile(x, tuple(times))


def _pad(x: Array, pad: Sequence[int], value: complex = 0) -> Array:
    low, high = list(pad[0::2])[::-1], list(pad[1::2])[::-1]
    left = x.ndim - len(low)
    widths = [(0, 0, 0)] * left + [(a, b, 0) for a, b in zip(low, high, strict=True)]
    return lax.pad(x, jnp.asarray(value, x.dtype), widths)


def _padded(mode: str) -> Row:
    """Row of reflected and replicated margins."""

    def row(x: Array, pad: Sequence[int]) -> Array:
        low, high = list(pad[0::2])[::-1], list(pad[1::2])[::-1]
        widths = [(0, 0)] * (x.ndim - len(low)) + list(zip(low, high, strict=True))
        x = jnp.pad(x, [(max(a, 0), max(b, 0)) for a, b in widths], mode=mode)
        return lax.pad(x, jnp.zeros((), x.dtype), [(min(a, 0), min(b, 0), 0) for a, b in widths])

    return row


def pulled_back(row: Row) -> Row:
    """The row of the gradient of one of a single array, which torch gives the array again after the gradient."""

    def backward(gradient: Array, x: Array, *args: Any) -> Array:
        (found,) = jax.vjp(lambda x: row(x, *args), x)[1](gradient.astype(x.dtype))
        return found

    return backward


def spread(row: Row) -> Row:
    """The row of the gradient of a linear one, which torch gives the shape of the array alone."""

    def backward(gradient: Array, shape: Sequence[int], *args: Any) -> Array:
        empty = jax.ShapeDtypeStruct(tuple(shape), gradient.dtype)
        (found,) = jax.linear_transpose(lambda x: row(x, *args), empty)(gradient)
        return found

    return backward


def _slice_backward(gradient: Array, shape: Sequence[int], dim: int, start: int, end: int, step: int) -> Array:
    first, _, step = slice(start, end, step).indices(shape[dim])
    used, dim = gradient.shape[dim], dim % len(shape)
    inside = max(0, used - 1)
    after = shape[dim] - first - used - inside * (step - 1)
    widths = [(first, after, step - 1) if d == dim else (0, 0, 0) for d in range(len(shape))]
    return lax.pad(gradient, jnp.zeros((), gradient.dtype), widths)


def _select_backward(gradient: Array, shape: Sequence[int], dim: int, index: int) -> Array:
    dim = dim % len(shape)
    at = index % shape[dim]
    widths = [(at, shape[dim] - at - 1, 0) if d == dim else (0, 0, 0) for d in range(len(shape))]
    return lax.pad(jnp.expand_dims(gradient, dim), jnp.zeros((), gradient.dtype), widths)


def _diagonal(x: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    return jnp.diagonal(x, offset, dim1, dim2)


def _diag_embed(x: Array, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Array:
    size, room = x.shape[-1], x.ndim + 1
    whole = jnp.zeros((*x.shape[:-1], size + abs(offset), size + abs(offset)), x.dtype)
    rows = jnp.arange(size)
    whole = whole.at[..., rows + max(-offset, 0), rows + max(offset, 0)].set(x)
    return jnp.moveaxis(whole, (-2, -1), (dim1 % room, dim2 % room))


def _unfold(x: Array, dim: int, size: int, step: int) -> Array:
    if not x.ndim:
        return jnp.broadcast_to(x, (size,))
    starts = range(0, x.shape[dim] - size + 1, step)
    # one strided cut for each place in a window
    last = starts[-1] + 1 if len(starts) else 0
    cuts = [lax.slice_in_dim(x, i, i + last, step, dim) for i in range(size)]
    return jnp.stack(cuts, -1)


def _unfold_backward(gradient: Array, shape: Sequence[int], dim: int, size: int, step: int) -> Array:
    return spread(_unfold)(gradient, shape, dim, size, step)


def _pixel_shuffle(x: Array, factor: int) -> Array:
    *batch, c, h, w = x.shape
    x = x.reshape(*batch, c // factor**2, factor, factor, h, w)
    n = len(batch)
    x = jnp.transpose(x, (*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return x.reshape(*batch, c // factor**2, h * factor, w * factor)


def _pixel_unshuffle(x: Array, factor: int) -> Array:
    *batch, c, h, w = x.shape
    x = x.reshape(*batch, c, h // factor, factor, w // factor, factor)
    n = len(batch)
    x = jnp.transpose(x, (*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return x.reshape(*batch, c * factor**2, h // factor, w // factor)


def _roll(x: Array, shifts: Sequence[int], dims: Sequence[int] = ()) -> Array:
    return jnp.roll(x, tuple(shifts), tuple(dims)) if dims else jnp.roll(x, shifts[0])


def _as_strided(x: Array, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Array:
    """Entries by their places in memory, where those of x lie in order (`CONTIGUOUS`)."""
    at: Array | int = storage_offset or 0
    for count, step in zip(size, stride, strict=True):
        at = jnp.expand_dims(jnp.asarray(at), -1) + step * jnp.arange(count)
    return x.reshape(-1).at[jnp.asarray(at)].get(mode="promise_in_bounds")


def _blocks(matrices: Sequence[Array]) -> Array:
    matrices = [jnp.atleast_2d(x) for x in matrices]
    across, rows = sum(x.shape[1] for x in matrices), []
    for i, x in enumerate(matrices):
        before = sum(y.shape[1] for y in matrices[:i])
        rows.append(_pad(x, [before, across - before - x.shape[1]]))
    return jnp.concatenate(rows, 0)


def _repeat_places(times: Array, output_size: int | None = None) -> Array:
    if output_size is None:
        raise NotImplementedError("repeat_interleave without its output_size")
    return jnp.repeat(jnp.arange(times.shape[0]), times, total_repeat_length=output_size)


ROWS = named(
    {
        "view _unsafe_view view_copy": lambda x, size: jnp.reshape(x, tuple(size)),
        "_reshape_alias": lambda x, size, stride: jnp.reshape(x, tuple(size)),
        "view.dtype": lambda x, dtype: lax.bitcast_convert_type(x, dtype_of(dtype)),
        "t t_copy": lambda x: jnp.swapaxes(x, 0, 1) if x.ndim == 2 else x,
        "transpose.int transpose_copy.int": _transpose,
        "permute permute_copy": lambda x, dims: jnp.transpose(x, tuple(d % x.ndim for d in dims)),
        "expand expand_copy": _expand,
        "unsqueeze unsqueeze_copy": lambda x, dim: jnp.expand_dims(x, dim),
        "squeeze squeeze.dim squeeze.dims squeeze_copy squeeze_copy.dim squeeze_copy.dims": _squeeze,
        "slice.Tensor slice_copy.Tensor": _slice,
        "select.int select_copy.int": _select,
        "split.Tensor split_copy.Tensor unsafe_split.Tensor": _split,
        "split_with_sizes split_with_sizes_copy unsafe_split_with_sizes": _cuts,
        "unbind.int unbind_copy.int": _unbind,
        "cat": _cat,
        "stack": lambda arrays, dim=0: jnp.stack(arrays, dim),
        "repeat": _repeat,
        "repeat_interleave.Tensor": _repeat_places,
        "block_diag": _blocks,
        "narrow_copy": lambda x, dim, start, length: _slice(x, dim, start, start % x.shape[dim] + length),
        "as_strided as_strided_copy": _as_strided,
        "flip": lambda x, dims: jnp.flip(x, tuple(dims)) if dims and x.ndim else x,
        "roll": _roll,
        "rot90": lambda x, k=1, dims=(0, 1): jnp.rot90(x, k, tuple(dims)),
        "constant_pad_nd": _pad,
        "reflection_pad1d reflection_pad2d reflection_pad3d": _padded("reflect"),
        "replication_pad1d replication_pad2d replication_pad3d": _padded("edge"),
        "reflection_pad1d_backward reflection_pad2d_backward": pulled_back(_padded("reflect")),
        "reflection_pad3d_backward": pulled_back(_padded("reflect")),
        "replication_pad1d_backward replication_pad2d_backward": pulled_back(_padded("edge")),
        "replication_pad3d_backward": pulled_back(_padded("edge")),
        "slice_backward": _slice_backward,
        "select_backward": _select_backward,
        "diagonal diagonal_copy": _diagonal,
        "diagonal_backward": spread(_diagonal),
        "diag_embed": _diag_embed,
        "unfold unfold_copy": _unfold,
        "unfold_backward": _unfold_backward,
        "pixel_shuffle": _pixel_shuffle,
        "pixel_unshuffle": _pixel_unshuffle,
        "channel_shuffle native_channel_shuffle": lambda x, groups: (
            x.reshape(x.shape[0], groups, x.shape[1] // groups, -1).swapaxes(1, 2).reshape(x.shape)
        ),
        "tril": lambda x, diagonal=0: jnp.tril(x, diagonal),
        "triu": lambda x, diagonal=0: jnp.triu(x, diagonal),
    },
    single=False,
)
