"""Steps replayed from captured graphs, one a shape of batch, with the eager step where there is none."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor
from torch.fx import GraphModule

from ppl_models.programs.state.torch import modules_of

from ...training.interrupts import abandoned
from .compilers import Compiler, compiled
from .flat_parameters import Buffers
from .graph import Graph
from .python_state import Attributes
from .recorder import Miscompiled, NotCapturable
from .step import Eager, StepInputs

PATIENCE = 20  # eager steps that a further shape of batch takes before it is captured as well
GRAPHS = 4  # shapes that are captured at most


class Compiled:
    """The whole step (programs, gradient, AdamW, moving average) captured once and replayed compiled.

    The numbers are those of the eager step with the same generator, up to rounding. The first shape is captured at
    once; another one (a last, smaller batch) runs eagerly until it has been seen `PATIENCE` times, and at most `GRAPHS`
    are captured, so that data of ever new shapes do not compile for ever. A program that cannot be captured, or whose
    captured step does not repeat the eager one, runs eagerly, and `reason` says why in one line.

    Small parameters are moved side by side into one buffer, so that their update is one loop; `release` gives each its
    own memory back.

    Args:
        eager: the step to capture.
        say: is given the one line, once.
        busy: is told what takes its time, and is around it.
        compiler: see `compilers.compiled`.
    """

    def __init__(
        self,
        eager: Eager,
        say: Callable[[str], None] = lambda line: None,
        busy: Callable[[str], AbstractContextManager] = nullcontext,
        compiler: str | None = None,
    ) -> None:
        self.eager, self.say, self.busy, self.compiler = eager, say, busy, compiler
        self.modules = modules_of(eager.model, eager.guide)
        self.reason: str | None = None
        self.graphs: dict[Any, Graph] = {}
        self.seen: dict[Any, int] = {}
        self.buffers: Buffers | None = None
        self.last: Graph | None = None  # which has taken a step since parameters were true
        self.waiting: Sequence[Any] | None = None  # a batch of its steps that wait
        self.told: list[Tensor] = []

    def __call__(self, batches: Sequence[Sequence[Any]], now: StepInputs) -> Tensor:
        """Take one step; as `Eager.__call__`."""
        self._take()
        key = self._key(batches)
        if self.last is not None and (key is None or self.last is not self.graphs.get(key)):
            self.settle()
        if self.reason is None and key is not None and self._ready(key, batches, now):
            self.last = self.graphs[key]
            return self.last(batches, now)
        return self.eager(batches, now)

    def queue(self, batches: Sequence[Sequence[Any]], now: StepInputs) -> bool:
        """Take a step, now or with those that wait (`flush`); whether there is room for another to wait with it."""
        graph = self.graphs.get(self._key(batches))
        if graph is None or not graph.room or self.last not in (graph, None):
            self.told.append(self(batches, now))
            return False
        graph.add(batches[0], now)
        self.last, self.waiting = graph, batches[0]
        return graph.room > 0

    def flush(self) -> list[Tensor]:
        """What the steps tell that were queued, all of which are taken now."""
        self._take()
        told, self.told = self.told, []
        return told

    def _take(self) -> None:
        if self.waiting is not None:
            self.told += self.last.flush(self.waiting)
        self.waiting = None

    def settle(self) -> None:
        """Let the tensors of parameters, moments and averages be what the steps have made of them."""
        if self.last is not None:
            self._take()
            self.last.settle()
        self.last = None

    def _key(self, batches: Sequence[Sequence[Any]]) -> Any:
        """By what a graph is found: the one shape of batches, and whether the programs are in training mode."""
        keys = {tuple(shape_of(x) for x in batch) for batch in batches}
        return (keys.pop(), *(module.training for module in self.modules)) if len(keys) == 1 else None

    def _ready(self, key: Any, batches: Sequence[Sequence[Any]], now: StepInputs) -> bool:
        """Whether there is a graph for batches of this shape, which is made if it is due."""
        if key in self.graphs:
            return True
        self.seen[key] = self.seen.get(key, 0) + 1
        if len(self.graphs) >= GRAPHS or (self.graphs and self.seen[key] <= PATIENCE):
            return False
        if not self.eager.met:
            return False  # no capture may do what one of Pyro's losses does then
        before = Attributes(self.eager.model, self.eager.guide)
        try:
            if self.buffers is None:
                self.buffers = Buffers(self.eager.slots)
            whole = len(batches) == 1 and self.eager.group is None
            # detached: one tensor given as two arguments is two inputs of the graph
            example = [x.detach() if isinstance(x, Tensor) else x for x in batches[0]]
            with self.busy("compiling the step"), abandoned():
                graph = self._graph(example, now, whole, before)
        except NotCapturable as why:
            self.reason = str(why)
        finally:
            before.restore()
        # processes that average their gradients lay them out alike: all replay, or none
        group = self.eager.group
        if group is not None and group.mean(float(self.reason is None)) < 1 and self.reason is None:
            self.reason = "another process cannot capture its step"
        if self.reason is not None:
            self.release()
            self.say(f"steps run uncompiled: {self.reason}")
            return False
        self.graphs[key] = graph
        return True

    def _graph(self, example: Sequence[Any], now: StepInputs, whole: bool, before: Attributes) -> Graph:
        """A graph whose step is the eager one; by Inductor where nobody has asked for XLA, and that of XLA is not."""
        asked = self.compiler
        graph = Graph(self.eager, self.buffers, example, self._compiled, whole)
        if (carried := before.restore(t for function in graph.functions for t in function.fixed)) is not None:
            raise NotCapturable(carried)
        try:
            graph.check(example, now)
            return graph
        except Miscompiled as error:
            if asked is not None or self.compiler != "xla":
                raise
            self.compiler, why = "inductor", str(error)
            before.restore()
        graph = self._graph(example, now, whole, before)
        self.say(f"steps are compiled by Inductor, not by XLA: {why}")
        return graph

    def _compiled(self, graph: GraphModule, inputs: Sequence[Tensor], own: int, given: Sequence[int]) -> Compiler:
        found = compiled(graph, inputs, own, given, self.compiler, self.say)
        self.compiler = found.name  # all graphs by one
        return found

    def release(self) -> None:
        """Give every parameter memory of its own again, and let the graphs go."""
        self.settle()
        self.graphs = {}
        if self.buffers is not None:
            self.buffers.release()
            self.buffers = None


def shape_of(x: Any) -> Any:
    """The shape of an argument, by which graphs are told apart."""
    # with the strides, which the compiled code takes for granted
    return (tuple(x.shape), x.stride(), x.dtype, x.device) if isinstance(x, Tensor) else type(x)
