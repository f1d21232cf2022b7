"""`ModelInspection`, `Inspection`: what probing has found, and how it reads as factorizations of copies or of sites."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ppl_models.programs.laboratory import Node, ProgramRun

from ..graph import Factorization
from .arguments.alignment import Alignment
from .probe import ProbeResult
from .values.baselines import Baselines, Change

HIDDEN = "inside of an object or a list"  # where a program may read what is not seen to be read


def label(node: Node) -> str:
    """A node as the name of a site: z, z[0], z[0,2]."""
    return f"{node[0]}[{','.join(map(str, node[1]))}]" if node[1] else node[0]


@dataclass(kw_only=True)
class ModelInspection:
    """Findings of an inspection of a model.

    Args:
        probed: by probing.
        alignment: of the observed sites with the arguments.
        baselines: where the model was run.
        jitter: whether its parameters were moved.
        latents: in the order of the model.
        given: how to change each copy of the arguments that the model reads and does not observe.
        twins: copies of observed sites that are the same data.
        unclear: why one cannot tell which data a guide reads.
        determined: deterministic sites that are nodes, with those of their parents that they determine.
        once: latents that the guide draws once for all copies of some plates, with the names of these.
    """

    probed: ProbeResult
    alignment: Alignment
    baselines: Baselines
    jitter: bool
    latents: tuple[str, ...]
    given: Mapping[Node, Change]
    twins: Mapping[Node, set[Node]]
    unclear: list[str]
    determined: Mapping[Node, frozenset[Node]]
    once: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def base(self) -> ProgramRun:
        """A run of the model, the arguments that it reads and does not observe among its sites."""
        return self.probed.base

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
        return tuple(self.base.of("observed", "factor"))

    def copies(self) -> Factorization:
        """p with one node for each copy that was looked at."""
        nodes = self.base.nodes(name for name in self.base if name in {*self.latents, *self.observed, *self.plus})
        data = [node for node in nodes if node[0] in self.observed]
        return _factorization(nodes, self.probed, observed=data, given=self.base.nodes(self.covariates))

    def sites(self) -> Factorization:
        """p with one node for each site, its copies told apart nowhere."""
        return self.by_site(self.copies(), [name for name, record in self.base.items() if record.kind != "covariate"])

    def by_site(self, copies: Factorization, order: Sequence[str]) -> Factorization:
        """A factorization of copies with one node for each site, parents in an order."""
        order = [*order, *self.covariates]
        names = {label(node): node[0] for node in self.base.nodes(self.base)}
        parents: dict[str, dict[str, None]] = {}
        for node, found in copies.items():
            mine = parents.setdefault(names[node], {})
            mine.update((names[u], None) for u in found if names[u] != names[node])
        return Factorization(
            {site: tuple(sorted(found, key=order.index)) for site, found in parents.items()},
            tuple(dict.fromkeys(names[u] for u in copies.observed)),
            tuple(dict.fromkeys(names[u] for u in copies.given)),
            copies.letter,
        )


@dataclass(kw_only=True)
class Inspection:
    """Findings of an inspection of a guide after its model.

    Args:
        model: what was found of it.
        guide: by probing.
        sampled: what of the model's the guide draws or computes, in its order.
        untold: for a site the arguments that its factor reads, or may read, of which the model tells nothing.
        fixed: latents to whose factor the data are constants.
    """

    model: ModelInspection
    guide: ProbeResult
    sampled: tuple[str, ...]
    untold: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fixed: frozenset[Node] = frozenset()

    @property
    def base(self) -> ProgramRun:
        """See `ModelInspection.base`."""
        return self.model.base

    @property
    def latents(self) -> tuple[str, ...]:
        """The model's latents that the guide draws or computes, in its order."""
        return tuple(name for name in self.sampled if name not in self.model.plus)

    @property
    def around(self) -> frozenset[str]:
        """The plates around observed sites."""
        return frozenset(plate.name for record in self.base.of("observed").values() for plate in record.plates)

    @property
    def local(self) -> tuple[str, ...]:
        """Those of the latents that are in such a plate."""
        around = self.around
        return tuple(name for name in self.latents if any(plate.name in around for plate in self.base[name].plates))

    @property
    def doubts(self) -> tuple[str, ...]:
        """Doubts about what was found, of the model and of the guide."""
        return tuple(dict.fromkeys([*self.model.probed.doubts, *self.model.unclear, *self.guide.doubts]))

    def copies(self) -> Factorization:
        """q with one node for each copy that was looked at."""
        data = self.base.nodes([*self.model.observed, *self.model.covariates])
        rank = {name: i for i, name in enumerate(self.base)}
        return _factorization(self.base.nodes(self.sampled), self.guide, given=data, letter="q", rank=rank)

    def sites(self) -> Factorization:
        """q with one node for each site, its copies told apart nowhere."""
        data = ("covariate", "observed", "factor")
        drawn = [name for name, record in self.base.items() if record.kind not in data]
        return self.model.by_site(self.copies(), [*drawn, *self.model.observed])


def _factorization(
    nodes: Sequence[Node],
    probed: ProbeResult,
    observed: Iterable[Node] = (),
    given: Sequence[Node] = (),
    letter: str = "p",
    rank: Mapping[str, int] | None = None,
) -> Factorization:
    """With parents listed in the order of the model (`rank` of its sites), data last."""
    order, data = {node: i for i, node in enumerate([*given, *nodes])}, {*given}
    parents = {}
    for node in nodes:
        found = [u for u in probed.parents.get(node, ()) if u in order and order[u] < order[node]]
        shown = sorted(found, key=lambda u: (u in data, rank[u[0]] if rank and u[0] in rank else 0, order[u]))
        parents[label(node)] = tuple(label(u) for u in shown)
    return Factorization(parents, tuple(map(label, observed)), tuple(map(label, given)), letter)
