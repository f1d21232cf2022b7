"""`Contraction`: guides that draw sites of their own and compute the model's latents from them, as autoguides do."""

from collections.abc import Iterable, Sequence
from itertools import combinations

import networkx as nx
import numpy as np

from ppl_models.programs.laboratory import Node, ProgramRun

from .probe import ProbeResult
from .values.baselines import Baseline, Baselines, Change

MAX_ELEMENTS = 512  # of auxiliary sites that are looked at one by one


class Contraction:
    """The factorization of a guide over the latents it computes, each instead of the auxiliary draws it is made of.

    Each element of an auxiliary site is owned by the latent that it is drawn for. Latent v is given u where a change of
    u's elements moves the value of v or the density of v's elements; where both have elements of one joint draw, where
    their elements interact in its density (mixed differences), as neighbors in a Markov graph that is then oriented in
    the order of the guide.

    Args:
        guide: with a run of it.
        baselines: where to look.
        latents: the computed sites.
        auxiliary: the drawn ones.
    """

    def __init__(
        self, guide: ProbeResult, baselines: Baselines, latents: Sequence[str], auxiliary: Sequence[str]
    ) -> None:
        self.base, self.experiment = guide.base, guide.experiment
        self.baselines, self.latents, self.auxiliary = baselines, latents, auxiliary
        self.tolerance = guide.experiment.laboratory.tolerance
        self.nodes = self.base.nodes(latents)
        self.owned: dict[Node, list[tuple[str, int]]] = {}

    def probe(self) -> ProbeResult:
        """The parents of each computed latent among the others, and the doubts that remain."""
        found = ProbeResult("guide", self.experiment, self.base)
        size = sum(self.base[name].value.size for name in self.auxiliary)
        if size > MAX_ELEMENTS:
            found.doubts.append(f"the guide draws {size} auxiliary numbers, too many to tell which latent each is for")
            return found
        for record in self._run(self.baselines(0), ()).of("latent").values():
            if record.mute and record.name in self.auxiliary:
                found.doubts.append(f"the density of {record.name!r} cannot be evaluated where we ask for it")
        if found.doubts:
            return found
        self._find_owners(self.baselines(0))
        for name in self.latents:
            if not any(node in self.owned for node in self.base[name].nodes):
                found.doubts.append(f"the guide gives {name!r} as a point mass: it has no density to speak of")
        if found.doubts:
            return found
        coupled = nx.Graph()
        coupled.add_nodes_from(self.nodes)
        for r in range(2):
            baseline = self.baselines(r)
            start = self._run(baseline, ())
            for u in self.nodes:
                other = self._run(baseline, [u])
                for v in self.nodes:
                    if v != u and self._moves(start, other, u, v):
                        found.add(u, v)
            self._couple(coupled, baseline, start)
        self._orient(coupled, found)
        return found

    def reads(self, change: Change, baseline: Baseline) -> set[Node]:
        """The latents whose value or density moves when the data change."""
        start, other = baseline.run(self.experiment), change(baseline).run(self.experiment)
        sites = {s for name in (*self.latents, *self.auxiliary) for s, _ in self._moved(start, other, name)}
        return {v for v in self.nodes if v[0] in sites or any(a in sites for a, _ in self.owned.get(v, ()))}

    def _moved(self, start: ProgramRun, other: ProgramRun, name: str) -> list[Node]:
        return [(name, copy) for copy in start[name].moved(start[name], other[name], self.tolerance)]

    def _run(self, baseline: Baseline, nodes: Iterable[Node]) -> ProgramRun:
        """A run in which the auxiliary elements of some nodes have their other values."""
        for node in nodes:
            for name, element in self.owned.get(node, ()):
                baseline = _changed(baseline, name, element)
        return baseline.run(self.experiment)

    def _find_owners(self, baseline: Baseline) -> None:
        """The latent that each auxiliary element is drawn for: the one it moves; of several one that has none else."""
        start = baseline.run(self.experiment)
        reach: dict[tuple[str, int], list[Node]] = {}
        for name in self.auxiliary:
            for element in range(start[name].value.size):
                other = _changed(baseline, name, element).run(self.experiment)
                reach[name, element] = [node for d in self.latents for node in self._moved(start, other, d)]
        for key, nodes in sorted(reach.items(), key=lambda item: len({name for name, _ in item[1]})):
            if not nodes:
                continue
            named = [node for node in nodes if key[0].startswith(node[0])]
            owners = named or [node for node in nodes if node not in self.owned] or nodes
            self.owned.setdefault(owners[0], []).append(key)

    def _moves(self, start: ProgramRun, other: ProgramRun, u: Node, v: Node) -> bool:
        """Whether a change of u's elements moved v, apart from a density that both have elements of."""
        if v in self._moved(start, other, v[0]):
            return True
        mine = {name for name, _ in self.owned.get(v, ())} - {name for name, _ in self.owned.get(u, ())}
        return any(self._moved(start, other, name) for name in mine)

    def _couple(self, coupled: nx.Graph, baseline: Baseline, start: ProgramRun) -> None:
        single = {node: self._run(baseline, [node]) for node in self.nodes if node in self.owned}
        for u, v in combinations(single, 2):
            joint = {name for name, _ in self.owned[u]} & {name for name, _ in self.owned[v]}
            if not joint or coupled.has_edge(u, v):
                continue
            both = self._run(baseline, [u, v])
            for name in joint:
                parts = [float(np.sum(run[name].signal)) for run in (both, single[u], single[v], start)]
                mixed = parts[0] - parts[1] - parts[2] + parts[3]
                if abs(mixed) > 10 * self.tolerance * (1 + sum(map(abs, parts))):
                    coupled.add_edge(u, v)

    def _orient(self, coupled: nx.Graph, found: ProbeResult) -> None:
        """Parents in the order of the guide: the earlier neighbors of a node's component among the later ones."""
        for i, v in enumerate(self.nodes):
            earlier = set(self.nodes[:i])
            component = nx.node_connected_component(coupled.subgraph(set(self.nodes) - earlier), v)
            for u in set().union(*(set(coupled[w]) for w in component)) & earlier:
                found.add(u, v)


def _changed(baseline: Baseline, name: str, element: int) -> Baseline:
    """A baseline with one element of a value replaced by its other value."""
    value = np.array(baseline.values[name])
    value.reshape(-1)[element] = np.broadcast_to(baseline.others[name], value.shape).reshape(-1)[element]
    return baseline.holding(name, value)
