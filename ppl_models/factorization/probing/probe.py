"""`Probe`: change one copy of one site, hold all others, and see which factors move. `ProbeResult`: the edges of it."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from math import ceil

import numpy as np

from ppl_models.programs.laboratory import FEW, Experiment, Node, ProgramRun, SiteRecord, Tags, rows

from ..joint_changes import Group, Table, together
from .side_by_side import side_by_side
from .switching import Switching
from .values.baselines import Baseline, Baselines, Change

ROUNDING = 1e-14  # of double precision, in densities relative to 1 + their size
LOOKS = 6  # how often, at least, a dependence is looked for: copies times rounds


@dataclass
class ProbeResult:
    """Findings of the probes of one program.

    Args:
        role: "model" or "guide".
        experiment: the program.
        base: a run of it, with all that is probed held.
        parents: for each node those whose change moved its factor.
        upper: by provenance, the sites that each site's factor may depend on; None where it is not known.
        notes: what a reader should know.
        doubts: why a verdict would not be certain.
        flat: whether some dependence shows only where units do not saturate: near by, numbers tell nothing of it.
    """

    role: str
    experiment: Experiment
    base: ProgramRun
    parents: dict[Node, set[Node]] = field(default_factory=dict)
    upper: Tags | None = None
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    flat: bool = False

    def add(self, parent: Node, child: Node) -> None:
        """An edge."""
        self.parents.setdefault(child, set()).add(parent)

    def edges(self) -> list[tuple[Node, Node]]:
        """(parent, child), all of them, in an order that does not hang on hashes."""
        edges = [(parent, child) for child, parents in self.parents.items() for parent in parents]
        return sorted(edges, key=lambda edge: edge[::-1])

    def check_hidden(self, baseline: Baseline, targets: Collection[str], repeatable: bool) -> None:
        """Doubt a program whose factors move although nothing that is known of has changed.

        Args:
            baseline: where it is run again.
            targets: the sites that are looked at.
            repeatable: whether they have been seen not to, but for random numbers.
        """
        tolerance = self.experiment.laboratory.tolerance
        drew = baseline.run(self.experiment).drew
        if repeatable and not drew:
            return
        for seed in (baseline.seed, baseline.seed + 77 * drew):  # twice: what changes every other time would be back
            other = replace(baseline, seed=seed).run(self.experiment)
            for name in targets:
                record = self.base[name]
                if name in other and not record.mute and record.moved(record, other[name], tolerance):
                    self.doubts.append(
                        f"the {self.role}'s factor of {name!r} depends on something that changes from run to run: "
                        "random numbers drawn outside of sample statements, or the subsample of another run of the "
                        "model"
                    )
        self.doubts[:] = dict.fromkeys(self.doubts)

    def disagreements(self, sources: Collection[str], targets: Collection[str]) -> Iterable[str]:
        """The differences of interventions and provenance, site by site, in sentences."""
        sites: dict[str, set[str]] = {}
        for (parent, _), (child, _) in self.edges():
            sites.setdefault(child, set()).add(parent)
        for child, allowed in (self.upper or {}).items():
            if child in targets:
                probed = sites.get(child, set())
                for parent in sorted(allowed & {*sources} - probed - {child}):
                    yield f"inert: the {self.role} computes {child!r} from {parent!r}, which does not move it"
                for parent in sorted(probed & {*sources} - allowed - {child}):
                    yield (
                        f"hidden: the {self.role}'s {child!r} depends on {parent!r} in a way that provenance cannot "
                        "follow"
                    )


@dataclass
class Probe:
    """Interventions on one program: what has moved, and the sites that stood in the way.

    Args:
        experiment: the program.
        base: a run that says which copies of each site are looked at.
        baselines: where to start.
        sources: how to change each node.
        targets: the sites whose factors are watched.
        upper: by provenance, the sites that each site's factor may depend on; None where it is not known.
        moved: for each source the nodes whose factors moved when it alone changed.
        failed: the program raised an error when they changed.
        blind: their densities were not finite wherever they were looked at.
        dynamic: they are there in some runs and not in others.
        strays: (parent, child, plate) where a copy that is not looked at moved, and none that is.
        faint: (parent, child) where a change is so small that it may be one of rounding.
        still: the nodes whose factors have stayed as they were in some later run.
        now: as `moved`, of one baseline.
    """

    experiment: Experiment
    base: ProgramRun
    baselines: Baselines
    sources: Mapping[Node, Change]
    targets: Sequence[str]
    upper: Tags | None = None
    moved: dict[Node, set[Node]] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    blind: set[str] = field(default_factory=set)
    dynamic: set[str] = field(default_factory=set)
    strays: set[tuple[str, str, str]] = field(default_factory=set)
    faint: set[tuple[str, str]] = field(default_factory=set)
    still: set[Node] = field(default_factory=set)
    now: dict[Node, set[Node]] = field(default_factory=dict)

    def run(self) -> None:
        """Change each source, at several baselines.

        Where all that `upper` allows has been seen after a few looks, no more are taken; there are more of relations of
        some copies alone.
        """
        self.moved = {source: set() for source in self.sources}
        switching = Switching(self.base, [*self.sources], self.upper)
        clear, again = set[str](), set[str]()
        reach, copies = self.reach(), Counter(site for site, _ in self.sources)
        rounds = {site: max(2, ceil(LOOKS / n)) for site, n in copies.items()}
        for r in range(2 * LOOKS):
            done = {site for site in reach if r * copies[site] >= LOOKS // 2 and self._found(site, reach[site])}
            done -= {site for site in done if switching.partly(site)}
            wanted = [s for s in self.sources if r < rounds[s[0]] and s[0] not in done]
            wanted += [s for s in self.sources if s[0] in again and rounds[s[0]] <= r < rounds[s[0]] + 2]
            if not wanted:
                break
            baseline = self.baselines(r)
            start = baseline.run(self.experiment)
            clear |= {site for site in self.targets if site in start and start[site].finite}
            self.now = {source: set() for source in wanted}
            for source in self._change_together(wanted, baseline, start):
                try:
                    other = self.sources[source](baseline).run(self.experiment)
                except Exception:  # noqa: BLE001 (a program may take no other value than the one it was given)
                    self.failed.add(source[0])
                    del self.now[source]
                    continue
                self.dynamic |= start.keys() ^ other.keys()
                for site in self.targets:
                    if site in start and site in other:
                        self._watch(source, site, start[site], other[site])
            switching.look(self.now, self.moved)
            if r + 1 == max(rounds.values()):
                again = {site for site in copies if self._uneven(site) or switching.partly(site)}
        switching.complete(self.moved)
        self.blind |= {site for site in self.targets if site not in clear} if self.sources else set()

    def reach(self) -> dict[str, set[str]]:
        """By provenance, the targets that each source may move; nothing where it is not known."""
        upper = self.upper or {}
        return {site: {t for t in self.targets if site in upper.get(t, ())} for site, _ in self.sources if upper}

    def _change_together(self, wanted: Sequence[Node], baseline: Baseline, start: ProgramRun) -> list[Node]:
        """Change sources in common runs, where provenance says what each may move; those left to be changed alone."""
        nodes = [node for node in self.base.nodes(self.targets) if node[0] in start]
        expected = self._expected(wanted, nodes)
        columns: dict[str, list[int]] = {}
        for k, (site, _) in enumerate(nodes):
            columns.setdefault(site, []).append(k)
        reach: dict[str, np.ndarray] = {site: np.any(expected[:, mine], 1) for site, mine in columns.items()}

        def changed(chosen: Group) -> Baseline:
            return reduce(lambda there, i: self.sources[wanted[i]](there), chosen, baseline)

        def look(chosen: Group) -> np.ndarray | None:
            try:
                other = changed(chosen).run(self.experiment)
            except Exception:  # noqa: BLE001 (of all these values at once)
                return None
            found = told(chosen, start, other) if start.keys() == other.keys() else None
            if found is not None:
                self.still |= {nodes[k] for k in np.flatnonzero(~found)}
            return found

        def told(chosen: Group, before: ProgramRun, after: ProgramRun) -> np.ndarray | None:
            moved = set[Node]()
            for site, reaching in reach.items():
                moving = [wanted[i] for i in chosen[reaching[chosen]]]
                here = self.nodes_moved(site, before[site], after[site])
                if self._unclear(site, moving, here, before[site], after[site]):
                    return None
                moved |= here
            return np.array([node in moved for node in nodes], bool)

        def look_at_all(groups: Sequence[Group]) -> Iterable[np.ndarray | None]:
            runs = side_by_side(self.experiment, baseline, [*map(changed, groups)], [*reach])
            for k, chosen in enumerate(groups):
                found = None if runs is None else told(chosen, *runs[k])
                surprise = found is None or (found & ~expected[chosen].any(0)).any()
                yield look(chosen) if surprise else found

        found, alone = together(expected, look, look_at_all)
        for source, row in zip(wanted, found, strict=True):
            self.now[source] |= {nodes[k] for k in np.flatnonzero(row)}
        return [wanted[i] for i in alone]

    def _expected(self, wanted: Sequence[Node], nodes: Sequence[Node]) -> Table:
        """Whether, by provenance, a source may move a node of its copy; every node where nothing is known of it."""
        upper, plates = self.upper or {}, {plate.name for record in self.base.values() for plate in record.plates}
        reach = [{t for t in self.targets if s == t or t not in upper or s in upper[t]} for s, _ in wanted]
        may = np.array([[target in mine for target, _ in nodes] for mine in reach], bool).reshape(len(wanted), -1)
        for plate in plates:  # of equal index in each plate that both are in
            here, there = (np.array([self.base.indices(n).get(plate, -1) for n in which]) for which in (wanted, nodes))
            may &= (here[:, None] == there) | (here[:, None] < 0) | (there < 0)
        may[[not upper or self.base[site].kind == "covariate" for site, _ in wanted]] = True
        return may

    def _unclear(
        self, site: str, moving: Sequence[Node], moved: set[Node], before: SiteRecord, after: SiteRecord
    ) -> bool:
        """Whether a common run shows of a site what is told of single changes alone: faint moves, and strays."""
        record, tolerance = self.base[site], self.experiment.laboratory.tolerance
        faint = moving and not moved and tolerance < ROUNDING * 1e5 and record.moved(before, after, ROUNDING)
        return bool(faint) or any(
            rows(before, after, tolerance, plate) - {*record.indices(plate)}
            for plate in record.plates
            if plate.size > FEW and all(plate.name in self.base.indices(source) for source in moving)
        )

    def nodes_moved(self, site: str, before: SiteRecord, after: SiteRecord) -> set[Node]:
        """The copies of a site whose factors differ between two runs."""
        return {(site, copy) for copy in self.base[site].moved(before, after, self.experiment.laboratory.tolerance)}

    def _watch(self, source: Node, site: str, before: SiteRecord, after: SiteRecord) -> None:
        found, tolerance = self.nodes_moved(site, before, after), self.experiment.laboratory.tolerance
        self.now[source] |= found
        self.still |= {*self.base[site].nodes} - found
        if not found and self.upper and tolerance < ROUNDING * 1e5 and source[0] in self.upper.get(site, ()):
            self.faint |= {(source[0], site)} if self.base[site].moved(before, after, ROUNDING) else set()
        own, record = self.base.indices(source), self.base[site]
        if all(self.base.alike(source, node) for node in found):
            for plate in (plate for plate in record.plates if plate.name in own and plate.size > FEW):
                if rows(before, after, tolerance, plate) - {*record.indices(plate), own[plate.name]}:
                    self.strays.add((source[0], site, plate.name))
                    break

    def _found(self, site: str, reach: set[str]) -> bool:
        """Whether every copy of a site has moved all the other sites that it might."""
        mine = [{name for name, _ in nodes} for source, nodes in self.moved.items() if source[0] == site]
        return all(reach - {site} <= names for names in mine)

    def repeatable(self, targets: Iterable[str]) -> bool:
        """Whether factors were seen to stay as they are from run to run, and to move only as provenance has it."""
        sources, nodes = [*self.moved], self.base.nodes(targets)
        if not self.upper or self.dynamic or self.failed or not {*nodes} <= self.still:
            return False
        expected = self._expected(sources, nodes)
        moved = np.array([[node in self.moved[source] for node in nodes] for source in sources], bool)
        return not (moved.reshape(expected.shape) & ~expected).any()

    def _uneven(self, site: str) -> bool:
        """Whether some copies of a site move a copy of another that is theirs, and others do not."""
        mine = {source: nodes for source, nodes in self.moved.items() if source[0] == site}
        for target in {name for nodes in mine.values() for name, _ in nodes}:
            own = [any(self.base.alike(s, node) for node in nodes if node[0] == target) for s, nodes in mine.items()]
            if any(own) and not all(own):
                return True
        return False

    def complaints(self, role: str, but: Collection[str] = ()) -> list[str]:
        """Sentences about what stood in the way, but for some sites."""
        seen = {(source[0], name) for source, nodes in self.moved.items() for name, _ in nodes}
        said = [f"the {role} fails when {name!r} changes" for name in sorted(self.failed - {*but})]
        said += [f"the {role} has the site {name!r} in some runs and not in others" for name in sorted(self.dynamic)]
        said += [
            f"in the {role}, copies of {child!r} that were not looked at depend on others of {parent!r}: the plate "
            f"{plate!r} is large; pass three rows"
            for parent, child, plate in sorted(self.strays)
        ]
        said += [
            f"in the {role}, {parent!r} moves {child!r} by so little that it may be rounding: bring them to one scale"
            for parent, child in sorted(self.faint - seen)
        ]
        return said + [
            f"the {role}'s density of {name!r} is not finite where it was looked at; try jitter=False"
            for name in sorted(self.blind)
        ]
