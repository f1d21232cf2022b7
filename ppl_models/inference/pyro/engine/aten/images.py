"""`ROWS` of pools over neighbours, and of images made larger or smaller."""

from collections.abc import Callable, Sequence
from itertools import product
from math import ceil, floor
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
        images, inside = int(np.prod(x.shape[: x.ndim - dims])), int(np.prod(x.shape[-dims:]))
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
        zero = jnp.zeros((), x.dtype)
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


def _resized(x: Array, matrices: Sequence[np.ndarray]) -> Array:
    """An image whose last dims are each multiplied by a matrix."""
    for i, matrix in enumerate(reversed(matrices), 1):
        x = jnp.moveaxis(jnp.moveaxis(x, -i, -1) @ jnp.asarray(matrix.T, x.dtype), -1, -i)
    return x


def _bins(size: int, count: int) -> np.ndarray:
    """Means over so many ranges that cover a dim."""
    matrix = np.zeros((count, size))
    for i in range(count):
        start, end = floor(i * size / count), ceil((i + 1) * size / count)
        matrix[i, start:end] = 1 / (end - start)
    return matrix


def _adaptive(x: Array, sizes: Sequence[int]) -> Array:
    return _resized(x, [_bins(n, count) for n, count in zip(x.shape[-len(sizes) :], sizes, strict=True)])


def _adaptive_backward(dims: int) -> Any:
    def row(gradient: Array, x: Array) -> Array:
        sizes = zip(x.shape[-dims:], gradient.shape[-dims:], strict=True)
        return _resized(gradient, [_bins(n, count).T for n, count in sizes])

    return row


def _scale(size: int, count: int, given: float | None) -> np.float32:
    return np.float32(1 / given) if given else np.float32(size) / np.float32(count)


def _nearest(x: Array, sizes: Sequence[int], *scales: float | None) -> Array:
    for i, count in enumerate(sizes):
        axis = x.ndim - len(sizes) + i
        size, given = x.shape[axis], scales[i] if scales else None
        at = np.arange(count)
        if count != size:
            at = np.minimum(np.floor(at.astype(np.float32) * _scale(size, count, given)), size - 1).astype(int)
        if count % size == 0 and (at == np.arange(count) // (count // size)).all():
            x = jnp.repeat(x, count // size, axis)
        else:
            x = jnp.take(x, at, axis)
    return x


def _nearest_backward(gradient: Array, sizes: Sequence[int], shape: Sequence[int], *scales: float | None) -> Array:
    empty = jax.ShapeDtypeStruct(tuple(shape), gradient.dtype)
    (found,) = jax.linear_transpose(lambda x: _nearest(x, sizes, *scales), empty)(gradient)
    return found


ROWS = named(
    {
        "max_pool2d_with_indices": _max_pool(2),
        "max_pool2d_with_indices_backward": _max_pool_backward(2),
        "max_pool3d_with_indices": _max_pool(3),
        "max_pool3d_with_indices_backward": _max_pool_backward(3),
        "avg_pool2d": _avg_pool(2),
        "avg_pool2d_backward": _backward_of(_avg_pool(2)),
        "avg_pool3d": _avg_pool(3),
        "avg_pool3d_backward": _backward_of(_avg_pool(3)),
        "_adaptive_avg_pool2d _adaptive_avg_pool3d": _adaptive,
        "_adaptive_avg_pool2d_backward": _adaptive_backward(2),
        "_adaptive_avg_pool3d_backward": _adaptive_backward(3),
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d": _nearest,
        "upsample_nearest1d_backward upsample_nearest2d_backward upsample_nearest3d_backward": _nearest_backward,
    }
)
