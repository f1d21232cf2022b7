"""`Recorder`: writes what tensors go through, operation by operation, into a graph, while it is computed."""

import operator
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

READ = "the value of a tensor is read in Python (item(), float(), or an if on it: aten._local_scalar_dense)"
LEAVE = {  # ways of values past the recorder
    Tensor.tolist,
    Tensor.numpy,
    Tensor.__array__,
    Tensor.__dlpack__,
    Tensor.__deepcopy__,
    Tensor.data.__set__,
}
MOMENTS = {"running_mean", "running_var"}  # arguments that a normalization writes, though its schema does not say so
ATEN = torch.ops.aten


class NotCapturable(Exception):
    """Why a program cannot be captured, in one line."""


class Recorder(TorchDispatchMode):
    """Records all operations on tensors inside it, and refuses those that need values.

    A node is an operation below autograd and Pyro, with `meta["val"]`, a tensor without values like the one that it
    gives. Tensors met inside that are no inputs (parameters, constants) become inputs after the others.

    Args:
        inputs: of the graph, one at least.

    Attributes:
        graph: what was recorded.
        held: the tensors that it met, in the order of their inputs.

    Raises:
        NotCapturable: an operation reads a value, gives a shape that depends on values, or draws from a generator of
            its own.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.graph = Graph()
        self.held: list[Tensor] = []
        self.outer: dict[int, tuple[Tensor, Node]] = {}  # tensors from outside, and what they are now
        self.memory: set[int] = set()  # theirs
        self.stained: set[int] = set()  # the memory of constants into which something else was written
        self.written: dict[int, tuple[Tensor, Tensor]] = {}  # tensors of that memory, and what they held
        for i, tensor in enumerate(inputs):
            self.last = self.graph.placeholder(f"input_{i}")
            self._enter(tensor, self.last, _like(tensor))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        recorded, named = self.node_of(args), self.node_of(kwargs)
        tensors = list(_tensors((args, kwargs)))
        fixed = all(self._is_constant(x) for x in tensors)
        if not fixed:
            _refuse(func, args, kwargs)
        self._written(func, args, kwargs, fixed)
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor | list | tuple | None):
            return result  # a number that depends on nothing
        if func is ATEN.lift_fresh.default:  # a number that became a tensor, which every run makes anew
            func, fixed = ATEN.lift_fresh_copy.default, True
        node = self.graph.call_function(func, recorded, named)
        node.meta["fixed"] = fixed and torch.Tag.nondeterministic_seeded not in func.tags
        self._leave(result, node)
        return result

    def node_of(self, x: Any) -> Any:
        """An argument of a node: tensors, in whatever lists, are the nodes that gave them."""
        if isinstance(x, Tensor):
            return self._node(x)
        if type(x) in (list, tuple):
            return type(x)([self.node_of(each) for each in x])
        if type(x) is dict:
            return {name: self.node_of(each) for name, each in x.items()}
        if isinstance(x, torch.Generator):
            raise NotCapturable("the programs draw from a generator of their own, which a graph cannot repeat")
        return x

    @torch.no_grad()
    def restore(self) -> None:
        """Give what was written its values of before."""
        for tensor, before in reversed(self.written.values()):
            tensor.copy_(before)
        self.written = {}

    def _node(self, tensor: Tensor) -> Node:
        node = getattr(tensor, "_recorded", None)
        if node is not None and node.graph is self.graph:
            return node
        if id(tensor) not in self.outer:
            with self.graph.inserting_after(self.last):
                self.last = self.graph.placeholder(f"held_{len(self.held)}")
            self.held.append(tensor)
            self._enter(tensor, self.last, tensor)
        return self.outer[id(tensor)][1]

    def _enter(self, tensor: Tensor, node: Node, like: Tensor) -> None:
        node.meta["val"] = like
        self.outer[id(tensor)] = tensor, node
        self.memory.add(_memory(tensor))

    def _leave(self, result: Any, node: Node) -> None:
        """Let the tensors of a result be those of a node."""
        if isinstance(result, Tensor):
            node.meta["val"] = _like(result)
            if id(result) in self.outer:
                self.outer[id(result)] = result, node
            else:
                result._recorded = node  # and no longer than the tensor
        elif result is not None:
            node.meta["val"] = [_like(x) if isinstance(x, Tensor) else x for x in result]
            for i, x in enumerate(result):
                if isinstance(x, Tensor):
                    part = self.graph.call_function(operator.getitem, (node, i))
                    part.meta["fixed"] = node.meta["fixed"]
                    self._leave(x, part)

    def _is_constant(self, tensor: Tensor) -> bool:
        """Whether the values of a tensor depend on no input, no parameter and no draw."""
        fixed = self._node(tensor).meta.get("fixed", False)
        return fixed and not (self.stained and _memory(tensor) in self.stained)

    def _written(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], fixed: bool) -> None:
        """Remember what an operation will write to."""
        into = _into(func)
        given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs if into else {}
        for tensor in _tensors([given.get(name) for name in into]):
            if not fixed:
                self.stained.add(_memory(tensor))
            if _memory(tensor) in self.memory and id(tensor) not in self.written:
                self.written[id(tensor)] = tensor, tensor.detach().clone()


class Values(TorchFunctionMode):
    """Refuses to hand a tensor's values to Python or NumPy, where `Recorder` would not see it; and checks no values.

    Distributions made while Pyro's validation was on (the priors of PyroSample) check every value that they score.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in LEAVE:
            raise NotCapturable(f"the values of a tensor leave for Python ({func.__name__}())")
        if func is torch._is_all_true:  # what distributions ask
            return True
        return func(*args, **(kwargs or {}))


@cache
def _into(func: Any) -> list[str]:
    """The arguments that an operation writes to."""
    found = func._schema.arguments
    return [a.name for a in found if a.name in MOMENTS or (a.alias_info is not None and a.alias_info.is_write)]


def _refuse(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """
    Raises:
        NotCapturable: an operation needs the values of tensors that are no constants.
    """
    if func is ATEN._local_scalar_dense.default:
        raise NotCapturable(READ)
    dynamic = torch.Tag.dynamic_output_shape in func.tags
    if func is ATEN.index.Tensor:  # as many rows as a mask says
        dynamic = any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
    if func is ATEN.repeat_interleave.Tensor:
        dynamic = kwargs.get("output_size") is None
    if dynamic or torch.Tag.data_dependent_output in func.tags:
        raise NotCapturable(f"{str(func).removesuffix('.default')} has no static graph")


def _tensors(x: Any) -> Sequence[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    each = x.values() if isinstance(x, dict) else x if isinstance(x, list | tuple) else ()
    return [tensor for one in each for tensor in _tensors(one)]


def _like(tensor: Tensor) -> Tensor:
    """A tensor of the same shape that has no memory."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
