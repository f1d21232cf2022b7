"""`place`, `plate_boxes`: places of nodes and plates, the same in all panels of a picture, as graphviz finds them."""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations, pairwise
from math import inf
from typing import NamedTuple

import networkx as nx

from .clusters import Clusters, Piece, clusters, outer
from .graphviz import Box, Point, arrange
from .panel import CLEAR, HEIGHT, Panel, node_width, text_width

PAD, TOP, BOTTOM = 13.0, 11.0, 19.0  # from a plate's border to what it holds: at the sides, above, below (its label)
MARGIN = 24.0  # around what a plate holds, for curves and labels
OFF = 5.0  # between the borders of plates that overlap
ROW, COLUMN = 32.0, 36.0  # between nodes
LONG = 24  # rows that edges may skip in all, before those that others imply have no say in the layout
INCH = 72.0


class Places(NamedTuple):
    """Where nodes are, by their centers, and what room each plate or piece of it has: no other node is in there."""

    at: dict[str, Point]
    rooms: dict[Piece, Box]


def place(panels: Sequence[Panel]) -> Places:
    """The places for all panels: laid out for the first directed one, the model; nodes of others join its graph."""
    ranked = sorted(panels, key=lambda panel: not panel.directed)
    nodes = list(dict.fromkeys(node for panel in ranked for node in panel.nodes))
    if not nodes:
        return Places({}, {})
    plates: dict[str, frozenset[str]] = {}
    for panel in panels:
        for plate, members in panel.held().items():
            plates[plate] = plates.get(plate, frozenset()) | members
    parts, graph = clusters(plates, nodes), _graph(ranked)
    loops = dict.fromkeys((u, v) for panel in ranked for u, v, _ in panel.edges if u == v)
    pairs = _ladder(graph, panels)
    graph = _turned(graph, pairs)
    labels = _labels(panels, graph, pairs)
    found = _arranged(nodes, parts, graph, [*loops], pairs, labels)
    # Graphviz keeps neither order nor distance in some rare graphs with many clusters: then it is asked for less.
    for neighbors, sizes in ((True, {}), (False, labels), (False, {})):
        if _sound(found, parts):
            break
        parts = clusters(plates, nodes, neighbors)
        found = _arranged(nodes, parts, graph, [*loops], pairs, sizes)
    return found


def _labels(
    panels: Sequence[Panel], graph: nx.DiGraph, pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], float]:
    """The width that labels take on edges from row to row."""
    widths: dict[tuple[str, str], float] = {}
    for panel in panels:
        for (u, v), words in panel.labels.items():
            for edge in ((u, v), (v, u)):
                if graph.has_edge(*edge) and edge not in pairs and edge[::-1] not in pairs:
                    widths[edge] = max(widths.get(edge, 0.0), text_width(words, 9.5) + 12)
    return widths


def _arranged(
    nodes: Sequence[str],
    parts: Clusters,
    graph: nx.DiGraph,
    loops: Sequence[tuple[str, str]],
    pairs: Sequence[tuple[str, str]],
    labels: Mapping[tuple[str, str], float],
) -> Places:
    """The places of nodes, in clusters, with room for loops, the nodes of a pair in one row."""
    name = {node: f"n{i}" for i, node in enumerate(nodes)}
    lines = [f"graph [newrank=true, splines=none, ranksep={ROW / INCH:.4f}, nodesep={COLUMN / INCH:.4f}]"]
    lines += ['node [shape=box, fixedsize=true, label=""]']
    lines += _boxes(nodes, parts, name)
    lines += [f"{{rank=same; {name[u]}; {name[v]}}}" for u, v in pairs]
    lines += _side_by_side(parts, graph, name)
    for edge in (*graph.edges, *loops):
        label = f" [label={_room(labels[edge], 1)}]" if edge in labels else ""
        lines.append(f"{name[edge[0]]} -> {name[edge[1]]}{label}")
    found = arrange(lines, "dot")
    rooms = {piece: found.clusters[f"cluster{i}"] for i, piece in enumerate(parts.pieces)}
    for plate, cells in parts.over.items():
        rooms[Piece(plate, frozenset().union(*(cell.members for cell in cells)))] = hull([rooms[c] for c in cells])
    return Places({node: found.nodes[name[node]] for node in nodes}, rooms)


