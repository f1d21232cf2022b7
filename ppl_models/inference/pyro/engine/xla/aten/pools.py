"""`ROWS` of pools over neighbours, and of neighbours laid out in columns."""

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .rows import named


def _each(given: Any, dims: int, default: Sequence[int] = ()) -> list[int]:
    """A setting for each of the dims, from one for all or none."""
    given = [given] if isinstance(given, int) else list(given) or list(default)
    return given * dims if len(given) == 1 else given


def _outputs(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    # a window that starts beyond all entries is left out
    return count - 1 if ceil_mode and (count - 1) * stride >= size + padding else count


def _max_pool(dims: int) -> Any:
    """Row of the largest of neighbours, and where in the image it is."""

    def row(
        x: Array, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
    ) -> tuple[Array, Array]:
        kernel = _each(kernel, dims)
        stride, padding = _each(stride, dims, kernel), _each(padding, dims)
        dilation, sizes = _each(dilation, dims), x.shape[-dims:]
        settings = zip(sizes, kernel, stride, padding, dilation, strict=True)
        outputs = [_outputs(*each, ceil_mode) for each in settings]
        # as much margin as the last window needs
        need = [
            max((o - 1) * s + d * (k - 1) + 1 - n - p, 0)
            for o, s, d, k, n, p in zip(outputs, stride, dilation, kernel, sizes, padding, strict=True)
        ]
        least = -jnp.inf if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.iinfo(x.dtype).min
        edges = [(0, 0, 0)] * (x.ndim - dims) + [(p, n, 0) for p, n in zip(padding, need, strict=True)]
        padded = lax.pad(x, jnp.asarray(least, x.dtype), edges)
        best = place = None
        for offsets in product(*map(range, kernel)):
            cut, at = padded, jnp.zeros((1,) * dims, jnp.int64)
            for i, (offset, o, s, d, p, n) in enumerate(
                zip(offsets, outputs, stride, dilation, padding, sizes, strict=True)
            ):
                start, axis = offset * d, x.ndim - dims + i
                cut = lax.slice_in_dim(cut, start, start + (o - 1) * s + 1, s, axis)
                along_it = (start - p + s * jnp.arange(o)).reshape((-1,) + (1,) * (dims - 1 - i))
                at = at * n + along_it
            if best is None:
                best, place = cut, jnp.broadcast_to(at, cut.shape)
                continue
            better = (cut > best) | (cut != cut)
            best, place = jnp.where(better, cut, best), jnp.where(better, at, place)
        return best, place

    return row


def _max_pool_backward(dims: int) -> Any:
    def row(gradient: Array, x: Array, *settings: Any) -> Array:
        place = settings[-1]
        images, inside = prod(x.shape[: x.ndim - dims]), prod(x.shape[-dims:])
        if not gradient.size:
            return jnp.zeros_like(x)
        flat = jnp.zeros((images, inside), gradient.dtype)
        rows = jnp.arange(images)[:, None]
        return flat.at[rows, place.reshape(images, -1)].add(gradient.reshape(images, -1)).reshape(x.shape)

    return row


def _avg_pool(dims: int) -> Any:
    """Row of means of neighbours."""

    def row(
        x: Array,
        kernel: Any,
        stride: Any = (),
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Array:
        kernel = _each(kernel, dims)
        stride, padding, sizes = _each(stride, dims, kernel), _each(padding, dims), x.shape[-dims:]
        counts, edges = np.ones((1,) * dims), []
        for i, (n, k, s, p) in enumerate(zip(sizes, kernel, stride, padding, strict=True)):
            o = _outputs(n, k, s, p, 1, ceil_mode)
            starts = np.arange(o) * s - p
            ends = np.minimum(starts + k, n + p)
            edges.append((p, max(int((o - 1) * s + k - n - p), 0)))
            along_it = ends - starts if count_include_pad else np.minimum(ends, n) - np.maximum(starts, 0)
            counts = counts * along_it.reshape((-1,) + (1,) * (dims - 1 - i))
        outer = x.ndim - dims
        zero = np.zeros((), x.dtype)[()]  # a known one: only sums from nothing have a transpose
        # windows of the last one may stop before the margin does
        trimmed = [(0, 0)] * outer + [(low, max(high, 0)) for low, high in edges]
        total = lax.reduce_window(x, zero, lax.add, (1,) * outer + tuple(kernel), (1,) * outer + tuple(stride), trimmed)
        total = total[(..., *[slice(n) for n in counts.shape])]
        return total / (jnp.asarray(counts, x.dtype) if divisor_override is None else divisor_override)

    return row


def _backward_of(row: Callable[..., Array]) -> Any:
    """The gradient of a linear row, which torch gives the array and the settings of the row again."""

    def backward(gradient: Array, x: Array, *settings: Any) -> Array:
        (found,) = jax.linear_transpose(lambda x: row(x, *settings), jax.ShapeDtypeStruct(x.shape, gradient.dtype))(
            gradient
        )
        return found

    return backward


def _adaptive_max(dims: int) -> Any:
    """Row of the largest in each of so many ranges that cover every dim, and where it is."""

    def row(x: Array, counts: Sequence[int]) -> tuple[Array, Array]:
        sizes, cut = x.shape[-dims:], x
        inside, place = np.ones((), bool), np.zeros((), int)
        for i, (size, count) in enumerate(zip(sizes, counts, strict=True)):
            ranges = [range(size * j // count, -(-size * (j + 1) // count)) for j in range(count)]
            longest = max(map(len, ranges))
            at = np.array([[min(r.start + k, r.stop - 1) for k in range(longest)] for r in ranges])
            known = np.array([[k < len(r) for k in range(longest)] for r in ranges])
            axis = x.ndim - dims + 2 * i
            cut = jnp.take(cut, at, axis)
            inside = inside[..., None, None] & known
            place = place[..., None, None] * size + at
        outer = x.ndim - dims
        order = (*range(0, 2 * dims, 2), *range(1, 2 * dims, 2))
        cut = jnp.transpose(cut, (*range(outer), *[outer + d for d in order]))
        inside, place = np.transpose(inside, order), np.transpose(place, order)
        flat = (*inside.shape[:dims], -1)
        cut = jnp.where(inside, cut, -jnp.inf).reshape(*x.shape[:outer], *flat)
        best = jnp.argmax(cut, -1, keepdims=True)
        place = jnp.broadcast_to(place.reshape(flat), cut.shape)
        return jnp.max(cut, -1), jnp.take_along_axis(place, best, -1)[..., 0]

    return row


def _unpool(dims: int) -> Any:
    def row(x: Array, place: Array, sizes: Sequence[int], *_: Any) -> Array:
        images, outer = prod(x.shape[: x.ndim - dims]), x.shape[: x.ndim - dims]
        flat = jnp.zeros((images, prod(sizes)), x.dtype)
        rows = jnp.arange(images)[:, None]
        found = flat.at[rows, place.reshape(images, -1)].set(x.reshape(images, -1)) if x.size else flat
        return found.reshape(*outer, *sizes)

    return row


def _columns(x: Array, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Array:
    """Each window as a column."""
    batched = x if x.ndim == 4 else x[None]
    kernel, dilation, padding, stride = (_each(given, 2) for given in (kernel, dilation, padding, stride))
    edges = [(0, 0)] * 2 + [(p, p) for p in padding]
    padded = jnp.pad(batched, edges)
    starts = [
        range(0, n - d * (k - 1), s) for n, d, k, s in zip(padded.shape[2:], dilation, kernel, stride, strict=True)
    ]
    cuts = []
    for i, j in product(*map(range, kernel)):
        cut = padded
        for axis, offset in ((2, i * dilation[0]), (3, j * dilation[1])):
            cut = lax.slice_in_dim(cut, offset, offset + starts[axis - 2][-1] + 1, stride[axis - 2], axis)
        cuts.append(cut.reshape(*cut.shape[:2], prod(cut.shape[2:])))
    found = jnp.stack(cuts, 2)
    found = found.reshape(found.shape[0], found.shape[1] * found.shape[2], found.shape[3])
    return found if x.ndim == 4 else found[0]


def _from_columns(columns: Array, size: Sequence[int], kernel: Any, *settings: Any) -> Array:
    channels = columns.shape[-2] // prod(_each(kernel, 2))
    whole = jax.ShapeDtypeStruct((*columns.shape[:-2], channels, *size), columns.dtype)
    (found,) = jax.linear_transpose(lambda x: _columns(x, kernel, *settings), whole)(columns)
    return found


ROWS = named(
    {
        "max_pool2d_with_indices": _max_pool(2),
        "max_pool3d_with_indices": _max_pool(3),
        "max_pool2d_with_indices_backward adaptive_max_pool2d_backward": _max_pool_backward(2),
        "max_pool3d_with_indices_backward adaptive_max_pool3d_backward": _max_pool_backward(3),
        "adaptive_max_pool2d": _adaptive_max(2),
        "adaptive_max_pool3d": _adaptive_max(3),
        "max_unpool2d": _unpool(2),
        "max_unpool3d": _unpool(3),
        "avg_pool2d": _avg_pool(2),
        "avg_pool2d_backward": _backward_of(_avg_pool(2)),
        "avg_pool3d": _avg_pool(3),
        "avg_pool3d_backward": _backward_of(_avg_pool(3)),
        "im2col": _columns,
        "col2im": _from_columns,
    }
)
