"""`Loop`: many steps of a small program in one call, as a loop inside the compiled function."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import torch
from jax import Array, lax
from torch import Tensor

from .translation import DTYPES, Translation

MOST = 16  # steps a call
SMALL = 2**22  # bytes of what a program writes, up to which a step takes less than what is around a call


class Loop:
    """Steps that wait for one call, with what differs between them: the arguments, and the draws.

    However many there are, they run through the same code: the numbers do not depend on how steps are put together.

    Args:
        translation: of a step.
        inputs: of a step.
        varying: the numbers of those that differ from step to step.
    """

    def __init__(self, translation: Translation, inputs: Sequence[Tensor], varying: Sequence[int]) -> None:
        self.translation, self.varying, self.count = translation, list(varying), 0
        self.fixed = [i for i in range(len(inputs)) if i not in self.varying]
        like = [*(inputs[i] for i in self.varying), *translation.draws]
        self.stacks = [torch.zeros((MOST, *t.shape), dtype=t.dtype) for t in like]
        given = [*(inputs[i] for i in self.fixed), *self.stacks]
        shapes = [jax.ShapeDtypeStruct(tuple(t.shape), DTYPES[t.dtype]) for t in given]
        self.run = jax.jit(self._steps).lower(jnp.zeros((), int), *shapes).compile()

    def add(self, given: Sequence[Tensor]) -> None:
        """Let a step wait, with its varying inputs; what it draws is drawn now."""
        for stack, tensor in zip(self.stacks, given, strict=False):
            stack[self.count].copy_(tensor)
        for stack, draw in zip(self.stacks[len(self.varying) :], self.translation.draws, strict=True):
            draw.into(stack[self.count])
        self.count += 1

    def _steps(self, count: Array, *arrays: Array) -> tuple[list[Array], list[Array]]:
        fixed = dict(zip(self.fixed, arrays, strict=False))
        stacks, written = arrays[len(self.fixed) :], self.translation.written

        def step(i: Array, state: Sequence[Array]) -> tuple[list[Array], list[Array]]:
            rows = [lax.dynamic_index_in_dim(stack, i, keepdims=False) for stack in stacks]
            now = fixed | dict(zip(self.varying, rows, strict=False)) | dict(zip(written, state, strict=True))
            return self.translation([now[n] for n in range(len(now))], rows[len(self.varying) :])

        def body(carried: tuple[Array, list[Array], list[Array]]) -> tuple[Array, list[Array], list[Array]]:
            i, state, told = carried
            outputs, state = step(i, state)
            told = [lax.dynamic_update_index_in_dim(t, o, i, 0) for t, o in zip(told, outputs, strict=True)]
            return i + 1, state, told

        begin = [fixed[n] for n in written]
        shapes, _ = jax.eval_shape(step, count, begin)
        told = [jnp.zeros((MOST, *s.shape), s.dtype) for s in shapes]
        _, state, told = lax.while_loop(lambda c: c[0] < count, body, (jnp.zeros_like(count), begin, told))
        return told, state


def suits(translation: Translation, inputs: Sequence[Tensor]) -> bool:
    """Whether steps are worth a loop: they write little, and have no convolutions, which are slow in loops of XLA."""
    written = sum(inputs[i].numel() * inputs[i].element_size() for i in translation.written)
    return written <= SMALL and not any("convolution" in str(node.target) for node in translation.nodes)
