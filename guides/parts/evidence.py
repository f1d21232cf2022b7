"""What a latent reads of the data: observed values, or elements of the rows of arguments, as one feature tensor."""

from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from .readings import Plate, Reading, kept_elements
from .sites import Site, features


class Taken(NamedTuple):
    """Observed values: those of a site, or the rows of an argument whose elements (`inside`, by site) are observed."""

    value: Tensor
    event_dim: int
    site: Site
    inside: tuple[tuple[str, frozenset[int]], ...] | None = None


def gather(taken: Sequence[Taken], readings: Iterable[Reading]) -> dict[Reading, Tensor]:
    """Observed values as one feature tensor, (*kept plates, features), for each reading that finds any."""
    gathered = {}
    for reading in readings:
        parts = []
        for each in taken:
            if reading.keep and reading.keep.isdisjoint(plate.name for plate in each.site.plates):
                continue  # observed in other plates than this latent's
            value, event_dim = _read(each, reading.sites)
            if value is None:
                continue
            part = features(value, event_dim, each.site.plates, reading.keep)
            parts.append(part if part.is_floating_point() else part.to(torch.get_default_dtype()))
        if parts:
            shape = torch.broadcast_shapes(*(p.shape[:-1] for p in parts))
            parts = [p.expand(*shape, p.shape[-1]) for p in parts]
            gathered[reading] = torch.cat(parts, -1) if len(parts) > 1 else parts[0]
    return gathered


def covariate(name: str, value: Tensor, rows: Plate | None, index: Tensor | None) -> Taken:
    """An argument that nothing observes, one row a datum (of those at `index` of a subsample), as evidence.

    Without a plate of `rows` all of it belongs to the one datum there is.
    """
    if rows is None:
        return Taken(value.flatten(), 1, Site(name, (), None, ()))
    value = value if index is None else value[index]
    return Taken(value.reshape(len(value), *[1] * (-rows.dim - 1), -1), 1, Site(name, (), None, (rows,)))


def _read(taken: Taken, sites: tuple[str, ...]) -> tuple[Tensor | None, int]:
    """(value, event dims) without what only sites other than `sites` observe; no value if nothing is left."""
    value, event_dim, site, inside = taken
    if inside is None:
        return (value if site.name in sites else None), event_dim
    if all(name in sites for name, _ in inside):
        return value, event_dim
    row = value.flatten(-event_dim) if event_dim else value.unsqueeze(-1)
    kept = kept_elements(row.shape[-1], inside, sites)
    return None if kept is None else row[..., kept], 1


def is_part(value: Tensor, argument: Tensor, batch: tuple[int, ...]) -> bool:
    """Whether row i of `value` lies inside row i of `argument`, a compact tensor whose memory it shares."""
    k = len(batch)
    if value.dtype != argument.dtype or tuple(value.shape[:k]) != batch or tuple(argument.shape[:k]) != batch:
        return False
    aligned = all(v == a for n, v, a in zip(batch, value.stride(), argument.stride(), strict=False) if n > 1)
    event = zip(value.shape[k:], value.stride()[k:], strict=True)
    end = value.storage_offset() + sum((n - 1) * stride for n, stride in event)
    return aligned and end < prod(argument.shape[k:])


def elements(value: Tensor, rank: int) -> frozenset[int]:
    """Which elements of a row of the compact argument that it is part of a `value` is made of."""
    found = {value.storage_offset()}
    for size, stride in zip(value.shape[rank:], value.stride()[rank:], strict=True):
        found = {start + i * stride for start in found for i in range(size)}
    return frozenset(found)
