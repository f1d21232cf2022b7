"""A captured graph compiled by Inductor, with the options that suit a training step."""

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor, no_grad
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from .capture import first_line
from .recorder import NotCapturable

CPU: dict[str, Any] = {
    # the host part in C++ too, compiled apart from the kernels: half the time to compile, a few percent of a step
    "cpp_wrapper": True,
    "cpp_wrapper_build_separate": True,
    # Loops that share fewer bytes than this stay apart. The updates of all parameters share the scalars of the step (33
    # bytes), for which Inductor would join up to 16 parameters in one loop, long after their gradients were computed.
    # One by one each update follows the product that gives its gradient, which is then still in the cache: 29.0 instead
    # of 34.1 ms a step of ladder-32 (8.2 million parameters, one Zen 4 core); the toy ladder keeps its time.
    "score_fusion_memory_threshold": 100,
}


class Inductor:
    """A graph as a compiled function that draws as eager operations do, and writes where its inputs lie.

    Inductor keeps what it compiled on disk and finds it again by the graph: a second run of the same programs, one that
    is resumed for instance, starts in seconds. It does so only for inputs with an environment of shapes, static here.

    Args:
        graph, inputs: what to compile, and what it will be called with.

    Raises:
        NotCapturable: Inductor cannot compile it.
    """

    name, room = "inductor", 0

    def __init__(self, graph: GraphModule, inputs: Sequence[Tensor]) -> None:
        options: dict[str, Any] = {"fallback_random": True}  # the draws of eager mode
        if inputs[0].device.type == "cpu":
            options |= CPU
        with warnings.catch_warnings(), no_grad():
            warnings.simplefilter("ignore")
            try:
                from torch import _inductor  # not before it is needed: its import takes a second

                mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
                shapes = [mode.from_tensor(t, static_shapes=True) for t in inputs]
                self.run = _inductor.compile(_without_values(graph), shapes, options=options)
            except Exception as error:  # noqa: BLE001 (no compiler, or an operation that it does not know)
                raise NotCapturable(f"Inductor could not compile the step ({first_line(error)[:160]})") from error

    def __call__(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The graph's outputs."""
        return self.run(*inputs)

    def settled(self) -> dict[int, Tensor]:
        """Nothing: all that was written lies where it is."""
        return {}

    def forget(self) -> None:
        """Nothing."""


def _without_values(graph: GraphModule) -> GraphModule:
    """A graph without the tensors of its capture, whose shapes are of another run: the compiler makes its own."""
    copied = Graph()
    copied.output(copied.graph_copy(graph.graph, {}))
    for node in copied.nodes:
        node.meta.pop("val", None)
    return GraphModule({}, copied)
