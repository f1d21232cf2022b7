"""`Table`: one part of a data set whose columns are the arguments of a model; `load_table`: all parts of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Place
from ppl_models.programs.legible import legible

from .array_files import table_file
from .splits import nine_tenths
from .transforms import Wanted


@checked
@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equally many rows, each as its file has it: its shape, and its type, real numbers in float32.

    columns: argument -> (N, *row), what `fit` takes for a model of several arguments. name: the part, as "a.npz train".
    """

    columns: Mapping[str, Tensor] = field(repr=False)
    name: str

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: slice | Tensor) -> tuple[Tensor, ...]:
        """The rows at `index`, one entry a column."""
        return tuple(column[index] for column in self.columns.values())

    def __str__(self) -> str:
        told = ", ".join(f"{name} {tuple(column.shape[1:])}" for name, column in self.columns.items())
        return legible(f"{self.name}: {len(self)} of {told}")

    def to(self, device: torch.device | str) -> Table:
        """The same data on `device`."""
        return Table({name: column.to(device) for name, column in self.columns.items()}, self.name)

    def part(self, index: slice, name: str) -> Table:
        """The rows at `index` as a part of another name; they share memory."""
        return Table({key: column[index] for key, column in self.columns.items()}, name)


@checked
def load_table(
    name: Place, arguments: Sequence[str], *, validation: bool = False, transform: Wanted = "default"
) -> tuple[Table, ...] | None:
    """The arrays of a .npz file that are called as arguments of a model: (train, test), or (train, validation, test).

    Validation is the last tenth of train. What the arrays may be is said at `array_files.table_file`. None for any
    other data, and for a file that has arrays of fewer than two of the arguments.

    Raises ValueError for such a file with a transform, as there is none of arrays of any kind.
    """
    name = str(name)
    parts = table_file(name, arguments) if name.endswith(".npz") else None
    if parts is None:
        return None
    if transform not in ("default", "none"):
        raise ValueError(
            f"transform: found {transform!r} for {name}, whose arrays {', '.join(parts[0])} are the arguments of the "
            "model, want none: they come as they are; leave it out"
        )
    tensors = [{key: torch.from_numpy(np.array(column)) for key, column in part.items()} for part in parts]
    train, test = (Table(part, f"{name} {kind}") for part, kind in zip(tensors, ("train", "test"), strict=True))
    if not validation:
        return train, test
    split = nine_tenths(len(train), name)
    return train.part(slice(None, split), train.name), train.part(slice(split, None), f"{name} validation"), test
