"""The elements of sites: which entries of a vector, an image or a sequence depend on which."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache

import networkx as nx
import numpy as np

from ppl_models.programs.laboratory import Seen, Trial

from .graph import Factorization
from .probing.alternatives import fitted
from .probing.probe import Point
from .probing.inspection import Recovered

MOST = 96  # elements: beyond, what is observed is taken whole
TOLERANCE = 1e-7

Element = tuple[str, int | None]  # a site and a place in its value; None for all of it
Look = Callable[[tuple[Element, ...]], dict[str, float]]


class Elements:
    """Model and guide of an inspection with a node for each element, in the first copy of every plate.

    Two elements interact in the density of a site if changing both does not add up to changing each (a mixed second
    difference). The interactions of a model's sites make up the Markov graph of its posterior; those of a guide's site,
    oriented in the order of its elements, are what each element is drawn given.

    Args:
        found: by an inspection.

    Raises:
        ValueError: more latent elements than can be looked at.
    """

    def __init__(self, found: Recovered) -> None:
        self.found = found
        self.base = found.base
        self.doubts: list[str] = []
        latents = [e for name in found.latents for e in self._of(name)]
        data = [e for seen in self.base.of("observed") for e in self._of(seen.name)]
        if len(latents) + len(data) > MOST:
            data = [(seen.name, None) for seen in self.base.of("observed")]
        if len(latents) + len(data) > MOST:
            raise ValueError(
                f"compare: found {len(latents)} latent elements, want at most {MOST - len(data)} at level 'element'; "
                "take smaller sites, or level='site'"
            )
        self.latents, self.data = latents, data
        computed = [n for n in found.sampled if n not in found.plus and found.guide.base[n].kind == "determined"]
        for name in computed:
            self.doubts.append(f"the guide computes {name!r} from other draws, which is beyond level 'element'")
        for seen in (s for s in self.base.of("latent") if s.joint):
            self.doubts.append(f"the entries of {seen.name!r} are bound to each other: no one of them can change alone")
        for name in found.plus:
            self.doubts.append(f"{name!r} is deterministic, which is beyond level 'element'; see level 'site'")
        barren = found.sites("model").barren()
        if barren:
            self.doubts.append(f"no data depend on {barren[0]!r}, which is beyond level 'element'; see level 'site'")

    def _of(self, name: str) -> list[Element]:
        seen = self.base[name]
        size = seen.value[seen.at(seen.value, seen.copies[0], seen.event_dim)].size
        return [(name, i) for i in range(size)]

    @staticmethod
    def name(element: Element) -> str:
        """z.0 for the first element of z; x for all of x."""
        return element[0] if element[1] is None else f"{element[0]}.{element[1]}"

    def model(self) -> Factorization:
        """The model as elements without parents and, for each clique of interacting ones, an observed factor of theirs.

        Its moral graphs are those of the model, as no site is barren. The names of factors begin with a tilde.
        """
        targets = [*self.found.latents, *self.found.observed]
        graphs = self._couplings(self.found.program, [*self.latents, *self.data], targets)
        parents: dict[str, tuple[str, ...]] = {self.name(e): () for e in (*self.latents, *self.data)}
        for site, graph in graphs.items():
            for k, clique in enumerate(c for c in nx.find_cliques(graph) if len(c) > 1):
                parents[f"~{site}.{k}"] = tuple(map(self.name, clique))
        return Factorization(parents, [n for n in parents if n[0] == "~" or n in set(map(self.name, self.data))])

    def guide(self, guide: Callable) -> Factorization:
        """The guide, element by element, in the order of its sites."""
        sampled = [name for name in self.found.sampled if name not in self.found.plus]
        data = [e for e in self.data if self._readable(e)]
        if self.doubts:
            parents = {self.name(e): () for name in sampled for e in self._of(name)}
            return Factorization(parents, given=tuple(map(self.name, self.data)), letter="q")
        graphs = self._couplings(guide, [*(e for n in sampled for e in self._of(n)), *data], sampled)
        earlier: list[Element] = list(data)
        parents: dict[str, tuple[str, ...]] = {}
        for site in sampled:
            graph = graphs[site]
            for element in self._of(site):
                near: set[Element] = set()
                if element in graph:
                    rest = graph.subgraph(set(graph) - set(earlier))
                    for other in nx.node_connected_component(rest, element):
                        near |= set(graph[other]) & set(earlier)
                shown = [e for e in earlier if e in near]
                shown.sort(key=lambda e: e in data)
                parents[self.name(element)] = tuple(map(self.name, shown))
                earlier.append(element)
        return Factorization(parents, given=tuple(map(self.name, self.data)), letter="q")

    def _readable(self, element: Element) -> bool:
        """Whether a data element comes from the arguments, so that a guide can be seen to read it."""
        seen = self.base[element[0]]
        index = self.found.alignment.index[seen.name]
        places = index[seen.at(index, seen.copies[0], seen.event_dim)].reshape(-1)
        return bool((places >= 0).any() if element[1] is None else places[element[1]] >= 0)

    def _couplings(self, program: Callable, elements: Sequence[Element], targets: Iterable[str]) -> dict[str, nx.Graph]:
        """For each target site the graph of the elements that interact in its density."""
        targets = list(targets)
        graphs = {site: nx.Graph() for site in targets}
        for r in range(2):
            look = self._looker(program, self.found.points(r), targets)
            touched = {e: {s for s in targets if s == e[0] or _differs(look((e,))[s], look(())[s])} for e in elements}
            for i, a in enumerate(elements):
                blocks: dict[str, list[Element]] = {}
                for b in elements[i + 1 :]:
                    if any(not graphs[s].has_edge(a, b) for s in touched[a] & touched[b]):
                        blocks.setdefault(b[0], []).append(b)
                for block in blocks.values():
                    common = touched[a] & set().union(*(touched[b] for b in block))
                    sites = _interact(look, a, tuple(block), common) if len(block) > 2 else common
                    for b in block if sites else ():  # most often none: pixels that do not see each other
                        for site in _interact(look, a, (b,), sites & touched[b]):
                            graphs[site].add_edge(a, b)
        return graphs

    def _looker(self, program: Callable, point: Point, targets: Sequence[str]) -> Look:
        """A function of elements: the log densities of the targets when these have their other values."""
        self.found.backend.jitter(point.jitter)
        return cache(lambda elements: self._signals(self._run(program, point, elements), targets))

    def _run(self, program: Callable, point: Point, elements: Iterable[Element]) -> Trial:
        """A run in which some elements have their other values."""
        values, leaves = dict(point.values), list(self.found.backend.leaves)
        for name in dict.fromkeys(name for name, _ in elements):
            seen = self.base[name]
            at = seen.at(seen.value, seen.copies[0], seen.event_dim)
            chosen = np.zeros(seen.value[at].shape, bool)
            for _, place in (e for e in elements if e[0] == name):
                chosen.reshape(-1)[slice(None) if place is None else place] = True
            others = _elementwise(seen, np.broadcast_to(point.others[name], seen.value.shape))
            if seen.kind == "observed" and self.found.alignment.elements(seen, seen.copies[0]):
                changed = self.found.alignment.changed(seen, seen.copies[0], others, chosen)
                base = self.found.backend.leaves
                leaves = [np.where(c == b, a, c) for a, b, c in zip(leaves, base, changed, strict=True)]
            else:
                value = np.array(values.get(name, seen.value))
                value[at] = np.where(chosen, others[at], value[at])
                values[name] = value
        return self.found.backend.run(program, leaves, values, point.seed)

    def _signals(self, trial: Trial, targets: Iterable[str]) -> dict[str, float]:
        found = {}
        for name in targets:
            seen = replace(trial[name], plates=self.base[name].plates)
            if seen.mute:
                self.doubts.append(f"the density of {name!r} cannot be evaluated at a given value")
            at = seen.at(seen.signal, seen.copies[0], 0)
            found[name] = float(seen.signal[at].sum())
        return found


def _interact(look: Look, a: Element, others: tuple[Element, ...], sites: set[str]) -> set[str]:
    """The sites in whose density an element interacts with others that are changed together."""
    both, alone, rest, none = look((a, *others)), look((a,)), look(others), look(())
    return {s for s in sites if _mixed(both[s], alone[s], rest[s], none[s])}


def _differs(a: float, b: float) -> bool:
    return abs(a - b) > TOLERANCE * (1 + abs(b)) or np.isfinite(a) != np.isfinite(b)


def _mixed(both: float, one: float, two: float, none: float) -> bool:
    parts = np.array([both, one, two, none])
    if not np.isfinite(parts).all():
        return True  # outside the support together or alone: they are not free of each other
    return bool(abs(both - one - two + none) > TOLERANCE * (1 + np.abs(parts).max()))


def _elementwise(seen: Seen, others: np.ndarray) -> np.ndarray:
    """Other values that differ in every element, where elements can differ one by one."""
    if seen.value.dtype.kind == "f" and not np.array_equal(seen.value, np.round(seen.value)):
        return others
    others = np.array(others)
    for _ in range(32):
        same = others == seen.value
        if not same.any() or seen.fresh is None or seen.family.startswith(("OneHot", "Multinomial")):
            break
        others = np.where(same, fitted(seen.fresh(), others.shape), others)
    return others
