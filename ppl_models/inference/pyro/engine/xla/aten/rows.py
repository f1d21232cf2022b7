"""`named`, and what the rows of all kinds have in common: names, dtypes, dims."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import torch
from jax import Array

Row = Callable[..., Any]

_DTYPES = {
    torch.bool: jnp.bool_,
    torch.uint8: jnp.uint8,
    torch.int8: jnp.int8,
    torch.int16: jnp.int16,
    torch.int32: jnp.int32,
    torch.int64: jnp.int64,
    torch.float16: jnp.float16,
    torch.bfloat16: jnp.bfloat16,
    torch.float32: jnp.float32,
    torch.float64: jnp.float64,
    torch.complex64: jnp.complex64,
    torch.complex128: jnp.complex128,
}


def named(rows: Mapping[str, Row], single: bool = True) -> dict[str, Row]:
    """Rows by the full names of operations: a key lists overloads that share a row, `.default` where it has no dot.

    With `single`, half-precise arrays are taken in single precision, as torch's kernels compute.
    """
    full = {}
    for names, row in rows.items():
        for name in names.split():
            full[f"aten.{name}" if "." in name else f"aten.{name}.default"] = _in_single(row) if single else row
    return full


def _in_single(row: Row) -> Row:
    def on_wide(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = jax.tree.map(wide, (args, kwargs))
        return row(*args, **kwargs)

    return on_wide


def wide(x: Any) -> Any:
    """An array of half precision in single precision; anything else as it is."""
    half = isinstance(x, Array) and x.dtype in (jnp.float16, jnp.bfloat16)
    return x.astype(jnp.float32) if half else x


def dtype_of(dtype: torch.dtype) -> Any:
    """The dtype of JAX.

    Raises:
        NotImplementedError: it has none.
    """
    if dtype not in _DTYPES:
        raise NotImplementedError(f"JAX has no {dtype}")
    return _DTYPES[dtype]


def cast(x: Array, dtype: torch.dtype | None = None) -> Array:
    """An array in a dtype of torch's, None for its own."""
    if dtype is None:
        return x
    if floating(x) and dtype in (torch.uint8, torch.int8, torch.int16):
        x = x.astype(jnp.int64)  # what is too large goes round, as it does in torch
    return x.astype(dtype_of(dtype))


def floating(x: Array) -> bool:
    """Whether an array is of floating point, real or complex."""
    return jnp.issubdtype(x.dtype, jnp.inexact)


def as_floating(x: Array) -> Array:
    """An array in floating point: integers in torch's default dtype."""
    return x if floating(x) else x.astype(dtype_of(torch.get_default_dtype()))


def alike(*operands: Any) -> tuple[Any, ...]:
    """Operands as torch has them before it computes: integers beside a float are of the default dtype, and arrays
    without dims do not widen those with dims."""
    if any(isinstance(x, float) for x in operands):
        operands = tuple(as_floating(x) if isinstance(x, Array) else x for x in operands)
    shaped = [x.dtype for x in operands if isinstance(x, Array) and x.ndim]
    if not shaped or len(shaped) == len(operands):
        return operands
    dtype = jnp.result_type(*shaped)
    if not jnp.issubdtype(dtype, jnp.floating):
        return operands
    narrow = lambda x: isinstance(x, Array) and not x.ndim and jnp.issubdtype(x.dtype, jnp.floating)  # noqa: E731
    return tuple(x.astype(dtype) if narrow(x) else x for x in operands)


def axes(x: Array, dim: Any) -> tuple[int, ...]:
    """The dims of a reduction as JAX wants them: none given are all; a scalar has none, whatever is given."""
    if dim is None or x.ndim == 0 or (not isinstance(dim, int) and len(dim) == 0):
        return tuple(range(x.ndim))
    return tuple(d % x.ndim for d in ([dim] if isinstance(dim, int) else dim))


def along(row: Callable[..., Any]) -> Row:
    """A function of an array and a dim of its own, which a scalar has too (as one entry)."""

    def on_one(x: Array, dim: int = -1, *args: Any, **kwargs: Any) -> Any:
        if x.ndim:
            return row(x, dim % x.ndim, *args, **kwargs)
        return jax.tree.map(lambda found: found.reshape(()), row(x.reshape(1), 0, *args, **kwargs))

    return on_one
