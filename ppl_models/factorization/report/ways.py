"""`ways`: the curves of a panel's edges around the nodes that are not their ends, and `beside`, boxes for a label."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import hypot

from .graphviz import Box, Point, arrange
from .panel import CLEAR, HEIGHT, node_width

Cubic = tuple[Point, Point, Point, Point]
Curve = tuple[Cubic, ...]  # pieces that follow each other
Edge = tuple[str, str, str]
MOST = 200  # edges that go around nodes in one panel: more, and nobody could follow them
INCH = 72.0


def ways(edges: Sequence[Edge], at: Mapping[str, Point]) -> dict[Edge, Curve]:
    """The curve of each edge, from border to border: straight where nothing is in between.

    Args:
        edges: (from, to, style), those that matter most first; two of the same ends lie apart.
        at: the centers of all nodes of the panel.

    Returns:
        A curve for each edge; but for what comes after `MOST` edges that nodes stand in the way of, and those that
        find no way around them.
    """
    ends = Counter(frozenset(edge[:2]) for edge in edges)
    direct = [e for e in edges if e[0] != e[1] and ends[frozenset(e[:2])] == 1 and _free(e, at)]
    curves: dict[Edge, Curve] = {e: (_straight(at[e[0]], at[e[1]]),) for e in direct}
    bent = [e for e in edges if e not in curves][:MOST]
    for splines in ("true", "polyline"):  # the second has corners, and hardly ever fails
        left = [edge for edge in bent if edge not in curves]
        found = zip(left, _around_nodes(left, at, splines), strict=True)
        curves |= {edge: curve for edge, curve in found if _clear(curve, edge, at)}
    return {edge: _trimmed(curves[edge], edge, at) for edge in edges if edge in curves}


def _around_nodes(edges: Sequence[Edge], at: Mapping[str, Point], splines: str) -> list[Curve]:
    """The ways that graphviz finds, from center to center; empty where it finds none."""
    if not edges:
        return []
    name = {node: f"n{i}" for i, node in enumerate(at)}
    lines = [f'graph [splines={splines}, esep="+{CLEAR}"]; node [shape=box, fixedsize=true, label=""]']
    lines += ["edge [headclip=false, tailclip=false, arrowhead=none]"]
    for node, (x, y) in at.items():
        size = f"width={node_width(node) / INCH:.4f}, height={HEIGHT / INCH:.4f}"
        lines.append(f'{name[node]} [pos="{x:.2f},{-y:.2f}", {size}]')
    lines += [f"{name[u]} -> {name[v]} [id={i}]" for i, (u, v, _) in enumerate(edges)]
    try:
        found = arrange(lines, "neato")
    except RuntimeError:
        return [()] * len(edges)
    first = next(iter(at))  # all are moved alike
    dx, dy = (there - here for there, here in zip(at[first], found.nodes[name[first]], strict=True))
    moved = ([(x + dx, y + dy) for x, y in found.edges.get(i, ())] for i in range(len(edges)))
    return [tuple((p[i], p[i + 1], p[i + 2], p[i + 3]) for i in range(0, len(p) - 1, 3)) for p in moved]


def _clear(curve: Curve, edge: Edge, at: Mapping[str, Point]) -> bool:
    """Whether there is a curve, and no node that is not its end is on it."""
    along = points(curve) if curve else []
    others = [(center, node_width(node)) for node, center in at.items() if node not in edge[:2]]
    return bool(along) and all(from_node(p, center, width) > 1 for center, width in others for p in along)


def _straight(start: Point, end: Point) -> Cubic:
    (ax, ay), (bx, by) = start, end
    return start, (ax + (bx - ax) / 3, ay + (by - ay) / 3), (bx + (ax - bx) / 3, by + (ay - by) / 3), end


def _free(edge: Edge, at: Mapping[str, Point]) -> bool:
    """Whether the straight way of an edge keeps clear of all nodes that are not its ends."""
    start, end = at[edge[0]], at[edge[1]]
    for node, (x, y) in at.items():
        if node not in edge[:2]:
            core = (node_width(node) - HEIGHT) / 2
            if _apart(start, end, (x - core, y), (x + core, y)) < HEIGHT / 2 + CLEAR:
                return False
    return True


def _apart(a: Point, b: Point, c: Point, d: Point) -> float:
    """The distance of the line from a to b and the line from c to d."""
    if _side(a, b, c) * _side(a, b, d) < 0 and _side(c, d, a) * _side(c, d, b) < 0:
        return 0.0
    return min(_to_line(a, c, d), _to_line(b, c, d), _to_line(c, a, b), _to_line(d, a, b))


def _side(p: Point, q: Point, r: Point) -> float:
    return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])


def _to_line(p: Point, a: Point, b: Point) -> float:
    dx, dy = b[0] - a[0], b[1] - a[1]
    along = ((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / ((dx * dx + dy * dy) or 1.0)
    along = min(1.0, max(0.0, along))
    return hypot(p[0] - a[0] - along * dx, p[1] - a[1] - along * dy)


def point(cubic: Cubic, t: float) -> Point:
    """The point of a cubic Bezier curve at t in [0, 1]."""
    s = 1 - t
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = cubic
    a, b, c, d = s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t
    return a * ax + b * bx + c * cx + d * dx, a * ay + b * by + c * cy + d * dy


def points(curve: Curve, each: int = 16) -> list[Point]:
    """Points along a curve, from its start to its end."""
    return [curve[0][0], *(point(cubic, t / each) for cubic in curve for t in range(1, each + 1))]


def from_node(p: Point, center: Point, width: float) -> float:
    """The distance of a point from the border of a node, which is a circle drawn out sideways; negative inside."""
    core = (width - HEIGHT) / 2
    return hypot(max(abs(p[0] - center[0]) - core, 0.0), p[1] - center[1]) - HEIGHT / 2


def beside(size: Point, curve: Curve, others: Iterable[Curve]) -> list[tuple[float, Box]]:
    """Boxes for a label beside its edge or on it, with a cost: of the way from the middle, and of edges that it covers.

    Args:
        size: of the label, half of its width and of its height.
        curve: its edge.
        others: all edges.
    """
    half, rise = size
    along, found = points(curve, 24), []
    lines = [p for other in others for p in points(other)]
    for rank, share in enumerate((0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8)):
        i = min(int(share * len(along)), len(along) - 2)
        (x, y), ahead = along[i], along[i + 1]
        step = hypot(ahead[0] - x, ahead[1] - y) or 1.0
        nx, ny = (y - ahead[1]) / step, (ahead[0] - x) / step
        for side, more in ((-1, 0), (1, 0), (0, 0), (-1, 10), (1, 10), (-1, 20), (1, 20)):
            away = side * (half * abs(nx) + rise * abs(ny) + 2 + more)
            box = (x + nx * away - half, y + ny * away - rise, x + nx * away + half, y + ny * away + rise)
            crossed = sum(box[0] < px < box[2] and box[1] < py < box[3] for px, py in lines)
            found.append((5 * crossed + rank + 3 * (side == 0) + more / 4 + len(found) * 1e-3, box))
    return found


def meet(a: Box, b: Box) -> bool:
    """Whether two boxes share some room."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def cut(cubic: Cubic, start: float, end: float) -> Cubic:
    """The piece of a cubic between two parameters."""

    def blossom(*ts: float) -> Point:
        left: Sequence[Point] = cubic
        for t in ts:
            left = [((1 - t) * p[0] + t * q[0], (1 - t) * p[1] + t * q[1]) for p, q in pairwise(left)]
        return left[0]

    return (
        blossom(start, start, start),
        blossom(start, start, end),
        blossom(start, end, end),
        blossom(end, end, end),
    )


def turned(curve: Curve) -> Curve:
    """The curve from its end to its start."""
    return tuple((d, c, b, a) for a, b, c, d in reversed(curve))


def _trimmed(curve: Curve, edge: Edge, at: Mapping[str, Point]) -> Curve:
    """What lies outside of both ends."""
    curve = _leaving(curve, at[edge[0]], node_width(edge[0]))
    return turned(_leaving(turned(curve), at[edge[1]], node_width(edge[1])))


def _leaving(curve: Curve, center: Point, width: float) -> Curve:
    """A curve from where it first leaves a node."""
    for i, cubic in enumerate(curve):
        for k in range(33):
            if from_node(point(cubic, k / 32), center, width) > 0:
                inside, outside = max(k - 1, 0) / 32, k / 32
                for _ in range(12):
                    middle = (inside + outside) / 2
                    if from_node(point(cubic, middle), center, width) > 0:
                        outside = middle
                    else:
                        inside = middle
                return (cut(cubic, outside, 1.0), *curve[i + 1 :])
    return curve[-1:]
