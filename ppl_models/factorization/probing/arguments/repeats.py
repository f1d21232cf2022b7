"""`find_repeats`: arguments that repeat data which a model observes, or reads, under another name."""

from collections.abc import Collection

import numpy as np

from ppl_models.programs.laboratory import ProgramRun, SiteRecord

from .alignment import Alignment
from .copies import Known, sources


def find_repeats(alignment: Alignment, base: ProgramRun, unread: Collection[int]) -> None:
    """Find the elements of some leaves among all others: copies of data, the padding of such, lengths of masked rows.

    Args:
        alignment: takes down what is found.
        base: a run of the model.
        unread: the leaves of which only what is observed is known.
    """
    used, places = alignment.used(), _places(alignment)
    if used.all():
        return
    known, counted = _known(alignment, base, used, unread), _counted(alignment, base)
    flat = alignment.flat()
    for k in unread:
        leaf, own = alignment.leaves[k], places[k]
        free = ~used[own].reshape(leaf.shape)
        found = sources(leaf, free, known)
        rest, left = np.unique(leaf[free & (found < 0)]), flat[np.setdiff1d(counted, found)]
        if (found >= 0).any() and len(rest) == 1 and rest[0] not in left:  # padding: it stays as it is
            found = np.where(found < 0, own.reshape(leaf.shape), found)
        masks = [j for j in range(len(places)) if j not in unread]
        if (found < 0).all() and (tally := _tally(leaf, {j: alignment.leaves[j] for j in masks})):
            alignment.tallies[k], found = tally, own.reshape(leaf.shape)
        alignment.copied[own] = np.where(free, found, alignment.copied[own].reshape(leaf.shape)).reshape(-1)


def _places(alignment: Alignment) -> list[np.ndarray]:
    """The places of the elements of each leaf among those of all."""
    ends = np.cumsum([0, *(leaf.size for leaf in alignment.leaves)])
    return [np.arange(ends[k], ends[k + 1]) for k in range(len(alignment.leaves))]


def _known(alignment: Alignment, base: ProgramRun, used: np.ndarray, unread: Collection[int]) -> list[Known]:
    """The values that are observed or read, with the copies of the sites that they belong to."""
    known, owners, copied = [], np.where(used, 0, np.arange(len(used))), alignment.copied
    for number, (name, index) in enumerate(alignment.index.items(), 1):
        np.add.at(owners, index[index >= 0], (_copy_numbers(base[name]) + number * len(used))[index >= 0])
        if not alignment.identical[name]:
            known.append(Known(base[name].value, index, owners[index]))
    for k, (leaf, own) in enumerate(zip(alignment.leaves, _places(alignment), strict=True)):
        to = np.where(copied[own] < 0, own, np.where(copied[own] == own, -1, copied[own]))
        to = np.where(used[own] | (k not in unread), to, -1)
        known.append(Known(*(array.reshape(leaf.shape) for array in (leaf, to, owners[to]))))
    return known


def _counted(alignment: Alignment, base: ProgramRun) -> np.ndarray:
    """The elements observed at copies of sites that no mask hides."""
    found = [np.zeros(0, int)]
    for name, index in alignment.index.items():
        record, hidden = base[name], np.zeros(index.shape, bool)
        for copy in record.copies:
            if (record.signal[record.at(record.signal, copy, 0)] == 0).all():
                hidden[record.at(index, copy)] = True
        found.append(index[(index >= 0) & ~hidden])
    return np.concatenate(found)


def _copy_numbers(record: SiteRecord) -> np.ndarray:
    """(*value): one number for all entries of the same copy in the plates of a site."""
    numbers = np.zeros(record.value.shape, int)
    for plate in record.plates:
        axis = numbers.ndim + plate.dim - record.site.event_dim
        if axis >= 0 and numbers.shape[axis] == plate.size:
            numbers = numbers * plate.size + np.arange(plate.size).reshape(-1, *(1,) * (numbers.ndim - axis - 1))
    return numbers


def _tally(leaf: np.ndarray, others: dict[int, np.ndarray]) -> tuple[int, int] | None:
    """The leaf of zeros and ones, (rows, steps, ...), of whose sums over an axis a leaf consists; None for none."""
    if leaf.dtype.kind not in "iu" or leaf.ndim != 1:
        return None
    for k, other in others.items():
        if other.ndim < 2 or not np.isin(other, (0, 1)).all():
            continue
        mask = other.reshape(*other.shape[:2], -1)
        for axis in (1, 0):
            if (mask == mask[..., :1]).all() and np.array_equal(mask[..., 0].sum(axis), leaf):
                return k, axis
    return None
