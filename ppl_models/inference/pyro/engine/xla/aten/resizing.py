"""`ROWS` of images made larger or smaller, or read between their entries."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .rows import floating, named

Weights = Callable[..., np.ndarray]


def _multiplied(x: Array, matrices: Sequence[np.ndarray]) -> Array:
    """An image whose last dims are each multiplied by a matrix."""
    for i, matrix in enumerate(reversed(matrices), 1):
        x = jnp.moveaxis(jnp.moveaxis(x, -i, -1) @ jnp.asarray(matrix.T, x.dtype), -1, -i)
    return x


def _means(size: int, count: int) -> np.ndarray:
    """Means over so many ranges that cover a dim."""
    matrix = np.zeros((count, size))
    for i in range(count):
        start, end = size * i // count, -(-size * (i + 1) // count)
        matrix[i, start:end] = 1 / (end - start)
    return matrix


def _adaptive_mean(x: Array, sizes: Sequence[int]) -> Array:
    return _multiplied(x, [_means(n, count) for n, count in zip(x.shape[-len(sizes) :], sizes, strict=True)])


def _adaptive_mean_backward(dims: int) -> Any:
    def row(gradient: Array, x: Array) -> Array:
        sizes = zip(x.shape[-dims:], gradient.shape[-dims:], strict=True)
        return _multiplied(gradient, [_means(n, count).T for n, count in sizes])

    return row


def _places(size: int, count: int, given: float | None, aligned: bool, below: bool) -> np.ndarray:
    """Where the new entries lie among the old ones, before the first too if `below`."""
    at = np.arange(count, dtype=np.float64)
    if aligned:
        return at * ((size - 1) / (count - 1) if count > 1 else 0)
    found = (at + 0.5) * (1 / given if given else size / count) - 0.5
    return found if below else np.maximum(found, 0)


def _linear(size: int, count: int, given: float | None, aligned: bool) -> np.ndarray:
    at, matrix = _places(size, count, given, aligned, below=False), np.zeros((count, size))
    first = np.minimum(at.astype(int), size - 1)
    for i, (start, rest) in enumerate(zip(first, at - first, strict=True)):
        matrix[i, start] += 1 - rest
        matrix[i, min(start + 1, size - 1)] += rest
    return matrix


def _cubic(size: int, count: int, given: float | None, aligned: bool) -> np.ndarray:
    at, matrix = _places(size, count, given, aligned, below=True), np.zeros((count, size))
    first = np.floor(at).astype(int)
    for k in range(-1, 3):
        weight = _smooth(np.abs(at - first - k))
        np.add.at(matrix, (np.arange(count), np.clip(first + k, 0, size - 1)), weight)
    return matrix


def _smooth(far: Any, sharp: float = -0.75, where: Any = np.where) -> Any:
    """The weight of an entry so far away in a cubic convolution."""
    near = ((sharp + 2) * far - (sharp + 3)) * far * far + 1
    return where(far <= 1, near, ((sharp * far - 5 * sharp) * far + 8 * sharp) * far - 4 * sharp)


def _resized(weights: Weights, x: Array, sizes: Sequence[int], align_corners: bool, *scales: float | None) -> Array:
    if not floating(x):
        raise NotImplementedError("an image of integers between its entries")
    given = scales or [None] * len(sizes)
    olds = x.shape[-len(sizes) :]
    return _multiplied(x, [weights(*each, align_corners) for each in zip(olds, sizes, given, strict=True)])


def _resized_backward(
    weights: Weights,
    gradient: Array,
    sizes: Sequence[int],
    shape: Sequence[int],
    align_corners: bool,
    *scales: float | None,
) -> Array:
    given = scales or [None] * len(sizes)
    olds = shape[-len(sizes) :]
    return _multiplied(gradient, [weights(*each, align_corners).T for each in zip(olds, sizes, given, strict=True)])


def _nearest(x: Array, sizes: Sequence[int], *scales: float | None, middle: float = 0.0) -> Array:
    for i, count in enumerate(sizes):
        axis = x.ndim - len(sizes) + i
        size, given = x.shape[axis], scales[i] if scales else None
        at = np.arange(count)
        if count != size or middle:  # in single precision, as torch counts
            scale = np.float32(1 / given) if given else np.float32(size) / np.float32(count)
            at = np.minimum(np.floor((at.astype(np.float32) + np.float32(middle)) * scale), size - 1).astype(int)
        if count % size == 0 and (at == np.arange(count) // (count // size)).all():
            x = jnp.repeat(x, count // size, axis)
        else:
            x = jnp.take(x, at, axis)
    return x


def _nearest_backward(
    gradient: Array, sizes: Sequence[int], shape: Sequence[int], *scales: float | None, middle: float = 0.0
) -> Array:
    empty = jax.ShapeDtypeStruct(tuple(shape), gradient.dtype)
    (found,) = jax.linear_transpose(lambda x: _nearest(x, sizes, *scales, middle=middle), empty)(gradient)
    return found


LINEAR, NEAREST, CUBIC = 0, 1, 2
ZEROS, BORDER, REFLECTION = 0, 1, 2


def _reflected(at: Array, low: float, high: float) -> Array:
    """Places mirrored into a range until they are in it."""
    if low == high:
        return jnp.zeros_like(at)
    far = jnp.abs(at - low)
    extra, times = jnp.fmod(far, high - low), jnp.floor(far / (high - low))
    return jnp.where(times % 2 == 0, extra + low, high - extra)


def _inside(at: Array, size: int, padding: int, align_corners: bool) -> Array:
    if padding == REFLECTION:
        at = _reflected(at, 0, size - 1) if align_corners else _reflected(at, -0.5, size - 0.5)
    return at if padding == ZEROS else jnp.clip(at, 0, size - 1)


def _sampled(x: Array, grid: Array, mode: int, padding: int, align_corners: bool) -> Array:
    """Entries of images where a grid says, whose last number is of the first dim and goes from -1 to 1."""
    sizes, dims = x.shape[2:], x.ndim - 2
    batch = jnp.arange(x.shape[0]).reshape(-1, *[1] * dims)

    def entry(places: Sequence[Array]) -> Array:
        known = jnp.ones((), bool)
        for at, size in zip(places, sizes, strict=True):
            known = known & (at >= 0) & (at < size)
        at = [jnp.clip(at, 0, size - 1).astype(jnp.int32) for at, size in zip(places, sizes, strict=True)]
        return jnp.where(known[..., None], jnp.moveaxis(x, 1, -1)[(batch, *at)], 0)

    wanted = []
    for i, size in enumerate(sizes):
        at = grid[..., dims - 1 - i]
        wanted.append((at + 1) / 2 * (size - 1) if align_corners else ((at + 1) * size - 1) / 2)
    if mode != CUBIC:
        wanted = [_inside(at, size, padding, align_corners) for at, size in zip(wanted, sizes, strict=True)]
    if mode == NEAREST:
        return jnp.moveaxis(entry([jnp.round(at) for at in wanted]), -1, 1)
    total: Any = 0
    for offsets in product(range(2) if mode == LINEAR else range(-1, 3), repeat=dims):
        weight, places = jnp.ones((), x.dtype), []
        for at, size, offset in zip(wanted, sizes, offsets, strict=True):
            first = jax.lax.stop_gradient(jnp.floor(at))
            rest = at - first
            if mode == LINEAR:
                weight = weight * (rest if offset else 1 - rest)
                places.append(first + offset)
            else:
                weight = weight * _smooth(jnp.abs(rest - offset), where=jnp.where)
                places.append(_inside(first + offset, size, padding, align_corners))
        total = total + weight[..., None] * entry(places)
    return jnp.moveaxis(total, -1, 1)


def _sampled_backward(gradient: Array, x: Array, grid: Array, *settings: Any) -> tuple[Array | None, Array | None]:
    *settings, asked = settings
    for_x, for_grid = jax.vjp(lambda x, grid: _sampled(x, grid, *settings), x, grid)[1](gradient)
    return for_x if asked[0] else None, for_grid if asked[1] else None


ROWS = named(
    {
        "_adaptive_avg_pool2d _adaptive_avg_pool3d": _adaptive_mean,
        "_adaptive_avg_pool2d_backward": _adaptive_mean_backward(2),
        "_adaptive_avg_pool3d_backward": _adaptive_mean_backward(3),
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d": _nearest,
        "upsample_nearest1d_backward upsample_nearest2d_backward upsample_nearest3d_backward": _nearest_backward,
        "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d": partial(_nearest, middle=0.5),
        "_upsample_nearest_exact1d_backward _upsample_nearest_exact2d_backward": partial(_nearest_backward, middle=0.5),
        "_upsample_nearest_exact3d_backward": partial(_nearest_backward, middle=0.5),
        "upsample_linear1d upsample_bilinear2d upsample_trilinear3d": partial(_resized, _linear),
        "upsample_linear1d_backward upsample_bilinear2d_backward": partial(_resized_backward, _linear),
        "upsample_trilinear3d_backward": partial(_resized_backward, _linear),
        "upsample_bicubic2d": partial(_resized, _cubic),
        "upsample_bicubic2d_backward": partial(_resized_backward, _cubic),
        "grid_sampler_2d grid_sampler_3d": _sampled,
        "grid_sampler_2d_backward grid_sampler_3d_backward": _sampled_backward,
    }
)
