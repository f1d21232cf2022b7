"""`sources`: for each number of an argument the observed number that it repeats, if it is a copy of the data.

Told by values alone: data reversed, shifted, cut, packed or joined to others outside of a program are still data.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from math import log2
from typing import NamedTuple

import numpy as np

ENOUGH, LEAST = 12.0, 3.0  # bits by which equality must be more than chance: of all blocks, and of each that counts
REAL, DIGITS = 18.0, 2.0**18  # bits of a number that is no multiple of an eighth
MOST = 200_000  # numbers of an argument beyond which blocks are not compared


class Known(NamedTuple):
    """Numbers of which one knows where they come from.

    Attributes:
        values: (...).
        places: (...), of each the place among all elements of the arguments; -1 for none.
        owners: (...), equal where it makes no difference which of two a number is.
    """

    values: np.ndarray
    places: np.ndarray
    owners: np.ndarray


def sources(leaf: np.ndarray, free: np.ndarray, known: Sequence[Known]) -> np.ndarray:
    """The places of the known numbers that the free elements of a leaf repeat, -1 where one cannot tell.

    A number off the whole ones is found alone, others by blocks: slices of the leaf along any of its axes that equal
    one slice of what is known, or several that come to the same, and say more than chance would.

    Args:
        leaf, free: (...), an argument, and which of its elements are of unknown origin.
        known: what may be repeated.

    >>> x = np.random.default_rng(0).normal(size=(2, 3))
    >>> sources(x[:, ::-1], np.ones((2, 3), bool), [Known(x, np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3))])
    array([[2, 1, 0],
           [5, 4, 3]])
    """
    found = np.full(leaf.shape, -1)
    for shift in (0.0, 0.5):  # of the grid, as equal numbers may lie on two sides of a border
        pools = [Known(_canonical(k.values, shift), k.places, k.owners) for k in known]
        values = _canonical(leaf, shift)
        _alone(values, free & (found < 0), pools, found)
    if (free & (found < 0)).any() and leaf.size <= MOST:
        for pool in pools:
            _by_blocks(values, free, pool, found)
    return found


def _canonical(values: np.ndarray, shift: float) -> np.ndarray:
    """In double precision, what is off the whole numbers to 18 binary digits: data in another type are the same."""
    values = values.astype(np.float64)
    part, power = np.frexp(np.where(np.isfinite(values), values, 0.0))
    return np.where(_is_real(values), np.ldexp(np.floor(part * DIGITS + shift) + 0.1, power), values)


def _is_real(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.isfinite(values) & (8 * values != np.round(8 * values))


def _alone(values: np.ndarray, free: np.ndarray, pools: Sequence[Known], found: np.ndarray) -> None:
    """Fill in what repeats numbers of which there is one alone."""
    places = np.concatenate([p.places.reshape(-1) for p in pools]) if pools else np.zeros(0, int)
    kept = places >= 0
    if not kept.any():
        return
    pool, owners = (np.concatenate([getattr(p, of).reshape(-1) for p in pools])[kept] for of in ("values", "owners"))
    levels, first, inverse = np.unique(pool, return_index=True, return_inverse=True)
    low, high = np.full(len(levels), owners.max()), np.full(len(levels), owners.min())
    np.minimum.at(low, inverse, owners)
    np.maximum.at(high, inverse, owners)
    at = np.searchsorted(levels, values).clip(max=len(levels) - 1)
    matched = free & _is_real(values) & (levels[at] == values) & (low == high)[at]
    found[matched] = places[kept][first[at[matched]]]


def _by_blocks(values: np.ndarray, free: np.ndarray, pool: Known, found: np.ndarray) -> None:
    """Fill in what repeats blocks of a pool of which there is one alone, the largest first."""
    if pool.values.size > MOST:
        return
    bits = _bits(values, pool.values)
    shapes = [(a, b) for a in _subsets(values.ndim) for b in _subsets(pool.values.ndim)]
    fitting = [(a, b) for a, b in shapes if _rest(values.shape, a) == _rest(pool.values.shape, b)]
    for a, b in sorted(fitting, key=lambda pair: -np.prod(_rest(values.shape, pair[0]))):
        wanted = _blocks(free & (found < 0), a)
        if not wanted.any():
            continue
        mine, told, open_ = _blocks(values, a), _blocks(bits, a).sum(1), _blocks(free, a).all(1) & wanted.any(1)
        theirs, places, owners = (_blocks(array, b) for array in pool)
        by_content: dict[bytes, list[int]] = {}
        for i in np.flatnonzero((places >= 0).all(1)):
            by_content.setdefault((theirs[i] + 0.0).tobytes(), []).append(i)
        result, evidence = _blocks(found, a).copy(), 0.0
        beyond_chance = told - log2(len(theirs))
        for i in np.flatnonzero(open_ & (beyond_chance >= LEAST)):
            same = by_content.get((mine[i] + 0.0).tobytes(), ())
            evidence += beyond_chance[i] if same else -1.0
            if same and all(np.array_equal(owners[j], owners[same[0]]) for j in same[1:]):
                result[i] = np.where(result[i] < 0, places[same[0]], result[i])
        if evidence >= ENOUGH:
            _put(found, a, result)


def _bits(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The information of each number: little for one that is frequent."""
    levels, inverse, counts = np.unique(
        np.concatenate([values.reshape(-1), others.reshape(-1)]), return_inverse=True, return_counts=True
    )
    frequent = np.log2(counts.sum() / counts)[inverse[: values.size]].reshape(values.shape)
    return np.where(_is_real(values), REAL, frequent)


def _subsets(n: int) -> Iterator[tuple[int, ...]]:
    return (axes for k in range(n + 1) for axes in combinations(range(n), k))


def _rest(shape: Sequence[int], axes: Iterable[int]) -> tuple[int, ...]:
    return tuple(n for axis, n in enumerate(shape) if axis not in {*axes})


def _blocks(array: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """(blocks, numbers in each): one block for each index along some axes."""
    moved = np.moveaxis(array, axes, range(len(axes)))
    return moved.reshape(int(np.prod(moved.shape[: len(axes)])), -1)


def _put(array: np.ndarray, axes: Sequence[int], blocks: np.ndarray) -> None:
    """The inverse of `_blocks`, in place."""
    moved = np.moveaxis(array, axes, range(len(axes)))
    moved[...] = blocks.reshape(moved.shape)
