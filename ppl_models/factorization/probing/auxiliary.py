"""Guides that draw sites of their own and compute the model's latents from them, as Pyro's autoguides do."""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import networkx as nx
import numpy as np

from ppl_models.programs.laboratory import Backend, Node, Seen, Trial, Values

from .probe import Point, Probed

MOST = 512  # elements of auxiliary sites that are looked at one by one


class Contraction:
    """The factorization of a guide over the latents it computes, each instead of the auxiliary draws it is made of.

    Each element of an auxiliary site is owned by the latent that it is drawn for. Latent v is given u where a change of
    u's elements moves the value of v or the density of v's elements; where both have elements of one joint draw, where
    their elements interact in its density (mixed differences), as neighbors in a Markov graph that is then oriented in
    the order of the guide.

    Args:
        backend, guide, leaves: what to run.
        base: a run of the guide.
        points: where to look.
        latents: the computed sites.
        auxiliary: the drawn ones.
    """

    def __init__(
        self,
        backend: Backend,
        guide: Callable,
        base: Trial,
        points: Callable[[int], Point],
        latents: Sequence[str],
        auxiliary: Sequence[str],
        leaves: Sequence[np.ndarray],
    ) -> None:
        self.backend, self.guide, self.base, self.leaves = backend, guide, base, leaves
        self.points, self.latents, self.auxiliary = points, latents, auxiliary
        self.nodes = [node for name in latents for node in base[name].nodes]
        self.owned: dict[Node, list[tuple[str, int]]] = {}

    def probe(self) -> Probed:
        """The parents of each computed latent among the others, and the doubts that remain."""
        found = Probed(self.base)
        size = sum(self.base[name].value.size for name in self.auxiliary)
        if size > MOST:
            found.doubts.append(f"the guide draws {size} auxiliary numbers, too many to tell which latent each is for")
            return found
        self.backend.jitter(self.points(0).jitter)
        for seen in self._run(self.points(0), ()):
            if seen.mute and seen.name in self.auxiliary:
                found.doubts.append(f"the density of {seen.name!r} cannot be evaluated where we ask for it")
        if found.doubts:
            return found
        self._find_owners(self.points(0))
        for name in self.latents:
            if not any(node in self.owned for node in self.base[name].nodes):
                found.doubts.append(f"the guide gives {name!r} as a point mass: it has no density to speak of")
        if found.doubts:
            return found
        coupled = nx.Graph()
        coupled.add_nodes_from(self.nodes)
        for r in range(2):
            point = self.points(r)
            self.backend.jitter(point.jitter)
            start = self._run(point, ())
            for u in self.nodes:
                other = self._run(point, [u])
                for v in self.nodes:
                    if v != u and self._moves(start, other, u, v):
                        found.add(u, v)
            self._couple(coupled, point, start)
        self._orient(coupled, found)
        return found

    def reads(self, change: Callable[[Point], tuple], point: Point) -> set[Node]:
        """The latents whose value or density moves when the data change."""
        self.backend.jitter(point.jitter)
        start = self.backend.run(self.guide, self.leaves, point.values, point.seed)
        leaves, values = change(point)
        other = self.backend.run(self.guide, leaves, values, point.seed)
        sites = {s for name in (*self.latents, *self.auxiliary) for s, _ in self._moved(start, other, name)}
        return {v for v in self.nodes if v[0] in sites or any(a in sites for a, _ in self.owned.get(v, ()))}

    def _moved(self, start: Trial, other: Trial, name: str) -> list[Node]:
        return [(name, copy) for copy in start[name].moved(other[name], self.backend.tolerance)]

    def _run(self, point: Point, nodes: Iterable[Node]) -> Trial:
        """A run in which the auxiliary elements of some nodes have their other values."""
        values = {**point.values}
        for node in nodes:
            for name, element in self.owned[node]:
                values[name] = _changed(point, values, name, element)
        return self.backend.run(self.guide, self.leaves, values, point.seed)

    def _find_owners(self, point: Point) -> None:
        """Which latent each auxiliary element is drawn for: the one it moves; of several one that has none else."""
        self.backend.jitter(point.jitter)
        start = self.backend.run(self.guide, self.leaves, point.values, point.seed)
        reach: dict[tuple[str, int], list[Node]] = {}
        for name in self.auxiliary:
            for element in range(start[name].value.size):
                values = {**point.values, name: _changed(point, point.values, name, element)}
                other = self.backend.run(self.guide, self.leaves, values, point.seed)
                reach[name, element] = [node for d in self.latents for node in self._moved(start, other, d)]
        for key, nodes in sorted(reach.items(), key=lambda item: len({name for name, _ in item[1]})):
            if not nodes:
                continue
            named = [node for node in nodes if key[0].startswith(node[0])]
            owners = named or [node for node in nodes if node not in self.owned] or nodes
            self.owned.setdefault(owners[0], []).append(key)

    def _moves(self, start: Trial, other: Trial, u: Node, v: Node) -> bool:
        """Whether a change of u's elements moved v, apart from a density that both have elements of."""
        if v in self._moved(start, other, v[0]):
            return True
        mine = {name for name, _ in self.owned.get(v, ())} - {name for name, _ in self.owned.get(u, ())}
        return any(self._moved(start, other, name) for name in mine)

    def _couple(self, coupled: nx.Graph, point: Point, start: Trial) -> None:
        single = {node: self._run(point, [node]) for node in self.nodes if node in self.owned}
        for u, v in combinations(single, 2):
            joint = {name for name, _ in self.owned[u]} & {name for name, _ in self.owned[v]}
            if not joint or coupled.has_edge(u, v):
                continue
            both = self._run(point, [u, v])
            for name in joint:
                parts = [_total(t[name]) for t in (both, single[u], single[v], start)]
                mixed = parts[0] - parts[1] - parts[2] + parts[3]
                if abs(mixed) > 10 * self.backend.tolerance * (1 + sum(map(abs, parts))):
                    coupled.add_edge(u, v)

    def _orient(self, coupled: nx.Graph, found: Probed) -> None:
        """Parents in the order of the guide: the earlier neighbors of a node's component among the later ones."""
        for i, v in enumerate(self.nodes):
            earlier = set(self.nodes[:i])
            component = nx.node_connected_component(coupled.subgraph(set(self.nodes) - earlier), v)
            for u in set().union(*(set(coupled[w]) for w in component)) & earlier:
                found.add(u, v)


def _changed(point: Point, values: Values, name: str, element: int) -> np.ndarray:
    """A value with one element replaced by its other value."""
    value = np.array(values[name])
    value.reshape(-1)[element] = np.broadcast_to(point.others[name], value.shape).reshape(-1)[element]
    return value


def _total(seen: Seen) -> float:
    return float(np.sum(seen.signal))
