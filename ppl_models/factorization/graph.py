"""`Factorization`: which site is drawn given which, and what an exact posterior would have to condition on.

Pure Python and networkx: no tensor in sight.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import networkx as nx


@dataclass(frozen=True)
class Factorization:
    """An ordered mapping site -> parents, printed as a formula.

    >>> f = Factorization({"z1": (), "z2": ("z1",), "x": ("z2",)}, observed=("x",))
    >>> print(f)
    p(z1) p(z2 | z1) p(x | z2)

    Args:
        parents: the sites in the order they are drawn, each with the sites it is drawn given.
        observed: the sites whose values are data.

    Raises:
        ValueError: a parent that is not drawn before its child, or an observed name that is no site.
    """

    parents: Mapping[str, tuple[str, ...]]
    observed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for site, parents in self.parents.items():
            for parent in parents:
                if parent not in seen:
                    found = ", ".join(sorted(seen)) or "nothing"
                    raise ValueError(f"site {site!r}: its parent {parent!r} is not drawn before it (drawn: {found})")
            seen.add(site)
        for site in self.observed:
            if site not in seen:
                raise ValueError(f"observed site {site!r} is not among the sites {sorted(seen)}")

    def __str__(self) -> str:
        return " ".join(f"p({s} | {', '.join(p)})" if p else f"p({s})" for s, p in self.parents.items())

    @property
    def latents(self) -> tuple[str, ...]:
        """The sites that are not observed, in order."""
        return tuple(site for site in self.parents if site not in self.observed)

    def needed_parents(self, site: str, given: Iterable[str]) -> tuple[str, ...]:
        """The unique smallest subset of `given` and the data that p(site | given, data) depends on.

        It is the boundary of the component of `site` in the moral graph of the ancestors of (site, given, data), once
        given and data are removed (Lauritzen et al. 1990). Latents come in the order of the model, then the data.

            >>> f = Factorization({"z1": (), "z2": ("z1",), "z3": ("z2",), "x": ("z3",)}, observed=("x",))
            >>> f.needed_parents("z3", given=("z1", "z2"))
            ('z2', 'x')
        """
        graph = nx.DiGraph((p, s) for s, parents in self.parents.items() for p in parents)
        graph.add_nodes_from(self.parents)
        conditioned = (set(given) | set(self.observed)) - {site}
        kept = conditioned | {site}
        kept |= set().union(*(nx.ancestors(graph, node) for node in kept))
        moral = nx.moral_graph(graph.subgraph(kept))
        component = nx.node_connected_component(moral.subgraph(kept - conditioned), site)
        boundary = set().union(*(set(moral[node]) for node in component)) & conditioned
        return tuple(s for s in (*self.latents, *self.observed) if s in boundary)
