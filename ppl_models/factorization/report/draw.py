"""`svg`: a report as a picture, the model, the exact posterior and the guide side by side.

Missing edges are red and dashed, superfluous ones gray. Graphviz says where things are, and this how they look.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import dist
from xml.sax.saxutils import escape, quoteattr

from .graphviz import Box, Point
from .layout import Places, around, hull, place, plate_boxes
from .panel import HEIGHT, STYLES, Panel, text_width
from .ways import Curve, beside, cut, meet, point, points, ways

INK, RED, GRAY, FAINT = "#1f2430", "#d01c28", "#9aa1ad", "#5b6475"
SANS = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
SERIF = "'Latin Modern Roman', 'Times New Roman', 'Liberation Serif', 'DejaVu Serif', serif"
MARGIN, LINE = 22.0, 15.0
COLORS = {"plain": INK, "missing": RED, "superfluous": GRAY}
DENSE = 24  # beyond so many edges those from data are drawn fainter
LEGEND = {"plain": "present", "missing": "missing: the posterior needs it", "superfluous": "superfluous: it can go"}


@dataclass(frozen=True)
class _Drawing:
    """The elements of a panel's graph and what they cover."""

    marks: tuple[str, ...]
    box: Box
    left_out: int = 0  # edges


def svg(panels: Sequence[Panel], title: str = "") -> str:
    """The panels side by side, their nodes in the same places, on white.

    Args:
        panels: each a graph; the first directed one, the model, decides where nodes go.
        title: a line above them.

    Returns:
        A whole `<svg>` element without ids, classes that are styled, or references to anything outside.
    """
    places = place(panels)
    drawings = [_graph(panel, places) for panel in panels]
    tops, bottoms = [d.box[1] for d in drawings], [d.box[3] for d in drawings]
    top, bottom = min(tops, default=0.0), max(bottoms, default=0.0)
    head = 34.0 if title else 8.0
    marks, x, height = [], 8.0, head
    frames = []
    for panel, drawing in zip(panels, drawings, strict=True):
        left, _, right, _ = drawing.box
        factor = max((text_width(factor, 11) for factor in _factors(panel.caption)), default=0.0)
        captions = max(right - left, min(230.0, text_width(panel.caption, 11)), min(330.0, factor), 90.0)
        captions = max(captions, text_width(panel.title, 13))
        lines = wrap(panel.caption, captions)
        lines += [f"{drawing.left_out} more edges are not drawn"] if drawing.left_out else []
        width = max(captions, *(text_width(line, 11) for line in lines), 0.0) + 2 * MARGIN
        frames.append((panel, drawing, x, width, lines))
        height = max(height, head + 34.0 + bottom - top + 22.0 + LINE * len(lines) + (8.0 if lines else 0.0))
        x += width + 10.0
    used = [style for style in STYLES if any(style == s for panel in panels for _, _, s in panel.edges)]
    legend = _legend(used) if used not in ([], ["plain"]) else ("", 0.0)
    total = max(x - 2.0, text_width(title, 15) + 32.0, legend[1] + 32.0)
    for panel, drawing, left, width, lines in frames:
        marks.append(_frame(panel, left, head, width, height - head))
        shift = left + (width - drawing.box[0] - drawing.box[2]) / 2
        marks.append(f'<g transform="translate({_n(shift)} {_n(head + 34.0 - top)})">')
        marks += [*drawing.marks, "</g>"]
        base = head + 34.0 + bottom - top + 22.0
        for i, line in enumerate(lines):
            place_at = f'x="{_n(left + MARGIN)}" y="{_n(base + LINE * i + 8)}"'
            marks.append(f'<text {place_at} font-size="11" fill="{INK}">{_text(line)}</text>')
        marks.append("</g>")
    if title:
        marks.insert(0, f'<text x="16" y="23" font-size="15" font-weight="bold" fill="{INK}">{_text(title)}</text>')
    if legend[0]:
        marks.append(f'<g class="ppl-legend" transform="translate(16 {_n(height + 20)})">{legend[0]}</g>')
        height += 26.0
    height += 8.0
    size = f'viewBox="0 0 {_n(total)} {_n(height)}" width="{_n(total)}" height="{_n(height)}"'
    style = "max-width:100%;height:auto;background:#ffffff"
    start = f'<svg xmlns="http://www.w3.org/2000/svg" {size} style="{style}" font-family="{SANS}" role="img">'
    white = f'<rect width="{_n(total)}" height="{_n(height)}" fill="#ffffff"/>'
    name = f"<title>{_text(title)}</title>" if title else ""
    return "\n".join((start, *([name] if name else []), white, *marks, "</svg>"))


