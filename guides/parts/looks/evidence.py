"""`Evidence`: observed values as guides read them, one array of features for all latents with the same `EvidenceKey`.

Arrays of either language: only the methods that both have are called here.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ppl_models.programs.record import Plate

Array = Any
Elements = frozenset[int] | None


class EvidenceKey(NamedTuple):
    """Key of the evidence of a latent: the plates it shares with the data, the sites and covariates that it reads."""

    shared_plates: frozenset[str]
    sites: tuple[str, ...]


class Evidence(NamedTuple):
    """Observed values, (*plates, *event): those of one site, or the rows of an argument.

    Attributes:
        value: the array.
        event_dim: how many of its dims, from the right, are the event's.
        plates: around it.
        inside: (site, which elements of a row it observes), None for all of them. What no site observes of a row, all
            that read of the row read, too.
        everywhere: whether latents read it that share no plate with it, as they do covariates.
    """

    value: Array
    event_dim: int
    plates: tuple[Plate, ...]
    inside: tuple[tuple[str, Elements], ...]
    everywhere: bool = False


class Shape(NamedTuple):
    """An array without its numbers."""

    shape: tuple[int, ...]


class Origin(NamedTuple):
    """Origin of an observed value: the arguments it is made of, or its place in one that it is a part of.

    Attributes:
        arguments: indices of arguments.
        places: in the one argument, of each element of the value; None if it is computed.
        before: the languages whose guides knew so when files were of format 2, and else read the value itself.
        cast: whether its elements are of another type than those of the argument.
    """

    arguments: frozenset[int]
    places: np.ndarray | None = None
    before: frozenset[str] = frozenset()
    cast: bool = False


def elements(places: np.ndarray, batch: tuple[int, ...], argument: tuple[int, ...]) -> frozenset[int] | None:
    """The elements of its row that a value is made of, None unless row i of it lies inside row i of the argument.

    Args:
        places: of each element of the value in the argument.
        batch: the dims of the value that enumerate rows.
        argument: shape of the argument.
    """
    k = len(batch)
    if places.shape[:k] != batch or argument[:k] != batch:
        return None
    width = prod(argument[k:])
    rows = np.arange(prod(batch)).reshape((*batch, *[1] * (places.ndim - k)))
    return frozenset(np.unique(places % width).tolist()) if (places // width == rows).all() else None


@lru_cache(maxsize=4096)
def wanted(width: int, inside: tuple[tuple[str, Elements], ...], sites: tuple[str, ...]) -> slice | np.ndarray | None:
    """The elements of a row of `width` without those that only other sites than `sites` observe."""
    every = frozenset(range(width))
    read = [every if found is None else found for name, found in inside if name in sites]
    others = [every if found is None else found for name, found in inside if name not in sites]
    kept = sorted(every - (frozenset().union(*others) - frozenset().union(*read)))
    if not kept:
        return None
    return slice(kept[0], kept[-1] + 1) if kept[-1] - kept[0] == len(kept) - 1 else np.array(kept)


def features(value: Array, event_dim: int, plates: tuple[Plate, ...], shared: frozenset[str]) -> Array:
    """Values drawn in `plates` as vectors, one for each index of the `shared` ones: the others are folded in.

    Dimensions further left (particles) stay. (*particles, *plates, *event) -> (*particles, *shared plates, features);
    a folded plate leaves a dimension of size 1, so that the shared ones stay where they are.
    """
    if event_dim != 1:
        batch = value.shape[: len(value.shape) - event_dim]
        value = value.reshape(*batch, prod(value.shape[len(batch) :]))
    for plate in plates:
        if plate.name not in shared and len(value.shape) > -plate.dim:
            value = value.swapaxes(plate.dim - 1, -2)
            *rest, size, width = value.shape
            value = value.reshape(*rest, 1, size * width).swapaxes(plate.dim - 1, -2)
    return value


def width(shape: tuple[int, ...], each: Evidence, key: EvidenceKey) -> int:
    """The number of features of the evidence under a key, from the shape of its value alone."""
    batch = shape[: len(shape) - each.event_dim]
    found = _kept(prod(shape[len(batch) :]), each, key)
    if found is None:
        return 0
    row = len(range(*found.indices(prod(shape[len(batch) :])))) if isinstance(found, slice) else len(found)
    folded = (p for p in each.plates if p.name not in key.shared_plates and len(batch) >= -p.dim)
    return row * prod(batch[plate.dim] for plate in folded)


def gather(
    found: Sequence[Evidence], keys: Iterable[EvidenceKey], join: Callable[[list[Array]], Array]
) -> dict[EvidenceKey, Array]:
    """Evidence as one array of features, (*shared plates, features), for each key that finds any.

    Args:
        found: all that is observed, as floating-point numbers.
        keys: which of it latents read.
        join: puts arrays side by side, their batch dims broadcast.
    """
    gathered = {}
    for key in keys:
        parts = []
        for each in found:
            n = prod(each.value.shape[len(each.value.shape) - each.event_dim :])
            kept, value, event_dim = _kept(n, each, key), each.value, each.event_dim
            if kept is None:
                continue
            if not (isinstance(kept, slice) and kept == slice(0, n)):
                value, event_dim = features(value, event_dim, (), frozenset())[..., kept], 1
            parts.append(features(value, event_dim, each.plates, key.shared_plates))
        if parts:
            gathered[key] = join(parts) if len(parts) > 1 else parts[0]
    return gathered


def plate_sizes(found: Iterable[Evidence]) -> dict[str, int]:
    """The sizes that plates have in this evidence."""
    sizes: dict[str, int] = {}
    for value, event_dim, plates, *_ in found:
        for plate in plates:
            if len(value.shape) >= event_dim - plate.dim:
                sizes[plate.name] = max(sizes.get(plate.name, 1), value.shape[plate.dim - event_dim])
    return sizes


def _kept(n: int, each: Evidence, key: EvidenceKey) -> slice | np.ndarray | None:
    """The elements of a row, of n, read under a key; None for what is observed in other plates than the latent's."""
    if not each.everywhere and key.shared_plates and key.shared_plates.isdisjoint(plate.name for plate in each.plates):
        return None
    return wanted(n, each.inside, key.sites)
