"""`compare`: does the guide's factorization mirror the exact posterior's?"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import networkx as nx

from .elements import Elements
from .labels import Names
from .pricing import priced
from .probing.recover import recover
from .probing.inspection import Recovered, label
from .report.report import Report, SiteRow
from .verdict import Row, Verdict, judge

LEVELS = ("site", "element")


def compare(
    model: Callable, guide: Callable, *args: Any, level: str = "site", jitter: bool = True, **kwargs: Any
) -> Report:
    """Whether the guide's factorization mirrors that of the model's exact posterior.

    Both programs are run, again and again: one copy of one site is changed at a time, and what moves is recorded. For
    each factor q(z_i | ...) of the guide, what it is given is held against what p(z_i | earlier latents, data) depends
    on (`Factorization.needed_parents`).

        >>> import torch
        >>> from guides import MeanField
        >>> from ppl_models import HierarchicalVAE
        >>> model, x = HierarchicalVAE(event=4, latent=(2, 2), hidden=8), torch.eye(4)[:3]
        >>> report = compare(model, MeanField(model, x, hidden=8), x)
        >>> report.faithful, report.missing
        (False, {'z2': ('z1',)})

    Pass about three data points: then plates are checked, not believed. Nothing of the programs changes. The verdict is
    one on structure alone: that a family is too narrow, or a feature, is not seen here (at level "element" it is seen
    whether a family asserts independencies within a site).

    Args:
        model, guide: Pyro or NumPyro programs with the same latent sites; the guide's order is the order it draws in.
        args, kwargs: of both, the data among them.
        level: "site", or "element" for the entries of each site (one datum; small sites).
        jitter: move parameters a little first, so that a weight that is zero hides nothing. False shows the structure
            of the weights as they are: what training has left of it.

    Raises:
        TypeError: not a program.
        ValueError: an unknown level, a model that observes nothing, a guide that lacks a latent or draws another.

    Source: Webb et al. 2018 (arXiv 1712.00287); Lauritzen et al. 1990.
    """
    if level not in LEVELS:
        raise ValueError(f"compare: found level {level!r}, want one of {', '.join(map(repr, LEVELS))}")
    if level == "element":
        return recover(model, guide, args, kwargs, jitter, lambda found: by_element(found, guide))
    return recover(model, guide, args, kwargs, jitter, lambda found: by_site(found, guide))


def by_element(found: Recovered, guide: Callable) -> Report:
    """The report at the level of elements, in one datum."""
    names, elements = Names(found), Elements(found)
    model, factors = elements.model(), elements.guide(guide)
    always = {n for n in model.observed if n.startswith("~")}
    always |= {elements.name(e) for e in elements.data if e[0] in found.alignment.closed}
    fixed_sites = {site for site, _ in found.fixed}
    data = set(factors.given)
    fixed = {z: always | (data if z.rpartition(".")[0] in fixed_sites else set()) for z in factors.parents}
    verdict = judge(model, factors, fixed)
    doubts = (*found.doubts, *elements.doubts)
    coarse = [row for row in _judged(found, names)[1] if row.missing]
    if coarse and not found.doubts and verdict.faithful:
        lacks = "; ".join(f"{row.site} lacks {', '.join(row.missing)}" for row in coarse)
        doubts += (f"in one datum nothing is missing, but by site the guide is unfaithful ({lacks}); see level 'site'",)
    rows = tuple(SiteRow(r.site, r.have, r.need, _shown(r.missing), r.superfluous) for r in verdict.rows)
    inside = _plates(found)
    every = [*elements.latents, *elements.data]
    return Report(
        "element",
        *((None, None, None) if doubts else (verdict.faithful, verdict.minimal, verdict.perfect)),
        rows,
        found.sites("model"),
        found.sites("guide"),
        tuple(model.posterior_graph(list(factors.parents)).edges),
        tuple(map(elements.name, elements.data)),
        {p: (*sites, *(elements.name(e) for e in every if e[0] in sites)) for p, sites in inside.items()},
        _called(found.program, guide),
        doubts,
        tuple(dict.fromkeys(_notes(found, names, None))),
    )


def _called(*programs: Callable) -> tuple[str, ...]:
    inner = [getattr(p, "func", getattr(p, "fn", p)) for p in programs]  # within a partial or a handler
    return tuple(getattr(program, "__name__", type(program).__name__) for program in inner)


def _shown(missing: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Witness paths without the factors that a level of elements is built with."""
    return {u: tuple(n for n in path if not n.startswith("~")) for u, path in missing.items()}


