"""`compiled`: the one door to the compilers of a captured graph, XLA on a CPU where JAX is installed, else Inductor."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Protocol

from torch import Tensor
from torch.fx import GraphModule

from .capture import NotCapturable
from .inductor import Inductor

COMPILERS = "xla", "inductor"


class Compiler(Protocol):
    """A compiled graph.

    Attributes:
        name: of its compiler.
        room: calls that may wait to be taken together. Where it is more than 1 there are `add` and `flush` (`Xla`).
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
    varying: Sequence[int],
    compiler: str | None,
    say: Callable[[str], None],
) -> Compiler:
    """A captured graph as a compiled function of the tensors `inputs`.

    Args:
        graph, inputs: what to compile, and what it will be called with.
        own: so many of the first inputs may be kept elsewhere between calls.
        varying: the inputs that differ from call to call, where many calls may be taken together.
        compiler: "xla" or "inductor"; None takes XLA on a CPU, and Inductor where that is not to be had, for which
            `say` is given the reason.
        say: is given one line.

    Raises:
        NotCapturable: neither can, or the one that was asked for cannot.
    """
    if compiler == "inductor" or inputs[0].device.type != "cpu":
        return Inductor(graph, inputs)
    try:
        if not has_xla():
            raise NotCapturable("JAX is not installed")
        from .xla import Xla

        return Xla(graph, inputs, own, varying)
    except NotCapturable as why:
        if compiler == "xla":
            raise
        found = Inductor(graph, inputs)
        say(f"steps are compiled by Inductor, not by XLA: {why}")
        return found


def has_xla() -> bool:
    """Whether JAX is installed, which brings XLA."""
    return find_spec("jax") is not None