def _sound(found: Places, parts: Clusters) -> bool:
    """Whether pieces of a row are in its order, from the left or the right, and edges find a way between nodes."""
    boxes = [around(node, center) for node, center in found.at.items()]
    gaps = (max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3]) for a, b in combinations(boxes, 2))
    rows = [[found.rooms[piece] for piece in row] for row in parts.rows]
    ordered = (
        all(a[2] <= b[0] for a, b in pairwise(row)) or all(b[2] <= a[0] for a, b in pairwise(row)) for row in rows
    )
    return all(ordered) and min(gaps, default=inf) > 2 * CLEAR


def plate_boxes(
    panel: Panel, places: Places, more: Sequence[tuple[tuple[str, str], Box]] = ()
) -> list[tuple[str, Box]]:
    """The boxes of a panel's plates, outer ones first: as small as its nodes allow, within the rooms they have.

    A plate has one box, but where it overlaps others so that a box would hold strangers.

    Args:
        panel: one of those that the places are for.
        places: of nodes, and the rooms of plates.
        more: boxes of what belongs to the edge between two nodes; a plate of both holds it if there is room.
    """
    held, shown = panel.held(), set(panel.nodes)
    boxes: list[tuple[str, Box]] = []
    inside: list[tuple[frozenset[str], Box]] = []
    for piece, room in sorted(reversed(places.rooms.items()), key=lambda item: len(item[0].members)):
        members = piece.members & shown
        if piece.plate is None or piece.plate not in held or not members:
            continue
        rims = [around(node, places.at[node]) for node in members]
        rims += [box for inner, box in inside if inner <= members]
        rims += [box for edge, box in more if {*edge} <= members and within(box, room)]
        off = OFF * sum(bool(other & members) and not other <= members for other, _ in inside)
        left, top, right, bottom = hull(rims)
        left, top, right, bottom = left - PAD - off, top - TOP - off, right + PAD + off, bottom + BOTTOM + off
        narrow = max(0.0, text_width(piece.plate, 10) + 14 - (right - left)) / 2
        shift = max(0.0, room[0] - left + narrow) - max(0.0, right + narrow - room[2])
        box = (left - narrow + shift, top, right + narrow + shift, bottom)
        inside.append((members, box))
        boxes.append((piece.plate, box))
    return boxes[::-1]


def within(box: Box, room: Box) -> bool:
    """Whether a box lies in a room, with the distance that the border of a plate keeps."""
    return room[0] + PAD <= box[0] and box[2] <= room[2] - PAD and room[1] <= box[1] and box[3] <= room[3]


