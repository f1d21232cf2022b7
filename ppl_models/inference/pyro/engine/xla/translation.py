"""`Translation`: a captured graph of torch's operations as a function of JAX arrays, with its draws lifted out."""

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ..capture import capture
from ..recorder import NotCapturable
from .aten import CONTIGUOUS, TABLE
from .aten.rows import dtype_of
from .in_place import last_reader, ordered

# a normalization that writes its running moments, though its schema does not say so, and the one that gives them
SILENT = torch.ops.aten.native_batch_norm.default
TOLD = torch.ops.aten._native_batch_norm_legit_functional.default
# draws that fill a tensor, whatever it held; functions of such a name that read it; and those that draw another like it
FILLS = {"normal_", "uniform_", "bernoulli_", "exponential_", "geometric_", "cauchy_", "log_normal_", "random_"}
READ = {
    f"aten.{name}" for name in ("bernoulli.default", "bernoulli.Tensor", "normal.Tensor_float", "normal.Tensor_Tensor")
}
LIKE: dict[str, Callable[[Tensor], object]] = {"rand_like": Tensor.uniform_, "randn_like": Tensor.normal_}


class Draw(NamedTuple):
    """A draw that depends on no tensor: torch makes it before the graph runs, with its own generator.

    Attributes:
        fill: fills an empty tensor with it.
        shape, strides, dtype: of that tensor.
    """

    fill: Callable[[Tensor], object]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    def __call__(self) -> Tensor:
        """Draw once."""
        drawn = torch.empty_strided(self.shape, self.strides, dtype=self.dtype)
        self.fill(drawn)
        return drawn

    def into(self, row: Tensor) -> None:
        """Draw into a tensor of the same shape, in the order of memory that a draw of its own would have."""
        if row.stride() == self.strides:
            self.fill(row)
        else:
            row.copy_(self())


class Part(NamedTuple):
    """A tensor in a buffer of several, which is an input of a graph.

    Attributes:
        place: the number of the input.
        start, end: of it there.
        shape: of the tensor.
    """

    place: int
    start: int
    end: int
    shape: tuple[int, ...]

    def of(self, whole: Any) -> Any:
        """The part of a buffer, a tensor or an array."""
        return whole[self.start : self.end].reshape(self.shape)


class Translation:
    """The work of a graph as a function of JAX arrays.

    Args:
        graph: of aten operations, each node with a tensor without values like the one that it gives (`meta["val"]`).
        inputs: of the graph.

    Attributes:
        draws: in the order of the graph, which is that of torch's generator.
        written: the inputs that the graph writes, by number.
        given: the nodes whose arrays are handed over: inputs, draws and parts.
        parts: of buffers that it writes, as it reads them. As arrays of their own they let layers of one shape share
            their code, which halves the time to compile.

    Raises:
        NotCapturable: an operation is not in the table, or a draw depends on tensors; the message names it.
    """

    def __init__(self, graph: GraphModule, inputs: Sequence[Tensor]) -> None:
        # as captured: later ones do not tell how the memory lies that a draw fills
        self.draws = [_draw(node) for node in graph.graph.nodes if _draws(node)]
        if not _only_writes(graph):
            graph, _ = capture(torch.func.functionalize(graph), inputs)
        self.places = {node: i for i, node in enumerate(graph.graph.find_nodes(op="placeholder"))}
        origin: dict[Node, Node] = {}
        for node in graph.graph.find_nodes(op="call_function", target=SILENT):
            _tell_moments(node, origin)
        self.nodes = list(graph.graph.nodes)
        self.drawn = {node: i for i, node in enumerate(node for node in self.nodes if _draws(node))}
        missing = {name for node in self.nodes if (name := self._untold(node)) is not None}
        if missing:
            raise NotCapturable(f"JAX has no translation of {', '.join(sorted(missing))} here")
        self.copies = {self.places[node.args[0]]: node for node in self.nodes if copies(node)}
        self.written = sorted(self.copies)
        order = {node: i for i, node in enumerate(self.nodes)}
        # what is written to inputs, and of each the last that reads it
        self.news = {node.args[1]: (node.args[0], last_reader(node.args[0], order)) for node in self.copies.values()}
        found = {node: self._part(node) for node in self.nodes if str(node.target) == "aten.view.default"}
        self.parted = {node: part for node, part in found.items() if part is not None}
        self.parts = list(self.parted.values())
        self.outputs = list(self.nodes[-1].args[0])
        self.given = [*self.places, *self.drawn, *self.parted]

    def __call__(self, *arrays: jax.Array) -> tuple[list, list]:
        """(outputs, what the inputs of `written` hold afterwards) of inputs, draws and parts, in this order."""
        values: dict[Node, Any] = dict(zip(self.given, arrays, strict=True))
        for node in self.nodes:
            if node not in values and node.op == "call_function":
                values[node] = computed(node, values)
                if node in self.news:
                    old, reader = self.news[node]
                    values[node] = ordered(values[node], values[old], values.get(reader))
        return [values[node] for node in self.outputs], [values[self.copies[i]] for i in self.written]

    def _part(self, node: Node) -> Part | None:
        """The part of a written buffer that a view is, if it is one."""
        piece, shape = node.args[:2]
        if str(piece.target) != "aten.slice.Tensor" or self.places.get(piece.args[0]) not in self.written:
            return None
        _, dim, start, end, *step = piece.args
        known = (
            all(isinstance(n, int) for n in (start, end, *shape)) and 0 <= start <= end and min(shape, default=0) >= 0
        )
        flat = dim == 0 and step in ([], [1]) and known and prod(shape) == end - start
        return Part(self.places[piece.args[0]], start, end, tuple(shape)) if flat else None

    def _untold(self, node: Node) -> str | None:
        """The name of an operation that the table lacks."""
        known = node.op != "call_function" or node in self.drawn or node.target is operator.getitem
        known = known or copies(node) or str(node.target) in TABLE
        laid = [n.meta["val"] for n in node.all_input_nodes] if str(node.target) in CONTIGUOUS else []
        known = known and all(t.is_contiguous() for t in laid if isinstance(t, Tensor))
        return None if known else str(node.target).removesuffix(".default")


