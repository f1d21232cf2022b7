"""`as_text`, `as_html`: a report in words, for a terminal and as a table of HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from ppl_models.programs.legible import legible

from .series import Alike, by_stem, formula, listed, stretches

if TYPE_CHECKING:
    from .report import Gap, Report, SiteRow

CAVEAT = {
    True: "This is about structure alone: to equal the posterior takes the right families, and training, besides.",
    False: "For almost all parameters of the model, no guide of this structure equals the posterior.",
}


WORDS = {"ok": "fine", "more": "superfluous", "BAD": "missing", "?": "unsure"}  # of marks, as classes of HTML


class Line(NamedTuple):
    """One factor of a report, or a stretch of factors of which the same is to be said.

    Args:
        mark: "ok", "more", "BAD" or "?".
        factor: of the guide.
        need: what the exact posterior's factor is given.
        said: the findings.
    """

    mark: str
    factor: str
    need: str
    said: tuple[str, ...]


def as_text(report: Report) -> str:
    """A heading, the two formulas, a line for each factor, and the notes."""
    model, guide = report.programs
    if without_latents(report):
        lines = [f"NO LATENTS: {model}, by {report.level}, has nothing to infer, and its density is exact", ""]
        lines += [f"model  {formula(report.model)}"]
    else:
        lines = [f"{report.verdict.upper()}: {guide} for {model}, by {report.level}", ""]
        lines += [f"model  {formula(report.model)}", f"guide  {formula(report.guide)}", ""]
    factors = told(report)
    width = min(max((len(line.factor) for line in factors), default=0), 60)
    for line in factors:
        lines += [f"{line.mark:4} {line.factor:{width}}  {said}" for said in line.said[:1]]
        lines += [f"{'':4} {'':{width}}  {said}" for said in line.said[1:]]
    for title, sentences in (("no verdict, because", report.reasons), ("notes", report.notes)):
        if sentences:
            lines += ["", title, *(f"  - {sentence}" for sentence in sentences)]
    if report.gap is not None:
        lines += ["", *gap_text(report.gap)]
    if report.faithful is not None and not without_latents(report):
        lines += ["", CAVEAT[report.faithful]]
    return legible("\n".join(line.rstrip() for line in lines))


def without_latents(report: Report) -> bool:
    """Whether there is nothing to infer: no factor in the guide, and none that it lacks."""
    return not report.rows and report.faithful is True


def gap_text(gap: Gap) -> list[str]:
    """The cost of the structure, in two sentences."""
    return [
        f"The model is linear-Gaussian: this structure loses {gap.forward:.4f} nats a {gap.per}, min E KL(p || q);",
        f"the ELBO of its best guide lies {gap.elbo:.4f} nats below the evidence, min E KL(q || p).",
    ]


def as_html(report: Report) -> str:
    """A table of the factors, reasons and notes, and a table of the sites: all that a picture shows at a touch."""
    rows = []
    for line in told(report):
        cells = [f"<b class='ppl-{WORDS[line.mark]}'>{line.mark}</b>", f"<code>{escape(line.factor)}</code>"]
        rows.append([*cells, f"<code>{escape(line.need)}</code>", "<br>".join(map(escape, line.said))])
    model, guide = map(escape, report.programs)
    if without_latents(report):
        parts = [f"<p><b>no latents</b>: {model}, by {report.level}, has nothing to infer; its density is exact</p>"]
    else:
        parts = [f"<p><b>{escape(report.verdict)}</b>: {guide} for {model}, by {report.level}</p>"]
        parts.append(_table(("", "guide", "the exact posterior needs", "finding"), rows))
    for title, sentences in (("No verdict, because", report.reasons), ("Notes", report.notes)):
        if sentences:
            parts.append(f"<p>{title}</p><ul>{''.join(f'<li>{escape(s)}</li>' for s in sentences)}</ul>")
    if report.gap is not None:
        parts.append(f"<p>{escape(' '.join(gap_text(report.gap)))}</p>")
    if report.faithful is not None and not without_latents(report):
        parts.append(f"<p><small>{escape(CAVEAT[report.faithful])}</small></p>")
    if report.facts:
        parts.append(_table(("site", "in the model", "in the guide", "shape", "plates"), _sites(report)))
    return "".join(parts)


def _sites(report: Report) -> list[list[str]]:
    """A row for each site, or for those of which the same is known."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for site, facts in report.facts.items():
        shape = " \u00d7 ".join(map(str, facts.shape)) or "one number"
        alike.setdefault((facts.model or "an argument", facts.guide, shape, ", ".join(facts.plates)), []).append(site)
    return [[f"<code>{escape(listed(by_stem(sites)))}</code>", *map(escape, known)] for known, sites in alike.items()]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML."""
    cell = "<{0} style='text-align:left;vertical-align:top;padding:2px 10px'>{1}</{2}>"
    lines = ["".join(cell.format("th scope='col'", title, "th") for title in head)]
    lines += ["".join(cell.format("td", inside, "td") for inside in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def told(report: Report) -> list[Line]:
    """The lines of a report: one for each factor, or for a stretch of them of which the same is to be said."""
    alike = {
        row.site: Alike(
            tuple(frozenset(names) for names in (row.missing, row.superfluous, row.unsure)),
            (_mark(report, row), row.once, row.price is None),
        )
        for row in report.rows
    }
    group = {site: stretch for stretch in stretches(alike) for site in stretch}
    by_site, lines = {row.site: row for row in report.rows}, []
    for row in report.rows:
        rows = [by_site[site] for site in group.get(row.site, [row.site])]
        if row.site == rows[0].site:
            factor, need = (_ends([what(r) for r in rows]) for what in (_factor, _need))
            said = _said_of_all(rows) if len(rows) > 1 else said_of(row)
            lines.append(Line(_mark(report, row), factor, need, tuple(said)))
    return lines


def _ends(texts: Sequence[str]) -> str:
    """Of several texts the first and the last."""
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} ... {texts[-1]}"


def _factor(row: SiteRow) -> str:
    return f"q({row.site} | {listed(row.have)})" if row.have else f"q({row.site})"


def _need(row: SiteRow) -> str:
    return listed(row.need) or "nothing"


def _mark(report: Report, row: SiteRow) -> str:
    if report.faithful is None or (row.unsure and not row.missing):
        return "?"
    return "BAD" if row.missing or row.once else "more" if row.superfluous else "ok"


def said_of(row: SiteRow) -> list[str]:
    """The remarks on a factor: copies that are one draw, missing parents with their paths, what is superfluous."""
    said = [f"is drawn once for all copies in the plate {p!r}, of which the model has one each" for p in row.once]
    for name, path in row.missing.items():
        nats = f"; worth {row.nats[name]:.4f} nats" if name in row.nats else ""
        said.append(f"lacks {name}, on which it depends by {' - '.join(path)}{nats}")
    if row.price is not None and len(row.missing) > 1:
        said.append(f"together worth {row.price:.4f} nats")
    if row.unsure:
        said.append(f"may lack {listed(row.unsure)}, as nothing is known of all that it reads")
    if row.superfluous:
        said.append(f"superfluous: {listed(row.superfluous)}")
    return said or ["has what the exact posterior needs"]


def _said_of_all(rows: Sequence[SiteRow]) -> list[str]:
    """The remarks on a stretch of factors."""
    first, final = rows[0], rows[-1]
    every = f"{first.site}..{final.site}"
    said = [
        f"{every} are each drawn once for all copies in the plate {p!r}, of which the model has one each"
        for p in first.once
    ]
    shared = [name for name in first.missing if all(name in row.missing for row in rows)]
    for name in shared:
        why = f"on which {first.site} depends by {' - '.join(first.missing[name])}"
        said.append(f"{every} each lack {name}, {why}{_worth([row.nats.get(name) for row in rows])}")
    own = [[name for name in row.missing if name not in shared] for row in rows]
    if own[0]:
        lack = f"{first.site} lacks {listed(own[0])}, ..., {final.site} lacks {listed(own[-1])}"
        nats = [row.nats.get(name) for row, names in zip(rows, own, strict=True) for name in names]
        said.append(f"{lack}, by paths as {' - '.join(first.missing[own[0][0]])}{_worth(nats)}")
    if first.price is not None and len(first.missing) > 1:
        said.append(f"together, in each factor{_worth([row.price for row in rows])}")
    if first.unsure:
        names = _ends([listed(row.unsure) for row in rows])
        said.append(f"{every} each may lack {names}, as nothing is known of all that they read")
    if first.superfluous:
        said.append(f"superfluous in each: {_ends([listed(row.superfluous) for row in rows])}")
    return said or [f"{every} each have what the exact posterior needs"]


def _worth(prices: Sequence[float | None]) -> str:
    known = [price for price in prices if price is not None]
    return f"; worth {min(known):.4f} to {max(known):.4f} nats each" if known else ""
