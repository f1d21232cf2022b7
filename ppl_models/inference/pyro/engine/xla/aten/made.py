"""`ROWS` of operations that make an array of no other one's values, and of those that hand one on as it is."""

from math import ceil
from typing import Any

import jax.numpy as jnp
import torch
from jax import Array

from .rows import cast, dtype_of, named


def _default(value: Any) -> torch.dtype:
    if isinstance(value, bool):
        return torch.bool
    return torch.int64 if isinstance(value, int) else torch.get_default_dtype()


def _full(size: list[int], value: Any, dtype: torch.dtype | None = None, **_: Any) -> Array:
    dtype = _default(value) if dtype is None else dtype
    return jnp.full(tuple(size), value, dtype_of(dtype))


def _filled(value: Any) -> Any:
    """Row of `zeros`, `ones` and `empty`, whose dtype is the default one where none is given."""
    return lambda size, *_, dtype=None, **__: _full(size, value, dtype or torch.get_default_dtype())


def _like(value: Any) -> Any:
    """Row of `zeros_like` and its relatives."""
    return lambda x, dtype=None, *_, **__: jnp.full_like(x, value, dtype=None if dtype is None else dtype_of(dtype))


def _new(value: Any) -> Any:
    """Row of `new_zeros` and its relatives."""
    return lambda x, size, *_, dtype=None, **__: jnp.full(size, value, x.dtype if dtype is None else dtype_of(dtype))


def _arange(start: float, end: float, step: float = 1, dtype: torch.dtype | None = None, **_: Any) -> Array:
    whole = all(isinstance(x, int) for x in (start, end, step))
    dtype = (torch.int64 if whole else torch.get_default_dtype()) if dtype is None else dtype
    count = -((start - end) // step) if whole else ceil((end - start) / step)
    numbers = jnp.arange(count, dtype=jnp.int64 if whole else jnp.float64)
    return cast(start + step * numbers, dtype)


def _linspace(start: float, end: float, steps: int, dtype: torch.dtype | None = None, **_: Any) -> Array:
    start, end = (x.astype(jnp.float64) if isinstance(x, Array) else x for x in (start, end))
    if steps < 2:
        found = jnp.full((steps,), start, jnp.float64)
    else:
        numbers, step = jnp.arange(steps, dtype=jnp.float64), (end - start) / (steps - 1)
        found = jnp.where(numbers < steps // 2, start + step * numbers, end - step * (steps - 1 - numbers))
    return cast(found, dtype or torch.get_default_dtype())


def _logspace(
    start: float, end: float, steps: int, base: float = 10.0, dtype: torch.dtype | None = None, **_: Any
) -> Array:
    return cast(base ** _linspace(start, end, steps, torch.float64), dtype or torch.get_default_dtype())


def _triangle(rows: int, columns: int, offset: int, upper: bool) -> Array:
    found = jnp.triu_indices(rows, offset, columns) if upper else jnp.tril_indices(rows, offset, columns)
    return jnp.stack(found)


def _to_copy(x: Array, *, dtype: torch.dtype | None = None, **_: Any) -> Array:
    return cast(x.real if dtype is not None and not dtype.is_complex and jnp.iscomplexobj(x) else x, dtype)


def _same(x: Array, *_: Any, **__: Any) -> Array:
    return x


ROWS = named(
    {
        "zeros empty.memory_format": _filled(0),
        "ones": _filled(1),
        "full": _full,
        "scalar_tensor": lambda value, dtype=None, **_: _full([], value, dtype or torch.get_default_dtype()),
        "zeros_like empty_like": _like(0),
        "ones_like": _like(1),
        "full_like": lambda x, value, dtype=None, **_: _like(value)(x, dtype),
        "new_zeros new_empty new_empty_strided": _new(0),
        "new_ones": _new(1),
        "new_full": lambda x, size, value, dtype=None, **_: _new(value)(x, size, dtype=dtype),
        "empty_strided empty_permuted": _filled(0),
        "arange": lambda end, **given: _arange(0, end, **given),
        "arange.start arange.start_step": _arange,
        "linspace linspace.Tensor_Tensor linspace.Tensor_Scalar linspace.Scalar_Tensor": _linspace,
        "logspace logspace.Tensor_Tensor logspace.Tensor_Scalar logspace.Scalar_Tensor": _logspace,
        "eye": lambda n, dtype=None, **_: jnp.eye(n, dtype=dtype_of(dtype or torch.get_default_dtype())),
        "eye.m": lambda n, m, dtype=None, **_: jnp.eye(n, m, dtype=dtype_of(dtype or torch.get_default_dtype())),
        "tril_indices": lambda rows, columns, offset=0, **_: _triangle(rows, columns, offset, upper=False),
        "triu_indices": lambda rows, columns, offset=0, **_: _triangle(rows, columns, offset, upper=True),
        "detach detach_copy alias alias_copy clone lift lift_fresh lift_fresh_copy": _same,
        "_to_copy": _to_copy,
        "_efficientzerotensor": _filled(0),
        "fill.Scalar": lambda x, value: jnp.full_like(x, value),
        "fill.Tensor": lambda x, value: jnp.broadcast_to(value, x.shape),
        "copy": lambda x, source, *_: jnp.broadcast_to(source, x.shape).astype(x.dtype),
    },
    single=False,
)
