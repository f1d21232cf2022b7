"""`Items`: a column of a data set that is asked for single items; `width_of`, `parted`: columns that are several."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ppl_models.programs.arguments import items, ordered, stacked
from ppl_models.programs.pyro import to_tensor


class Items:
    """Rows of a map-style data set, put together of its items as `torch.utils.data.DataLoader` does.

    An item is a tensor, an array or a number; or several of them, in a tuple or in a mapping by the names of arguments:
    then its rows are as many arguments.

    Args:
        data: asked for items by integers, or by lists of such if it has `__getitems__`.
        name: what an error calls it, "fit: data".
        dtype: of real numbers that are not in tensors.
        model: whose arguments they are.

    Attributes:
        data: the data set.
        width: how many columns it is.

    Raises:
        TypeError: items of another kind, or of different shapes.
    """

    def __init__(self, data: Any, name: str, dtype: torch.dtype, model: Callable | None) -> None:
        self.data, self._name, self._dtype, self._names = data, name, dtype, None
        try:
            first = data[0]
        except Exception as error:
            told = f"found a {type(data).__name__} that cannot be indexed by tensors, nor by integers"
            raise TypeError(f"{name}: {told} ({type(error).__name__}: {error})") from error
        if isinstance(first, Mapping):
            self._names = ordered(first, name, model)
        self.width = len(self[_ends(self)])

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: slice | Tensor) -> tuple[Tensor, ...]:
        """The rows at `index`, one entry a column."""
        rows = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        return tuple(self._stacked(column) for column in items(self.data, rows, self._names))

    def _stacked(self, column: list[Any]) -> Tensor:
        try:
            if isinstance(column[0], Tensor):
                return torch.stack(column)
            return to_tensor(stacked(column, self._name), self._dtype)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"{self._name}: found items of a {type(self.data).__name__} that make no rows ({error}), want tensors, "
                "arrays or numbers of one shape, alone, in a tuple, or in a dict by the names of the model's arguments"
            ) from error


def width_of(column: Any) -> int:
    """The number of arguments that the rows of a class of the user's are, tried on two; 0 if tensors do not index it.

    A `torch.utils.data.Dataset`, which promises items by integers alone, must then give those. Rows of any other class
    may be what only the model understands, a mapping or an object of its own.
    """
    index = _ends(column)
    try:
        rows = parted([column[index]])
        if isinstance(column, Dataset):
            single = zip(*(parted([column[i]]) for i in index.tolist()), strict=True)
            same = all(torch.equal(torch.stack(one), many) for one, many in zip(single, rows, strict=True))
            return len(rows) if same else 0
    except Exception:  # noqa: BLE001 (a class of the user's may do anything with a tensor)
        return 0
    arrays = [row for row in rows if hasattr(row, "__array__") or isinstance(row, list)]
    return len(rows) if all(isinstance(row, Tensor) and row.shape[:1] == index.shape for row in arrays) else 0


def parted(rows: Iterable[Any]) -> list[Any]:
    """Rows of columns, one entry an argument: those of some columns are a tuple."""
    return [part for each in rows for part in (each if isinstance(each, tuple) else (each,))]


def _ends(column: Any) -> Tensor:
    """The first row and the last, which are two even if there is but one."""
    return torch.tensor([0, len(column) - 1])
