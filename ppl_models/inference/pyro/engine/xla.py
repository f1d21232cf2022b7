"""A captured graph compiled by XLA, which JAX brings: sooner than by Inductor, and to a faster step."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule

from .capture import NotCapturable
from .translation import DTYPES, Translation
from .xla_cache import cached, cpu
from .xla_loop import MOST, Loop, suits


class Xla:
    """A graph as a compiled function, whose first inputs stay in JAX's memory from call to call.

    A call hands over views of torch's memory, and what torch's generator draws for it. What the graph writes to its
    first `own` inputs (parameters, moments, averages) is kept as JAX's arrays, which the next call takes; `settled`
    tells them. What it writes to others is copied there.

    Args:
        graph, inputs: what to compile, and what it will be called with.
        own: how many inputs stay.
        varying: the numbers of those that differ from step to step, where the graph is a whole step.

    Attributes:
        room: calls that may wait to be taken together (`add`, `flush`); 1 where steps are not small.

    Raises:
        NotCapturable: an operation that the table lacks, a draw that depends on tensors, or what XLA cannot compile.
    """

    name = "xla"

    def __init__(self, graph: GraphModule, inputs: Sequence[Tensor], own: int, varying: Sequence[int] = ()) -> None:
        self.own, self.kept = own, {}  # type: int, dict[int, jax.Array]
        self.places: dict[int, int] = {}  # of those that torch's tensors share: the addresses
        with jax.enable_x64(True), jax.default_device(cpu()), cached():
            self.translation = Translation(graph, inputs)
            like = [*inputs, *self.translation.draws]
            shapes = [jax.ShapeDtypeStruct(tuple(t.shape), DTYPES[t.dtype]) for t in like]
            self.loop = None
            try:
                if varying and suits(self.translation, inputs):
                    self.loop = Loop(self.translation, inputs, varying)
                else:
                    self.run = jax.jit(self._flat).lower(*shapes).compile()
            except Exception as error:  # noqa: BLE001 (whatever JAX refuses: another compiler may not)
                line = next((text for text in str(error).splitlines() if text.strip()), type(error).__name__)
                raise NotCapturable(f"XLA could not compile the step ({line.strip()[:160]})") from error

    def _flat(self, *arrays: jax.Array) -> tuple[list, list]:
        count = len(arrays) - len(self.translation.draws)
        return self.translation(arrays[:count], arrays[count:])

    @property
    def room(self) -> int:
        """Calls that may wait."""
        return 1 if self.loop is None else MOST - self.loop.count

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The graph's outputs."""
        if self.loop is not None:
            self.add(inputs)
            return self.flush(inputs)[0]
        arrays = [self._array(i, t) for i, t in enumerate(inputs)]
        arrays += [array_of(draw()) for draw in self.translation.draws]
        return self._written(self.run, arrays, inputs)

    def add(self, inputs: Sequence[Tensor]) -> None:
        """Let a call wait; what it draws is drawn now."""
        self.loop.add([inputs[i] for i in self.loop.varying])

    def flush(self, inputs: Sequence[Tensor]) -> list[list[Tensor]]:
        """The outputs of the calls that wait, one after the other."""
        loop, count = self.loop, self.loop.count
        arrays = [np.asarray(count), *(self._array(i, inputs[i]) for i in loop.fixed), *map(array_of, loop.stacks)]
        loop.count = 0
        stacked = self._written(loop.run, arrays, inputs)
        return [[each[i] for each in stacked] for i in range(count)]

    def _written(self, run: Callable[..., Any], arrays: Sequence[Any], inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of a compiled function; what it writes is kept, or copied to its place."""
        with jax.enable_x64(True):  # which numbers of double precision must pass unchanged
            outputs, written = run(*arrays)
        for i, array in zip(self.translation.written, written, strict=True):
            if i < self.own:
                self.kept[i] = array
                self.places.pop(i, None)
            else:
                inputs[i].copy_(tensor_of(array))
        return [tensor_of(array) for array in outputs]

    def _array(self, i: int, tensor: Tensor) -> Any:
        if i in self.kept and self.places.get(i) in (None, tensor.data_ptr()):
            return self.kept[i]
        return array_of(tensor)

    def settled(self) -> dict[int, Tensor]:
        """What was written to the first inputs since the last time, as tensors of the same memory, by number."""
        found = {i: tensor_of(array) for i, array in self.kept.items() if i not in self.places}
        self.places |= {i: t.data_ptr() for i, t in found.items()}
        return found

    def forget(self) -> None:
        """Let go what was written to the first inputs: they hold their values of before."""
        self.kept, self.places = {}, {}


def array_of(tensor: Tensor) -> Any:
    """A tensor as a compiled function takes it, without a copy."""
    tensor = tensor.detach()
    return jax.dlpack.from_dlpack(tensor) if tensor.dtype == torch.bfloat16 else tensor.numpy()


def tensor_of(array: jax.Array) -> Tensor:
    """A JAX array as a tensor of the same memory; waits until it is there."""
    return torch.from_dlpack(array)
