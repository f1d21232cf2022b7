"""`levels_of`, `masks_of`, `numbers_of`, `contraction`: who reads whom in autoregressive steps, and of what size."""

from collections.abc import Sequence
from math import exp
from typing import Literal

import numpy as np

Kind = Literal["affine", "gate", "shift", "spline"]
BOUND = 5.0  # of splines, which are the identity beyond it
BIAS = 2.0  # of a gate at the start


def levels_of(size: int, passes: int | None = None) -> list[int]:
    """The levels of so many entries in order, in `passes` stretches of equal length, or each its own.

    >>> levels_of(5), levels_of(5, 2)
    ([0, 1, 2, 3, 4], [0, 0, 0, 1, 1])
    """
    count = size if passes is None else min(passes, size)
    return [i * count // size for i in range(size)]


def masks_of(levels: Sequence[int], hidden: int, outputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether each output reads each input: units of entries, units of units, `outputs` numbers an entry of units.

    A unit has a degree: it reads entries of levels below it, and units of degrees up to its own; an entry reads units
    up to its level.

    >>> first, inner, last = masks_of([0, 1], hidden=2, outputs=1)
    >>> first.tolist(), last.tolist()  # unit 0 reads nothing, unit 1 the first entry
    ([[False, False], [True, False]], [[True, False], [True, True]])
    """
    entries, units = np.array(levels), np.arange(hidden) * (max(levels) + 1) // hidden
    last = (units <= entries[:, None]).repeat(outputs, 0)
    return entries < units[:, None], units <= units[:, None], last


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
    """What so many steps multiply differences by where the numbers are 0: less than 1 for gates.

    >>> contraction("affine", 2), round(contraction("gate", 1), 2)
    (1.0, 0.88)
    """
    return (1 / (1 + exp(-BIAS))) ** steps if kind == "gate" else 1.0
