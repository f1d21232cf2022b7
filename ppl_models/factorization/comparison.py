"""`compare`: the report on whether a guide's factorization mirrors that of the exact posterior."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import networkx as nx

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyGuide, AnyProgram
from ppl_models.programs.laboratory import experiments
from ppl_models.programs.noise import structure_notes, structure_of

from .bases import shared_bases
from .elements import Elements
from .graph import Factorization
from .labels import Labels
from .pricing import priced, priced_elements
from .probing.inspect_guide import inspect_pair
from .probing.inspection import HIDDEN, Inspection, label
from .report.report import Gap, Report, SiteRow
from .site_facts import site_facts
from .untold import certain, remarks
from .verdict import Row, Verdict, judge


@checked
def compare(
    model: AnyProgram,
    guide: AnyGuide,
    *args: Any,
    level: Literal["site", "element"] = "site",
    jitter: bool = True,
    **kwargs: Any,
) -> Report:
    """Compare a guide's factorization with that of the model's exact posterior, factor by factor.

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

    What a factor must read, and what it may take for a fixed set of numbers:

    * In a plate of the data, the data and the covariates (arguments that the model reads and does not observe) that the
      posterior depends on: what the copies share must be told in which they differ. A factor that reads no data and has
      parameters of its own for each copy takes all for fixed.
    * Outside of the plates of the data, the data, unless it is free: it reads none, and has parameters of its own, as
      have all others in no plate. Covariates it may take for fixed in any case. Without a plate of the data, one factor
      that reads data makes the whole run a datum of many, and factors that read data need covariates.
    * An argument that repeats observed values (reversed, cut, joined to others) is these data. Of any other that the
      model neither observes nor reads nothing is known: a factor that reads it may have from it the data that it lacks,
      and then nothing is certified; latents that it lacks it has from nowhere.

    **Coordinates.** At level "element" the entries are those of the sites' values and, of a latent z = f(e) whose prior
    pushes a base e through transforms that couple entries, those of e, too: a guide that shares f asserts what its own
    base asserts. It is faithful if it is so in both; notes say which coordinates there were.

    **Units.** A dependence that provenance allows and no change shows, as raw data (years, incomes) saturate the units
    of a network, is looked for with shrunken weights and numbers of size one. If it shows only far away: no verdict.

    Args:
        model, guide: Pyro or NumPyro programs with the same latent sites; the guide's order is the order it draws in;
            None for the guide of a model without latents. A refined guide is judged as the one that it refines.
        args, kwargs: of both, the data among them.
        level: "site", or "element" for the entries of each site (one datum; small sites): the data of a model without
            latents are told entry by entry, each given at most those before it that are shown.
        jitter: move parameters a little first, so that a weight that is zero hides nothing. False shows the structure
            of the weights as they are: what training has left of it.

    Raises:
        TypeError: not a program.
        ValueError: an unknown level, a model that observes nothing, a guide that lacks a latent or draws another, or
            one in another shape, in no plate (Pyro), or outside of its support: what `Trace_ELBO` refuses. A latent
            that the guide draws once for all copies of a plate is no error; it is unfaithful.

    Source: Webb et al. 2018 (arXiv 1712.00287); Lauritzen et al. 1990.
    """
    with experiments([model, structure_of(guide)], args, kwargs) as (p, q):
        inspection = inspect_pair(p, q, jitter)
        report = by_element(inspection) if level == "element" else by_site(inspection)
        return replace(report, notes=(*structure_notes(guide), *report.notes), facts=site_facts(inspection))


class _View(NamedTuple):
    """A pair by elements, in one choice of coordinates."""

    elements: Elements
    model: Factorization
    guide: Factorization
    verdict: Verdict
    fixed: dict[str, set[str]]
    untold: tuple[str, ...]


def _view(inspection: Inspection, elements: Elements) -> _View:
    model, guide = elements.markov(), elements.guide()
    always = {n for n in model.observed if n.startswith("~")}
    always |= {elements.name(e) for e in elements.data if e[0] in inspection.model.alignment.closed}
    free, data = {site for site, _ in inspection.fixed}, set(guide.given)
    fixed = {elements.name(e): always | (data if e[0] in free else set()) for e in elements.latents}
    site_of = {elements.name(e): e[0] for e in (*elements.latents, *elements.data)}
    verdict, untold = certain(judge(model, guide, fixed), inspection, lambda name: site_of.get(name, name))
    return _View(elements, model, guide, verdict, fixed, untold)


def by_element(inspection: Inspection) -> Report:
    """The report at the level of elements, in one datum.

    In the coordinates of the sites, and of latents whose priors push a base forward in those of the base, too: a guide
    that shares the transform asserts what its own base asserts.
    """
    labels, values = Labels(inspection), _view(inspection, Elements(inspection))
    doubts = (*inspection.doubts, *values.elements.doubts)
    bases = () if doubts else shared_bases(inspection)
    views = [values, *([_view(inspection, Elements(inspection, bases))] if bases else [])]
    doubts += tuple(doubt for view in views[1:] for doubt in view.elements.doubts)
    doubts += tuple(dict.fromkeys(doubt for view in views for doubt in view.untold))
    plain = inspection.model.latents and not (doubts or inspection.untold or inspection.model.once)
    rows: list[SiteRow] = []
    gaps: list[Gap] = []
    for view in views:
        mine = {view.elements.name(e) for e in view.elements.latents if view is values or e[0] in bases}
        shown = [SiteRow(r.site, r.have, r.need, _shown(r.missing), r.superfluous, r.unsure) for r in view.verdict.rows]
        gap = None
        if plain:
            shown, gap = priced_elements(inspection, view.elements, shown, view.guide, view.fixed)
        rows += [row for row in shown if row.site in mine]
        gaps += [] if gap is None else [gap]
    faithful = not inspection.model.once and not any(row.missing for row in rows)
    coarse = [row for row in _judged(inspection, labels)[1] if row.missing or row.once]
    if coarse and not inspection.doubts and faithful:
        lacks = "; ".join(
            f"{r.site} {'lacks ' + ', '.join(r.missing) if r.missing else 'is one draw for all copies'}" for r in coarse
        )
        doubts += (f"in one datum nothing is missing, but by site the guide is unfaithful ({lacks}); see level 'site'",)
    told = {row.site for row in rows}
    edges = [
        e for v in views for e in v.model.posterior_graph(list(v.guide.parents)).edges if v is values or set(e) & told
    ]
    every = [(name, view.elements.name((name, i))) for view in views for name, i in view.elements.latents]
    every += [(name, values.elements.name((name, i))) for name, i in values.elements.data]
    minimal, perfect = (faithful and holds for holds in (values.verdict.minimal, values.verdict.perfect))
    return Report(
        level="element",
        judgement=None if doubts else Verdict(values.verdict.rows, faithful, minimal, perfect),
        rows=tuple(rows),
        model=values.elements.chain(),
        guide=inspection.sites(),
        posterior=tuple(dict.fromkeys(edges)),
        observed=tuple(map(values.elements.name, values.elements.data)),
        plates={
            p: tuple(dict.fromkeys((*s, *(n for u, n in every if u in s)))) for p, s in _plates(inspection).items()
        },
        programs=_called(inspection),
        reasons=doubts,
        notes=(_coordinates(bases), *dict.fromkeys(_notes(inspection, labels))),
        gap=max(gaps, key=lambda gap: gap.forward, default=None),
    )


def _coordinates(bases: tuple[str, ...]) -> str:
    """A note on which numbers the entries are."""
    if not bases:
        return "entries are those of the sites' values: in other coordinates other entries may be independent"
    return (
        f"entries are those of the sites' values and, as the priors of {', '.join(bases)} push a base through a "
        f"transform, of those bases: base({bases[0]}).0 is the first entry of what {bases[0]} is made of"
    )


def _called(inspection: Inspection) -> tuple[str, str]:
    """The names of model and guide, within a partial or a handler."""
    programs = inspection.model.probed.experiment.program, inspection.guide.experiment.program
    model, guide = (getattr(p, "func", getattr(p, "fn", p)) for p in programs)
    return getattr(model, "__name__", type(model).__name__), getattr(guide, "__name__", type(guide).__name__)


def _shown(missing: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Witness paths without the factors that a level of elements is built with."""
    return {u: tuple(n for n in path if not n.startswith("~")) for u, path in missing.items()}


