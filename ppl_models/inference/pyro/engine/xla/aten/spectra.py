"""`ROWS` of complex numbers and of Fourier transforms."""

from collections.abc import Sequence
from math import pi, prod, sqrt
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from .rows import as_floating, named

BY_ROOT, BY_COUNT = 1, 2


def _normalized(x: Array, count: int, normalization: int) -> Array:
    if normalization == BY_ROOT:
        return x / sqrt(count)
    return x / count if normalization == BY_COUNT else x


def _transform(x: Array, dim: Sequence[int], normalization: int, forward: bool) -> Array:
    count = prod(x.shape[d] for d in dim)
    found = jnp.fft.fftn(x, axes=tuple(dim)) if forward else jnp.fft.ifftn(x, axes=tuple(dim), norm="forward")
    return _normalized(found, count, normalization)


def _of_real(x: Array, dim: Sequence[int], normalization: int, onesided: bool) -> Array:
    transform: Any = jnp.fft.rfftn if onesided else jnp.fft.fftn
    return _normalized(transform(x, axes=tuple(dim)), prod(x.shape[d] for d in dim), normalization)


def _to_real(x: Array, dim: Sequence[int], normalization: int, last: int) -> Array:
    *others, final = dim
    if others:
        x = jnp.fft.ifftn(x, axes=tuple(others), norm="forward")
    found = jnp.fft.irfft(x, last, final, norm="forward")
    return _normalized(found, last * prod(x.shape[d] for d in others), normalization)


def _angle(x: Array) -> Array:
    return jnp.angle(x) if jnp.iscomplexobj(x) else jnp.where(jnp.isnan(x), x, jnp.where(x < 0, pi, 0))


ROWS = named(
    {
        "_fft_c2c": _transform,
        "_fft_r2c": _of_real,
        "_fft_c2r": _to_real,
        "_conj _conj_physical": jnp.conj,
        "complex": lambda real, imaginary: lax.complex(*jnp.broadcast_arrays(real, imaginary)),
        "polar": lambda size, angle: lax.complex(size * jnp.cos(angle), size * jnp.sin(angle)),
        "view_as_real view_as_real_copy": lambda x: jnp.stack([x.real, x.imag], -1),
        "view_as_complex view_as_complex_copy": lambda x: lax.complex(x[..., 0], x[..., 1]),
        "angle": lambda x: _angle(as_floating(x)),
    }
)
