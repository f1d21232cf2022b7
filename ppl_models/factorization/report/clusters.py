"""`clusters`: plates as clusters of graphviz, which nest and never overlap, though plates do."""

from collections.abc import Mapping, Sequence
from itertools import pairwise, permutations
from typing import NamedTuple

import networkx as nx

CELLS = 6  # of overlapping plates, for which an order is looked for


class Piece(NamedTuple):
    """A cluster: a plate, or where plates overlap a part of one. It holds, or lies in, all others that it meets.

    Args:
        plate: whose part it is; None for what only keeps nodes together.
        members: its nodes.
    """

    plate: str | None
    members: frozenset[str]


class Clusters(NamedTuple):
    """The plates of a picture as clusters.

    Args:
        pieces: outer ones first.
        rows: pieces that stand side by side, so that each of some plates that overlap is a row of neighbors.
        over: those plates, each with its neighbors.
    """

    pieces: tuple[Piece, ...]
    rows: tuple[tuple[Piece, ...], ...]
    over: dict[str, tuple[Piece, ...]]


def clusters(plates: Mapping[str, frozenset[str]], nodes: Sequence[str], neighbors: bool = True) -> Clusters:
    """The clusters of plates: a plate is one, or neighbors, or where neither can be pieces that each bear its name.

    Args:
        plates: the nodes in each.
        nodes: all nodes, in their order.
        neighbors: whether plates that overlap may be rows of neighbors.
    """
    graph: nx.Graph = nx.Graph()
    graph.add_nodes_from(plates)
    graph.add_edges_from((p, q) for p in plates for q in plates if _cross(plates[p], plates[q]))
    rows, over = [], {}
    for found in nx.connected_components(graph):
        group = [plate for plate in plates if plate in found]
        row = _row({plate: plates[plate] for plate in group}, nodes) if neighbors and len(group) > 1 else ()
        if row:
            rows.append(row)
            over |= {plate: tuple(cell for cell in row if cell.members <= plates[plate]) for plate in group}
    parts = [Piece(None, frozenset().union(*(cell.members for cell in row))) for row in rows]
    parts += [cell for row in rows for cell in row]
    parts += [Piece(plate, members) for plate, members in plates.items() if plate not in over]
    return Clusters(_nested(parts, nodes), tuple(rows), over)


def outer(pieces: Sequence[Piece]) -> list[int]:
    """For each piece the place of the one around it; -1 for none."""
    return [
        max((j for j in range(i) if piece.members <= pieces[j].members), default=-1) for i, piece in enumerate(pieces)
    ]


def _row(plates: Mapping[str, frozenset[str]], nodes: Sequence[str]) -> tuple[Piece, ...]:
    """The nodes of overlapping plates by the plates they are in, in an order in which no plate has a gap; or none."""
    cells: dict[tuple[bool, ...], list[str]] = {}
    for node in nodes:
        signature = tuple(node in members for members in plates.values())
        if any(signature):
            cells.setdefault(signature, []).append(node)
    for order in permutations(cells) if len(cells) <= CELLS else ():
        starts = [sum(b and not a for a, b in pairwise((False, *inside))) for inside in zip(*order, strict=True)]
        if max(starts) == 1:
            return tuple(Piece(None, frozenset(cells[signature])) for signature in order)
    return ()


def _nested(parts: Sequence[Piece], nodes: Sequence[str]) -> tuple[Piece, ...]:
    """The parts, outer ones first; one that overlaps another is cut along it. Of equals, the first is the outer."""
    order = {node: i for i, node in enumerate(nodes)}
    pieces: list[Piece] = []
    for plate, members in sorted(parts, key=lambda part: -len(part.members)):
        cut = [members]
        for _, other in pieces:
            cut = [p for part in cut for p in ((part & other, part - other) if _cross(part, other) else (part,))]
        pieces += [Piece(plate, part) for part in sorted(cut, key=lambda part: min(order[node] for node in part))]
    return tuple(sorted(pieces, key=lambda piece: -len(piece.members)))


def _cross(a: frozenset[str], b: frozenset[str]) -> bool:
    return bool(a & b) and not (a <= b or b <= a)
