"""`Pieces`: a long graph as many compiled functions, one after the other; those that are alike are compiled once."""

import operator
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import torch
from torch.fx import Node

from .aten.rows import dtype_of
from .cutting import cuts, shapes
from .in_place import VIEWS
from .shifts import dim_of, place, shifted
from .translation import Translation, computed, copies

# operations from which a graph is cut: up to there one function is faster, and is compiled in half a minute
LONG = 10_000


@dataclass(eq=False)
class Piece:
    """Some operations of a graph.

    Attributes:
        nodes: in order, with the views that they need.
        inputs: nodes of other pieces, or of none, that they read.
        outputs: those that others read, or that are written.
        shifts: those of the nodes whose places are handed over as numbers, after the inputs.
    """

    nodes: list[Node]
    inputs: list[Node]
    outputs: list[Node]

    def __post_init__(self) -> None:
        self.shifts = {node: at for node in self.nodes if (at := place(node)) is not None}

    def __call__(self, *arrays: jax.Array) -> list[jax.Array]:
        """The outputs."""
        count = len(self.inputs)
        values = dict(zip(self.inputs, arrays[:count], strict=True))
        places = dict(zip(self.shifts, arrays[count:], strict=True))
        for node in self.nodes:
            moved = node in places
            values[node] = shifted(node, values[node.args[0]], places[node]) if moved else computed(node, values)
        return [values[node] for node in self.outputs]

    def key(self) -> Any:
        """What is the same of pieces that do the same to arrays of the same shapes."""
        known: dict[Node, Any] = {node: i for i, node in enumerate([*self.inputs, *self.nodes])}

        def told(x: Any) -> Any:
            if isinstance(x, list | tuple):
                return tuple(told(each) for each in x)
            return known.get(x, shapes(x)) if isinstance(x, Node) else repr(x)

        args = lambda n: (n.args[0], dim_of(n)) if n in self.shifts else n.args  # noqa: E731
        done = [(str(n.target), told(args(n)), told(tuple(n.kwargs.items())), shapes(n)) for n in self.nodes]
        return tuple(done), tuple(map(shapes, self.inputs)), tuple(map(known.get, self.outputs))


class Pieces:
    """The work of a translation in pieces.

    Args:
        translation: of a graph.
    """

    def __init__(self, translation: Translation) -> None:
        pieces = _pieces(translation)
        keys = [piece.key() for piece in pieces]
        with _side_by_side() as compiled:
            futures = {key: compiled(piece) for key, piece in dict(zip(keys, pieces, strict=True)).items()}
            found = {key: future.result() for key, future in futures.items()}
        # each value has a slot, first those that are handed over; it is empty once nobody will ask for it
        slots = {node: i for i, node in enumerate(translation.given)}
        for node in (node for piece in pieces for node in piece.outputs):
            slots[node] = len(slots)
        self.empty = [None] * (len(slots) - len(translation.given))
        self.outputs = [slots[node] for node in translation.outputs]
        self.written = [slots[translation.copies[i]] for i in translation.written]
        last = {node: i for i, piece in enumerate(pieces) for node in piece.inputs}
        kept = {*translation.outputs, *translation.copies.values()}
        self.steps = [
            (
                found[key],
                [slots[x] for x in piece.inputs],
                [jnp.asarray(at, jnp.int32) for at in piece.shifts.values()],
                [slots[x] for x in piece.outputs],
                [slots[x] for x in piece.inputs if last[x] == i and x not in kept],
            )
            for i, (key, piece) in enumerate(zip(keys, pieces, strict=True))
        ]

    def __call__(self, *arrays: Any) -> tuple[list, list]:
        """As `Translation`."""
        values = [*arrays, *self.empty]
        for run, read, places, write, done in self.steps:
            for i, array in zip(write, run(*[values[i] for i in read], *places), strict=True):
                values[i] = array
            for i in done:
                values[i] = None
        return [values[i] for i in self.outputs], [values[i] for i in self.written]


def _pieces(translation: Translation) -> list[Piece]:
    """The pieces of a graph, in order."""
    given = {*translation.given}
    nodes = [node for node in translation.nodes if node.op == "call_function" and node not in given]
    edges, owner = cuts(nodes), {}  # type: list[int], dict[Node, int]
    for k, (start, end) in enumerate(zip(edges, edges[1:], strict=False)):
        for node in nodes[start:end]:  # the parts of a tuple stay with it
            owner[node] = owner[node.args[0]] if node.target is operator.getitem else k
    final = {*translation.outputs, *translation.copies.values()}
    members: list[list[Node]] = [[] for _ in edges[1:]]
    for node in nodes:
        if str(node.target) not in VIEWS or node in final:
            members[owner[node]].append(node)
    pieces = [_piece(each, k, owner) for k, each in enumerate(members)]
    asked = final.union(*(piece.inputs for piece in pieces))
    for k, piece in enumerate(pieces):
        piece.outputs = [node for node in piece.nodes if owner[node] == k and node in asked]
    return [piece for piece in pieces if piece.outputs]


def _piece(members: Sequence[Node], k: int, owner: dict[Node, int]) -> Piece:
    """A piece whose outputs are not yet known."""
    nodes: dict[Node, None] = {}
    inputs: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node in nodes or node in inputs:
            return
        if owner.get(node) == k or (node in owner and str(node.target) in VIEWS):
            for read in node.all_input_nodes[copies(node) :]:  # not what is written
                visit(read)
            nodes[node] = None
        else:
            inputs[node] = None

    for node in members:
        visit(node)
    return Piece([*nodes], [*inputs], [])


@contextmanager
def _side_by_side() -> Iterator[Callable[[Piece], Future]]:
    """A function that lets a piece be compiled, on as many threads as torch has."""
    pool = ThreadPoolExecutor(torch.get_num_threads())

    def compiled(piece: Piece) -> Future:
        like = [jax.ShapeDtypeStruct(*_array(node)) for node in piece.inputs]
        like += [jax.ShapeDtypeStruct((), jnp.int32)] * len(piece.shifts)
        return pool.submit(jax.jit(piece).lower(*like).compile)

    try:
        yield compiled
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _array(node: Node) -> tuple[Any, Any]:
    shape, dtype = shapes(node)
    return shape, dtype_of(dtype)
