"""A captured graph compiled by Inductor, with the options that suit a training step."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, no_grad
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from .capture import NotCapturable

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


def compiled(graph: GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """A graph compiled by Inductor, which draws as eager operations do.

    Inductor keeps what it compiled on disk and finds it again by the graph: a second run of the same programs, one that
    is resumed for instance, starts in seconds. It does so only for inputs with an environment of shapes, static here.

    Raises:
        NotCapturable: Inductor cannot compile it.
    """
    options: dict[str, Any] = {"fallback_random": True}  # the draws of eager mode
    if inputs[0].device.type == "cpu":
        options |= CPU
    with warnings.catch_warnings(), no_grad():
        warnings.simplefilter("ignore")
        try:
            from torch import _inductor  # not before it is needed: its import takes a second

            mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
            shapes = [mode.from_tensor(t, static_shapes=True) for t in inputs]
            return _inductor.compile(graph, shapes, options=options)
        except Exception as error:  # noqa: BLE001 (no compiler, or an operation that it does not know)
            line = next((text for text in str(error).splitlines() if text.strip()), type(error).__name__)
            raise NotCapturable(f"Inductor could not compile the step ({line.strip()[:160]})") from error
