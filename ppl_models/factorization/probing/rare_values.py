"""What ordinary probes miss: values that are seldom drawn, and copies of large plates that are not looked at."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ppl_models.programs.laboratory import Backend, Node, Plate, Trial

from .alignment import Alignment
from .alternatives import extremes
from .probe import Change, Point, Troubles, alike, change_of, reach_of


def look_for_rarities(
    backend: Backend,
    program: Callable,
    base: Trial,
    points: Callable[[int], Point],
    sources: Mapping[Node, Change],
    targets: Sequence[str],
    moved: dict[Node, set[Node]],
    upper: Mapping[str, frozenset[str]] | None,
    troubles: Troubles,
    alignment: Alignment,
) -> None:
    """Look, after `probe`, for what it has missed: adds to what has `moved` and to the `troubles`."""
    shared = set().union(*(owners for owners in alignment.owners() if len(owners) > 1))  # whose tags are all the same
    reach = {site: found for site, found in reach_of(sources, targets, upper).items() if site not in shared}
    _look_far(backend, program, base, points, sources, reach, moved, troubles)
    names = [n for n in dict.fromkeys(site for site, _ in sources) if base[n].kind != "covariate"]
    crowded = _crowds(base, names, backend.leaves, alignment)
    _look_at_crowds(backend, program, base, points, crowded, targets, moved, troubles)


def _crowds(
    base: Trial, names: Iterable[str], leaves: Sequence[np.ndarray], alignment: Alignment
) -> dict[Node, tuple[Plate, Change]]:
    """How to change many copies at once of those that are not looked at, so that any two are told apart by some."""
    found: dict[Node, tuple[Plate, Change]] = {}
    for seen in (base[name] for name in names):
        for plate in seen.plates:
            rest = sorted({*range(plate.size)} - {*plate.indices})
            for bit in range((plate.size - 1).bit_length()) if rest else ():
                for side in (0, 1):
                    chosen = tuple(i for i in rest if i >> bit & 1 == side)
                    node = seen.name, tuple(chosen if p is plate else p.indices[0] for p in seen.plates)
                    if chosen:
                        found[node] = plate, change_of(seen, node, leaves, alignment)
    return found


def _look_far(
    backend: Backend,
    program: Callable,
    base: Trial,
    points: Callable[[int], Point],
    sources: Mapping[Node, Change],
    reach: Mapping[str, set[str]],
    moved: dict[Node, set[Node]],
    troubles: Troubles,
) -> None:
    """Try values far off for sites that might, by provenance, move what they were not seen to move.

    Adds what it finds to `moved`: the state of thirty that matters, the value beyond three that switches something on.
    """
    point, start = points(0), None
    for site, targets in reach.items():
        mine = [source for source in sources if source[0] == site]
        inert = {source: targets - {site} - {name for name, _ in moved[source]} for source in mine}
        if not any(inert.values()) or site not in point.others:
            continue
        if start is None:
            backend.jitter(point.jitter)
            start = backend.run(program, backend.leaves, point.values, point.seed)
        for value in extremes(base[site]):
            far = replace(point, others={**point.others, site: value})
            for source in filter(inert.get, mine):
                try:
                    other = backend.run(program, *sources[source](far), point.seed)
                except Exception:  # noqa: BLE001 (no value of its support)
                    continue
                if site in other.sites and not other[site].finite:
                    continue
                for name in inert[source] & start.sites.keys() & other.sites.keys():
                    if start[name].finite and other[name].finite:
                        seen = replace(start[name], plates=base[name].plates)
                        moved[source].update((name, copy) for copy in seen.moved(other[name], backend.tolerance))
    troubles.faint -= {(source[0], name) for source, nodes in moved.items() for name, _ in nodes}


def _look_at_crowds(
    backend: Backend,
    program: Callable,
    base: Trial,
    points: Callable[[int], Point],
    crowded: Mapping[Node, tuple[Plate, Change]],
    targets: Iterable[str],
    moved: Mapping[Node, set[Node]],
    troubles: Troubles,
) -> None:
    """Look for copies that move others where neither is looked at, nor was one seen to move another."""
    known = {(s[0], n[0]) for s, nodes in moved.items() for n in nodes if not alike(base, s, n)}
    point, start = points(0), None
    for source, (plate, change) in crowded.items():
        if start is None:
            backend.jitter(point.jitter)
            start = backend.run(program, backend.leaves, point.values, point.seed)
        try:
            other = backend.run(program, *change(point), point.seed)
        except Exception:  # noqa: BLE001 (told of where single copies change)
            continue
        own = next(set(i) for i in source[1] if isinstance(i, tuple))
        for site in targets:
            if site not in start.sites or site not in other.sites or (source[0], site) in known:
                continue
            seen = replace(start[site], plates=base[site].plates)
            theirs = next((p for p in seen.plates if p.name == plate.name), None)
            if theirs and seen.rows(other[site], backend.tolerance, theirs) - own:
                troubles.strays.add((source[0], site, plate.name))
