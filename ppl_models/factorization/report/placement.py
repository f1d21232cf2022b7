"""Positions of nodes and plates: rows by topological generation, columns by barycentre, plates kept together.

All panels of a picture share one layout, so that the eye can compare them. Pure Python and networkx.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, permutations

import networkx as nx

from .panel import HEIGHT, Panel, node_width, text_width

PAD, TOP, BOTTOM = 13.0, 11.0, 19.0  # from a plate's border to what it holds: at the sides, above, below (its label)
Box = tuple[float, float, float, float]  # left, top, right, bottom


def place(panels: Sequence[Panel]) -> dict[str, tuple[float, float]]:
    """The center of every node, the same in all panels: laid out for the first directed panel, kind to the others.

    Args:
        panels: of one picture; nodes that only later panels have join the first one's graph.
    """
    ranked = sorted(panels, key=lambda panel: not panel.directed)
    nodes = list(dict.fromkeys(node for panel in ranked for node in panel.nodes))
    graph: nx.DiGraph = nx.DiGraph()
    for panel in ranked:
        known = set(graph)
        graph.add_nodes_from(panel.nodes)
        for u, v, style in panel.edges:
            # A later panel has a say in its own nodes alone, and nothing closes a cycle.
            own = u != v and style != "missing" and not (u in known and v in known)
            if own and not nx.has_path(graph, v, u):
                graph.add_edge(u, v)
    plates: dict[str, frozenset[str]] = {}
    for panel in panels:
        for plate, members in panel.held().items():
            plates[plate] = plates.get(plate, frozenset()) | members
    observed = frozenset().union(*(panel.observed for panel in panels)) & graph.nodes
    rows, ladder = _rows(graph, observed)
    gap = min(120.0, 34.0 + 8.0 * len(set(rows.values()))) if ladder else 26.0
    drawn = {frozenset((u, v)) for panel in panels for u, v, _ in panel.edges if u != v}
    xs = _Columns(nodes, rows, plates, graph, sorted(map(sorted, drawn)), gap).best()
    ys = _heights(rows, plates, [(rows[u], rows[v], abs(xs[u] - xs[v])) for u, v in graph.edges])
    return {node: (round(xs[node], 1), round(ys[rows[node]], 1)) for node in nodes}


def plate_boxes(held: Mapping[str, frozenset[str]], at: Mapping[str, tuple[float, float]]) -> dict[str, Box]:
    """The rectangle (left, top, right, bottom) of each plate, the outer ones first.

    Args:
        held: the nodes in each plate.
        at: where the nodes are.
    """
    boxes: dict[str, Box] = {}
    for plate in _inner_first(held):
        inside = [(*at[n], node_width(n) / 2, HEIGHT / 2) for n in sorted(held[plate])]
        rims = [(x - w, y - h, x + w, y + h) for x, y, w, h in inside]
        rims += [box for other, box in boxes.items() if held[other] <= held[plate]]
        # Borders of plates that overlap would coincide.
        off = 5.0 * sum(bool(held[q] & held[plate]) and not held[q] <= held[plate] for q in boxes)
        left, top, right, bottom = (
            f(side) for f, side in zip((min, min, max, max), zip(*rims, strict=True), strict=True)
        )
        narrow = max(0.0, text_width(plate, 10) + 14 - (right - left + 2 * PAD)) / 2
        side = PAD + narrow + off
        boxes[plate] = (left - side, top - TOP - off, right + side, bottom + BOTTOM + off)
    return dict(reversed(boxes.items()))


def _inner_first(held: Mapping[str, frozenset[str]]) -> list[str]:
    """Of plates that hold the same, the first is the outer one."""
    return sorted(reversed(list(held)), key=lambda plate: len(held[plate]))


def _rows(graph: nx.DiGraph, observed: frozenset[str]) -> tuple[dict[str, int], bool]:
    """The row of each node, and whether observed nodes stand beside their latents as on a ladder (state spaces)."""
    rows = {node: row for row, layer in enumerate(nx.topological_generations(graph)) for node in layer}
    hosts = [[rows[u] for u in graph.pred[x] if u not in observed] for x in observed]
    last = [max(found) for found in hosts if found]
    ladder = len(last) > 1 and len(set(last)) == len(hosts)
    if ladder:
        for node in nx.topological_sort(graph):
            beside = node in observed
            rows[node] = max((rows[u] + (u in observed or not beside) for u in graph.pred[node]), default=0)
    for node in graph:
        if not graph.pred[node]:  # a root far above its children only makes long edges
            children = [rows[v] for v in graph.succ[node] if not (ladder and v in observed)]
            rows[node] = min(children, default=rows[node] + 1) - 1
    used = {row: i for i, row in enumerate(sorted(set(rows.values())))}
    return {node: used[row] for node, row in rows.items()}, ladder


def _heights(
    rows: Mapping[str, int], plates: Mapping[str, frozenset[str]], edges: Iterable[tuple[int, int, float]]
) -> list[float]:
    """The center of each row, with room for the borders of the plates that begin or end between two."""
    count = max(rows.values(), default=-1) + 1
    above, below = [0.0] * count, [0.0] * count
    for members in plates.values():
        inner = sum(other <= members for other in plates.values())
        crossing = 5.0 * sum(
            bool(other & members) and not (other <= members or members <= other) for other in plates.values()
        )
        first, last = min(rows[n] for n in members), max(rows[n] for n in members)
        above[first] = max(above[first], TOP * inner + crossing)
        below[last] = max(below[last], BOTTOM * inner + crossing)
    step = 62.0 if count < 8 else 52.0
    steep = [0.0] * count  # a long edge to the next row must not meet its neighbors
    for first, last, across in edges:
        if last == first + 1:
            steep[last] = max(steep[last], min(130.0, 0.42 * across))
    heights = [0.0]
    for row in range(1, count):
        borders = above[row] + below[row - 1]
        heights.append(heights[-1] + max(step, steep[row], HEIGHT + 24.0 + borders))
    return heights


class _Block:
    """Things side by side: nodes, and blocks of nodes between which nothing else may come."""

    def __init__(self, children: list, fixed: bool = False) -> None:
        self.children, self.fixed = children, fixed


def _leaves(item: "_Block | str") -> list[str]:
    return [item] if isinstance(item, str) else [leaf for child in item.children for leaf in _leaves(child)]


def _blocks(nodes: list[str], plates: Iterable[frozenset[str]]) -> _Block:
    """Nested blocks such that as far as possible each plate is a row of neighbors in one of them."""
    within = {members & set(nodes) for members in plates}
    inner = sorted((p for p in within if p and p != set(nodes)), key=sorted)
    joined: nx.Graph = nx.Graph()
    joined.add_nodes_from(nodes)
    for members in inner:
        nx.add_path(joined, sorted(members))
    parts = [[n for n in nodes if n in part] for part in nx.connected_components(joined)]
    if len(parts) > 1 or not inner:
        return _Block([part[0] if len(part) == 1 else _blocks(part, inner) for part in parts])
    # The plates overlap: one block for each combination, in an order that keeps each plate in one piece.
    widest = [p for p in inner if not any(p < other for other in inner)]
    cells: dict[tuple[bool, ...], list[str]] = {}
    for node in nodes:
        cells.setdefault(tuple(node in p for p in widest), []).append(node)
    orders = permutations(cells) if len(cells) < 7 else [tuple(sorted(cells))]
    best = min(
        orders,
        key=lambda order: sum(
            a != b for x, y in zip(order, order[1:], strict=False) for a, b in zip(x, y, strict=True)
        ),
    )
    return _Block([_blocks(cells[key], inner) for key in best], fixed=True)


class _Columns:
    """The horizontal places: barycentre sweeps over the blocks, under the distances that keep boxes apart."""

    def __init__(
        self, nodes: list[str], rows: dict[str, int], plates: dict, graph: nx.DiGraph, drawn: list, gap: float
    ) -> None:
        self.rows, self.drawn, self.gap = rows, drawn, gap
        self.near = {n: sorted(v for v in nx.all_neighbors(graph, n) if rows[v] != rows[n]) for n in nodes}
        self.root = _blocks(nodes, plates.values())
        self.width = {n: node_width(n) for n in nodes}
        self.holders = {n: {plate for plate, members in plates.items() if n in members} for n in nodes}
        for n, near in self.near.items():  # those in the same plates come first: outer ones are aligned to them
            shared = {v: len(self.holders[n] & self.holders[v]) for v in near}
            self.near[n] = [v for v in near if shared[v] == max(shared.values())]
        self.pad = {p: PAD + 5 + max(0.0, text_width(p, 10) + 14 - HEIGHT - 2 * PAD) / 2 for p in plates}

    def best(self) -> dict[str, float]:
        """The places with the fewest crossings and nodes in the way of edges that twelve sweeps find."""
        wanted = dict.fromkeys(self.width, 0.0)
        found: tuple[float, list, dict[str, float]] | None = None
        for sweep in range(12):
            if sweep:
                self._sort(self.root, wanted)
            pairs = self._pairs(self.root)
            x = wanted
            for _ in range(30):
                x = self._apart(pairs, self._pulled(x, self.near))
            cost = self._cost(x)
            if found is None or cost < found[0] - 1e-6:
                found = cost, pairs, x
            step = (1, -1)[sweep % 2]
            wanted = {
                n: self._mean([v for v in self.near[n] if (self.rows[v] - self.rows[n]) * step < 0], x, n) for n in x
            }
        _, pairs, x = found
        # Who follows one that follows another would lag behind: first those that follow each other, then the rest.
        mutual = {n: [v for v in near if n in self.near[v]] for n, near in self.near.items()}
        for _ in range(120):
            x = self._apart(pairs, self._pulled(x, mutual))
        for n in (n for n in x if not mutual[n]):
            least = max((x[u] + distance for u, v, distance in pairs if v == n), default=float("-inf"))
            most = min((x[v] - distance for u, v, distance in pairs if u == n), default=float("inf"))
            x[n] = min(max(self._mean(self.near[n], x, n), least), most)
        return x

    def _pulled(self, x: dict[str, float], near: Mapping[str, list[str]]) -> dict[str, float]:
        return {n: (x[n] + self._mean(near[n], x, n)) / 2 for n in x}

    @staticmethod
    def _mean(near: list[str], x: dict[str, float], node: str) -> float:
        return sum(x[v] for v in near) / len(near) if near else x[node]

    def _sort(self, block: _Block, wanted: dict[str, float]) -> None:
        for child in block.children:
            if isinstance(child, _Block):
                self._sort(child, wanted)
        if not block.fixed:
            means = {id(c): sum(wanted[n] for n in _leaves(c)) / len(_leaves(c)) for c in block.children}
            block.children.sort(key=lambda child: round(means[id(child)], 3))

    def _pairs(self, block: _Block) -> list[tuple[str, str, float]]:
        """(left, right, least distance of the centers), sorted by the left one's place in the order."""
        leaves = _leaves(block)
        spans = [(leaves_of, [self.rows[n] for n in leaves_of]) for leaves_of in map(_leaves, block.children)]
        pairs = [pair for child in block.children if isinstance(child, _Block) for pair in self._pairs(child)]
        for (left, a), (right, b) in combinations(spans, 2):
            if block.fixed or (min(a) <= max(b) and min(b) <= max(a)):
                pairs += [(u, v, self._distance(u, v)) for u in left for v in right]
        order = {n: i for i, n in enumerate(leaves)}
        return sorted(pairs, key=lambda pair: (order[pair[0]], order[pair[1]]))

    def _distance(self, u: str, v: str) -> float:
        borders = sum(self.pad[plate] for plate in sorted(self.holders[u] ^ self.holders[v]))
        return (self.width[u] + self.width[v]) / 2 + self.gap + borders

    @staticmethod
    def _apart(pairs: list, wanted: dict[str, float]) -> dict[str, float]:
        """Near the wanted places, but far enough apart: pushed right and pushed left are, and so is their mean."""
        right, left = dict(wanted), dict(wanted)
        for u, v, distance in pairs:
            right[v] = max(right[v], right[u] + distance)
        for u, v, distance in reversed(pairs):
            left[u] = min(left[u], left[v] - distance)
        return {n: (right[n] + left[n]) / 2 for n in wanted}

    def _cost(self, x: dict[str, float]) -> float:
        ends = [(u, v, (x[u], self.rows[u]), (x[v], self.rows[v])) for u, v in self.drawn]
        crossings = sum(
            len({a, b, c, d}) == 4 and _side(p, q, r) * _side(p, q, s) < 0 and _side(r, s, p) * _side(r, s, q) < 0
            for (a, b, p, q), (c, d, r, s) in combinations(ends, 2)
        )
        return crossings + sum(abs(p[0] - q[0]) for _, _, p, q in ends) * 1e-4


def _side(p: tuple, q: tuple, r: tuple) -> float:
    return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])
