"""`elements`: which element of its row of an argument each entry of an observed value is; `Places`: of all sites.

It is told by values alone.

They and not memory tell: NumPyro's arrays share none, and a copy of the data is the data.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np

PROBES = 64  # rows that tell the columns of an argument apart


def elements(value: np.ndarray, axis: int, argument: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray | None:
    """The elements e with value[i] = argument[rows[i]][e] for all i along an axis, None where there are none.

    Whole rows, parts of them, rows of another shape, transposed ones and casts all have such elements; what is computed
    from a row by arithmetic has none. Of equal columns of the argument the first one is taken.

    Args:
        value: (..., n, ...).
        axis: of `value`, negative, the one of n indices.
        argument: (rows, *row).
        rows: (n,), the rows that `value` holds, those of a plate that subsamples; all of them in order if None.

    Returns:
        (k,), an index into a flat row for each of the k entries of a slice of `value`.

    >>> x = np.arange(12.0).reshape(4, 3)
    >>> elements(x.T, -1, x), elements(x[:, :2], -2, x), elements(x.T, -2, x)
    (array([0, 1, 2]), array([0, 1]), None)
    """
    if value.ndim < -axis or argument.ndim < 1 or {value.dtype.kind, argument.dtype.kind} - set("biuf"):
        return None
    whole = argument.reshape(len(argument), -1) if rows is None else argument[rows].reshape(len(rows), -1)
    own = np.moveaxis(value, axis, 0)
    if len(own) != len(whole) or not own.size:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        whole = whole.astype(own.dtype)
    known = {column: i for i, column in reversed([*enumerate(_columns(whole))])}
    found = [known.get(column, -1) for column in _columns(own.reshape(len(own), -1))]
    return None if -1 in found else np.array(found)


class Observed(NamedTuple):
    """What a site observes: its value, and the dim of that, from the right, in which the data lie."""

    value: np.ndarray
    axis: int


class Places:
    """Where the observed sites of a model read in its arguments, so that other values can be put there.

    Args:
        of: site -> (argument, elements of its rows).
    """

    def __init__(self, of: Mapping[str, tuple[int, np.ndarray]]) -> None:
        self.of = of

    @classmethod
    def find(cls, asks: str, sites: Mapping[str, Observed], args: Sequence[np.ndarray | None]) -> Self:
        """The places of sites that were observed in a run on these arguments, None those that are no arrays.

        Raises:
            ValueError: a site that observes what is computed of the arguments; entries that cannot be told apart.
        """
        found, taken = {}, set[tuple[int, int]]()
        for name, (value, axis) in sites.items():
            place = next(
                (p for i, arg in enumerate(args) if arg is not None and (p := _place(value, axis, arg, i))), None
            )
            if place is None:
                raise ValueError(
                    f"{asks}: found the site {name!r}, which observes no entries of the arguments as they are, want a "
                    "model that can be given what it has drawn; try to compute before the model what it observes"
                )
            new = {(place[0], int(e)) for e in place[1]}
            if len(new) < len(place[1]) or new & taken:
                raise ValueError(
                    f"{asks}: found entries of the data that are equal in all rows, so that those which {name!r} "
                    "observes cannot be told; pass rows that differ"
                )
            found[name], taken = place, taken | new
        return cls(found)

    def put(self, args: Sequence[np.ndarray | None], sites: Mapping[str, Observed]) -> dict[int, np.ndarray]:
        """The arguments that sites observe in, by number, with the values of these sites."""
        new = {i: np.array(args[i]) for i, _ in self.of.values()}
        for name, (value, axis) in sites.items():
            i, place = self.of[name]
            own = np.moveaxis(value, axis, 0)
            new[i].reshape(len(own), -1)[:, place] = own.reshape(len(own), -1)
        return new


def mixed(args: Sequence[np.ndarray | None], rng: np.random.Generator) -> list[np.ndarray | None]:
    """Rows whose entries are those of all rows and columns in any order: no two columns are equal by chance."""
    return [None if a is None else rng.choice(a.reshape(-1), (PROBES, *a.shape[1:])) for a in args]


def _place(value: np.ndarray, axis: int, argument: np.ndarray, i: int) -> tuple[int, np.ndarray] | None:
    own = np.moveaxis(value, axis, 0) if value.ndim >= -axis else value
    if own.size == argument.size and len(own) == len(argument):  # the whole of it, whatever columns are equal
        whole = argument.reshape(len(own), -1)
        if np.array_equal(own.reshape(len(own), -1), whole.astype(own.dtype)):
            return i, np.arange(whole.shape[1])
    found = elements(value, axis, argument)
    return None if found is None else (i, found)


def _columns(rows: np.ndarray) -> list[bytes]:
    rows = rows + 0 if rows.dtype.kind == "f" else rows  # no negative zeros
    return [column.tobytes() for column in np.ascontiguousarray(rows.T)]
