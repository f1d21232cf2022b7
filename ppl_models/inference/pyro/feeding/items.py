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
    """The number of arguments that the rows of a column are: 0 if tensors do not index it.

    Where it stores no values it is tried on two rows. A `torch.utils.data.Dataset`, which promises items by integers
    alone, must then give those.
    """
    if isinstance(column, Items):
        return column.width
    if isinstance(column, Tensor) or isinstance(getattr(column, "values", None), Tensor):
        return 1
    index = _ends(column)
    with torch.random.fork_rng([]):
        try:
            rows = parted([column[index]])
            if not all(isinstance(each, Tensor) and len(each) == len(index) for each in rows):
                return 0
            if isinstance(column, Dataset):
                single = zip(*(parted([column[i]]) for i in index.tolist()), strict=True)
                if not all(torch.equal(torch.stack(one), many) for one, many in zip(single, rows, strict=True)):
                    return 0
        except Exception:  # noqa: BLE001 (a class of the user's may do anything with a tensor)
            return 0
    return len(rows)


def parted(rows: Iterable[Any]) -> list[Any]:
    """Rows of columns, one entry an argument: those of some columns are a tuple."""
    return [part for each in rows for part in (each if isinstance(each, tuple) else (each,))]


def _ends(column: Any) -> Tensor:
    """The first row and the last, which are two even if there is but one."""
    return torch.tensor([0, len(column) - 1])