def hull(boxes: Sequence[Box]) -> Box:
    """The smallest box around boxes."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def around(node: str, center: Point) -> Box:
    """The box of a node."""
    x, y, half = *center, node_width(node) / 2
    return x - half, y - HEIGHT / 2, x + half, y + HEIGHT / 2


def _graph(ranked: Sequence[Panel]) -> nx.DiGraph:
    """The edges that decide on places, without cycles."""
    graph: nx.DiGraph = nx.DiGraph()
    for panel in ranked:
        known = set(graph)
        graph.add_nodes_from(panel.nodes)
        for u, v, style in panel.edges:
            # A later panel has a say in its own nodes alone, and nothing closes a cycle.
            own = u != v and style != "missing" and not (u in known and v in known)
            if own and not nx.has_path(graph, v, u):
                graph.add_edge(u, v)
    if ranked:
        graph.add_edges_from((u, v) for u, v in _elements(ranked[0], graph) if not nx.has_path(graph, v, u))
    row = _rows(graph)
    if sum(row[v] - row[u] - 1 for u, v in graph.edges) > LONG:
        return nx.transitive_reduction(graph)
    return graph


def _elements(model: Panel, nodes: Collection[str]) -> list[tuple[str, str]]:
    """From the elements of a site, z1.0 and so on, to those of the sites below it."""
    of: dict[str, list[str]] = {}
    for node in nodes:
        of.setdefault(node.rpartition(".")[0], []).append(node)
    return [(u, v) for a, b, _ in model.edges if a != b for u in of.get(a, ()) for v in of.get(b, ())]


def _rows(graph: nx.DiGraph) -> dict[str, int]:
    return {node: i for i, layer in enumerate(nx.topological_generations(graph)) for node in layer}


def _boxes(nodes: Sequence[str], parts: Clusters, name: Mapping[str, str]) -> list[str]:
    """Each node once, in the cluster of its innermost piece, and clusters in clusters."""
    pieces = parts.pieces
    innermost = {node: max((i for i, p in enumerate(pieces) if node in p.members), default=-1) for node in nodes}
    parents, heads = outer(pieces), _heads(parts)

    def lines(inside: int) -> list[str]:
        found = []
        if inside >= 0 and pieces[inside] in heads:
            found.append(f"{heads[pieces[inside]]} [shape=point, width=0.01, height=0.01]")
        for node in (node for node in nodes if innermost[node] == inside):
            found.append(f"{name[node]} [width={node_width(node) / INCH:.4f}, height={HEIGHT / INCH:.4f}]")
        below = [i for i, parent in enumerate(parents) if parent == inside]
        for i in sorted(below, key=lambda i: heads.get(pieces[i], "")):  # those of a row in its order
            longest = max((text_width(plate, 10) for plate in _named(pieces[i], parts)), default=0.0)
            label = f"label={_room(longest + 14, 14)}; labelloc=b" if longest else 'label=""'
            found += [f"subgraph cluster{i} {{ margin={MARGIN}; {label}", *lines(i), "}"]
        return found

    return lines(-1)


def _room(width: float, height: float) -> str:
    """Room for a label: graphviz has fonts of its own, so that it is not told of the label."""
    size = f"fixedsize='true' width='{width:.0f}' height='{height:.0f}'"
    return f"<<table border='0' {size}><tr><td></td></tr></table>>"


def _named(piece: Piece, parts: Clusters) -> list[str]:
    """The plates whose name may stand in a piece."""
    return [piece.plate] if piece.plate is not None else [p for p, cells in parts.over.items() if piece in cells]


def _heads(parts: Clusters) -> dict[Piece, str]:
    """The name of an invisible node on top of each piece of a row."""
    return {piece: f"h{i:03}" for i, piece in enumerate(piece for row in parts.rows for piece in row)}


def _side_by_side(parts: Clusters, graph: nx.DiGraph, name: Mapping[str, str]) -> list[str]:
    """Pieces of a row in their order: their heads share a rank, and clusters that share a rank never overlap."""
    heads, found = _heads(parts), []
    for row in parts.rows:
        found.append(f"{{rank=same; {'; '.join(heads[piece] for piece in row)}}}")
        found += [f"{heads[a]} -> {heads[b]} [style=invis]" for a, b in pairwise(row)]
        for piece in row:
            top = [node for node in name if node in piece.members and not piece.members & {*graph.pred[node]}]
            found += [f"{heads[piece]} -> {name[node]} [style=invis]" for node in top]
    return found


def _turned(graph: nx.DiGraph, pairs: Sequence[tuple[str, str]]) -> nx.DiGraph:
    """The graph with the ladder's latents on the side of what governs several of them, the data on the other."""
    ladder, hosts = {node for pair in pairs for node in pair}, {host for host, _ in pairs}
    above = {node for node in graph if node not in ladder and len(hosts & {*graph.succ[node]}) > 1}
    turned = graph.copy()
    for host, x in pairs if above else ():
        turned.remove_edges_from([(host, x), *((u, x) for u in above if turned.has_edge(u, x))])
        if not nx.has_path(turned, host, x):
            turned.add_edge(x, host)
    return turned


def _ladder(graph: nx.DiGraph, panels: Sequence[Panel]) -> list[tuple[str, str]]:
    """(latent, observed) that stand side by side, as on a ladder: what each step of a state space emits."""
    observed, row = frozenset().union(*(panel.observed for panel in panels)), _rows(graph)
    hosts = {}
    for x in (node for node in graph if node in observed):
        above = [u for u in graph.pred[x] if u not in observed]
        if above:
            hosts[x] = max(above, key=lambda u: row[u])
    rows = [row[host] for host in hosts.values()]
    return [(host, x) for x, host in hosts.items()] if len(rows) > 1 and len(set(rows)) == len(rows) else []
