"""`dot`, `page`: a report for other programs, as DOT text and as an HTML page that stands alone."""

from collections.abc import Sequence
from html import escape

from .panel import Panel

STYLE = """
body { font: 15px/1.5 Helvetica, Arial, sans-serif; color: #1f2430; background: #ffffff; margin: 2rem auto;
  max-width: 75rem; padding: 0 1.5rem; }
h1 { font-size: 1.3rem; font-weight: 600; }
.picture, .table { overflow-x: auto; margin: 1.2rem 0; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .35rem .8rem; border-bottom: 1px solid #d9dce3; vertical-align: top; }
pre { font-size: 13px; line-height: 1.45; white-space: pre-wrap;
  background: #f5f6f8; padding: 1rem; border-radius: 6px; }
""".strip()


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
            looks = {"missing": ['color="red"', "style=dashed"], "superfluous": ['color="gray"'], "plain": []}[style]
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
        f'<body>\n<h1>{name}</h1>\n<div class="picture">\n{body_svg}\n</div>\n'
        f'<div class="table">\n{table_html}\n</div>\n'
        f"{plain}</body>\n</html>\n"
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
