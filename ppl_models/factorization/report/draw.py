"""`svg`: a report as a picture, the model, the exact posterior and the guide side by side.

Graphviz says where things are, `marks` how they look; this puts them together. Touched or focused, a node says what is
known of it, and a missing edge shows the path by which it is needed: by style alone, so that no script is in it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from . import marks
from .graphviz import Box, Point
from .layout import Places, around, hull, place, plate_boxes, within
from .marks import SANS, n, paint, text
from .panel import Panel, Witness, text_width
from .ways import Curve, Edge, beside, meet, points, ways

MARGIN, LINE = 22.0, 15.0
DENSE = 24  # beyond so many edges those from data are drawn fainter


@dataclass(frozen=True)
class _Drawing:
    """A panel's graph, and where it is.

    Args:
        at, curves, plates, labels: nodes, edges, plates with the boxes of their names, texts on edges.
        box: what they cover.
    """

    panel: Panel
    at: Mapping[str, Point]
    curves: Mapping[Edge, Curve]
    plates: Sequence[tuple[str, Box, Box]]
    labels: Sequence[tuple[str, Box, bool]]
    box: Box

    def curve(self, u: str, v: str) -> list[Curve]:
        """The curves between two nodes, either way; of parents that nothing joins, those to a child of both."""
        found = [curve for (a, b, _), curve in self.curves.items() if {a, b} == {u, v}]
        children = [{b for a, b, _ in self.curves if a == node} for node in (u, v)]
        for child in sorted(children[0] & children[1])[:1] if not found else ():
            found = [*self.curve(u, child), *self.curve(v, child)]
        return found


def svg(panels: Sequence[Panel], title: str = "") -> str:
    """The panels side by side, their nodes in the same places.

    Args:
        panels: each a graph; the first directed one, the model, decides where nodes go.
        title: a line above them.

    Returns:
        A whole `<svg>` element without ids, scripts or anything from outside; its style names no class but ours.
    """
    places = place(panels)
    drawings = [_drawing(panel, places) for panel in panels]
    tops, bottoms = [d.box[1] for d in drawings], [d.box[3] for d in drawings]
    top, bottom = min(tops, default=0.0), max(bottoms, default=0.0)
    head = 34.0 if title else 8.0
    x, height, frames = 8.0, head, []
    for drawing in drawings:
        width, lines = _measure(drawing)
        frames.append((drawing, x, width, lines))
        height = max(height, head + 34.0 + bottom - top + 22.0 + LINE * len(lines) + (8.0 if lines else 0.0))
        x += width + 10.0
    used = {kind for panel in panels for _, _, kind in panel.edges}
    legend, wide = marks.legend(used) if used - {"plain"} else ("", 0.0)
    total = max(x - 2.0, text_width(title, 15) + 32.0, wide + 32.0)
    bottom_line = height + (34.0 if legend else 8.0)
    found = [f'<rect width="{n(total)}" height="{n(bottom_line)}" {paint("paper")}/>']
    if title:
        found.append(f'<text x="16" y="23" font-size="15" font-weight="bold" {paint("ink")}>{text(title)}</text>')
    above, origins = [], [(left + (width - d.box[0] - d.box[2]) / 2, head + 34.0 - top) for d, left, width, _ in frames]
    for (drawing, left, width, lines), origin in zip(frames, origins, strict=True):
        found += _frame(drawing, (left, head, width, height - head), lines, head + 34.0 + bottom - top + 22.0, origin)
        model = next((i for i, d in enumerate(drawings) if d.panel.directed), 0)
        scene = _Scene(drawings[model], origins[model], total, bottom_line)
        above += [
            f'<g transform="translate({n(origin[0])} {n(origin[1])})">',
            *_answers(drawing, origin, scene),
            "</g>",
        ]
    if legend:
        found.append(f'<g class="ppl-legend" transform="translate(16 {n(height + 20)})">{legend}</g>')
    size = f'viewBox="0 0 {n(total)} {n(bottom_line)}" width="{n(total)}" height="{n(bottom_line)}"'
    look = f'class="ppl-svg" style="max-width:100%;height:auto" font-family="{SANS}" role="group"'
    names = f"<title>{text(title or ', '.join(panel.title for panel in panels))}</title>"
    told = "; ".join(f"{panel.title}: {panel.caption}" if panel.caption else panel.title for panel in panels)
    names += f"<desc>{text(told)}</desc>"
    return "\n".join(
        (f'<svg xmlns="http://www.w3.org/2000/svg" {size} {look}>{names}', marks.style(), *found, *above, "</svg>")
    )


def wrap(caption: str, width: float, size: float = 11.0) -> list[str]:
    """A formula in lines of at most a width, broken between factors, else after a comma or a blank."""
    lines = [""]
    for factor in _factors(caption):
        whole = f"{lines[-1]} {factor}".lstrip(" ")
        if text_width(whole, size) <= width:
            lines[-1] = whole
            continue
        lines.append("")
        for word in factor.split():
            longer = f"{lines[-1]} {word}".lstrip(" ")
            if text_width(longer, size) <= width or not lines[-1]:
                lines[-1] = longer
            else:
                lines.append("\u2003" + word)
    return [line for line in lines if line]


def _factors(caption: str) -> list[str]:
    return re.split(r"(?<=\))\s+", caption.strip())


def _measure(drawing: _Drawing) -> tuple[float, list[str]]:
    """The width of a panel and the lines of its caption."""
    (left, _, right, _), caption = drawing.box, drawing.panel.caption
    factor = max((text_width(factor, 11) for factor in _factors(caption)), default=0.0)
    width = max(right - left, min(230.0, text_width(caption, 11)), min(330.0, factor), 90.0)
    width = max(width, text_width(drawing.panel.title, 13))
    lines = wrap(caption, width)
    more = len({*drawing.panel.edges}) - len(drawing.curves)
    lines += [f"{more} more edges are not drawn"] if more else []
    return max(width, *(text_width(line, 11) for line in lines), 0.0) + 2 * MARGIN, lines


def _drawing(panel: Panel, places: Places) -> _Drawing:
    at = {node: places.at[node] for node in panel.nodes}
    order = {"missing": 0, "plain": 1, "superfluous": 2}
    curves = ways(sorted(dict.fromkeys(panel.edges), key=lambda edge: order[edge[2]]), at)
    names = [tag for *_, tag in _plates(panel, places, curves, {})]
    labels = _labels(panel, places, curves, [*names, *(around(node, at[node]) for node in at)])
    plates = _plates(panel, places, curves, {edge: box for edge, (_, box, _) in labels.items()})
    clear = [label for label in labels.values() if not any(meet(label[1], tag) for *_, tag in plates)]
    along = [(x, y, x, y) for curve in curves.values() for x, y in points(curve)]
    covers = [*(box for _, box, _ in plates), *(around(node, at[node]) for node in at), *(box for _, box, _ in clear)]
    covers += along
    return _Drawing(panel, at, curves, plates, clear, hull(covers) if covers else (0.0, 0.0, 0.0, 0.0))


def _labels(
    panel: Panel, places: Places, curves: Mapping[Edge, Curve], taken: Sequence[Box]
) -> dict[tuple[str, str], tuple[str, Box, bool]]:
    """The texts on edges that find room: words, box, whether the edge is missing."""
    labels: dict[tuple[str, str], tuple[str, Box, bool]] = {}
    for edge, curve in curves.items():
        words = panel.labels.get(edge[:2]) or (None if panel.directed else panel.labels.get(edge[1::-1]))
        if not words:
            continue
        rooms = [room for piece, room in places.rooms.items() if {*edge[:2]} <= piece.members]
        spots = beside((text_width(words, 9.5) / 2 + 2, 6.5), curve, curves.values())
        free = [(cost + 8 * sum(not within(spot, room) for room in rooms), spot) for cost, spot in spots]
        free = [found for found in free if not any(meet(found[1], other) for other in taken)]
        if free:
            box = min(free)[1]
            taken = [*taken, box]
            labels[edge[:2]] = words, box, edge[2] == "missing"
    return labels


def _plates(
    panel: Panel, places: Places, curves: Mapping[Edge, Curve], labels: Mapping[tuple[str, str], Box]
) -> list[tuple[str, Box, Box]]:
    """Each plate, its box, and that of its name: in the lower right corner, or the left one if something is there."""
    # A border need not keep as far from a curve as from a node.
    hulls = [
        (edge[:2], hull([(x + 7, y + 7, x - 7, y - 7) for x, y in points(curve)])) for edge, curve in curves.items()
    ]
    boxes = plate_boxes(panel, places, [*labels.items(), *hulls])
    lines, found = [(x, y, x, y) for curve in curves.values() for x, y in points(curve)], []
    for i, (plate, (left, top, right, bottom)) in enumerate(boxes):
        width = text_width(plate, 10)
        spots = [(start, bottom - 15, start + width, bottom - 3) for start in (right - 7 - width, left + 7)]
        others = [box for j, (_, box) in enumerate(boxes) if j != i]  # one around this one covers both
        ranks = [
            [sum(meet(spot, other) for other in kind) for kind in (labels.values(), others, lines)] for spot in spots
        ]
        found.append((plate, (left, top, right, bottom), spots[1 if ranks[1] < ranks[0] else 0]))
    return found


def _frame(drawing: _Drawing, room: Box, lines: Sequence[str], base: float, origin: Point) -> list[str]:
    """A panel: its frame, which is `room` by its corner and sides, title, graph and caption."""
    left, top, width, height = room
    panel = drawing.panel
    rect = f'x="{n(left)}" y="{n(top)}" width="{n(width)}" height="{n(height)}" rx="6"'
    name = f'x="{n(left + MARGIN)}" y="{n(top + 20)}" font-size="12" font-weight="bold"'
    dense = len(drawing.curves) > DENSE
    found = ['<g class="ppl-panel">', f"<rect {rect} {paint('paper', 'frame')}/>"]
    found += [f"<text {name} {paint('soft')}>{text(panel.title)}</text>"]
    found += [f'<g transform="translate({n(origin[0])} {n(origin[1])})">']
    found += [marks.plate(*plate) for plate in drawing.plates]
    edges = []
    for edge, curve in drawing.curves.items():
        faint = dense and edge[2] == "plain" and edge[0] in panel.observed and edge[1] not in panel.observed
        rank = ("superfluous", "plain", "missing").index(edge[2])
        edges.append((rank, not faint, marks.edge(edge, curve, panel.directed, faint)))
    found += [mark for *_, mark in sorted(edges, key=lambda edge: edge[:2])]
    found += [marks.node(node, drawing.at[node], node in panel.observed) for node in panel.nodes]
    found += [marks.label(*label) for label in drawing.labels] + ["</g>"]
    for i, line in enumerate(lines):
        where = f'x="{n(left + MARGIN)}" y="{n(base + LINE * i + 8)}" font-size="11"'
        found.append(f"<text {where} {paint('ink')}>{text(line)}</text>")
    return [*found, "</g>"]


@dataclass(frozen=True)
class _Scene:
    """The model's graph, on which paths are shown, where it is, and the width and height of the picture."""

    model: _Drawing
    origin: Point
    width: float
    height: float


