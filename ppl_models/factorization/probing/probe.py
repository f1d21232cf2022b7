"""Intervention probes: change one copy of one site, hold all others, and see which factors move."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np

from ppl_models.programs.laboratory import Backend, Node, Seen, Trial, Values

from .alignment import Alignment

ROUNDING = 1e-14  # of double precision, in densities relative to 1 + their size
LOOKS = 6  # how often, at least, a dependence is looked for: copies times rounds


@dataclass
class Probed:
    """What probing found of one program.

    Args:
        base: a run of the program, with all that is probed held.
        parents: for each node those whose change moved its factor.
        upper: by provenance, the sites that each site's factor may depend on; None where it is not known.
        notes: what a reader should know.
        doubts: why a verdict would not be certain.
    """

    base: Trial
    parents: dict[Node, set[Node]] = field(default_factory=dict)
    upper: Mapping[str, frozenset[str]] | None = None
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def disagreements(self, what: str, sources: Iterable[str], targets: Collection[str]) -> list[str]:
        """Where interventions and provenance differ, site by site, in sentences."""
        sites: dict[str, set[str]] = {}
        for (child, _), found in self.parents.items():
            sites.setdefault(child, set()).update(name for name, _ in found)
        notes, sources = [], set(sources)
        for child, allowed in (self.upper or {}).items():
            if child not in targets:
                continue
            probed = sites.get(child, set())
            for parent in sorted(allowed & sources - probed - {child}):
                notes.append(f"inert: {what} computes {child!r} from {parent!r}, which does not move it")
            for parent in sorted(probed & sources - allowed - {child}):
                notes.append(f"hidden: {what}'s {child!r} depends on {parent!r} in a way that provenance cannot follow")
        return notes

    def add(self, parent: Node, child: Node) -> None:
        """An edge."""
        self.parents.setdefault(child, set()).add(parent)


@dataclass(frozen=True)
class Point:
    """Values to start from and others to change them to, drawn from the sites' own distributions.

    Args:
        jitter: seed of the parameters' jitter, None to take them as they are.
        seed: of the draws.
        values: of the latents and of what else is held.
        others: another value of every site.
    """

    jitter: int | None
    seed: int
    values: Values
    others: Values


@dataclass
class Troubles:
    """Sites that stood in the way of probing.

    Args:
        failed: the program raised an error when they changed.
        blind: their densities were not finite wherever they were looked at.
        dynamic: they are there in some runs and not in others.
        faint: (parent, child) where a change is so small that it may be one of rounding.
        strays: (parent, child, plate) where a copy that is not looked at moved, and none that is.
    """

    failed: set[str] = field(default_factory=set)
    blind: set[str] = field(default_factory=set)
    dynamic: set[str] = field(default_factory=set)
    strays: set[tuple[str, str, str]] = field(default_factory=set)
    faint: set[tuple[str, str]] = field(default_factory=set)

    def told(self, what: str, but: Collection[str] = ()) -> list[str]:
        """Sentences about them, but for some sites."""
        said = [f"the {what} fails when {name!r} changes" for name in sorted(self.failed - {*but})]
        said += [f"the {what} has the site {name!r} in some runs and not in others" for name in sorted(self.dynamic)]
        said += [
            f"in the {what}, copies of {child!r} that were not looked at depend on others of {parent!r}: the plate "
            f"{plate!r} is large; pass three rows"
            for parent, child, plate in sorted(self.strays)
        ]
        said += [
            f"in the {what}, {parent!r} moves {child!r} by so little that it may be rounding: bring them to one scale"
            for parent, child in sorted(self.faint)
        ]
        return said + [
            f"the {what}'s density of {name!r} is not finite where it was looked at; try jitter=False"
            for name in sorted(self.blind)
        ]


Change = Callable[[Point], tuple[Sequence[np.ndarray], Values]]


def held(point: Point, seen: Seen, node: Node, leaves: Sequence[np.ndarray]) -> tuple[Sequence[np.ndarray], Values]:
    """The change of a held value at one node."""
    value = np.array(point.values.get(seen.name, seen.value))
    at = seen.at(value, node[1], seen.event_dim)
    value[at] = np.broadcast_to(point.others[seen.name], value.shape)[at]
    return leaves, {**point.values, seen.name: value}


def change_of(seen: Seen, node: Node, leaves: Sequence[np.ndarray], alignment: Alignment | None = None) -> Change:
    """How to change a copy of a site: of an observed one through the arguments, where it comes from there."""
    if alignment is None or seen.kind != "observed" or not alignment.elements(seen, node[1]):
        return lambda point: held(point, seen, node, leaves)
    return lambda point: (
        alignment.changed(seen, node[1], np.broadcast_to(point.others[seen.name], seen.value.shape)),
        point.values,
    )


def changes(
    base: Trial, names: Iterable[str], leaves: Sequence[np.ndarray], alignment: Alignment | None = None
) -> dict[Node, Change]:
    """How to change each copy of some sites."""
    return {node: change_of(base[name], node, leaves, alignment) for name in names for node in base[name].nodes}


def probe(
    backend: Backend,
    program: Callable,
    base: Trial,
    points: Callable[[int], Point],
    sources: dict[Node, Change],
    targets: Iterable[str],
    leaves: Sequence[np.ndarray],
    upper: Mapping[str, frozenset[str]] | None = None,
    troubles: Troubles | None = None,
) -> dict[Node, set[Node]]:
    """For each source the nodes whose factors move when it alone changes, over several points.

    What stood in the way is added to `troubles`.

    Where all that `upper` allows has been seen after a few looks, no more are taken. A relation that shows between some
    copies and not between others is looked for again at further points.
    """
    targets, troubles = list(targets), Troubles() if troubles is None else troubles
    clear: set[str] = set()
    reach = reach_of(sources, targets, upper)
    copies: dict[str, int] = {}
    for site, _ in sources:
        copies[site] = copies.get(site, 0) + 1
    rounds = {site: max(2, ceil(LOOKS / n)) for site, n in copies.items()}
    moved: dict[Node, set[Node]] = {source: set() for source in sources}
    again: set[str] = set()
    for r in range(2 * LOOKS):
        done = {site for site in reach if r * copies[site] >= LOOKS // 2 and _found(site, reach[site], moved)}
        wanted = [s for s in sources if r < rounds[s[0]] and s[0] not in done]
        wanted += [s for s in sources if s[0] in again and rounds[s[0]] <= r < rounds[s[0]] + 2]
        if not wanted:
            break
        point = points(r)
        backend.jitter(point.jitter)
        start = backend.run(program, leaves, point.values, point.seed)
        clear |= {site for site in targets if site in start.sites and start[site].finite}
        for source in wanted:
            try:
                other = backend.run(program, *sources[source](point), point.seed)
            except Exception:  # noqa: BLE001 (a program may take no other value than the one it was given)
                troubles.failed.add(source[0])
                continue
            troubles.dynamic |= start.sites.keys() ^ other.sites.keys()
            for site in targets:
                if site in start.sites and site in other.sites:
                    seen = replace(start[site], plates=base[site].plates)
                    found = seen.moved(other[site], backend.tolerance)
                    moved[source].update((site, copy) for copy in found)
                    if not found and upper and backend.tolerance < ROUNDING * 1e5 and source[0] in upper.get(site, ()):
                        troubles.faint |= {(source[0], site)} if seen.moved(other[site], ROUNDING) else set()
                    own = _indices(base, source)
                    if own and all(alike(base, source, (site, copy)) for copy in found):
                        plate = seen.strays(other[site], backend.tolerance, own)
                        troubles.strays |= {(source[0], site, plate)} if plate else set()
        if r + 1 == max(rounds.values()):
            again = {site for site in copies if _uneven(site, moved, base)}
    troubles.faint -= {(source[0], name) for source, nodes in moved.items() for name, _ in nodes}
    troubles.blind |= {site for site in targets if site not in clear} if sources else set()
    return moved


def reach_of(
    sources: Iterable[Node], targets: Iterable[str], upper: Mapping[str, frozenset[str]] | None
) -> dict[str, set[str]]:
    """By provenance, the targets that each source may move; nothing where it is not known."""
    return {site: {t for t in targets if site in upper.get(t, ())} for site, _ in sources} if upper else {}


def _found(site: str, reach: set[str], moved: dict[Node, set[Node]]) -> bool:
    """Whether every copy of a site has moved all the other sites that it might."""
    reach = reach - {site}
    return all(reach <= {name for name, _ in nodes} for source, nodes in moved.items() if source[0] == site)


def _uneven(site: str, moved: dict[Node, set[Node]], base: Trial) -> bool:
    """Whether some copies of a site move a copy of another that is theirs, and others do not."""
    mine = {source: nodes for source, nodes in moved.items() if source[0] == site}
    for target in {name for nodes in mine.values() for name, _ in nodes}:
        own = [any(alike(base, source, node) for node in nodes if node[0] == target) for source, nodes in mine.items()]
        if any(own) and not all(own):
            return True
    return False


def alike(base: Trial, a: Node, b: Node) -> bool:
    """Whether two nodes belong to the same copy: equal indices in every plate they share."""
    first, second = _indices(base, a), _indices(base, b)
    return all(first[name] == second[name] for name in first.keys() & second.keys())


def _indices(base: Trial, node: Node) -> dict[str, int]:
    """The index of a node in each of its plates."""
    seen = base.sites.get(node[0])
    return {} if seen is None else dict(zip((plate.name for plate in seen.plates), node[1], strict=True))