def computed(node: Node, values: Mapping[Node, Any]) -> Any:
    """What an operation gives, of the arrays that other nodes have given."""
    if copies(node):
        into = node.args[0].meta["val"]
        return jnp.broadcast_to(values[node.args[1]], into.shape).astype(dtype_of(into.dtype))
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    return _typed(TABLE.get(str(node.target), node.target)(*args, **kwargs), node.meta.get("val"))


def copies(node: Node) -> bool:
    """Whether a node writes what another gives to an input."""
    return str(node.target) == "aten.copy_.default"


def _tell_moments(node: Node, origin: dict[Node, Node]) -> None:
    """Let a normalization that writes its running moments give them, and write them by copies.

    `origin` has the inputs of moments that a normalization of before gave, and gets those of this one.

    Raises:
        NotCapturable: they are no inputs.
    """
    moments = node.args[3:5]
    if not node.args[5] or None in moments:
        return
    if any(origin.get(moment, moment).op != "placeholder" for moment in moments):
        raise NotCapturable("a normalization keeps its running moments in a part of another tensor")
    node.target, graph = TOLD, node.graph
    for i, moment in enumerate(moments, 3):
        later = [user for user in moment.users if user > node]
        with graph.inserting_after(node):
            new = graph.call_function(operator.getitem, (node, i))
        with graph.inserting_after(new):
            graph.call_function(torch.ops.aten.copy_.default, (origin.get(moment, moment), new))
        new.meta["val"], origin[new] = moment.meta["val"], origin.get(moment, moment)
        for user in later:
            user.replace_input_with(moment, new)
    node.meta["val"] = [*node.meta["val"], *(moment.meta["val"] for moment in moments)]


def _only_writes(graph: GraphModule) -> bool:
    """Whether a graph writes inputs alone, by `copy_` after all that reads them, and empty tensors by draws."""
    order = {node: i for i, node in enumerate(graph.graph.nodes)}
    for node in graph.graph.nodes:
        if not getattr(getattr(node.target, "_schema", None), "is_mutable", False):
            continue
        into = node.args[0]
        filled = torch.Tag.nondeterministic_seeded in node.target.tags and _is_empty(into) and len(into.users) == 1
        written = copies(node) and into.op == "placeholder" and _last_read(into, order, node) <= order[node]
        if not (filled or written):
            return False
    return True


def _last_read(node: Node, order: Mapping[Node, int], write: Node) -> int:
    """The place of the last node that reads the memory of a node, of itself or by a view."""
    last = order[node]
    for user in node.users:
        returns = user.target._schema.returns if isinstance(user.target, torch._ops.OpOverload) else ()
        views = user.target is operator.getitem or (user is not write and any(r.alias_info for r in returns))
        last = max(last, _last_read(user, order, write) if views else order[user])
    return last


def _is_empty(node: Any) -> bool:
    """Whether a node makes a tensor without values."""
    name = str(node.target) if isinstance(node, Node) else ""
    return name.startswith(("aten.empty", "aten.new_empty"))


def _draws(node: Node) -> bool:
    return node.op == "call_function" and torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _draw(node: Node) -> Draw:
    """The draw of a node that depends on no tensor.

    Raises:
        NotCapturable: it depends on one.
    """
    like, name = node.meta["val"], node.target._schema.name.removeprefix("aten::")
    method = name.removesuffix("_functional").removesuffix("_") + "_"
    if name in LIKE:
        fill = LIKE[name]
    elif method in FILLS and str(node.target) not in READ and node.args and isinstance(node.args[0], Node):
        fill = partial(_filled, method, node.args[1:], node.kwargs)
    else:  # one that makes its own tensor
        fill = partial(_copied, node.target, node.args, node.kwargs)
    used = [] if name in LIKE else [*fill.args[1], *fill.args[2].values()]
    if not isinstance(like, Tensor) or any(isinstance(x, Node) for x in used):
        raise NotCapturable(f"the draw {str(node.target).removesuffix('.default')} depends on a tensor")
    return Draw(fill, tuple(like.shape), tuple(like.stride()), like.dtype)


def _filled(method: str, args: Sequence[Any], kwargs: dict[str, Any], into: Tensor) -> object:
    return getattr(into, method)(*args, **kwargs)


def _copied(function: Callable[..., Tensor], args: Sequence[Any], kwargs: dict[str, Any], into: Tensor) -> object:
    return into.copy_(function(*args, **kwargs))


def _typed(found: Any, like: Any) -> Any:
    """Arrays of the types that torch gives; a number of Python becomes one."""
    if isinstance(found, list | tuple):
        likes = like if isinstance(like, list | tuple) else [None] * len(found)
        return [_typed(each, other) for each, other in zip(found, likes, strict=True)]
    if not isinstance(like, Tensor) or found is None:
        return found
    return jnp.asarray(found).astype(dtype_of(like.dtype))
