"""A function of tensors that runs Pyro programs, captured as one graph of tensor operations."""

import random
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

READ = "the value of a tensor is read in Python (item(), float(), or an if on it: aten._local_scalar_dense)"
MACHINERY = ("ppl_models.inference.", "ppl_models.programs.", "torch.")  # modules that no user wrote


class NotCapturable(Exception):
    """Why a program cannot be captured, in one line."""


class Watch(TorchDispatchMode):
    """Sees every operation of a capture: refuses what needs values, and puts back what is written for real.

    Torch would trace a read value or a shape made of values as an unknown number, which no CUDA graph can replay; and
    it performs what is done in place to tensors from outside (a counter of batches) while it traces.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [*args, *(kwargs or {}).values()]
        refused = NotCapturable(f"{str(func).removesuffix('.default')} has no static graph")
        if torch.Tag.data_dependent_output in func.tags:
            if any(isinstance(x, Tensor) and getattr(x, "constant", None) is None for x in _flat(given)):
                raise NotCapturable(READ) if func is torch.ops.aten._local_scalar_dense.default else refused
        if func._schema.is_mutable:
            for x in _flat(given):
                if isinstance(x, Tensor) and not isinstance(x, FakeTensor) and id(x) not in self.written:
                    with _disable_current_modes(), torch.no_grad():
                        self.written[id(x)] = x, x.clone()
        result = func(*args, **(kwargs or {}))
        for x in _flat([result]) if torch.Tag.dynamic_output_shape in func.tags else ():
            if isinstance(x, Tensor) and any(isinstance(n, torch.SymInt) for n in x.shape):
                raise refused
        return result

    @torch.no_grad()
    def restore(self) -> None:
        """Give what was written its values of before."""
        for tensor, before in self.written.values():
            tensor.copy_(before)


class Values(TorchFunctionMode):
    """Refuses to hand a tensor's values to Python or NumPy, where `Watch` would not see it; and checks no values.

    Distributions made while Pyro's validation was on (the priors of PyroSample) check every value that they score.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.tolist, Tensor.numpy, Tensor.__array__):
            raise NotCapturable(f"the values of a tensor leave for Python ({func.__name__}())")
        if func is torch._is_all_true:  # what distributions ask
            return True
        return func(*args, **(kwargs or {}))


def capture(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> tuple[GraphModule, list[Tensor]]:
    """The graph of `function(*inputs)` for inputs of these shapes, and the tensors beside the inputs that it reads.

    The function runs once, on tensors without values, through all of Pyro's effect handlers; the graph is what it did
    to tensors. Those that it met elsewhere, in modules, Pyro's store or closures, become inputs of the graph after the
    given ones, so that it reads (and writes) them where they lie. Nothing is computed, no generator moves.

    Raises:
        NotCapturable: the function reads the value of a tensor, makes a shape from one, draws from Python's or NumPy's
            generator (a draw that the graph would repeat), or does what has no graph.
    """
    drawn = random.getstate(), np.random.get_state()
    rng = torch.random.get_rng_state()
    watch = Watch()

    def watched(*flat: Tensor) -> Sequence[Tensor]:
        with watch, Values():
            return function(*flat)

    try:
        graph = make_fx(watched, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
    except Exception as error:  # noqa: BLE001 (whatever a program does that cannot be captured: eager steps will tell)
        raise NotCapturable(reason(error)) from error
    finally:
        torch.random.set_rng_state(rng)
        watch.restore()
    if drawn[0] != random.getstate() or str(drawn[1]) != str(np.random.get_state()):
        random.setstate(drawn[0])
        np.random.set_state(drawn[1])
        raise NotCapturable("the programs draw from Python's or NumPy's generator, which a graph cannot repeat")
    held = _lifted(graph)
    return GraphModule({}, graph.graph), held  # one that owns nothing: a compiler takes what it owns for inputs, too


def _lifted(graph: GraphModule) -> list[Tensor]:
    """Turn the tensors that a graph holds into inputs of it, after its own; returns them."""
    tensors: list[Tensor] = []
    places: dict[int, torch.fx.Node] = {}
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    for node in [node for node in graph.graph.nodes if node.op == "get_attr"]:
        tensor = graph
        for name in node.target.split("."):
            tensor = getattr(tensor, name)
        if isinstance(tensor, torch.Generator):
            raise NotCapturable("the programs draw from a generator of their own, which a graph cannot repeat")
        if not isinstance(tensor, Tensor):
            raise NotCapturable(f"the graph holds {type(tensor).__name__} {node.target!r}, which is no tensor")
        if id(tensor) not in places:
            with graph.graph.inserting_after(last):
                last = places[id(tensor)] = graph.graph.placeholder(f"held_{len(tensors)}")
            last.meta["val"] = tensor
            tensors.append(tensor)
        node.replace_all_uses_with(places[id(tensor)])
        graph.graph.erase_node(node)
    return tensors


def first_line(error: BaseException) -> str:
    """The first line of what an error says, the name of its class where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def reason(error: BaseException) -> str:
    """The obstacle to a capture, in one line: the operation and where the program asked for it."""
    if isinstance(error, NotCapturable):
        return str(error) + _place(error)
    operation = next((str(a) for a in (*error.args, getattr(error, "func", None)) if str(a).startswith("aten.")), None)
    text = first_line(error)
    if operation is None and "aten." in text:
        operation = next(w.strip("(),:;'\"") for w in text.split() if w.strip("(),:;'\"").startswith("aten."))
    read = type(error).__name__.startswith("GuardOnDataDependent") or "_local_scalar_dense" in (operation or "")
    if read:
        what = READ
    elif operation is not None:
        what = f"{operation.removesuffix('.default')} has no static graph"
    else:
        what = f"{type(error).__name__}: {text[:160]}"
    return what + _place(error)


def _place(error: BaseException) -> str:
    """The line at which a program, or a library that it uses, asked for what failed."""
    outside = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if not _is_ours(frame)]
    if not outside:
        return ""
    (place,) = traceback.StackSummary.extract(outside[-1:])
    path = Path(place.filename)
    return f", at {path.parent.name}/{path.name}:{place.lineno}: {place.line}"


def _flat(given: Sequence[Any]) -> list[Any]:
    return [x for each in given for x in (each if isinstance(each, list | tuple) else [each])]


def _is_ours(frame: FrameType) -> bool:
    """Whether a frame is of torch, or of the machinery around the programs, which no user wrote."""
    module = f"{frame.f_globals.get('__name__', '')}."
    return module.startswith(MACHINERY) or frame.f_code.co_filename.startswith("<")
