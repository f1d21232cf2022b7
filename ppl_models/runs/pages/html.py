"""`page`, `section`, `table`: elements of a page that stands alone: nothing is fetched, nothing is run."""

from collections.abc import Collection, Iterable, Sequence
from html import escape

from ppl_models.programs.legible import brief, legible

STYLE = """
:root { color-scheme: light dark; --ink: #1f2430; --soft: #5b6475; --paper: #ffffff; --line: #d9dce3; --card: #f5f6f8;
  --mark: #8a4b00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ec; --soft: #a3abb9; --paper: #15171c; --line: #363b45; --card: #1e2128; --mark: #f0b060; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, Helvetica, Arial, sans-serif; color: var(--ink); background: var(--paper);
  margin: 0 auto; max-width: 84rem; padding: 1rem clamp(.8rem, 3vw, 2.5rem) 3rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; line-height: 1.25; margin: .6rem 0 .2rem; }
h2 { font-size: 1.05rem; margin: 0 0 .1rem; }
h3 { font-size: .9rem; margin: .2rem 0 .4rem; color: var(--soft); }
p { margin: .2rem 0 .6rem; }
.soft { color: var(--soft); font-size: .9rem; max-width: 62rem; }
.missing { color: var(--mark); }
nav { display: flex; flex-wrap: wrap; gap: .2rem .9rem; margin: .6rem 0 0; font-size: .9rem; }
a { color: inherit; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)); gap: 0 2.5rem; }
section { min-width: 0; grid-column: 1 / -1; border-top: 1px solid var(--line); margin-top: 1.4rem; padding-top: 1rem; }
section.half { grid-column: auto; }
.strips { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 0 2.5rem; }
.columns .strips { display: block; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem 2rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: .6rem 1.4rem; }
.columns > *, .charts > * { min-width: 0; }
figure { margin: 0 0 .5rem; }
.strip { display: flex; flex-wrap: wrap; align-items: center; gap: .1rem .8rem; }
.strip figcaption { flex: 0 0 8.5rem; color: var(--soft); font-size: .85rem; }
.strip .frame { flex: 1 1 15rem; min-width: 0; }
img { display: block; max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--line); }
th { overflow-wrap: break-word; }
td { min-width: 5.5rem; }
thead th { color: var(--soft); font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
tr.differs > * { color: var(--mark); font-weight: 600; }
pre { background: var(--card); padding: .7rem .9rem; border-radius: 6px; font-size: .85rem; white-space: pre-wrap; }
.paper { border: 1px solid var(--line); border-radius: 6px; padding: .8rem; overflow-x: auto; }
.paper svg { max-width: none !important; }
.paper table { overflow-wrap: break-word; }
.paper td { border: 0; }
.paper td { min-width: 0; }
.paper td + td { min-width: 7rem; }
""".strip()


def shown(text: object) -> str:
    """A text as HTML: nothing in it is markup, nothing steers, no word is longer than the page."""
    return escape(brief(legible(str(text))))


def page(title: str, lead: str, sections: Iterable[tuple[str, str]], halves: Collection[str] = ()) -> str:
    """The whole page.

    Args:
        title: plain text.
        lead: HTML below it.
        sections: (heading as plain text, HTML).
        halves: headings of those that stand two in a row where there is room.
    """
    kept = list(sections)
    links = "".join(f'<a href="#s{i}">{shown(heading)}</a>' for i, (heading, _) in enumerate(kept))
    kinds = [" class=half" if heading in halves else "" for heading, _ in kept]
    body = "".join(
        f'<section id="s{i}"{kinds[i]}>\n<h2>{shown(heading)}</h2>\n{html}\n</section>\n'
        for i, (heading, html) in enumerate(kept)
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{shown(title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>{shown(title)}</h1>\n{lead}\n"
        f"<nav>{links}</nav>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )


def note(text: str) -> str:
    """A sentence about what is shown."""
    return f'<p class="soft">{shown(text)}</p>'


def missing(reason: str) -> str:
    """What stands in the place of what could not be drawn."""
    return f'<p class="missing">Not drawn: {shown(reason)}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = False, marked: Iterable[int] = ()) -> str:
    """A table whose rows have a heading of their own.

    Args:
        head: of the columns; none if it is empty.
        rows: texts, the first of which heads its row.
        numbers: whether the others are numbers.
        marked: indices of rows that stand out.
    """
    marks, kind = set(marked), ' class="number"' if numbers else ""
    words = "".join(f'<th scope="col"{kind if i else ""}>{shown(word)}</th>' for i, word in enumerate(head))
    top = f"<thead><tr>{words}</tr></thead>" if head else ""
    lines = []
    for i, (first, *rest) in enumerate(rows):
        cells = "".join(f"<td{kind}>{shown(cell)}</td>" for cell in rest)
        start = '<tr class="differs">' if i in marks else "<tr>"
        lines.append(f'{start}<th scope="row">{shown(first)}</th>{cells}</tr>')
    return f'<div class="wide"><table>{top}<tbody>{"".join(lines)}</tbody></table></div>'


def columns(parts: Sequence[tuple[str, str]]) -> str:
    """HTML of several runs side by side, each below its name; of one as it is."""
    if len(parts) == 1:
        return parts[0][1]
    return f'<div class="columns">{"".join(f"<div><h3>{shown(name)}</h3>{html}</div>" for name, html in parts)}</div>'