def wrap(caption: str, width: float) -> list[str]:
    """A formula in lines of at most a width, broken between factors, else after a comma or a blank."""
    lines = [""]
    for factor in _factors(caption):
        whole = f"{lines[-1]} {factor}".lstrip(" ")
        if text_width(whole, 11) <= width:
            lines[-1] = whole
            continue
        lines.append("")
        for word in factor.split():
            longer = f"{lines[-1]} {word}".lstrip(" ")
            if text_width(longer, 11) <= width or not lines[-1]:
                lines[-1] = longer
            else:
                lines.append("\u2003" + word)
    return [line for line in lines if line]


def _factors(caption: str) -> list[str]:
    return re.split(r"(?<=\))\s+", caption.strip())


def _graph(panel: Panel, places: Places) -> _Drawing:
    at = {node: places.at[node] for node in panel.nodes}
    order = {"missing": 0, "plain": 1, "superfluous": 2}
    edges = sorted(dict.fromkeys(panel.edges), key=lambda edge: order[edge[2]])
    dense = len(edges) > DENSE
    faint = {e: dense and e[2] == "plain" and e[0] in panel.observed and e[1] not in panel.observed for e in edges}
    curves, texts = ways(edges, at), []
    boxes = plate_boxes(panel, places)
    tags = [_tag(i, boxes, curves.values()) for i in range(len(boxes))]
    placed = [*tags, *(around(n, at[n]) for n in at)]
    for edge in edges:
        label = panel.labels.get(edge[:2]) or (None if panel.directed else panel.labels.get(edge[1::-1]))
        if edge not in curves:
            continue
        box = beside((text_width(label, 9.5) / 2 + 2, 6.5), curves[edge], placed, curves.values()) if label else None
        if label and box:
            placed.append(box)
            texts.append(_label(label, box, edge[2] == "missing"))
    marks = [_plate(plate, box, tag) for (plate, box), tag in zip(boxes, tags, strict=True)]
    drawn = sorted(edges, key=lambda edge: (order[edge[2]] != 2, order[edge[2]] != 1, not faint[edge]))
    marks += [_edge(edge, curves[edge], panel.directed, faint[edge]) for edge in drawn if edge in curves]
    marks += [_node(node, at[node], node in panel.observed) for node in panel.nodes]
    along = [(x, y, x, y) for curve in curves.values() for x, y in points(curve)]
    covers = [*(box for _, box in boxes), *placed, *along]
    box = hull(covers) if covers else (0.0, 0.0, 0.0, 0.0)
    return _Drawing((*marks, *texts), box, len(edges) - len(curves))


def _frame(panel: Panel, left: float, top: float, width: float, height: float) -> str:
    """Opens the group of a panel: its frame and its title."""
    rect = f'x="{_n(left)}" y="{_n(top)}" width="{_n(width)}" height="{_n(height)}" rx="6"'
    name = f'x="{_n(left + MARGIN)}" y="{_n(top + 20)}" font-size="12" font-weight="bold" fill="{FAINT}"'
    frame = f'<rect {rect} fill="#ffffff" stroke="#d9dce3"/>'
    return f'<g class="ppl-panel">{frame}<text {name}>{_text(panel.title)}</text>'


def _node(node: str, center: Point, observed: bool) -> str:
    left, top, right, bottom = around(node, center)
    rect = f'x="{_n(left)}" y="{_n(top)}" width="{_n(right - left)}" height="{_n(HEIGHT)}" rx="{_n(HEIGHT / 2)}"'
    shape = f'<rect {rect} fill="{"#d5d9e1" if observed else "#ffffff"}" stroke="{INK}" stroke-width="1.2"/>'
    symbol = re.fullmatch(r"([^\W\d_])(\d{0,2})", node)
    inside = _text(node)
    if symbol:  # a letter and its index, as in a formula
        index = f'<tspan font-size="10" dy="3">{symbol[2]}</tspan>' if symbol[2] else ""
        inside = f'<tspan font-style="italic">{_text(symbol[1])}</tspan>{index}'
    family, size = (SERIF, 16) if symbol else (SANS, 13)
    where = f'x="{_n(center[0])}" y="{_n(center[1] + 4.5)}" text-anchor="middle"'
    text = f'<text {where} font-family="{family}" font-size="{size}" fill="{INK}">{inside}</text>'
    tip = f"<title>{_text(node)}{' (observed)' if observed else ''}</title>"
    return f'<g class="ppl-node" data-node={_attr(node)}>{tip}{shape}{text}</g>'


