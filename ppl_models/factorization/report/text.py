"""`as_text`, `as_html`: a report in words, for a terminal and as a table of HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ppl_models.programs.legible import legible

if TYPE_CHECKING:
    from .report import Gap, Report, SiteRow

CAVEAT = {
    True: "This is about structure alone: to equal the posterior takes the right families, and training, besides.",
    False: "For almost all parameters of the model, no guide of this structure equals the posterior.",
}


def as_text(report: Report) -> str:
    """A heading, the two formulas, a line for each factor, and the notes."""
    model, guide = report.programs
    lines = [f"{report.verdict.upper()}: {guide} for {model}, by {report.level}", ""]
    lines += [f"model  {report.model}", f"guide  {report.guide}", ""]
    factors = [_factor(row) for row in report.rows]
    width = min(max(map(len, factors), default=0), 60)
    for row, factor in zip(report.rows, factors, strict=True):
        lines += [f"{_mark(report, row):4} {factor:{width}}  {said}" for said in _said(row)[:1]]
        lines += [f"{'':4} {'':{width}}  {said}" for said in _said(row)[1:]]
    for title, sentences in (("no verdict, because", report.reasons), ("notes", report.notes)):
        if sentences:
            lines += ["", title, *(f"  - {sentence}" for sentence in sentences)]
    if report.gap is not None:
        lines += ["", *gap_text(report.gap)]
    if report.faithful is not None:
        lines += ["", CAVEAT[report.faithful]]
    return legible("\n".join(line.rstrip() for line in lines))


def gap_text(gap: Gap) -> list[str]:
    """The cost of the structure, in two sentences."""
    return [
        f"The model is linear-Gaussian: this structure loses {gap.forward:.4f} nats a {gap.per}, min E KL(p || q);",
        f"the ELBO of its best guide lies {gap.elbo:.4f} nats below the evidence, min E KL(q || p).",
    ]


def as_html(report: Report) -> str:
    """A table of the factors, with reasons and notes below."""
    cell = "<td style='text-align:left;vertical-align:top;padding:2px 10px'>{}</td>"
    color = {"ok": "#1a7f37", "more": "#6e7781", "BAD": "#cf222e", "?": "#9a6700"}
    head = ("", "guide", "the exact posterior needs", "finding")
    rows = ["<tr>" + "".join(cell.format(f"<b>{title}</b>") for title in head) + "</tr>"]
    for row in report.rows:
        mark = _mark(report, row)
        cells = [f"<b style='color:{color[mark]}'>{mark}</b>", f"<code>{escape(_factor(row))}</code>"]
        cells += [f"<code>{escape(', '.join(row.need) or 'nothing')}</code>"]
        cells += ["<br>".join(escape(said) for said in _said(row))]
        rows.append("<tr>" + "".join(cell.format(c) for c in cells) + "</tr>")
    model, guide = map(escape, report.programs)
    parts = [f"<p><b>{escape(report.verdict)}</b>: {guide} for {model}, by {report.level}</p>"]
    parts.append(f"<table>{''.join(rows)}</table>")
    for title, sentences in (("No verdict, because", report.reasons), ("Notes", report.notes)):
        if sentences:
            parts.append(f"<p>{title}</p><ul>{''.join(f'<li>{escape(s)}</li>' for s in sentences)}</ul>")
    if report.gap is not None:
        parts.append(f"<p>{escape(' '.join(gap_text(report.gap)))}</p>")
    if report.faithful is not None:
        parts.append(f"<p><small>{escape(CAVEAT[report.faithful])}</small></p>")
    return "".join(parts)


def _factor(row: SiteRow) -> str:
    return f"q({row.site} | {', '.join(row.have)})" if row.have else f"q({row.site})"


def _mark(report: Report, row: SiteRow) -> str:
    if report.faithful is None or (row.unsure and not row.missing):
        return "?"
    return "BAD" if row.missing or row.once else "more" if row.superfluous else "ok"


def _said(row: SiteRow) -> list[str]:
    """The remarks on a factor: copies that are one draw, missing parents with their paths, what is superfluous."""
    said = [f"is drawn once for all copies in the plate {p!r}, of which the model has one each" for p in row.once]
    for name, path in row.missing.items():
        nats = f"; worth {row.nats[name]:.4f} nats" if name in row.nats else ""
        said.append(f"lacks {name}, on which it depends by {' - '.join(path)}{nats}")
    if row.price is not None and len(row.missing) > 1:
        said.append(f"together worth {row.price:.4f} nats")
    if row.unsure:
        said.append(f"may lack {', '.join(row.unsure)}, as nothing is known of all that it reads")
    if row.superfluous:
        said.append(f"superfluous: {', '.join(row.superfluous)}")
    return said or ["has what the exact posterior needs"]
