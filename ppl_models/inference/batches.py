"""Rows of data for programs: checked once, shuffled, moved to where the parameters are."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


def columns_of(data: Any, name: str) -> tuple[Any, ...]:
    """The arguments that data stand for: a tuple of columns with equally many rows, at least one, of finite values.

    Args:
        data: a tensor or anything with a length that tensors index (`ppl_models.data.Data`), or a tuple of such.
        name: what an error calls them, "fit: data".

    Raises:
        TypeError: data that have no length or that tensors do not index.
        ValueError: no rows, columns of different lengths, NaN or infinite values (of tensors and of `Data`).
    """
    columns = data if isinstance(data, tuple) else (data,)
    for column in columns:
        scalar = isinstance(column, Tensor) and column.dim() == 0
        if scalar or isinstance(column, list) or not (hasattr(column, "__len__") and hasattr(column, "__getitem__")):
            raise TypeError(
                f"{name}: found {'a scalar' if scalar else type(column).__name__}, want a tensor of rows, a Data, or a "
                "tuple of such, one an argument; try torch.stack(rows)"
            )
    lengths = [len(column) for column in columns]
    if not lengths or min(lengths) == 0 or len(set(lengths)) > 1:
        raise ValueError(f"{name}: found lengths {lengths}, want equal lengths of at least 1")
    for column in columns:
        values = column if isinstance(column, Tensor) else getattr(column, "values", None)  # what a Data stores
        if isinstance(values, Tensor) and not torch.isfinite(values).all():
            row = (~torch.isfinite(values)).reshape(len(values), -1).any(1).nonzero()[0].item()
            raise ValueError(f"{name}: NaN or infinite values (first in row {row}); clean or drop these rows")
    return columns


def rows_of(columns: Sequence[Any], index: slice | Tensor, device: torch.device | None) -> tuple[Any, ...]:
    """These rows of every column, on `device`; with None where they lie."""
    rows = (column[index] for column in columns)
    return tuple(r.to(device, non_blocking=True) if isinstance(r, Tensor) and device is not None else r for r in rows)


def batches_of(columns: Sequence[Any], batch_size: int, device: torch.device | None) -> Iterator[tuple[Any, ...]]:
    """Shuffled batches without end; the rest of an epoch that fills no batch is left for the next shuffle.

    A batch of all the data keeps their order. The shuffles are drawn from torch's global generator of the CPU.
    """
    size = len(columns[0])
    while True:
        order = torch.randperm(size) if batch_size < size else torch.arange(size)
        for i in range(0, size - batch_size + 1, batch_size):
            yield rows_of(columns, order[i : i + batch_size], device)
