"""`together`: find what each of many changes moves in fewer runs than changes, by making several in one run.

Group testing: rows of a table are changes, columns what they may move. `expected[s, n]` says that change s may well
move n, and all else is a surprise. Pure NumPy: what a run is, the caller knows.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

SAVING = 2  # at least so many times fewer runs, or no change shares one
Table = np.ndarray  # (changes, columns) of truth values
Group = np.ndarray  # indices of changes
Look = Callable[[Group], np.ndarray | None]
LookAtAll = Callable[[Sequence[Group]], Iterable[np.ndarray | None]]


def together(expected: Table, look: Look, look_at_all: LookAtAll | None = None) -> tuple[Table, list[int]]:
    """What each change moves, of those that can share a run, and the changes that have to be made alone.

    Groups of two kinds are run. In one of the first kind some columns are expected to be moved by none of its changes:
    if one of them moves, the expectation was wrong for some change of the group, and all of these are made alone. So
    every (change, column) that is not expected is looked at once. In a group of the second kind no column is expected
    to be moved by two, so that a column that moves tells which change moved it.

        >>> moves = np.eye(40, dtype=bool) | np.eye(40, k=1, dtype=bool)  # each itself and the next one
        >>> runs = []
        >>> def look(chosen):
        ...     runs.append(chosen)
        ...     return moves[chosen].any(0)
        >>> found, alone = together(moves, look)
        >>> bool((found == moves).all()), alone, len(runs)
        (True, [], 15)

    Args:
        expected: what each change may move.
        look: makes the changes of a group in one run, and gives the columns that have moved, (columns,); None where
            such a run tells nothing.
        look_at_all: the same of many groups of the second kind; by default one after another.

    Returns:
        (moved, alone): a table of what moved, without rows for the changes of `alone`, which it says nothing of.
    """
    moved, every = np.zeros_like(expected), list(range(len(expected)))
    telling = separated(expected)
    most = int(len(expected) / SAVING) - len(telling)
    groups = surprising(expected, telling, most) if most >= 0 else None
    if groups is None:
        return moved, every
    alone: set[int] = set()
    for group in groups:
        found = look(group)
        if found is None or (found & ~expected[group].any(0)).any():
            alone |= {*group.tolist()}
        if len(alone) > len(expected) // 2:
            return moved, every
    left = [np.array(rest, int) for group in telling if (rest := [s for s in group if s not in alone])]
    for group, found in zip(left, look_at_all(left) if look_at_all else map(look, left), strict=True):
        if found is None or (found & ~expected[group].any(0)).any():
            alone |= {*group.tolist()}
        else:
            moved[group] = expected[group] & found
    return moved, sorted(alone)


def separated(expected: Table) -> list[list[int]]:
    """Groups, each change in one of them, in none of which a column is expected to be moved by two."""
    groups: list[list[int]] = []
    taken: list[np.ndarray] = []
    for s, mine in enumerate(expected):
        for group, columns in zip(groups, taken, strict=True):
            if not (columns & mine).any():
                group.append(s)
                columns |= mine
                break
        else:
            groups.append([s])
            taken.append(mine.copy())
    return groups


def surprising(expected: Table, groups: Sequence[Sequence[int]], most: int) -> list[Group] | None:
    """Further groups by which every column that a change is not expected to move is looked at; None for over `most`.

    Greedy: a set of columns is grown, one after another, as long as that leaves more to be seen with those changes that
    are expected to move none of them.
    """
    unseen, further = ~expected, []
    for group in groups:
        _see(unseen, expected, np.array(group))
    while unseen.any():
        if len(further) >= most:
            return None
        left, size = unseen.sum(0), unseen.shape[1]
        first = int(left.argmax())
        free, seen = ~expected[:, first], unseen[:, first].astype(int)
        for column in (first + np.arange(1, size)) % size:
            narrowed, more = free & ~expected[:, column], seen + unseen[:, column]
            if left[column] and more[narrowed].sum() > seen[free].sum():
                free, seen = narrowed, more
        further.append(np.flatnonzero(free & (seen > 0)))
        _see(unseen, expected, further[-1])
    return further


def _see(unseen: Table, expected: Table, group: Group) -> None:
    unseen[np.ix_(group, ~expected[group].any(0))] = False
