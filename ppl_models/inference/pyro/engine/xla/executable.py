"""A captured graph compiled by XLA, which JAX brings: sooner than by Inductor, and to a faster step."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import ReferenceType, ref

import jax
import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule

from ..capture import first_line
from ..recorder import NotCapturable
from .aten.rows import dtype_of
from .block import MOST, Block, suits
from .cache import cached, cpu
from .lent import Lent, lendable
from .pieces import LONG, Pieces
from .translation import Translation


class Xla:
    """A graph as a compiled function, whose first inputs stay in JAX's memory from call to call.

    A call hands over views of torch's memory, and what torch's generator draws for it. What the graph writes to its
    first `own` inputs (parameters, moments, averages) is kept as JAX's arrays, which the next call takes; `settled`
    tells them. What it writes to others is copied there.

    Args:
        graph, inputs: what to compile, and what it will be called with.
        own: how many inputs stay.
        given: the numbers of those that are handed over anew, where the graph is a whole step, of which many may be
            taken together.

    Raises:
        NotCapturable: an operation that the table lacks, a draw that depends on tensors, or what XLA cannot compile.
    """

    name = "xla"

    def __init__(self, graph: GraphModule, inputs: Sequence[Tensor], own: int, given: Sequence[int] = ()) -> None:
        self.own, self.kept = own, {}  # type: int, dict[int, jax.Array]
        self.lent: dict[int, ReferenceType[Lent]] = {}  # the memory of kept ones that torch uses since they were told
        self.block: Block | None = None
        try:
            with wide(), jax.default_device(cpu()), cached():
                self.translation = Translation(graph, inputs)
                if len(self.translation.nodes) > LONG:
                    self.once = Pieces(self.translation)
                elif given and suits(self.translation, inputs, own, given):
                    self.block = Block(self.translation, inputs, own)
                else:
                    like = [(tuple(t.shape), t.dtype) for t in [*inputs, *self.translation.draws]]
                    like += [(part.shape, inputs[part.place].dtype) for part in self.translation.parts]
                    shapes = [jax.ShapeDtypeStruct(shape, dtype_of(dtype)) for shape, dtype in like]
                    self.once = jax.jit(self.translation).lower(*shapes).compile()
        except NotCapturable:
            raise
        except Exception as error:  # noqa: BLE001 (whatever JAX refuses: another compiler may not)
            raise NotCapturable(
                f"XLA could not compile the step ({type(error).__name__}: {first_line(error)[:160]})"
            ) from error

    @property
    def room(self) -> int:
        """Calls that may yet wait to be taken together; 0 where steps are not small."""
        return 0 if self.block is None else MOST - self.block.count

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The graph's outputs."""
        if self.block is not None:
            self.add(inputs)
            return self.flush(inputs)[-1]
        arrays = [self._array(i, t) for i, t in enumerate(inputs)]
        arrays += [array_of(draw()) for draw in self.translation.draws]
        # views, which the function takes without a copy where they begin at a multiple of 64 bytes
        whole = {i: np.asarray(arrays[i]) for i in {part.place for part in self.translation.parts}}
        arrays += [part.of(whole[part.place]) for part in self.translation.parts]
        return self._written(self.once, arrays, inputs)

    def add(self, inputs: Sequence[Tensor]) -> None:
        """Let a call wait; what it draws is drawn now, and what it reads, but for what calls write, is read now."""
        self.block.add(inputs)

    def flush(self, inputs: Sequence[Tensor]) -> list[list[Tensor]]:
        """The outputs of the calls that wait, one after the other."""
        block, count = self.block, self.block.count
        arrays = [np.asarray(count), *(self._array(i, inputs[i]) for i in block.fixed), *map(array_of, block.stacks)]
        block.count = 0
        stacked = self._written(block.run, arrays, inputs)
        return [[each[i] for each in stacked] for i in range(count)]

    @torch.no_grad()
    def _written(self, run: Callable[..., Any], arrays: Sequence[Any], inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of a compiled function; what it writes is kept, or copied to its place."""
        with wide():
            outputs, written = run(*arrays)
        for i, array in zip(self.translation.written, written, strict=True):
            if i < self.own:
                self.kept[i] = array
                if (lent := self._lent(i)) is not None:
                    lent.went_to(array)
            else:
                inputs[i].copy_(tensor_of(array))
        return [tensor_of(array) for array in outputs]

    def _array(self, i: int, tensor: Tensor) -> Any:
        if i in self.kept:
            return self.kept[i]
        lent = self._lent(i)
        return lent.array if lent is not None and lent.is_of(tensor) else array_of(tensor)

    def _lent(self, i: int) -> Lent | None:
        return self.lent[i]() if i in self.lent else None

    def settled(self) -> dict[int, Tensor]:
        """The first inputs that were written since the last time, as tensors of JAX's memory, by number."""
        found: dict[int, Tensor] = {}
        for i, array in self.kept.items():
            if lendable(array):
                lent = self._lent(i)
                if lent is None or not lent.holds(array):
                    lent = Lent(array)
                self.lent[i], found[i] = ref(lent), lent.tensor()
            else:
                found[i] = tensor_of(array)
        self.forget()
        return found

    def forget(self) -> None:
        """Let go what was written to the first inputs: they hold their values of before."""
        self.kept = {}


@contextmanager
def wide() -> Iterator[None]:
    """Inside, JAX has numbers of double precision, and joins shapes as torch does."""
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        yield


def array_of(tensor: Tensor) -> Any:
    """A tensor as a compiled function takes it, without a copy if it is plain."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return jax.dlpack.from_dlpack(tensor.contiguous()) if tensor.dtype == torch.bfloat16 else tensor.numpy()


def tensor_of(array: jax.Array) -> Tensor:
    """A JAX array as a tensor of the same memory; waits until it is there."""
    return torch.from_dlpack(array)
