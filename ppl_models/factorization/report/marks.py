"""`node`, `edge`, `plate`, `label`, `legend`, `touch`: the elements of a picture, in the colors of light and of dark.

A kind of edge has a color, a dash and a head of its own, so that it needs no color to be told from the others. What is
drawn has its light colors as attributes, for programs that read no style; the style turns them dark, and shows what is
hidden while something is touched or focused. All of it is local: no id, no script, nothing from outside.
"""

import re
from collections.abc import Iterable, Sequence
from math import dist
from xml.sax.saxutils import escape, quoteattr

from .graphviz import Box, Point
from .layout import around
from .panel import HEIGHT, STYLES, text_width
from .ways import Curve, cut, point

# role: (on white, on black); texts and what carries meaning stand out 4.5 to 1, lines 3 to 1
COLORS = {
    "ink": ("#1f2430", "#e8ebf2"),
    "soft": ("#5b6475", "#a9b2c3"),
    "missing": ("#c8141f", "#ff8585"),
    "superfluous": ("#6b7382", "#98a2b6"),
    "paper": ("#ffffff", "#12161e"),
    "frame": ("#d9dce3", "#394152"),
    "border": ("#7d8696", "#7f899b"),
    "data": ("#d5d9e1", "#465065"),
    "glow": ("#f0a800", "#f0a800"),
}
SANS = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
SERIF = "'Latin Modern Roman', 'Times New Roman', 'Liberation Serif', 'DejaVu Serif', serif"
LEGEND = {"plain": "present", "missing": "missing: the posterior needs it", "superfluous": "superfluous: it can go"}
DASH = {"plain": "", "missing": ' stroke-dasharray="6 3"', "superfluous": ' stroke-dasharray="1.2 3.2"'}
ROLE = {"plain": "ink", "missing": "missing", "superfluous": "superfluous"}
TIP = 11.0  # size of what is shown while something is touched


def style() -> str:
    """The `<style>` of a picture: every rule is of a class of ours."""
    dark = "".join(
        f".ppl-f-{role}{{fill:{color}}}.ppl-s-{role}{{stroke:{color}}}" for role, (_, color) in COLORS.items()
    )
    shown = ".ppl-touch:hover>.ppl-shown,.ppl-touch:focus>.ppl-shown{visibility:visible}"
    keys = ".ppl-touch[tabindex]{cursor:help;outline:none}.ppl-touch:focus-visible>.ppl-ring{stroke-opacity:1}"
    return f"<style>{shown}{keys}@media (prefers-color-scheme:dark){{{dark}}}</style>"


def paint(fill: str = "", line: str = "", more: str = "") -> str:
    """The attributes of a color: light, and the class that makes it dark."""
    classes = " ".join(filter(None, (more, f"ppl-f-{fill}" if fill else "", f"ppl-s-{line}" if line else "")))
    stroke = f' stroke="{COLORS[line][0]}"' if line else ""
    return f'class="{classes}" fill="{COLORS[fill][0] if fill else "none"}"{stroke}'


def node(name: str, center: Point, observed: bool) -> str:
    """A node: round for a symbol, longer for a word, filled for data."""
    shape = f'<rect {_rounded(name, center)} {paint("data" if observed else "paper", "ink")} stroke-width="1.2"/>'
    symbol = re.fullmatch(r"([^\W\d_])(\d{0,2})", name)
    inside = text(name)
    if symbol:  # a letter and its index, as in a formula
        index = f'<tspan font-size="10" dy="3">{symbol[2]}</tspan>' if symbol[2] else ""
        inside = f'<tspan font-style="italic">{text(symbol[1])}</tspan>{index}'
    family, size = (SERIF, 16) if symbol else (SANS, 13)
    where = f'x="{n(center[0])}" y="{n(center[1] + 4.5)}" text-anchor="middle"'
    written = f'<text {where} font-family="{family}" font-size="{size}" {paint("ink")}>{inside}</text>'
    return f'<g class="ppl-node" data-node={attribute(name)}>{shape}{written}</g>'


