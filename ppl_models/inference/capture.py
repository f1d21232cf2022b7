"""A function of tensors that runs Pyro programs, captured as one graph of tensor operations."""

import random
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx


class NotCapturable(Exception):
    """Why a program cannot be captured, in one line."""


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
    try:
        graph = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
    except Exception as error:  # noqa: BLE001 (whatever a program does that cannot be captured: eager steps will tell)
        raise NotCapturable(reason(error)) from error
    finally:
        torch.random.set_rng_state(rng)
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
        if not isinstance(tensor, Tensor):
            raise NotCapturable(f"the graph holds {type(tensor).__name__} {node.target!r}, which is no tensor")
        if id(tensor) not in places:
            with graph.graph.inserting_after(last):
                last = places[id(tensor)] = graph.graph.placeholder(f"held_{len(tensors)}")
            tensors.append(tensor)
        node.replace_all_uses_with(places[id(tensor)])
        graph.graph.erase_node(node)
    for node in graph.graph.nodes:
        node.meta.pop("val", None)  # of another run of shapes: the compiler makes its own
    return tensors


def reason(error: BaseException) -> str:
    """What stood in the way of a capture, in one line: the operation and where the program asked for it."""
    operation = next((str(a) for a in (*error.args, getattr(error, "func", None)) if str(a).startswith("aten.")), None)
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if operation is None and "aten." in text:
        operation = next(w.strip("(),:;'\"") for w in text.split() if w.strip("(),:;'\"").startswith("aten."))
    read = type(error).__name__.startswith("GuardOnDataDependent") or "_local_scalar_dense" in (operation or "")
    if read:
        what = "the value of a tensor is read in Python (item(), float(), or an if on it: aten._local_scalar_dense)"
    elif operation is not None:
        what = f"{operation.removesuffix('.default')} has no static graph"
    else:
        what = f"{type(error).__name__}: {text[:160]}"
    frames = traceback.extract_tb(error.__traceback__)
    outside = [f for f in frames if not _is_ours(f.filename)]
    if not outside:
        return what
    place, path = outside[-1], Path(outside[-1].filename)
    return f"{what}, at {path.parent.name}/{path.name}:{place.lineno}: {place.line}"


def _is_ours(filename: str) -> bool:
    """Whether a file is of torch, or of the machinery around the programs, which no user wrote."""
    path = Path(filename)
    if "torch" in path.parts and "site-packages" in path.parts:
        return True
    return path.parent == Path(__file__).parent or filename.startswith("<")