def by_site(inspection: Inspection) -> Report:
    """The report at the level of sites: all copies judged, then told of once for each site."""
    labels = Labels(inspection)
    verdict, rows, untold = _judged(inspection, labels)
    doubts = (*inspection.doubts, *untold)
    posterior = inspection.model.copies().posterior_graph([label(n) for n in labels.latents])
    plain = rows and not (doubts or inspection.untold or inspection.model.once)
    rows, gap = priced(inspection, rows, verdict, labels) if plain else (rows, None)
    minimal = verdict.faithful and not any(row.superfluous for row in rows)  # as told: a site's copies as one
    return Report(
        level="site",
        judgement=None if doubts else replace(verdict, minimal=minimal),
        rows=rows,
        model=inspection.model.sites(),
        guide=inspection.sites(),
        posterior=tuple(dict.fromkeys((labels.node[u][0], labels.seen_from(u, v)) for u, v in posterior.edges)),
        observed=inspection.model.observed,
        plates=_plates(inspection),
        programs=_called(inspection),
        reasons=doubts,
        notes=tuple(dict.fromkeys(_notes(inspection, labels, posterior))),
        gap=gap,
    )


def _judged(inspection: Inspection, labels: Labels) -> tuple[Verdict, tuple[SiteRow, ...], tuple[str, ...]]:
    """The verdict on all copies, its rows with the copies of a site as one, and why it may not be certain."""
    guide = inspection.copies()
    fixed = {label(node): {*labels.closed, *labels.constant(node)} for node in labels.latents}
    determined = {label(node): [label(u) for u in known] for node, known in inspection.model.determined.items()}
    found = judge(inspection.model.copies(), guide, fixed, determined)
    verdict, untold = certain(found, inspection, lambda name: labels.node[name][0])
    rows: dict[str, list[Row]] = {site: [] for site in inspection.latents}
    for row in verdict.rows:
        rows[labels.node[row.site][0]].append(_without_twins(row, inspection, labels))
    return verdict, tuple(_merged(site, mine, labels, inspection) for site, mine in rows.items()), untold


