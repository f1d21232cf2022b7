"""`Columns`: the data of a call, checked once, one column for each argument of the programs."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

ROWS = 1000  # that a fingerprint reads


class Columns:
    """Data of which any rows can be taken, as a tuple of one entry an argument.

    Args:
        data: a tensor or anything with a length that tensors index (`ppl_models.data.Data`), or a tuple of such with
            equally many rows, at least one, of finite values.
        name: what an error calls them, "fit: data".

    Attributes:
        columns: the data, a tuple.
        size: their number of rows.
        places: the device of each column, on which its rows are taken.

    Raises:
        TypeError: data that have no length or that tensors do not index.
        ValueError: no rows, columns of different lengths, NaN or infinite values (of tensors and of `Data`).
    """

    def __init__(self, data: Any, name: str) -> None:
        columns = data if isinstance(data, tuple) else (data,)
        for column in columns:
            scalar = isinstance(column, Tensor) and column.dim() == 0
            lacking = not (hasattr(column, "__len__") and hasattr(column, "__getitem__"))
            if scalar or lacking or isinstance(column, list):
                raise TypeError(
                    f"{name}: found {'a scalar' if scalar else type(column).__name__}, want a tensor of rows, a Data, "
                    "or a tuple of such, one an argument; try torch.stack(rows)"
                )
        lengths = [len(column) for column in columns]
        if not lengths or min(lengths) == 0 or len(set(lengths)) > 1:
            raise ValueError(f"{name}: found lengths {lengths}, want equal lengths of at least 1")
        for values in map(stored, columns):
            if values is not None and not torch.isfinite(values).all():
                row = (~torch.isfinite(values)).reshape(len(values), -1).any(1).nonzero()[0].item()
                raise ValueError(f"{name}: NaN or infinite values (first in row {row}); clean or drop these rows")
        self._set(columns)

    def _set(self, columns: Sequence[Any]) -> None:
        self.columns, self.size = tuple(columns), len(columns[0])
        self._stored = [stored(column) for column in self.columns]
        self.places = [torch.device("cpu") if values is None else values.device for values in self._stored]

    @property
    def known(self) -> bool:
        """Whether the values of every column are at hand, as those of something that makes its rows are not."""
        return all(values is not None for values in self._stored)

    def rows(self, index: slice | Tensor, device: torch.device | None = None) -> tuple[Any, ...]:
        """These rows of every column, on `device`; with None where they lie."""
        return tuple(moved(column[index], device) for column in self.columns)

    def fits(self, device: torch.device) -> bool:
        """Whether what can be moved to a device fits there: on CUDA into half of the memory that is free."""
        if device.type != "cuda":
            return True
        away = [c for c, place in zip(self.columns, self.places, strict=True) if _movable(c) and place.type != "cuda"]
        tensors = [values for column in away for values in (stored(column), getattr(column, "labels", None))]
        size = sum(values.nbytes for values in tensors if isinstance(values, Tensor))
        return size < torch.cuda.mem_get_info(device)[0] / 2

    def to(self, device: torch.device) -> Self:
        """The same data on a device, as far as they can be moved."""
        other = object.__new__(type(self))
        other._set([column.to(device) if _movable(column) else column for column in self.columns])
        return other

    def numbered(self) -> Self:
        """The same data with a last column that tells each row's number."""
        other = object.__new__(type(self))
        other._set([*self.columns, torch.arange(self.size, device=self.places[0])])
        return other

    def fingerprint(self) -> str:
        """A digest, the same for the same data, on any device: to say on resume that they are others.

        It reads at most about a thousand rows of each tensor, evenly spaced, the first and the last among them, so data
        that differ in other rows alone go unnoticed. Of `ppl_models.data.Data` it reads the stored values and the
        transform; of anything else the type and the length alone.

        >>> x = torch.arange(12.0).reshape(4, 3)
        >>> found = [Columns(data, "data").fingerprint() for data in (x, x.clone(), x + 1)]
        >>> found[0] == found[1], found[0] == found[2]
        (True, False)
        """
        digest = hashlib.sha256()
        for column, values in zip(self.columns, self._stored, strict=True):
            kind = "tensor" if isinstance(column, Tensor) else f"{type(column).__module__}.{type(column).__qualname__}"
            told = [kind, len(column), repr(getattr(column, "transform", None)) if values is not None else ""]
            if values is not None:
                count = len(values)
                index = sorted({i * (count - 1) // max(min(count, ROWS) - 1, 1) for i in range(min(count, ROWS))})
                rows = values.detach()[torch.tensor(index, dtype=torch.int64, device=values.device)].cpu().contiguous()
                told += [list(values.shape), str(values.dtype)]
                digest.update(rows.reshape(-1).view(torch.uint8).numpy().tobytes())
            digest.update(json.dumps(told).encode())
        return digest.hexdigest()


def stored(column: Any) -> Tensor | None:
    """The values that a column stores: a tensor itself, the `values` of a `Data`, None for anything else."""
    values = column if isinstance(column, Tensor) else getattr(column, "values", None)
    return values if isinstance(values, Tensor) else None


def moved(rows: Any, device: torch.device | None) -> Any:
    """Rows on a device, without waiting for it: from memory that is not pinned a copy would."""
    if not isinstance(rows, Tensor) or device is None:
        return rows
    if device.type == "cuda" and rows.device.type == "cpu" and not rows.is_pinned():
        rows = rows.pin_memory()
    return rows.to(device, non_blocking=True)


def _movable(column: Any) -> bool:
    return stored(column) is not None and callable(getattr(column, "to", None))
