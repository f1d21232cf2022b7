"""`Elements` of sites: which entries of a vector, an image or a sequence depend on which."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, cached_property

import networkx as nx
import numpy as np

from ppl_models.programs.laboratory import Experiment, ProgramRun, SiteRecord
from ppl_models.programs.laboratory.base_coordinates import BASE

from .bases import base_value
from .graph import Factorization
from .probing.inspection import Inspection
from .probing.looks.second_looks import Vantage
from .probing.probe import ProbeResult
from .probing.values.alternatives import redrawn
from .probing.values.baselines import Baseline

MAX_ELEMENTS = 96  # beyond, what is observed is taken whole
TOLERANCE = 1e-7
LOOKS: tuple[tuple[int, Vantage | None], ...] = (  # a baseline and a place; at places for what does not show at home
    *((0, None), (1, None), (0, Vantage(flips=True)), (1, Vantage(size=1.0, centred=True, flips=True))),
    (0, Vantage(shrink=0.3, flips=True)),
)

Parents = dict[str, tuple[str, ...]]
Element = tuple[str, int | None]  # a site and a place in its value; None for all of it
Look = Callable[[tuple[Element, ...]], dict[str, float]]


class Elements:
    """Model and guide of an inspection with a node for each element, in the first copy of every plate.

    Two elements interact in the density of a site if changing both does not add up to changing each (a mixed second
    difference). The interactions of a model's sites make up the Markov graph of its posterior; those of a guide's site,
    oriented in the order of its elements, are what each element is drawn given.

    **Coordinates.** The elements are the entries of the sites' values, or, of latents z = f(e) whose prior pushes e
    through a transform, the entries of e: a guide may share f, and be factorized in e where it is not in z. The density
    of e under the guide is that of z times |det dz/de| of the *model's* f, whatever transform the guide has.

    Args:
        inspection: of a pair.
        bases: the latents that are looked at by the entries of e.

    Raises:
        ValueError: more latent elements than can be looked at.
    """

    def __init__(self, inspection: Inspection, bases: Sequence[str] = ()) -> None:
        self.inspection, self.model, self.base = inspection, inspection.model, inspection.base
        self.bases = tuple(bases)
        self.doubts: list[str] = []
        latents = [e for name in self.model.latents for e in self._of(name)]
        data = [e for name in self.base.of("observed") for e in self._of(name)]
        if len(latents) + len(data) > MAX_ELEMENTS:
            data = [(name, None) for name in self.base.of("observed")]
        if len(latents) + len(data) > MAX_ELEMENTS:
            raise ValueError(
                f"compare: found {len(latents)} latent elements, want at most {MAX_ELEMENTS - len(data)} at level "
                "'element'; take smaller sites, or level='site'"
            )
        self.latents, self.data = latents, data
        for name in inspection.latents:
            if inspection.guide.base[name].kind == "deterministic":
                self.doubts.append(f"the guide computes {name!r} from other draws, which is beyond level 'element'")
        for name in (name for name, record in self.base.of("latent").items() if record.joint):
            self.doubts.append(f"the entries of {name!r} are bound to each other: no one of them can change alone")
        for name in self.model.plus:
            self.doubts.append(f"{name!r} is deterministic, which is beyond level 'element'; see level 'site'")
        for name in self.model.sites().barren()[:1]:
            self.doubts.append(f"no data depend on {name!r}, which is beyond level 'element'; see level 'site'")

    def _of(self, name: str) -> list[Element]:
        record = self.base[name]
        return [(name, i) for i in range(record.value[record.at(record.value, record.copies[0])].size)]

    def name(self, element: Element) -> str:
        """z.0 for the first element of z, base(z).0 for that of its base; x for all of x."""
        site = f"base({element[0]})" if element[0] in self.bases else element[0]
        return site if element[1] is None else f"{site}.{element[1]}"

    def markov(self) -> Factorization:
        """The model as elements without parents and, for each clique of interacting ones, an observed factor of theirs.

        Its moral graphs are those of the model, as no site is barren. The names of factors begin with a tilde.
        """
        parents: Parents = {self.name(e): () for e in (*self.latents, *self.data)}
        for site, graph in self._of_model.items():
            for k, clique in enumerate(c for c in nx.find_cliques(graph) if len(c) > 1):
                parents[f"~{site}.{k}"] = tuple(map(self.name, clique))
        data = set(map(self.name, self.data))
        return Factorization(parents, tuple(n for n in parents if n[0] == "~" or n in data))

    @cached_property
    def _of_model(self) -> dict[str, nx.Graph]:
        targets, elements = [*self.model.latents, *self.model.observed], [*self.latents, *self.data]
        return self._couplings(self.model.probed, elements, targets, True)

    def chain(self) -> Factorization:
        """The model by sites; one without latents element by element, each given at most those that are shown."""
        if self.latents or self.doubts or (self.data and self.data[0][1] is None):
            return self.model.sites()
        parents = self._in_order(self._of_model, self.model.observed, [])
        return Factorization(parents, tuple(parents))

    def guide(self) -> Factorization:
        """The guide, element by element, in the order of its sites."""
        sampled, data = self.inspection.latents, [e for e in self.data if self._readable(e)]
        if self.doubts:
            parents = {self.name(e): () for name in sampled for e in self._of(name)}
            return Factorization(parents, given=tuple(map(self.name, self.data)), letter="q")
        elements = [*(e for n in sampled for e in self._of(n)), *data]
        graphs = self._couplings(self.inspection.guide, elements, sampled, False)
        return Factorization(self._in_order(graphs, sampled, data), given=tuple(map(self.name, self.data)), letter="q")

    def _in_order(self, graphs: dict[str, nx.Graph], sites: Sequence[str], data: Sequence[Element]) -> Parents:
        """Element -> those before it, the data among them, from which it is not separated by others."""
        earlier, parents = list(data), {}
        for site in sites:
            graph = graphs[site]
            for element in self._of(site):
                near: set[Element] = set()
                if element in graph:
                    rest = graph.subgraph(set(graph) - set(earlier))
                    for other in nx.node_connected_component(rest, element):
                        near |= set(graph[other]) & set(earlier)
                shown = sorted((e for e in earlier if e in near), key=lambda e: e in data)
                parents[self.name(element)] = tuple(map(self.name, shown))
                earlier.append(element)
        return parents

    def _readable(self, element: Element) -> bool:
        """Whether a data element comes from the arguments, so that a guide can be seen to read it."""
        record, index = self.base[element[0]], self.model.alignment.index[element[0]]
        places = index[record.at(index, record.copies[0])].reshape(-1)
        return bool((places >= 0).any() if element[1] is None else places[element[1]] >= 0)

    def _couplings(
        self, probed: ProbeResult, elements: Sequence[Element], targets: Sequence[str], jointly: bool
    ) -> dict[str, nx.Graph]:
        """For each target site the graph of the elements that interact in its density.

        Args:
            jointly: whether it is enough that two elements, one a latent's, interact in the density of one site.
        """
        experiment, graphs = probed.experiment, {site: nx.Graph() for site in targets}
        # a base reaches all that the value reaches, and what is made of other bases by it
        reach = {name: {*targets} if self.bases else {name} for name, _ in elements}
        for (parent, _), (child, _) in probed.edges():
            reach.get(parent, set()).add(child)

        def lacking(a: Element, b: Element, at_home: bool) -> set[str]:
            sites = {s for s in targets if not graphs[s].has_edge(a, b)}
            if at_home:
                return sites
            return sites & reach[a[0]] & reach[b[0]] if not jointly or len(sites) == len(targets) else set()

        for r, vantage in LOOKS if self.model.jitter else LOOKS[:2]:
            home = vantage is None
            # latents are listed first; what data have to do with each other is asked of a model alone
            first = elements if home and jointly else [e for e in elements if e in self.latents]
            pairs = {a: [b for b in elements[i + 1 :] if lacking(a, b, home)] for i, a in enumerate(first)}
            if not any(pairs.values()):
                break
            look = self._looker(experiment, self.baseline(r), targets, vantage)
            if not home and not np.isfinite([*look(()).values()]).all():
                continue

            @cache
            def touched(e: Element, look: Look = look) -> set[str]:
                return {s for s in targets if s == e[0] or _differs(look((e,))[s], look(())[s])}

            for a, later in pairs.items():
                blocks: dict[str, list[Element]] = {}
                for b in later:
                    if touched(a) & touched(b) & lacking(a, b, home):
                        blocks.setdefault(b[0], []).append(b)
                for block in blocks.values():
                    common = touched(a) & set().union(*(touched(b) for b in block))
                    sites = _interact(look, a, tuple(block), common, home) if len(block) > 2 else common
                    for b in block if sites else ():  # most often none: pixels that do not see each other
                        for site in _interact(look, a, (b,), sites & touched(b), home):
                            graphs[site].add_edge(a, b)
        return graphs

    def _looker(
        self, experiment: Experiment, baseline: Baseline, targets: Sequence[str], vantage: Vantage | None
    ) -> Look:
        """A function of elements: the log densities of the targets when these have their other values."""

        @cache
        def others(name: str) -> np.ndarray:
            record = self.base[name]
            return _elementwise(record, np.broadcast_to(baseline.others[name], record.value.shape))

        @cache
        def look(elements: tuple[Element, ...]) -> dict[str, float]:
            changed = self._changed(baseline, others, elements)
            if vantage is not None:
                changed = vantage.seen_from(changed, self.base, self.model.alignment.leaves)
            return self._signals(self._run(changed, experiment), targets)

        return look

    def baseline(self, r: int) -> Baseline:
        """A baseline of the inspection, in which the bases of some latents are held instead of their values."""
        baseline = self.model.baselines(r)
        if not self.bases:
            return baseline
        values, others = dict(baseline.values), dict(baseline.others)
        run = baseline.run(self.model.probed.experiment)
        other = replace(baseline, values=values | {name: others[name] for name in self.bases}).run(
            self.model.probed.experiment
        )
        for name in self.bases:
            del values[name]
            values[name + BASE], others[name + BASE] = base_value(run[name]), base_value(other[name])
        return replace(baseline, values=values, others=others)

    def _run(self, baseline: Baseline, experiment: Experiment) -> ProgramRun:
        """A run; of a guide with the values that the model makes of the bases."""
        if not self.bases or experiment is self.model.probed.experiment:
            return baseline.run(experiment)
        model = baseline.run(self.model.probed.experiment)
        values = {name: value for name, value in baseline.values.items() if not name.endswith(BASE)}
        values |= {name: model[name].value for name in self.bases}
        run = replace(baseline, values=values).run(experiment)
        shifted = {name: run[name].signal + model[name].stretch for name in self.bases if not run[name].mute}
        return ProgramRun(replace(r, signal=shifted.get(r.name, r.signal)) for r in run.values())

    def _changed(
        self, baseline: Baseline, others: Callable[[str], np.ndarray], elements: Sequence[Element]
    ) -> Baseline:
        """A baseline at which some elements have their other values; `others` has those of each site."""
        if not elements:
            return baseline
        leaves = self.model.alignment.leaves
        for name in dict.fromkeys(name for name, _ in elements):
            record, alignment, start = self.base[name], self.model.alignment, self.model.alignment.leaves
            at = record.at(record.value, record.copies[0])
            chosen = np.zeros(record.value[at].shape, bool)
            for _, place in (e for e in elements if e[0] == name):
                chosen.reshape(-1)[slice(None) if place is None else place] = True
            if name in self.bases:
                value = np.array(baseline.values[name + BASE])
                value[at] = np.where(chosen, baseline.others[name + BASE][at], value[at])
                baseline = baseline.holding(name + BASE, value)
                continue
            if record.kind == "observed" and alignment.elements(record, record.copies[0]):
                changed = alignment.changed(record, record.copies[0], others(name), chosen)
                leaves = [np.where(c == b, a, c) for a, b, c in zip(leaves, start, changed, strict=True)]
            else:
                value = np.array(baseline.values.get(name, record.value))
                value[at] = np.where(chosen, others(name)[at], value[at])
                baseline = baseline.holding(name, value)
        return replace(baseline, leaves=leaves)

    def _signals(self, run: ProgramRun, targets: Iterable[str]) -> dict[str, float]:
        found = {}
        for name in targets:
            record = run[name]
            if record.mute:
                self.doubts.append(f"the density of {name!r} cannot be evaluated at a given value")
            at = self.base[name].at(record.signal, self.base[name].copies[0], 0)
            found[name] = float(record.signal[at].sum())
        return found


def _interact(look: Look, a: Element, others: tuple[Element, ...], sites: set[str], home: bool) -> set[str]:
    """The sites in whose density an element interacts with others that are changed together."""
    both, alone, rest, none = look((a, *others)), look((a,)), look(others), look(())
    return {s for s in sites if _mixed(both[s], alone[s], rest[s], none[s], beyond=home)}


def _differs(a: float, b: float) -> bool:
    return abs(a - b) > TOLERANCE * (1 + abs(b)) or np.isfinite(a) != np.isfinite(b)


def _mixed(both: float, one: float, two: float, none: float, beyond: bool) -> bool:
    parts = np.array([both, one, two, none])
    if not np.isfinite(parts).all():
        return beyond  # outside the support together or alone: they are not free of each other
    return bool(abs(both - one - two + none) > TOLERANCE * (1 + np.abs(parts).max()))


def _elementwise(record: SiteRecord, others: np.ndarray) -> np.ndarray:
    """Other values that differ in every element, where elements can differ one by one."""
    if record.value.dtype.kind == "f" and not np.array_equal(record.value, np.round(record.value)):
        return others
    others, family = np.array(others), record.site.family
    for _ in range(32):
        same = others == record.value
        drawn = redrawn(record) if same.any() and not family.startswith(("OneHot", "Multinomial")) else None
        if drawn is None:
            break
        others = np.where(same, drawn, others)
    return others
