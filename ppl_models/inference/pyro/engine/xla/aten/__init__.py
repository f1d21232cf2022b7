"""`TABLE`, the operations of torch that JAX can stand in for: from their names to functions of arrays.

A row takes what the node of a captured graph has: arrays where torch has tensors; numbers, lists, dtypes and devices
as they are. It gives an array, or several, None where a mask asks for nothing. Values are right, dtypes need not be:
whoever calls casts them to what torch recorded. Every row is pure, and raises `NotImplementedError` with its reason
for arguments that it does not know. All of it is meant for JAX with 64 bits. `CONTIGUOUS` are those whose rows are
right only where every tensor lies in memory in one piece, row by row: torch gives something else then.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from .linear_algebra import FACTORED

KINDS = (
    *("activations", "indexing", "linear_algebra", "losses", "made", "norms", "pointwise", "pools", "products"),
    *("reductions", "resizing", "scatters", "shapes", "sorting", "special", "spectra"),
)
TABLE: dict[str, Callable[..., Any]] = {}
for _kind in KINDS:
    TABLE.update(import_module(f"{__name__}.{_kind}").ROWS)

CONTIGUOUS = frozenset(
    {*FACTORED, "aten.as_strided.default", "aten.as_strided_copy.default", "aten.as_strided_scatter.default"}
)

__all__ = ["CONTIGUOUS", "TABLE"]
