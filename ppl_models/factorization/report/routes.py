"""`Router`: curves between nodes that go around the nodes in between."""

from collections.abc import Iterable, Mapping, Sequence
from math import cos, hypot, pi, sin

from .panel import HEIGHT, node_width
from .placement import Box

Point = tuple[float, float]
Curve = tuple[Point, Point, Point, Point]  # the control points of a cubic Bezier curve
BENDS = (0.0, 18.0, 30.0, 44.0, 60.0, 80.0, 104.0, 132.0, 166.0, 210.0, 270.0)
CELL = 5.0
CLEAR = 5.0  # how near an edge may come to a node that it passes


def point(curve: Curve, t: float) -> Point:
    """The point of a cubic Bezier curve at t in [0, 1]."""
    s = 1 - t
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = curve
    a, b, c, d = s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t
    return a * ax + b * bx + c * cx + d * dx, a * ay + b * by + c * cy + d * dy


def cut(curve: Curve, start: float, end: float) -> Curve:
    """The piece of a curve between two parameters."""

    def blossom(a: float, b: float, c: float) -> Point:
        points: Sequence[Point] = curve
        for t in (a, b, c):
            pairs = zip(points, points[1:], strict=False)
            points = [((1 - t) * p[0] + t * q[0], (1 - t) * p[1] + t * q[1]) for p, q in pairs]
        return points[0]

    return (
        blossom(start, start, start),
        blossom(start, start, end),
        blossom(start, end, end),
        blossom(end, end, end),
    )


def from_node(p: Point, center: Point, width: float) -> float:
    """The distance of a point from the border of a node, which is a circle drawn out sideways; negative inside."""
    core = (width - HEIGHT) / 2
    return hypot(max(abs(p[0] - center[0]) - core, 0.0), p[1] - center[1]) - HEIGHT / 2


class Router:
    """Finds the edges' ways one by one, each clear of nodes and of the ways found before.

    Args:
        at: the centers of the nodes.
        avoid: rectangles that edges had better not cross: labels. More may be appended between two routes.
    """

    def __init__(self, at: Mapping[str, Point], avoid: Iterable[Box] = ()) -> None:
        self.at, self.avoid = at, list(avoid)
        self.width = {node: node_width(node) for node in at}
        self.middle = (min(x for x, _ in at.values()) + max(x for x, _ in at.values())) / 2 if at else 0.0
        self.taken: list[set[tuple[int, int]]] = []

    def route(self, u: str, v: str, bundled: bool = False, plain: bool = False) -> Curve:
        """The way from u to v, from border to border: straight where it can be.

        Args:
            u: where it starts.
            v: where it ends; u for a loop.
            bundled: whether it may run along others, as one of many faint ones.
            plain: whether it is straight, whatever lies in its way, for graphs too large to look for better.
        """
        curves = self._loops(u) if u == v else [c for c in self._curves(u, v) if c[0] == 0.0 or not plain]
        crowd = 0.0 if bundled else 8.0
        costs = [(cost + self._cost(curve, u, v, crowd), i) for i, (cost, curve) in enumerate(curves)]
        curve = curves[min(costs)[1]][1]
        inner = [point(curve, t / 40) for t in range(41)]
        away = [[from_node(p, self.at[n], self.width[n]) > 0 for p in inner] for n in (u, v)]
        leaves = next((i for i in range(20) if away[0][i]), 20)
        arrives = next((i for i in range(40, 20, -1) if away[1][i]), 20)
        start = self._border(curve, u, leaves / 40, (leaves - 1) / 40)
        end = self._border(curve, v, arrives / 40, (arrives + 1) / 40)
        self.taken.append(self._cells(curve))
        return cut(curve, start, end)

    def _border(self, curve: Curve, node: str, outside: float, inside: float) -> float:
        for _ in range(12):
            middle = (outside + inside) / 2
            if from_node(point(curve, middle), self.at[node], self.width[node]) > 0:
                outside = middle
            else:
                inside = middle
        return outside

    def _curves(self, u: str, v: str) -> list[tuple[float, Curve]]:
        (ax, ay), (bx, by) = self.at[u], self.at[v]
        dx, dy = bx - ax, by - ay
        length = hypot(dx, dy) or 1.0
        # Between columns: level where it starts and ends, so that it lies between the columns all the way. So for rows.
        found = [(14.0, ((ax, ay), (ax + dx * k, ay), (bx - dx * k, by), (bx, by))) for k in (0.5, 0.8) if dx]
        found += [(16.0, ((ax, ay), (ax, ay + dy * k), (bx, by - dy * k), (bx, by))) for k in (0.5, 0.8) if dx and dy]
        for bend in BENDS:
            for sign in (1, -1) if bend else (1,):
                nx, ny = -dy / length * bend * sign, dx / length * bend * sign
                inward = 4.0 if bend and nx * ((ax + bx) / 2 - self.middle) < -1e-6 else 0.0
                cost = 4.0 * bool(bend) + 0.25 * bend + inward
                first = (ax + dx * 0.25 + nx, ay + dy * 0.25 + ny)
                second = (ax + dx * 0.75 + nx, ay + dy * 0.75 + ny)
                found.append((cost, ((ax, ay), first, second, (bx, by))))
        return found

    def _loops(self, u: str) -> list[tuple[float, Curve]]:
        (x, y), core = self.at[u], (self.width[u] - HEIGHT) / 2
        found = []
        for rank, angle in enumerate((-pi / 4, -3 * pi / 4, pi / 4, 3 * pi / 4)):
            corner = x + core * (1 if cos(angle) > 0 else -1)
            legs = [(corner + 44 * cos(a), y + 44 * sin(a)) for a in (angle - 0.55, angle + 0.55)]
            found.append((float(rank), ((corner, y), legs[0], legs[1], (corner, y))))
        return found

    def _cost(self, curve: Curve, u: str, v: str, crowd: float) -> float:
        samples = [point(curve, t / 24) for t in range(1, 24)]
        hits = 0.0
        left, right = min(x for x, _ in samples) - CLEAR, max(x for x, _ in samples) + CLEAR
        top, bottom = min(y for _, y in samples) - CLEAR - HEIGHT, max(y for _, y in samples) + CLEAR + HEIGHT
        for node, center in self.at.items():
            half = self.width[node] / 2
            if not (left - half <= center[0] <= right + half and top <= center[1] <= bottom):
                continue
            if node not in (u, v):
                near = min(from_node(p, center, self.width[node]) for p in samples)
                hits += 1000.0 * (near < 0) + 150.0 * (near < CLEAR)
        hits += sum(120.0 for a, b, c, d in self.avoid if any(a < x < c and b < y < d for x, y in samples))
        if crowd:
            cells = self._cells(curve)
            # Two may cross; what is hard to read is one along the other.
            hits += crowd * sum(max(0, len(cells & other) - 4 * (u != v)) for other in self.taken)
        return hits

    @staticmethod
    def _cells(curve: Curve) -> set[tuple[int, int]]:
        """The grid cells of the middle of a curve; edges may meet at their ends."""
        middle = (point(curve, t / 60) for t in range(18, 43))
        return {(round(x / CELL), round(y / CELL)) for x, y in middle}