def by_site(found: Recovered, program: Callable) -> Report:
    """The report at the level of sites: all copies judged, then told of once for each site."""
    names = Names(found)
    verdict, rows = _judged(found, names)
    doubts = found.doubts
    posterior = found.copies("model").posterior_graph([label(n) for n in names.latents])
    rows, gap = priced(found, rows, verdict, names) if not doubts else (rows, None)
    minimal = verdict.faithful and not any(row.superfluous for row in rows)  # as told: a site's copies as one
    return Report(
        "site",
        *((None, None, None) if doubts else (verdict.faithful, minimal, verdict.perfect)),
        rows,
        found.sites("model"),
        found.sites("guide"),
        tuple(dict.fromkeys(names.edge(u, v) for u, v in posterior.edges)),
        found.observed,
        _plates(found),
        _called(found.program, program),
        doubts,
        tuple(dict.fromkeys(_notes(found, names, posterior))),
        gap,
    )


def _judged(found: Recovered, names: Names) -> tuple[Verdict, tuple[SiteRow, ...]]:
    """The verdict on all copies, and its rows with the copies of a site as one."""
    guide = found.copies("guide")
    fixed = {label(node): {*names.closed, *(guide.given if node in found.fixed else ())} for node in names.latents}
    determined = {label(node): [label(u) for u in known] for node, known in found.determined.items()}
    verdict = judge(found.copies("model"), guide, fixed, determined)
    rows: dict[str, list[Row]] = {site: [] for site in found.sampled if site not in found.plus}
    for row in verdict.rows:
        rows[names.node[row.site][0]].append(_without_twins(row, found, names))
    return verdict, tuple(_merged(site, mine, names) for site, mine in rows.items())


def _without_twins(row: Row, found: Recovered, names: Names) -> Row:
    """Data that are observed twice are not superfluous where their twin is needed."""
    twins = {u: {label(t) for t in found.twins.get(names.node[u], ())} for u in row.superfluous}
    return replace(row, superfluous=tuple(u for u in row.superfluous if not twins[u] & {*row.need}))


def _merged(site: str, mine: Iterable[Row], names: Names) -> SiteRow:
    """The rows of all copies of a site as one."""

    def called(row: Row, nodes: Iterable[str]) -> list[str]:
        return [names.seen_from(row.site, u) for u in nodes]

    have, need, missing, kept = {}, {}, {}, set()
    for row in mine:
        have.update(dict.fromkeys(called(row, row.have)))
        need.update(dict.fromkeys(called(row, row.need)))
        for u, path in row.missing.items():
            missing.setdefault(names.seen_from(row.site, u), tuple(called(row, path)))
        kept |= set(called(row, set(row.have) - set(row.superfluous)))
    superfluous = tuple(u for u in have if u not in kept)
    return SiteRow(site, tuple(have), tuple(need), missing, superfluous)


def _plates(found: Recovered) -> dict[str, tuple[str, ...]]:
    plates: dict[str, dict[str, None]] = {}
    shown = {*found.latents, *found.observed, *found.plus, *found.covariates}
    for seen in found.base:
        for plate in seen.plates if seen.name in shown else ():
            plates.setdefault(plate.name, {})[seen.name] = None
    return {plate: tuple(sites) for plate, sites in plates.items()}


def _notes(found: Recovered, names: Names, posterior: nx.Graph | None) -> Iterable[str]:
    yield from found.model.notes
    yield from found.guide.notes
    yield from found.backend.remarks
    for what, probed in (("model", found.model), ("guide", found.guide)):
        for child, parents in probed.parents.items():
            for parent in parents:
                name = names.seen_from(label(child), label(parent))
                if name != parent[0]:
                    yield f"plate leak: in the {what}, {child[0]!r} depends on {name}, another copy in the plate"
    free = {site for site, _ in found.fixed}
    fixed = tuple(site for site in found.sampled if site in free)
    if found.plus:
        yield f"{', '.join(found.plus)}: deterministic, and nodes; minimal and perfect are indications only"
    open_data = [name for name in found.observed if name not in {names.node[c][0] for c in names.closed}]
    if fixed and open_data:
        yield (
            f"the guide reads no data for {', '.join(fixed)}: there the data are a fixed set of numbers, and what is "
            "learned holds for them alone"
        )
    if names.closed and not found.unclear:
        sites = dict.fromkeys(names.node[c][0] for c in names.closed)
        yield f"{', '.join(sites)}: no data that are passed as arguments, so always conditioned on"
    for plate in {plate for seen in found.base for plate in seen.plates}:
        if plate.size == 1:
            yield f"plate {plate.name!r} has one copy: whether copies are independent was not checked; pass three rows"
    if posterior and not nx.is_chordal(posterior):
        yield "the posterior graph has cycles without chords: no guide that draws site by site can be perfect"
    sampled = {*found.sampled} - {*found.plus}
    if not found.plus:  # provenance looks through deterministic sites, which are nodes then
        yield from found.model.disagreements("the model", found.latents, {*found.latents, *found.observed})
        yield from found.guide.disagreements("the guide", found.sampled, sampled)