def _without_twins(row: Row, inspection: Inspection, labels: Labels) -> Row:
    """Data that are observed twice are not superfluous where their twin is needed."""
    twins = {u: {label(t) for t in inspection.model.twins.get(labels.node[u], ())} for u in row.superfluous}
    return replace(row, superfluous=tuple(u for u in row.superfluous if not twins[u] & {*row.need}))


def _merged(site: str, mine: Iterable[Row], labels: Labels, inspection: Inspection) -> SiteRow:
    """The rows of all copies of a site as one."""

    def called(row: Row, nodes: Iterable[str]) -> list[str]:
        return [labels.seen_from(row.site, u) for u in nodes]

    have, need, missing, unsure, kept = {}, {}, {}, {}, set()
    for row in mine:
        have.update(dict.fromkeys(called(row, row.have)))
        need.update(dict.fromkeys(called(row, row.need)))
        for u, path in row.missing.items():
            missing.setdefault(labels.seen_from(row.site, u), tuple(called(row, path)))
        unsure.update(dict.fromkeys(called(row, row.unsure)))
        kept |= set(called(row, set(row.have) - set(row.superfluous)))
    once = inspection.model.once.get(site, ())
    superfluous = () if once else tuple(u for u in have if u not in kept)
    have.update(dict.fromkeys(name for name in inspection.untold.get(site, ()) if name != HIDDEN))
    return SiteRow(site, tuple(have), tuple(need), missing, superfluous, tuple(unsure), once)


def _plates(inspection: Inspection) -> dict[str, tuple[str, ...]]:
    """The sites in each plate."""
    model, plates = inspection.model, {}
    for name in (n for n in model.base if n in {*model.latents, *model.observed, *model.plus, *model.covariates}):
        for plate in model.base[name].plates:
            plates[plate.name] = (*plates.get(plate.name, ()), name)
    return plates


def _notes(inspection: Inspection, labels: Labels, posterior: nx.Graph | None = None) -> Iterable[str]:
    model, guide, per_datum = inspection.model, inspection.guide, {*inspection.local, *inspection.model.observed}
    yield from model.probed.notes
    yield from guide.notes
    yield from guide.experiment.laboratory.remarks
    for probed in (model.probed, guide):
        for parent, child in probed.edges():
            name = labels.seen_from(label(child), label(parent))
            if name != parent[0]:
                leak = "plate leak: " if child[0] in per_datum else ""  # copies of a global may have one factor
                yield f"{leak}in the {probed.role}, {child[0]!r} depends on {name}, another copy in its plate"
    free = {site for site, _ in inspection.fixed}
    fixed = tuple(site for site in inspection.sampled if site in free)
    yield from remarks(inspection)
    for name, taken in labels.taken().items():
        yield f"{name}: outside of the plates of the data, so that it may take {', '.join(taken)} for fixed numbers"
    if model.plus:
        yield f"{', '.join(model.plus)}: deterministic, and nodes; minimal and perfect are indications only"
    closed = dict.fromkeys(labels.node[c][0] for c in labels.closed)
    if fixed and any(name not in closed for name in model.observed):
        yield (
            f"the guide reads no data for {', '.join(fixed)}: there the data are a fixed set of numbers, and what is "
            "learned holds for them alone"
        )
    if closed and not model.unclear:
        yield f"{', '.join(closed)}: no data that are passed as arguments, so always conditioned on"
    for plate in (plate for record in model.base.values() for plate in record.plates if plate.size == 1):
        yield f"plate {plate.name!r} has one copy: whether copies are independent was not checked; pass three rows"
    if posterior and not nx.is_chordal(posterior):
        yield "the posterior graph has cycles without chords: no guide that draws site by site can be perfect"
    if not model.plus:  # provenance looks through deterministic sites, which are nodes then
        yield from model.probed.disagreements(model.latents, {*model.latents, *model.observed})
        yield from guide.disagreements(inspection.sampled, {*inspection.sampled})
