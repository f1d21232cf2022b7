"""`levels_of`, `reads_of`, `masks_of`, ...: which entry reads which in autoregressive steps, and sizes of networks."""

from collections.abc import Sequence
from math import exp
from typing import Literal

import numpy as np

Kind = Literal["affine", "gate", "shift", "spline"]
BOUND = 5.0  # of splines, which are the identity beyond it
BIAS = 2.0  # of a gate at the start


def levels_of(size: int, passes: int | None = None) -> list[int]:
    """The level of each of `size` entries: equal stretches share one of `passes` levels, or each entry has its own.

    >>> levels_of(5), levels_of(5, 2)
    ([0, 1, 2, 3, 4], [0, 0, 0, 1, 1])
    """
    count = size if passes is None else min(passes, size)
    return [i * count // size for i in range(size)]


def reads_of(reads: Sequence[int] | np.ndarray) -> np.ndarray:
    """Whether entry i reads entry j, (n, n), from levels: an entry reads all entries of lower levels.

    Such a matrix is returned as it is, if no entry reads itself, directly or by way of others.

    >>> reads_of([0, 1, 1]).astype(int).tolist()
    [[0, 0, 0], [1, 0, 0], [1, 0, 0]]

    Raises:
        ValueError: another shape, or a circle.
    """
    found = np.asarray(reads)
    found = found < found[:, None] if found.ndim == 1 else found.astype(bool)
    passes_of(found)
    return found


def passes_of(reads: np.ndarray) -> int:
    """The number of passes in which all entries can be set, each after those it reads: the length of a longest path.

    >>> passes_of(np.array([[0, 0, 0], [1, 0, 0], [1, 0, 0]]))
    2

    Raises:
        ValueError: entries that are not (n, n), or that read themselves.
    """
    if reads.ndim != 2 or len(reads) != reads.shape[-1]:
        raise ValueError(f"reads: found the shape {reads.shape}, want (n, n), whether each of n entries reads each")
    known, passes = np.zeros(len(reads), bool), 0
    while not known.all():
        ready = ~(reads.astype(bool) & ~known).any(1)
        if not (ready & ~known).any():
            raise ValueError("reads: found entries that read themselves, by way of others or not, want an order")
        known, passes = known | ready, passes + 1
    return passes


def masks_of(reads: Sequence[int] | np.ndarray, hidden: int, outputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three masks, (outputs, inputs) each: from entries to units, units to units, units to the numbers of entries.

    Each unit is given the set of entries that some output may read: it reads those entries, and units whose sets lie
    within its own. The numbers of an entry read the units whose sets lie within what that entry may read.

    Args:
        reads: see `reads_of`.
        hidden: number of units.
        outputs: numbers an entry.

    >>> first, inner, last = masks_of([0, 1], hidden=2, outputs=1)
    >>> first.tolist(), last.tolist()  # unit 0 reads nothing, unit 1 the first entry
    ([[False, False], [True, False]], [[True, False], [True, True]])
    """
    rows = reads_of(reads)
    kinds = sorted({tuple(map(bool, row)) for row in rows}, key=lambda row: (sum(row), row))
    units = np.array(kinds)[np.arange(hidden) * len(kinds) // hidden]
    inner, last = (~(units[None] & ~each[:, None]).any(-1) for each in (units, rows))
    return units, inner, last.repeat(outputs, 0)


def numbers_of(kind: Kind, bins: int) -> int:
    """How many numbers the map of an entry takes; `bins` are a spline's.

    >>> numbers_of("affine", 8), numbers_of("spline", 8)
    (2, 23)
    """
    return {"affine": 2, "gate": 2, "shift": 1, "spline": 3 * bins - 1}[kind]


def check_contexts(found: Sequence[int], want: Sequence[int], size: int) -> None:
    """Raise ValueError for contexts of other widths than a flow over R^n was built for.

    >>> check_contexts([3], [3, 2], 5)
    Traceback (most recent call last):
    ValueError: a flow of 5 entries: found contexts of widths [3], want [3, 2], those that it was built with
    """
    if list(found) != list(want):
        raise ValueError(
            f"a flow of {size} entries: found contexts of widths {list(found)}, want {list(want)}, those that it was "
            "built with"
        )


def contraction(kind: Kind, steps: int) -> float:
    """The scale dy/dx of so many steps at numbers of 0: below 1 for gates, else 1.

    >>> contraction("affine", 2), round(contraction("gate", 1), 2)
    (1.0, 0.88)
    """
    return (1 / (1 + exp(-BIAS))) ** steps if kind == "gate" else 1.0
