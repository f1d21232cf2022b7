"""`Recorder`: writes what tensors go through, operation by operation, into a graph, while it is computed."""

import operator
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.multiprocessing.reductions import StorageWeakRef
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
    torch.utils.dlpack.to_dlpack,
}
MOMENTS = {"running_mean", "running_var"}  # arguments that a normalization writes, though its schema does not say so
FACTORIES = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}  # of numbers, also those of tensors
PLAIN = (bool, int, float, complex, str, torch.dtype, torch.device, torch.layout, torch.memory_format)
ATEN = torch.ops.aten
LAID_ANEW = {ATEN.resize_.default, ATEN.set_.source_Tensor, ATEN.set_.source_Storage, ATEN.set_.default} | {
    ATEN.set_.source_Storage_storage_offset
}


class NotCapturable(Exception):
    """Why a program cannot be captured, in one line."""


class Miscompiled(NotCapturable):
    """What a compiler has made of a captured step is another step, or fails: another compiler may do better."""


class Mark:
    """The node that gave a tensor, as an attribute of it, which no copy of the tensor takes along."""

    __slots__ = ("node",)

    def __init__(self, node: Node | None = None) -> None:
        self.node = node

    def __reduce__(self) -> Any:
        return Mark, ()


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
        NotCapturable: an operation reads a value, gives a shape that depends on values, draws from a generator of its
            own or from one that was set anew, or a tensor was made of others by what is no operation.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.graph = Graph()
        self.held: list[Tensor] = []
        self.outer: dict[int, tuple[Tensor, Node]] = {}  # tensors from outside, and what they are now
        self.memory: set[int] = set()  # theirs
        # memory that operations made, and that of constants into which something else was written; while there is a
        # weak reference to it, no other memory has its address
        self.made: dict[int, StorageWeakRef] = {}
        self.stained: dict[int, StorageWeakRef] = {}
        self.generator = torch.get_rng_state()  # as the last draw left it
        self.written: dict[int, tuple[Tensor, Tensor]] = {}  # tensors of that memory, and what they held
        for i, tensor in enumerate(inputs):
            self.last = self.graph.placeholder(f"input_{i}")
            self._enter(tensor, self.last, _like(tensor))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "profiler":
            return func(*args, **kwargs)
        if func is ATEN.lift_fresh.default:  # numbers that became a tensor, which every run makes anew
            self._hold(args[0])
        recorded, named = self.node_of(args), self.node_of(kwargs)
        tensors = list(_tensors((args, kwargs)))
        fixed = all(self._is_constant(x) for x in tensors)
        if not fixed:
            _refuse(func, args, kwargs)
        random = torch.Tag.nondeterministic_seeded in func.tags
        if random and not torch.equal(self.generator, torch.get_rng_state()):
            raise NotCapturable("the programs set torch's generator, which a graph does not")
        self._written(func, args, kwargs, fixed and not random)
        result = func(*args, **kwargs)
        if random:
            self.generator = torch.get_rng_state()
        if not isinstance(result, Tensor | list | tuple | None):
            return result  # a number that depends on nothing
        if func is ATEN.lift_fresh.default:
            func, fixed = ATEN.lift_fresh_copy.default, True
        node = self.graph.call_function(func, recorded, named)
        node.meta["fixed"] = fixed and not random
        self._leave(result, node)
        return result

    def node_of(self, x: Any) -> Any:
        """An argument of a node: tensors, in whatever lists, are the nodes that gave them."""
        if isinstance(x, Tensor):
            return self._node(x)
        if isinstance(x, list | tuple):
            return (list if isinstance(x, list) else tuple)([self.node_of(each) for each in x])
        if type(x) is dict:
            return {name: self.node_of(each) for name, each in x.items()}
        if isinstance(x, torch.Generator):
            raise NotCapturable("the programs draw from a generator of their own, which a graph cannot repeat")
        if x is not None and not isinstance(x, PLAIN):
            raise NotCapturable(f"an operation on a {type(x).__name__} has no static graph")
        return x

    @torch.no_grad()
    def restore(self) -> None:
        """Give what was written its values of before."""
        for tensor, before in reversed(self.written.values()):
            tensor.copy_(before)
        self.written = {}

    def _node(self, tensor: Tensor) -> Node:
        node = getattr(tensor, "_recorded", Mark()).node
        if node is not None and node.graph is self.graph:
            return node
        if id(tensor) not in self.outer:
            memory = _memory(tensor)
            if memory in self.made and not self.made[memory].expired():
                raise NotCapturable("a tensor is made of another's memory by what is no operation (as a Parameter is)")
            self._hold(tensor)
        return self.outer[id(tensor)][1]

    def _hold(self, tensor: Tensor) -> None:
        """Let a tensor that was met inside be an input."""
        with self.graph.inserting_after(self.last):
            self.last = self.graph.placeholder(f"held_{len(self.held)}")
        self.held.append(tensor)
        self._enter(tensor, self.last, tensor)

    def _make(self, tensor: Tensor) -> None:
        if tensor.layout == torch.strided and (memory := _memory(tensor)) not in self.memory:
            self.made.setdefault(memory, StorageWeakRef(tensor.untyped_storage()))

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
                result._recorded = Mark(node)  # and no longer than the tensor
            self._make(result)
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
                self.stained[_memory(tensor)] = StorageWeakRef(tensor.untyped_storage())
            outside = _memory(tensor) in self.memory
            if outside and (torch.Tag.inplace_view in func.tags or func in LAID_ANEW):
                raise NotCapturable(f"{str(func).removesuffix('.default')} on what lies outside has no static graph")
            if outside and id(tensor) not in self.written:
                self.written[id(tensor)] = tensor, tensor.detach().clone()


class Values(TorchFunctionMode):
    """Refuses to hand a tensor's values to Python or NumPy, where `Recorder` would not see it; and checks no values.

    Distributions made while Pyro's validation was on (the priors of PyroSample) check every value that they score.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in LEAVE or (func in FACTORIES and _made_of_tensors(func, args, kwargs or {})):
            raise NotCapturable(f"the values of a tensor leave for Python ({func.__name__}())")
        if func is torch._is_all_true:  # what distributions ask
            return True
        return func(*args, **(kwargs or {}))


@cache
def _into(func: Any) -> list[str]:
    """The arguments that an operation writes to."""
    found = func._schema.arguments
    return [a.name for a in found if a.name in MOMENTS or (a.alias_info is not None and a.alias_info.is_write)]


def writes(node: Node) -> bool:
    """Whether an operation writes to what it is given."""
    return isinstance(node.target, torch._ops.OpOverload) and bool(_into(node.target))


def _made_of_tensors(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether a factory would read the values of tensors."""
    first = int(func is Tensor.new_tensor)
    data = args[first] if len(args) > first else kwargs.get("data", kwargs.get("obj"))
    plain = isinstance(data, Tensor) and func in (torch.as_tensor, torch.asarray)  # by operations
    return not plain and bool(_tensors(data))


def _refuse(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Raise NotCapturable for an operation that needs the values of its tensors, which are no constants."""
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