def _edge(edge: tuple[str, str, str], curve: Curve, directed: bool, faint: bool) -> str:
    u, v, style = edge
    color = FAINT if faint else COLORS[style]
    width = {"plain": 0.7 if faint else 1.2, "missing": 1.7, "superfluous": 1.2}[style]
    head = ""
    if directed:
        curve, corners = _headed(curve, 6.0 if faint else 8.0)
        head = f'<polygon points="{" ".join(f"{_n(x)},{_n(y)}" for x, y in corners)}" fill="{color}"/>'
    (x, y), *_ = curve[0]
    pieces = " ".join("C" + ", ".join(f"{_n(x)} {_n(y)}" for x, y in cubic[1:]) for cubic in curve)
    dash = ' stroke-dasharray="5 3"' if style == "missing" else ""
    path = f'<path d="M{_n(x)} {_n(y)} {pieces}" fill="none" stroke="{color}" stroke-width="{width}"{dash}/>'
    arrow = "\u2192" if directed else "\u2013"
    tip = f"<title>{_text(f'{u} {arrow} {v}')}{'' if style == 'plain' else f' ({style})'}</title>"
    names = f"data-from={_attr(u)} data-to={_attr(v)}"
    return f'<g class="ppl-edge" {names} data-style="{style}">{tip}{path}{head}</g>'


def _headed(curve: Curve, size: float) -> tuple[Curve, tuple[Point, Point, Point]]:
    """A curve that ends inside its head, so that a thick one does not blunt the tip, and the corners of the head."""
    *before, last = curve
    tip = last[3]
    t = next((1 - t / 60 for t in range(1, 60) if dist(point(last, 1 - t / 60), tip) >= size), 0.0)
    x, y = point(last, t)
    length = dist((x, y), tip) or 1.0
    dx, dy = (tip[0] - x) / length * size, (tip[1] - y) / length * size
    base = tip[0] - dx, tip[1] - dy
    wings = (base[0] - dy * 0.38, base[1] + dx * 0.38), (base[0] + dy * 0.38, base[1] - dx * 0.38)
    return (*before, cut(last, 0.0, t + (1 - t) * 0.4)), (tip, *wings)


def _tag(i: int, boxes: Sequence[tuple[str, Box]], curves: Iterable[Curve]) -> Box:
    """Position of a plate's label: its lower right corner, or the left one where edges or another plate cover that."""
    plate, (left, _, right, bottom) = boxes[i]
    width = text_width(plate, 10)
    spots = [
        (end - width * k, bottom - 15, end + width * (1 - k), bottom - 3) for end, k in ((right - 7, 1), (left + 7, 0))
    ]
    lines = [(x, y, x, y) for curve in curves for x, y in points(curve)]

    def covered(spot: Box) -> tuple[int, int]:  # a plate around this one does cover both
        others = (box for j, (_, box) in enumerate(boxes) if j != i)
        return sum(meet(spot, box) for box in others), sum(meet(spot, line) for line in lines)

    return min(spots, key=covered)


def _plate(plate: str, box: Box, tag: Box) -> str:
    left, top, right, bottom = box
    rect = f'x="{_n(left)}" y="{_n(top)}" width="{_n(right - left)}" height="{_n(bottom - top)}" rx="7"'
    shape = f'<rect {rect} fill="{INK}" fill-opacity="0.025" stroke="#8b93a3" stroke-width="1"/>'
    x, anchor = (tag[2], "end") if right - tag[2] < 8 else (tag[0], "start")
    where = f'x="{_n(x)}" y="{_n(bottom - 5.5)}" text-anchor="{anchor}" font-size="10" fill="{FAINT}"'
    return f'<g class="ppl-plate" data-plate={_attr(plate)}>{shape}<text {where}>{_text(plate)}</text></g>'


def _label(label: str, box: Box, missing: bool) -> str:
    halo = 'stroke="#ffffff" stroke-width="3" paint-order="stroke" stroke-linejoin="round"'
    where = f'x="{_n((box[0] + box[2]) / 2)}" y="{_n(box[1] + 10)}" text-anchor="middle" font-size="9.5"'
    return f'<text class="ppl-label" {where} fill="{RED if missing else FAINT}" {halo}>{_text(label)}</text>'


def _legend(styles: Iterable[str]) -> tuple[str, float]:
    marks, x = [], 0.0
    for style in styles:
        dashes = ' stroke-dasharray="5 3"' if style == "missing" else ""
        line = f'<path d="M{_n(x)} 0 h26" stroke="{COLORS[style]}" stroke-width="1.6"{dashes}/>'
        marks.append(f'{line}<text x="{_n(x + 32)}" y="4" font-size="11" fill="{INK}">{LEGEND[style]}</text>')
        x += 32.0 + text_width(LEGEND[style], 11) + 18.0
    return "".join(marks), x


def _n(value: float) -> str:
    return f"{round(value, 1) + 0.0:g}" if abs(value) < 1e5 else f"{value:.1f}"


def _text(text: str) -> str:
    return escape(_legal(text))


def _attr(text: str) -> str:
    return quoteattr(_legal(text))


def _legal(text: str) -> str:
    """Characters that XML cannot hold become the replacement character."""
    return re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