def edge(ends: tuple[str, str, str], curve: Curve, directed: bool, faint: bool) -> str:
    """An edge: whole, dashed where it is missing, dotted and with a hollow head where it is superfluous."""
    u, v, kind = ends
    role = "soft" if faint else ROLE[kind]
    width = {"plain": 0.7 if faint else 1.2, "missing": 1.7, "superfluous": 1.6}[kind]
    head = ""
    if directed:
        curve, corners = _headed(curve, 6.0 if faint else 8.0, kind == "superfluous")
        filled = paint("paper" if kind == "superfluous" else role, role)
        ends_at = " ".join(f"{n(x)},{n(y)}" for x, y in corners)
        head = f'<polygon points="{ends_at}" {filled} stroke-width="{1.1 if kind == "superfluous" else 0}"/>'
    cap = ' stroke-linecap="round"' if kind == "superfluous" else ""
    path = f'<path d="{_d(curve)}" {paint(line=role)} stroke-width="{width}"{DASH[kind]}{cap}/>'
    arrow = "\u2192" if directed else "\u2013"
    tip = f"<title>{text(f'{u} {arrow} {v}')}{'' if kind == 'plain' else f' ({kind})'}</title>"
    names = f"data-from={attribute(u)} data-to={attribute(v)}"
    return f'<g class="ppl-edge" {names} data-style="{kind}">{tip}{path}{head}</g>'


def plate(name: str, box: Box, tag: Box) -> str:
    """A plate with its name in a corner."""
    left, top, right, bottom = box
    rect = f'x="{n(left)}" y="{n(top)}" width="{n(right - left)}" height="{n(bottom - top)}" rx="7"'
    shape = f'<rect {rect} {paint("ink", "border")} fill-opacity="0.03" stroke-width="1"/>'
    x, anchor = (tag[2], "end") if right - tag[2] < 8 else (tag[0], "start")
    where = f'x="{n(x)}" y="{n(bottom - 5.5)}" text-anchor="{anchor}" font-size="10"'
    written = f"<text {where} {paint('soft')}>{text(name)}</text>"
    return f'<g class="ppl-plate" data-plate={attribute(name)}>{shape}{written}</g>'


def label(words: str, box: Box, missing: bool) -> str:
    """A small text on an edge, with a rim of paper around its letters."""
    rim = 'stroke-width="3" paint-order="stroke" stroke-linejoin="round"'
    where = f'x="{n((box[0] + box[2]) / 2)}" y="{n(box[1] + 10)}" text-anchor="middle" font-size="9.5"'
    return f"<text {where} {paint('missing' if missing else 'soft', 'paper', 'ppl-label')} {rim}>{text(words)}</text>"


def legend(kinds: Iterable[str]) -> tuple[str, float]:
    """A line with each kind of edge and its meaning, and its width."""
    marks, x = [], 0.0
    for kind in (kind for kind in STYLES if kind in {*kinds}):
        straight = (((x, 0.0), (x + 9, 0.0), (x + 18, 0.0), (x + 28, 0.0)),)
        shape = re.sub(r"^<g[^>]*><title>.*?</title>|</g>$", "", edge(("", "", kind), straight, True, False))
        marks.append(f'{shape}<text x="{n(x + 35)}" y="4" font-size="11" {paint("ink")}>{LEGEND[kind]}</text>')
        x += 35.0 + text_width(LEGEND[kind], 11) + 18.0
    return "".join(marks), x


def touch(name: str, more: str, hit: str, shown: Sequence[str], focus: bool) -> str:
    """What answers when it is touched or focused: an invisible copy of a mark, its name, what is known, what appears.

    Args:
        name, more: plain text, for a screen reader too.
        hit: the invisible copy, from `node_hit` or `edge_hit`.
        shown: elements that appear.
        focus: whether it can be reached by the keyboard.
    """
    said = f"<title>{text(name)}</title>{f'<desc>{text(more)}</desc>' if more else ''}"
    hidden = f'<g class="ppl-shown" visibility="hidden" pointer-events="none">{"".join(shown)}</g>' if shown else ""
    keys = ' tabindex="0"' if focus else ""
    return f'<g class="ppl-touch" role="img"{keys}>{said}{hit}{hidden}</g>'