def _answers(drawing: _Drawing, origin: Point, scene: _Scene) -> list[str]:
    """Over a panel's graph, what answers a touch: missing edges, then nodes."""
    panel, found = drawing.panel, []

    def tip(words: str) -> str:
        lines = wrap(words, scene.width - 40.0, marks.TIP)
        return marks.tip(lines, 8.0 - origin[0], scene.height - 6.0 - origin[1], scene.width - 16.0)

    for (u, v, kind), curve in drawing.curves.items():
        witness = panel.why.get((u, v))
        if kind == "missing" and witness:
            shown = [*_path(witness, (u, v), drawing, origin, scene), tip(witness.text)]
            found.append(marks.touch(f"missing: {u} \u2192 {v}", witness.text, marks.edge_hit(curve), shown, True))
    for node in panel.nodes:
        about = panel.about.get(node, "")
        name = f"{node}{' (observed)' if node in panel.observed else ''}"
        shown = [tip(f"{node}: {about}")] if about else []
        focus = bool(about) and panel.directed
        found.append(marks.touch(name, about, marks.node_hit(node, drawing.at[node]), shown, focus))
    return found


def _path(witness: Witness, edge: tuple[str, str], drawing: _Drawing, origin: Point, scene: _Scene) -> Iterable[str]:
    """The path of a missing edge: its nodes where the edge is, and all of it in the model."""
    yield marks.glow([(node, drawing.at[node]) for node in edge if node in drawing.at], drawing.curve(*edge))
    if scene.model is not drawing:
        model = scene.model
        steps = [curve for u, v in zip(witness.path, witness.path[1:], strict=False) for curve in model.curve(u, v)]
        nodes = [(node, model.at[node]) for node in dict.fromkeys(witness.path) if node in model.at]
        shift = f"translate({n(scene.origin[0] - origin[0])} {n(scene.origin[1] - origin[1])})"
        yield f'<g transform="{shift}">{marks.glow(nodes, steps)}</g>'
