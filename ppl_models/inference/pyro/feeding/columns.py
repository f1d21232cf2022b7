"""`Columns`: the data of a call, checked once, one column for each argument of the programs."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from ppl_models.parts.checks import check_finite
from ppl_models.programs.arguments import arguments, check_count, check_lengths, numbers, refuse_column
from ppl_models.programs.pyro import check_dense, dtype_of, to_tensor

from ...resuming.fingerprint import Fingerprint, spaced
from .items import Items, parted, width_of

LISTS = list, str, bytes, Mapping, tuple


class Columns:
    """Data of which any rows can be taken, as a tuple of one entry an argument.

    Args:
        data: a tensor, an array of NumPy or what gives one, a data frame of numbers, anything with a length that
            tensors index (`ppl_models.data.Data`), a map-style data set; or several with equally many rows, at least
            one: in a tuple, a `TensorDataset`, or a mapping by the names of the model's arguments. Values are finite.
        name: what an error calls them, "fit: data".
        programs: the model, whose arguments the columns are, and others of the pair. Real numbers of what is no tensor
            come in the type of their parameters, else in torch's default.

    Attributes:
        columns: the data, a tuple.
        size: their number of rows.
        places: the device of each column, on which its rows are taken.

    Raises:
        TypeError: data that have no length, that cannot be indexed, or that are no numbers.
        ValueError: no rows, columns of different lengths, NaN or infinite values (of tensors, arrays and `Data`), names
            or a number of columns that are not those of the model's arguments.
    """

    def __init__(self, data: Any, name: str, *programs: Any) -> None:
        model, dtype = next(iter(programs), None), dtype_of(*programs)
        found = [_indexed(column, name, dtype, model) for column in arguments(data, name, model)]
        columns = [column for column, _ in found]
        check_lengths(columns, name)
        for values in map(stored, columns):
            if values is not None:
                check_finite(name, torch.isfinite(values))
        check_count(sum(width for _, width in found), name, model)
        self._set(columns)

    def _set(self, columns: Sequence[Any]) -> None:
        self.columns, self.size = tuple(columns), len(columns[0])
        self._stored = [stored(column) for column in self.columns]
        self.places = [torch.device("cpu") if values is None else values.device for values in self._stored]

    def _of(self, columns: Sequence[Any]) -> Self:
        other = object.__new__(type(self))  # which need not be checked
        other._set(columns)
        return other

    @property
    def known(self) -> bool:
        """Whether the values of every column are at hand, as those of something that makes its rows are not."""
        return all(values is not None for values in self._stored)

    def rows(self, index: slice | Tensor, device: torch.device | None = None) -> tuple[Any, ...]:
        """These rows of every column, on `device`; with None where they lie."""
        return tuple(moved(rows, device) for rows in parted(column[index] for column in self.columns))

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
        return self._of([column.to(device) if _movable(column) else column for column in self.columns])

    def numbered(self) -> Self:
        """The same data with a last column that tells each row's number."""
        return self._of([*self.columns, torch.arange(self.size, device=self.places[0])])

    def fingerprint(self) -> Fingerprint:
        """A digest, the same for the same data, on any device: to say on resume that they are others.

        Of `ppl_models.data.Data` it reads the stored values and the transform; of anything that makes its rows the type
        and the length alone.

        >>> x = torch.arange(12.0).reshape(4, 3)
        >>> found = [Columns(data, "data").fingerprint().text for data in (x, x.clone(), x + 1)]
        >>> found[0] == found[1], found[0] == found[2]
        (True, False)
        """
        return Fingerprint(self.size, sum(v.nbytes for v in self._stored if v is not None) // self.size, self._digest)

    def _digest(self, count: int) -> str:
        """Of so many evenly spaced rows."""
        digest, index = hashlib.sha256(), torch.tensor(spaced(self.size, count) if count < self.size else [])
        for column, values in zip(self.columns, self._stored, strict=True):
            of = type(column.data if isinstance(column, Items) else column)
            kind = "tensor" if isinstance(column, Tensor) else f"{of.__module__}.{of.__qualname__}"
            told = [kind, len(column), repr(getattr(column, "transform", None)) if values is not None else ""]
            if values is not None:
                rows = values.detach()
                rows = (rows[index.to(values.device)] if count < self.size else rows).cpu().contiguous()
                told += [list(values.shape), str(values.dtype)]
                digest.update(rows.reshape(-1).view(torch.uint8).numpy().data)
            digest.update(json.dumps(told).encode())
        return digest.hexdigest()


def stored(column: Any) -> Tensor | None:
    """The values that a column stores: a tensor itself, the `values` of a `Data`, None for anything else."""
    values = column if isinstance(column, Tensor) else getattr(column, "values", None)
    return values if isinstance(values, Tensor) else None


def _indexed(column: Any, name: str, dtype: torch.dtype, model: Any) -> tuple[Any, int]:
    """(a column as something that tensors index, how many arguments its rows are)."""
    if stored(column) is None and (found := numbers(column, name)) is not None:
        return to_tensor(found, dtype), 1
    scalar = isinstance(column, Tensor) and column.dim() == 0
    if scalar or not (hasattr(column, "__len__") and hasattr(column, "__getitem__")) or isinstance(column, LISTS):
        refuse_column(name, column, "a tensor of rows, an array", "torch.stack(rows)")
    check_dense(name, column)
    if stored(column) is not None or not len(column):
        return column, 1
    with torch.random.fork_rng([]):  # it is looked at, which draws nothing
        if width := width_of(column):
            return column, width
        items = Items(column, name, dtype, model)
        return items, items.width


def moved(rows: Any, device: torch.device | None) -> Any:
    """Rows on a device, without waiting for it: from memory that is not pinned a copy would."""
    if not isinstance(rows, Tensor) or device is None:
        return rows
    if device.type == "cuda" and rows.device.type == "cpu" and not rows.is_pinned():
        rows = rows.pin_memory()
    return rows.to(device, non_blocking=True)


def _movable(column: Any) -> bool:
    return stored(column) is not None and callable(getattr(column, "to", None))