def node_hit(name: str, center: Point) -> str:
    """The invisible copy of a node; a ring while it is focused."""
    ring = f'{paint(line="glow", more="ppl-ring")} stroke-opacity="0" stroke-width="3"'
    return f'<rect {_rounded(name, center, 4)} {ring} pointer-events="all"/>'


def edge_hit(curve: Curve) -> str:
    """The invisible copy of an edge, wide enough for a finger."""
    return f'<path d="{_d(curve)}" {paint(line="glow")} stroke-opacity="0" stroke-width="12" pointer-events="stroke"/>'


def glow(names: Iterable[tuple[str, Point]], curves: Iterable[Curve]) -> str:
    """Rings around nodes and a light along edges."""
    light = f'{paint(line="glow")} stroke-width="7" stroke-opacity="0.45"'
    lights = "".join(f'<path d="{_d(curve)}" {light}/>' for curve in curves)
    ring = f'{paint(line="glow")} stroke-width="3"'
    return lights + "".join(f"<rect {_rounded(name, center, 4)} {ring}/>" for name, center in names)


def tip(lines: Sequence[str], left: float, bottom: float, width: float) -> str:
    """A box with text, its lower left corner given."""
    height = 15.0 * len(lines) + 11.0
    rect = f'x="{n(left)}" y="{n(bottom - height)}" width="{n(width)}" height="{n(height)}" rx="5"'
    written = []
    for i, line in enumerate(lines):
        where = f'x="{n(left + 10)}" y="{n(bottom - height + 17 + 15 * i)}" font-size="{TIP:g}"'
        written.append(f"<text {where} {paint('ink')}>{text(line)}</text>")
    return f'<rect {rect} {paint("paper", "ink")} stroke-width="1.2"/>{"".join(written)}'


def _rounded(name: str, center: Point, more: float = 0.0) -> str:
    left, top, right, bottom = around(name, center)
    sides = f'width="{n(right - left + 2 * more)}" height="{n(bottom - top + 2 * more)}"'
    return f'x="{n(left - more)}" y="{n(top - more)}" {sides} rx="{n(HEIGHT / 2 + more)}"'


def _d(curve: Curve) -> str:
    (x, y), *_ = curve[0]
    pieces = " ".join("C" + ", ".join(f"{n(x)} {n(y)}" for x, y in cubic[1:]) for cubic in curve)
    return f"M{n(x)} {n(y)} {pieces}"


def _headed(curve: Curve, size: float, hollow: bool) -> tuple[Curve, tuple[Point, Point, Point]]:
    """A curve that ends inside its head, so that a thick one does not blunt the tip, and the corners of the head."""
    *before, last = curve
    end = last[3]
    t = next((1 - t / 60 for t in range(1, 60) if dist(point(last, 1 - t / 60), end) >= size), 0.0)
    x, y = point(last, t)
    length = dist((x, y), end) or 1.0
    dx, dy = (end[0] - x) / length * size, (end[1] - y) / length * size
    base = end[0] - dx, end[1] - dy
    wings = (base[0] - dy * 0.38, base[1] + dx * 0.38), (base[0] + dy * 0.38, base[1] - dx * 0.38)
    return (*before, cut(last, 0.0, t + (0.0 if hollow else (1 - t) * 0.4))), (end, *wings)


def n(value: float) -> str:
    """A number, to a tenth of a pixel."""
    return f"{round(value, 1) + 0.0:g}" if abs(value) < 1e5 else f"{value:.1f}"


def text(words: str) -> str:
    """Plain text as the content of an element."""
    return escape(_legal(words))


def attribute(words: str) -> str:
    """Plain text as the value of an attribute, quoted."""
    return quoteattr(_legal(words))


def _legal(words: str) -> str:
    """Characters that XML cannot hold become the replacement character."""
    return re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", words)
