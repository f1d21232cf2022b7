"""`compiled`: the one door to the compilers of a captured graph, XLA on a CPU where JAX is installed, else Inductor."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Protocol

from torch import Tensor
from torch.fx import GraphModule

from .inductor import Inductor
from .python_state import generators_kept
from .recorder import NotCapturable


class Compiler(Protocol):
    """A compiled graph.

    Attributes:
        name: of its compiler.
        room: calls that may yet wait to be taken together, 0 where none may. Others have `add` and `flush`.
    """

    name: str

    @property
    def room(self) -> int: ...

    def __call__(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The graph's outputs. What it writes to its inputs is written there, or kept until `settled`."""

    def settled(self) -> dict[int, Tensor]:
        """What was written and kept elsewhere, by the number of the input."""

    def forget(self) -> None:
        """Let go what was kept: the inputs hold their values of before."""


def compiled(
    graph: GraphModule,
    inputs: Sequence[Tensor],
    own: int,
    given: Sequence[int],
    compiler: str | None,
    say: Callable[[str], None],
) -> Compiler:
    """A captured graph as a compiled function of the tensors `inputs`.

    Args:
        graph, inputs: what to compile, and what it will be called with.
        own: so many of the first inputs may be kept elsewhere between calls.
        given: the numbers of those that are handed over anew, where calls may wait and be taken together.
        compiler: "xla" or "inductor"; None takes XLA on a CPU, and Inductor where that is not to be had, for which
            `say` is given the reason.
        say: is given one line.

    Raises:
        NotCapturable: neither can, or the one that was asked for cannot.
    """
    on_cpu = inputs[0].device.type == "cpu"
    if compiler == "xla" and not on_cpu:
        raise NotCapturable(f"XLA compiles steps on a CPU, and the parameters are on {inputs[0].device}")
    if compiler == "inductor" or not on_cpu:
        return Inductor(graph, inputs)
    try:
        return _xla(graph, inputs, own, given)
    except NotCapturable as why:
        if compiler == "xla":
            raise
        found = Inductor(graph, inputs)
        say(f"steps are compiled by Inductor, not by XLA: {why}")
        return found


def _xla(graph: GraphModule, inputs: Sequence[Tensor], own: int, given: Sequence[int]) -> Compiler:
    if not has_xla():
        raise NotCapturable("JAX is not installed")
    try:
        with generators_kept():  # JAX draws from NumPy's while it is imported
            from .xla.executable import Xla
    except Exception as error:  # noqa: BLE001 (a JAX that does not go with its jaxlib, or with this Python)
        raise NotCapturable(f"JAX cannot be imported ({type(error).__name__}: {error})"[:200]) from error
    return Xla(graph, inputs, own, given)


def has_xla() -> bool:
    """Whether JAX is installed, which brings XLA."""
    return find_spec("jax") is not None
