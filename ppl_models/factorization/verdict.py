"""`judge`: faithful, minimal, perfect? Pure graph work on two factorizations: no program, no tensor."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import networkx as nx

from ppl_models.parts.arguments.checked import checked

from .graph import Factorization


@dataclass(frozen=True)
class Row:
    """One factor of a guide beside the factor of the exact posterior in the guide's order.

    Args:
        site: the latent.
        have: what the guide's factor is given.
        need: what the exact factor is given: p(site | earlier latents, data) depends on these and on no others.
        missing: of `need`, what the guide's factor lacks, each with a path that shows the dependence.
        superfluous: of `have`, what the site is independent of given the rest of `have`.
        unsure: of `need`, what it may lack, as nothing is known of what else it is given.
    """

    site: str
    have: tuple[str, ...]
    need: tuple[str, ...]
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    superfluous: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Result of comparing two factorizations.

    Args:
        rows: one for each latent of the guide, in its order.
        faithful: no factor lacks anything, so that the guide can equal the exact posterior.
        minimal: faithful, and no edge can go.
        perfect: faithful, and the guide asserts every independence that the exact posterior has.
    """

    rows: tuple[Row, ...]
    faithful: bool
    minimal: bool
    perfect: bool


@checked
def judge(
    model: Factorization,
    guide: Factorization,
    fixed: Mapping[str, Collection[str]] | None = None,
    determined: Mapping[str, Collection[str]] | None = None,
) -> Verdict:
    """Compare a guide's factors with those of the exact posterior in the guide's order.

        missing = need - have        need = model.needed_parents(site, earlier latents of the guide)

    The guide can equal the posterior iff nothing is missing anywhere (the ordered local Markov property; Verma and
    Pearl 1990). Otherwise it cannot, for all parameters of the model but a set of measure zero (Meek 1995).

        >>> model = Factorization({"z1": (), "z2": ("z1",), "x": ("z2",)}, observed=("x",))
        >>> verdict = judge(model, Factorization({"z1": ("x",), "z2": ("x",)}, given=("x",), letter="q"))
        >>> verdict.faithful, verdict.rows[1].missing
        (False, {'z1': ('z2', 'z1')})
        >>> judge(model, model.faithful_inverse("bottom-up")).perfect
        True

    Args:
        model: p(latents, data), with the data observed.
        guide: q(latents | data), with the data given. Latents of the model that it lacks are summed out.
        fixed: for a site, what its factor is conditioned on without reading it: data that are constants to it.
        determined: deterministic sites of the model that are nodes of both graphs, each with those of its parents that
            it determines, once its other parents are known (for z = f(eps; u), bijective in eps: eps).

    Raises:
        ValueError: a site of the guide that is none of the model.

    Source: Webb et al. 2018 (arXiv 1712.00287) for the notions; Lauritzen et al. 1990 for the test.
    """
    fixed, determined = fixed or {}, determined or {}
    for site in (*guide.parents, *guide.given):
        if site not in model.parents and site not in model.given:
            raise ValueError(f"the guide has the site {site!r}, which the model lacks ({', '.join(model.parents)})")
    dag, rows = model.graph(), []
    sampled: list[str] = []
    for site, have in guide.items():
        if site not in determined:
            paths = model.witnesses(site, sampled)
            known = _closure(dag, {*have, *fixed.get(site, ())}, determined)
            missing = {u: path for u, path in paths.items() if u not in known}
            always = set(fixed.get(site, ())) - set(have)
            relevant = model.boundary(site, {*have, *(always & dag.nodes)} - {site})
            superfluous = tuple(u for u in have if u not in relevant)
            need = tuple(u for u in paths if u not in always or u in have)
            rows.append(Row(site, have, need, missing, superfluous))
        sampled.append(site)
    faithful = not any(row.missing for row in rows)
    minimal = faithful and not any(row.superfluous for row in rows)
    return Verdict(tuple(rows), faithful, minimal, faithful and _asserts_all(model, guide))


def _closure(dag: nx.DiGraph, have: set[str], determined: Mapping[str, Collection[str]]) -> set[str]:
    """`have` with all that is a function of it: deterministic sites of known parents, inputs of known bijections."""
    known, before = set(have), -1
    while len(known) != before:
        before = len(known)
        for site, inputs in determined.items():
            parents = set(dag.predecessors(site)) if site in dag else set()
            if parents and parents <= known:
                known.add(site)
            if site in known and parents - set(inputs) <= known:
                known |= set(inputs)
    return known


def _asserts_all(model: Factorization, guide: Factorization) -> bool:
    """Whether the guide has exactly the independencies between latents that the exact posterior has.

    The posterior is a Markov field over the latents that the data inform, with the priors of the barren ones on top.
    Two such graphs say the same iff they have the same edges and the same unmarried parents (Frydenberg 1990).
    """
    latents = [z for z in model.latents if z in guide.parents]
    barren = [z for z in model.barren() if z in latents]
    exact = model.posterior_graph([z for z in latents if z not in barren])
    exact.add_edges_from((u, z) for z in barren for u in model.parents[z] if u in latents)
    asserted = nx.Graph(guide.graph().subgraph(latents))
    if {frozenset(edge) for edge in asserted.edges} != {frozenset(edge) for edge in exact.edges}:
        return False
    return _unmarried(asserted, {z: guide.parents[z] for z in latents}) == _unmarried(
        exact, {z: model.parents[z] for z in barren}
    )


def _unmarried(graph: nx.Graph, parents: Mapping[str, Collection[str]]) -> set[tuple[str, frozenset[str]]]:
    """The pairs of parents of a site that no edge connects."""
    pairs = ((z, u, v) for z, found in parents.items() for u, v in combinations([u for u in found if u in graph], 2))
    return {(z, frozenset((u, v))) for z, u, v in pairs if not graph.has_edge(u, v)}
