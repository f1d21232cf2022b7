"""Probes of rare values: those that are seldom drawn, and copies of large plates that ordinary probes leave out."""

from dataclasses import replace
from typing import Any

from ppl_models.programs.laboratory import Node, rows
from ppl_models.programs.record import Plate

from ..arguments.alignment import Alignment
from ..probe import Probe
from ..values.alternatives import extremes
from ..values.baselines import Change
from ..values.changes import change_of


def look_for_rare_values(probe: Probe, alignment: Alignment) -> None:
    """Look for what a probe that has run has missed: adds to what has moved and to what it complains of."""
    shared = set().union(*(owners for owners in alignment.owners() if len(owners) > 1))  # whose tags are all the same
    _look_far(probe, {site: found for site, found in probe.reach().items() if site not in shared})
    _look_at_crowds(probe, _crowds(probe, alignment))


def _crowds(probe: Probe, alignment: Alignment) -> dict[Node, tuple[Plate, Change]]:
    """Changes of many unprobed copies at once, so that any two copies are told apart by some change."""
    found: dict[Node, tuple[Plate, Change]] = {}
    for record in (probe.base[name] for name in dict.fromkeys(site for site, _ in probe.sources)):
        for plate in () if record.kind == "covariate" else record.plates:
            rest = sorted({*range(plate.size)} - {*record.indices(plate)})
            for bit in range((plate.size - 1).bit_length()) if rest else ():
                for side in (0, 1):
                    chosen = tuple(i for i in rest if i >> bit & 1 == side)
                    at: Any = tuple(chosen if p is plate else record.indices(p)[0] for p in record.plates)
                    if chosen:
                        found[record.name, at] = plate, change_of(record, (record.name, at), alignment)
    return found


def _look_far(probe: Probe, reach: dict[str, set[str]]) -> None:
    """Try values far off for sites that might, by provenance, move what they were not seen to move.

    Adds what it finds to `moved`: the state of thirty that matters, the value beyond three that switches something on.
    """
    baseline, start = probe.baselines(0), None
    for site, targets in reach.items():
        mine = [source for source in probe.sources if source[0] == site]
        inert = {source: targets - {site} - {name for name, _ in probe.moved[source]} for source in mine}
        if not any(inert.values()) or site not in baseline.others:
            continue
        start = start or baseline.run(probe.experiment)
        for value in extremes(probe.base[site]):
            far = replace(baseline, others={**baseline.others, site: value})
            for source in filter(inert.get, mine):
                try:
                    other = probe.sources[source](far).run(probe.experiment)
                except Exception:  # noqa: BLE001 (no value of its support)
                    continue
                if site in other and not other[site].finite:
                    continue
                for name in inert[source] & start.keys() & other.keys():
                    if start[name].finite and other[name].finite:
                        probe.moved[source] |= probe.nodes_moved(name, start[name], other[name])


def _look_at_crowds(probe: Probe, crowded: dict[Node, tuple[Plate, Change]]) -> None:
    """Look for copies that move others where neither is looked at, nor was one seen to move another."""
    known = {(s[0], n[0]) for s, nodes in probe.moved.items() for n in nodes if not probe.base.alike(s, n)}
    baseline, start = probe.baselines(0), None
    for source, (plate, change) in crowded.items():
        start = start or baseline.run(probe.experiment)
        try:
            other = change(baseline).run(probe.experiment)
        except Exception:  # noqa: BLE001 (told of where single copies change)
            continue
        own = next(set(i) for i in source[1] if isinstance(i, tuple))
        for site in probe.targets:
            if site not in start or site not in other or (source[0], site) in known:
                continue
            theirs = probe.base[site].site.plate(plate.name)
            if theirs and rows(start[site], other[site], probe.experiment.laboratory.tolerance, theirs) - own:
                probe.strays.add((source[0], site, plate.name))
