"""`cuts`: where to cut a long list of operations, so that layers of one structure become pieces that are alike."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.fx import Node

from .shifts import dim_of, place

SIZE = 150  # operations a piece, about, if less does not repeat
SHORTEST, LONGEST = 8, 2000  # operations of what repeats


def cuts(nodes: Sequence[Node]) -> list[int]:
    """Positions from 0 to the number of nodes between which pieces lie.

    Of the stretches in which the same kinds of operations on the same shapes come again and again, the longest are cut
    first, at multiples of their period; what lies between them is cut where a piece becomes too long.
    """
    kinds = _kinds(nodes)
    taken, found = np.zeros(len(nodes), bool), {0, len(nodes)}
    for start, end, period in sorted(_repeats(kinds), key=lambda run: (run[0] - run[1], run[2])):
        for a, b in _stretches(~taken[start:end]):
            times = (b - a) // period
            if times < 2:
                continue
            step = period * max(1, min(SIZE // period, times // 2))
            places = range(start + a, start + a + times * period + 1, step)
            taken[places[0] : places[-1]] = True
            found.update(places)
    whole = sorted(found)
    return whole[:1] + [end for a, b in zip(whole, whole[1:], strict=False) for end in _divided(a, b, taken)]


def _divided(start: int, end: int, taken: np.ndarray) -> list[int]:
    """The ends of the pieces between two cuts, where they are too far apart and do not belong to what repeats."""
    if taken[start]:
        return [end]
    count = max(1, round((end - start) / SIZE))
    return [start + (end - start) * i // count for i in range(1, count + 1)]


def _kinds(nodes: Sequence[Node]) -> np.ndarray:
    """A number for each kind of operation: what it does, to which shapes."""
    found: dict[Any, int] = {}
    return np.array([found.setdefault(_kind(node), len(found)) for node in nodes])


def _kind(node: Node) -> Any:
    if place(node) is not None:  # of layer after layer
        return str(node.target), _signs(node.args[0]), dim_of(node), shapes(node)
    return str(node.target), _signs(node.args), _signs(tuple(node.kwargs.values()))


def _signs(x: Any) -> Any:
    if isinstance(x, list | tuple):
        return tuple(_signs(each) for each in x)
    return shapes(x) if isinstance(x, Node) else repr(x)


def shapes(node: Node) -> Any:
    """The shapes and types of what a node gives."""
    found = node.meta.get("val")
    each = [(tuple(t.shape), t.dtype) if isinstance(t, Tensor) else None for t in _listed(found)]
    return each[0] if isinstance(found, Tensor) else tuple(each)


def _listed(x: Any) -> Sequence[Any]:
    return x if isinstance(x, list | tuple) else [x]


def _repeats(kinds: np.ndarray) -> list[tuple[int, int, int]]:
    """Stretches that repeat: (start, end, period), longer than twice the period."""
    found = []
    for period in range(SHORTEST, min(len(kinds) // 2, LONGEST) + 1):
        for start, end in _stretches(kinds[:-period] == kinds[period:]):
            if end - start >= period:
                found.append((start, end + period, period))
    return found


def _stretches(holds: np.ndarray) -> list[tuple[int, int]]:
    """The longest stretches in which something holds: (start, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], holds.view(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
