"""`dot`, `page`: a report for other programs, as DOT text and as an HTML page that stands alone."""

from collections.abc import Sequence
from html import escape

from .panel import Panel

STYLE = """
:root { color-scheme: light dark; --ink: #1f2430; --paper: #ffffff; --line: #d9dce3; --well: #f5f6f8;
  --fine: #17702f; --missing: #c8141f; --unsure: #855700; --more: #5b6475; --focus: #1b5fc1; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf2; --paper: #12161e; --line: #394152; --well: #1b212c;
  --fine: #6fd08a; --missing: #ff8585; --unsure: #e3b04b; --more: #a9b2c3; --focus: #8ab6ff; } }
body { font: 15px/1.5 Helvetica, Arial, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 75rem; padding: 0 1.5rem; }
h1 { font-size: 1.3rem; font-weight: 600; overflow-wrap: anywhere; }
.picture, .table { overflow-x: auto; margin: 1.2rem 0; }
.picture svg { max-width: none !important; }
.picture:focus-visible, .table:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; }
table { border-collapse: collapse; margin: 1rem 0; }
td:last-child { min-width: 9rem; }
th, td { text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
.ppl-fine { color: var(--fine); } .ppl-missing { color: var(--missing); } .ppl-unsure { color: var(--unsure); }
.ppl-superfluous { color: var(--more); }
pre { font-size: 13px; line-height: 1.45; white-space: pre-wrap; background: var(--well); padding: 1rem;
  border-radius: 6px; }
@media (max-width: 40rem) { body { margin: 1rem auto; padding: 0 .8rem; } }
""".strip()
HINT = "Touch a node or a missing edge, or reach it by Tab, to see what is known of it; the tables say the same."


def dot(panels: Sequence[Panel]) -> str:
    """The panels as DOT text: a cluster for each, plates as clusters inside.

    A node can be in one cluster of a kind only, so where plates overlap it is in the first of them, and the other's
    label names it.

    Args:
        panels: what `svg` draws.
    """
    lines = ["digraph {", "  compound=true;", '  node [shape=ellipse, fontname="Helvetica"];']
    for i, panel in enumerate(panels):
        lines += [
            f"  subgraph {_quote(f'cluster_{i}')} {{",
            f"    label={_quote(panel.title + chr(10) + panel.caption)};",
        ]
        lines += [f"    {line}" for line in _clusters(panel, i)]
        for u, v, style in dict.fromkeys(panel.edges):
            looks = {
                "missing": ['color="red"', "style=dashed"],
                "superfluous": ['color="gray40"', "style=dotted"],
                "plain": [],
            }[style]
            looks += [] if panel.directed else ["dir=none"]
            label = panel.labels.get((u, v), "")
            looks += [f"label={_quote(label)}"] if label else []
            look = f" [{', '.join(looks)}]" if looks else ""
            lines.append(f"    {_quote(f'{i}/{u}')} -> {_quote(f'{i}/{v}')}{look};")
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def page(title: str, body_svg: str, table_html: str, text: str = "") -> str:
    """A standalone HTML page: heading, picture, table, and a text as it is printed.

    Args:
        title: plain text.
        body_svg: from `svg`.
        table_html: HTML, taken as it is.
        text: plain text, set in a fixed width.
    """
    name = escape(title)
    plain = f"<pre>{escape(text)}</pre>\n" if text else ""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{name}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>\n{STYLE}\n</style>\n</head>\n'
        f'<body>\n<main>\n<h1>{name}</h1>\n<div class="picture" tabindex="0" role="region" aria-label="picture">\n'
        f"{body_svg}\n</div>\n<p><small>{HINT}</small></p>\n"
        f'<div class="table" tabindex="0" role="region" aria-label="tables">\n{table_html}\n</div>\n'
        f"{plain}</main>\n</body>\n</html>\n"
    )


def _clusters(panel: Panel, i: int) -> list[str]:
    """The nodes of a panel, those in plates inside the clusters of their plates."""
    held = panel.held()
    order = sorted(held, key=lambda plate: -len(held[plate]))
    outer: dict[str, str | None] = {}
    for k, plate in enumerate(order):
        outer[plate] = next((other for other in reversed(order[:k]) if held[plate] <= held[other]), None)
    home = {node: next((p for p in reversed(order) if node in held[p]), None) for node in panel.nodes}

    def within(plate: str, other: str) -> bool:
        parent = outer[plate]
        return plate == other or (parent is not None and within(parent, other))

    def lines(inside: str | None) -> list[str]:
        found = []
        for node in (node for node in panel.nodes if home[node] == inside):
            fill = ', style=filled, fillcolor="lightgray"' if node in panel.observed else ""
            found.append(f"{_quote(f'{i}/{node}')} [label={_quote(node)}{fill}];")
        for plate in (plate for plate in order if outer[plate] == inside):
            deeper = {p for p in order if within(p, plate)}
            elsewhere = [node for node in panel.nodes if node in held[plate] and home[node] not in deeper]
            label = f"{plate} (and {', '.join(elsewhere)})" if elsewhere else plate
            found += [f"subgraph {_quote(f'cluster_{i}/{plate}')} {{", f"  label={_quote(label)}; style=rounded;"]
            found += [*(f"  {line}" for line in lines(plate)), "}"]
        return found

    return lines(None)


def _quote(text: str) -> str:
    """As a quoted DOT string; a backslash is doubled, as labels read it as the start of an escape."""
    shown = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\u240d", "\0": "\u2400"}
    return '"' + text.translate(str.maketrans(shown)) + '"'
