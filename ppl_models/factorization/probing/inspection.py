"""What an inspection finds, and how it reads as factorizations of copies or of sites."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ppl_models.programs.laboratory import Backend, Node, Trial

from ..graph import Factorization
from .alignment import Alignment
from .probe import Change, Point, Probed


def label(node: Node) -> str:
    """A node as the name of a site: z, z[0], z[0,2]."""
    return f"{node[0]}[{','.join(map(str, node[1]))}]" if node[1] else node[0]


@dataclass
class Recovered:
    """What inspecting a model, and a guide if there is one, has found.

    Args:
        model, guide: what probing found of each.
        alignment: of the observed sites with the arguments.
        latents: of the model, in its order.
        backend, program, points: what the model was run with.
        given: how to change each copy of the arguments that the model reads and does not observe.
        twins: copies of observed sites that are the same data.
        unclear: why one cannot tell which data a guide reads.
        sampled: what of the model's the guide draws or computes, in its order.
        fixed: latents to whose factor the data are constants.
        determined: deterministic sites that are nodes, with those of their parents that they determine.
    """

    model: Probed
    alignment: Alignment
    latents: tuple[str, ...]
    backend: Backend
    program: Callable
    points: Callable[[int], Point]
    given: Mapping[Node, Change] = field(default_factory=dict)
    twins: Mapping[Node, set[Node]] = field(default_factory=dict)
    unclear: list[str] = field(default_factory=list)
    guide: Probed | None = None
    sampled: tuple[str, ...] = ()
    fixed: frozenset[Node] = frozenset()
    determined: Mapping[Node, frozenset[Node]] = field(default_factory=dict)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why what was found is not certain, of the model and of a guide."""
        more = [] if self.guide is None else [*self.unclear, *self.guide.doubts]
        return tuple(dict.fromkeys([*self.model.doubts, *more]))

    @property
    def base(self) -> Trial:
        """A run of the model."""
        return self.model.base

    @property
    def covariates(self) -> tuple[str, ...]:
        """The arguments, or parts of them, that the model reads and does not observe."""
        return tuple(dict.fromkeys(name for name, _ in self.given))

    @property
    def plus(self) -> tuple[str, ...]:
        """The deterministic sites that are nodes."""
        return tuple(dict.fromkeys(site for site, _ in self.determined))

    @property
    def observed(self) -> tuple[str, ...]:
        """The observed sites, factors among them."""
        return tuple(seen.name for seen in self.base.of("observed", "factor"))

    def copies(self, which: str) -> Factorization:
        """The factorization of "model" or "guide" with one node for each copy that was looked at."""
        if which == "model":
            names = [s.name for s in self.base if s.name in {*self.latents, *self.observed, *self.plus}]
            nodes = [node for name in names for node in self.base[name].nodes]
            given = [node for name in self.covariates for node in self.base[name].nodes]
            return _factorization(nodes, self.model, [n for n in nodes if n[0] in self.observed], given)
        nodes = [node for name in self.sampled for node in self.base[name].nodes]
        data = [node for name in self.observed for node in self.base[name].nodes]
        data += [node for name in self.covariates for node in self.base[name].nodes]
        rank = {seen.name: i for i, seen in enumerate(self.base)}
        return _factorization(nodes, self.guide, given=data, letter="q", rank=rank)

    def sites(self, which: str) -> Factorization:
        """The factorization of "model" or "guide" with one node for each site, its copies told apart nowhere."""
        fine = self.copies(which)
        names = {label(node): node[0] for s in self.base for node in s.nodes}
        parents: dict[str, dict[str, None]] = {}
        for node, found in fine.items():
            mine = parents.setdefault(names[node], {})
            mine.update((names[u], None) for u in found if names[u] != names[node])
        sites = [s.name for s in self.base if s.kind != "covariate"]
        order = [*(s for s in sites if s not in self.observed), *self.observed] if which == "guide" else sites
        order = [*order, *self.covariates]
        return Factorization(
            {site: tuple(sorted(found, key=order.index)) for site, found in parents.items()},
            tuple(dict.fromkeys(names[u] for u in fine.observed)),
            tuple(dict.fromkeys(names[u] for u in fine.given)),
            fine.letter,
        )


def _factorization(
    nodes: list[Node],
    probed: Probed,
    observed: list[Node] = (),
    given: list[Node] = (),
    letter: str = "p",
    rank: Mapping[str, int] | None = None,
) -> Factorization:
    """With parents listed in the order of the model (`rank` of its sites), data last."""
    order = {node: i for i, node in enumerate([*given, *nodes])}
    parents = {}
    for node in nodes:
        found = [u for u in probed.parents.get(node, ()) if u in order and order[u] < order[node]]
        shown = sorted(found, key=lambda u: (u in given, rank[u[0]] if rank and u[0] in rank else 0, order[u]))
        parents[label(node)] = tuple(label(u) for u in shown)
    return Factorization(parents, tuple(map(label, observed)), tuple(map(label, given)), letter)
