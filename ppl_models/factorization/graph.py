"""`Factorization`: which site is drawn given which, and what an exact posterior would have to condition on.

Pure Python and networkx: no tensor in sight.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import networkx as nx

from ppl_models.parts.checks import check_names
from ppl_models.programs.legible import legible

ORDERS = ("top-down", "bottom-up", "min-fill")
KEPT = 4  # moral graphs of a factorization, for questions about the same ancestors


@dataclass(frozen=True, eq=False)
class Factorization:
    """An ordered mapping site -> parents, printed as a formula.

    >>> f = Factorization({"z1": (), "z2": ("z1",), "x": ("z2",)}, observed=("x",))
    >>> print(f)
    p(z1) p(z2 | z1) p(x | z2)
    >>> print(f.faithful_inverse("bottom-up"))
    q(z2 | x) q(z1 | z2)

    Two are equal if they draw the same sites given the same sites; the order in which the sites or their parents are
    listed is for the reader.

    Args:
        parents: the sites in the order they are drawn, each with the sites it is drawn given.
        observed: the sites whose values are data.
        given: what sites are drawn given but is not drawn itself, as the data are in a guide.
        letter: the name of the density in the formula, p or q.

    Raises:
        ValueError: a parent that is not drawn before its child and not given, a given name that is drawn, or an
            observed name that is no site.
    """

    parents: Mapping[str, tuple[str, ...]]
    observed: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    letter: str = "p"

    def __post_init__(self) -> None:
        names = {"observed": self.observed, "given": self.given, **{f"parents of {s!r}": p for s, p in self.items()}}
        for what, found in names.items():
            check_names(f"Factorization: found {what}", found)
        object.__setattr__(self, "parents", {site: tuple(dict.fromkeys(parents)) for site, parents in self.items()})
        object.__setattr__(self, "observed", tuple(dict.fromkeys(self.observed)))
        object.__setattr__(self, "given", tuple(dict.fromkeys(self.given)))
        seen: set[str] = set(self.given)
        for site, parents in self.items():
            if site in self.given:
                raise ValueError(f"site {site!r} is given and drawn, want one of the two")
            for parent in parents:
                if parent not in seen:
                    found = ", ".join(sorted(seen)) or "nothing"
                    raise ValueError(f"site {site!r}: its parent {parent!r} is not drawn before it (drawn: {found})")
            seen.add(site)
        for site in self.observed:
            if site not in self.parents:
                raise ValueError(f"observed site {site!r} is not among the sites {list(self.parents)}")

    def __str__(self) -> str:
        factors = (f"{self.letter}({s} | {', '.join(p)})" if p else f"{self.letter}({s})" for s, p in self.items())
        return legible(" ".join(factors))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Factorization) and self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def _content(self) -> tuple:
        edges = frozenset((site, frozenset(parents)) for site, parents in self.items())
        return edges, frozenset(self.observed), frozenset(self.given), self.letter

    def items(self) -> Iterable[tuple[str, tuple[str, ...]]]:
        """(site, parents) in the order they are drawn."""
        return self.parents.items()

    @property
    def latents(self) -> tuple[str, ...]:
        """The sites that are not observed, in order."""
        observed = {*self.observed}
        return tuple(site for site in self.parents if site not in observed)

    def to_dict(self) -> dict[str, Any]:
        """As plain lists and strings, for JSON.

        >>> Factorization({"z": (), "x": ("z",)}, observed=("x",)).to_dict()
        {'parents': {'z': [], 'x': ['z']}, 'observed': ['x'], 'given': [], 'letter': 'p'}
        """
        parents = {site: list(found) for site, found in self.items()}
        return {"parents": parents, "observed": [*self.observed], "given": [*self.given], "letter": self.letter}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Factorization":
        """The inverse of `to_dict`. Raises ValueError for keys that are unknown or missing."""
        if not isinstance(content, Mapping) or not {"parents"} <= set(content) <= set(cls.__dataclass_fields__):
            raise ValueError(f"Factorization: found {content!r}, want keys {', '.join(cls.__dataclass_fields__)}")
        return cls(**content)

    def graph(self) -> nx.DiGraph:
        """The directed graph, parent -> child, with what is given as roots."""
        graph = nx.DiGraph()
        graph.add_nodes_from((*self.given, *self.parents))
        graph.add_edges_from((p, s) for s, parents in self.items() for p in parents)
        return graph

    def barren(self) -> tuple[str, ...]:
        """The latents with no observed descendant: given their parents, the data say nothing about them."""
        graph = self.graph()
        informed = set().union(*(nx.ancestors(graph, x) for x in self.observed))
        return tuple(z for z in self.latents if z not in informed)

    def posterior_graph(self, latents: Collection[str] | None = None) -> nx.Graph:
        """The Markov graph of p(latents | data): an edge where two are dependent given all others and the data.

        It is the moral graph of the ancestors of (latents, data), restricted to the latents; ancestors that are not
        asked for are summed out, which connects their neighbors. All latents by default.

        >>> collider = Factorization({"a": (), "b": (), "x": ("a", "b")}, observed=("x",))
        >>> list(collider.posterior_graph().edges)
        [('a', 'b')]

        Raises:
            ValueError: a name that is no latent.
        """
        latents = dict.fromkeys(self.latents if latents is None else latents)
        self._known(latents, dict.fromkeys(self.latents), "latent")
        moral = self._moral({*latents, *self.observed}).copy()
        moral.remove_nodes_from([*self.observed, *self.given])
        for node in [n for n in moral if n not in latents]:
            near = list(moral[node])
            moral.add_edges_from((u, v) for i, u in enumerate(near) for v in near[:i])
            moral.remove_node(node)
        ordered = nx.Graph()
        ordered.add_nodes_from(z for z in self.latents if z in moral)
        ordered.add_edges_from(moral.edges)
        return ordered

    def needed_parents(self, site: str, given: Iterable[str]) -> tuple[str, ...]:
        """The unique smallest subset of `given` and the data that p(site | given, data) depends on.

        It is the boundary of the component of `site` in the moral graph of the ancestors of (site, given, data), once
        given and data are removed (Lauritzen et al. 1990). Latents come in the order of the model, then the data.

            >>> f = Factorization({"z1": (), "z2": ("z1",), "z3": ("z2",), "x": ("z3",)}, observed=("x",))
            >>> f.needed_parents("z3", given=("z1", "z2"))
            ('z2', 'x')

        Raises:
            ValueError: a name that is no site.
        """
        return tuple(self.witnesses(site, given))

    def witnesses(self, site: str, given: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """For each of `needed_parents(site, given)` a path that shows why: site - ... - parent.

        The path runs in the moral graph and meets nothing that is conditioned on before its end, so whoever leaves that
        parent out asserts an independence that the model does not have.

            >>> f = Factorization({"z1": (), "z2": ("z1",), "x1": ("z1",), "x2": ("z2",)}, observed=("x1", "x2"))
            >>> f.witnesses("z1", given=())["x2"]
            ('z1', 'z2', 'x2')

        Raises:
            ValueError: a name that is no site.
        """
        given = tuple(given)
        self._known((site, *given), dict.fromkeys((*self.given, *self.parents)), "site")
        found = self.boundary(site, {*given, *self.observed, *self.given} - {site})
        return {s: found[s] for s in (*self.latents, *self.observed, *self.given) if s in found}

    def boundary(self, site: str, conditioned: Collection[str]) -> dict[str, tuple[str, ...]]:
        """What `site` depends on of `conditioned`, given the rest of it alone: each with the shortest path to it.

        These are the nodes next to the component of `site` in the moral graph of the ancestors of all of them, once
        what is conditioned on is removed: u is none of them iff `site` and u are d-separated by the rest.
        """
        moral = self._moral({*conditioned, site})
        paths: dict[str, tuple[str, ...]] = {site: (site,)}
        found: dict[str, tuple[str, ...]] = {}
        front = [site]
        for node in front:  # which grows: nearest first
            for near in moral[node]:
                if near in conditioned:
                    found.setdefault(near, (*paths[node], near))
                elif near not in paths:
                    paths[near] = (*paths[node], near)
                    front.append(near)
        return found

    def faithful_inverse(self, order: str | Iterable[str] = "top-down") -> "Factorization":
        """The sparsest guide of an order that can equal the exact posterior: each latent given its `needed_parents`.

        "top-down" samples in the model's order, "bottom-up" in its reverse, "min-fill" in the order that eliminating
        the latent with the fewest new edges first, again and again, leaves (reversed): the fewest edges, nearly, and no
        edge too many wherever there is such an order. Barren latents come last, with their prior, in each of the three.
        Any other order can be given as a sequence of all latents.

            >>> f = Factorization({"a": (), "b": ("a",), "c": ("a",), "x": ("b", "c")}, observed=("x",))
            >>> print(f.faithful_inverse("bottom-up"))
            q(c | x) q(b | c, x) q(a | b, c)

        Raises:
            ValueError: an unknown order, or one that does not name each latent once.

        Source: Webb et al. 2018, "Faithful inversion of generative models" (arXiv 1712.00287), with barren latents
        pruned first, without which it is not always minimal.
        """
        if isinstance(order, str):
            if order not in ORDERS:
                raise ValueError(f"found order {order!r}, want one of {', '.join(map(repr, ORDERS))} or all latents")
            barren = self.barren()
            sampled = [z for z in self.latents if z not in barren]
            if order == "bottom-up":
                sampled.reverse()
            elif order == "min-fill":
                sampled = self._min_fill(sampled)
            sampled += barren
        else:
            sampled = list(order)
            if sorted(sampled) != sorted(self.latents):
                raise ValueError(f"found order {sampled}, want each latent once: {', '.join(self.latents)}")
        parents = {z: self.needed_parents(z, sampled[:i]) for i, z in enumerate(sampled)}
        return Factorization(parents, given=(*self.observed, *self.given), letter="q")

    def _min_fill(self, latents: list[str]) -> list[str]:
        """An order of sampling: the reverse of eliminating the latent whose neighbors lack fewest edges first.

        Edges between latents count first, so that a chordal posterior graph is never filled in; edges to data second.
        """
        moral = self._moral({*latents, *self.observed}).copy()
        eliminated = []
        while len(eliminated) < len(latents):
            costs = {z: self._fill(moral, z) for z in latents if z in moral}
            best = min(costs, key=lambda z: (*costs[z][:2], latents.index(z)))
            moral.add_edges_from(costs[best][2])
            moral.remove_node(best)
            eliminated.append(best)
        return eliminated[::-1]

    def _fill(self, moral: nx.Graph, node: str) -> tuple[int, int, list[tuple[str, str]]]:
        fixed = {*self.observed, *self.given}
        near = sorted(moral[node])
        lacking = [(u, v) for i, u in enumerate(near) for v in near[:i] if not moral.has_edge(u, v)]
        lacking = [(u, v) for u, v in lacking if not {u, v} <= fixed]
        between = sum(not ({u, v} & fixed) for u, v in lacking)
        return between, len(lacking) - between, lacking

    def _moral(self, nodes: Collection[str]) -> nx.Graph:
        """The moral graph of the ancestors of `nodes`, them included; kept for the next time, so not to be changed."""
        kept, front = {*nodes}, [*nodes]
        while front:
            above = {*self.parents.get(front.pop(), ())} - kept
            kept |= above
            front += above
        key = frozenset(kept)
        if key not in self._morals:
            while len(self._morals) >= KEPT:
                self._morals.pop(next(iter(self._morals)))
            moral = nx.Graph()
            moral.add_nodes_from(site for site in (*self.given, *self.parents) if site in kept)
            for site in (site for site in self.parents if site in kept):
                moral.add_edges_from((parent, site) for parent in self.parents[site])
                moral.add_edges_from(combinations(self.parents[site], 2))
            self._morals[key] = moral
        return self._morals[key]

    @cached_property
    def _morals(self) -> dict[frozenset[str], nx.Graph]:
        return {}

    def _known(self, names: Iterable[str], known: Collection[str], what: str) -> None:
        for name in names:
            if name not in known:
                raise ValueError(f"found {name!r}, which is no {what}, want one of {', '.join(map(str, known))}")
