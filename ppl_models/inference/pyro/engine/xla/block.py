"""`Block`: many steps in one call, as a loop inside the compiled function that writes parameters where they lie."""

from collections.abc import Sequence
from math import prod

import jax
import jax.numpy as jnp
import torch
from jax import Array, lax
from torch import Tensor

from .aten.rows import dtype_of
from .translation import Translation

MOST = 16  # steps a call
SMALL, SHORT = 2**20, 2**28  # bytes of what is handed to a step, and of what it writes, up to which many are short


class Block:
    """Steps that wait for one call, each with what it reads and draws but for what steps write.

    However many there are, they run through the same code: the numbers do not depend on how steps are put together.

    Args:
        translation: of a step.
        inputs: of a step.
        own: so many of the first inputs are read when the steps are taken, though they do not write all of them.
    """

    def __init__(self, translation: Translation, inputs: Sequence[Tensor], own: int) -> None:
        self.translation, self.varying, self.count = translation, _varying(translation, inputs, own), 0
        self.fixed = [i for i in range(len(inputs)) if i not in self.varying]
        like = [*(inputs[i] for i in self.varying), *translation.draws]
        self.stacks = [torch.zeros((MOST, *t.shape), dtype=t.dtype) for t in like]
        given = [*(inputs[i] for i in self.fixed), *self.stacks]
        shapes = [jax.ShapeDtypeStruct(tuple(t.shape), dtype_of(t.dtype)) for t in given]
        given_away = [k for k, i in enumerate(self.fixed, 1) if i < own and i in translation.written]
        steps = jax.jit(self._steps, donate_argnums=given_away)
        self.run = steps.lower(jnp.zeros((), int), *shapes).compile()

    @torch.no_grad()
    def add(self, inputs: Sequence[Tensor]) -> None:
        """Let a step wait, with its inputs; what it draws is drawn now."""
        for stack, i in zip(self.stacks, self.varying, strict=False):
            stack[self.count].copy_(inputs[i])
        for stack, draw in zip(self.stacks[len(self.varying) :], self.translation.draws, strict=True):
            draw.into(stack[self.count])
        self.count += 1

    def _steps(self, count: Array, *arrays: Array) -> tuple[list[Array], list[Array]]:
        fixed = dict(zip(self.fixed, arrays, strict=False))
        stacks, written = arrays[len(self.fixed) :], self.translation.written

        def parts_of(state: Sequence[Array]) -> list[Array]:
            now = dict(zip(written, state, strict=True))
            return [part.of(now[part.place]) for part in self.translation.parts]

        def step(i: Array, state: Sequence[Array], parts: Sequence[Array]) -> tuple[list, list]:
            rows = [lax.dynamic_index_in_dim(stack, i, keepdims=False) for stack in stacks]
            now = fixed | dict(zip(self.varying, rows, strict=False)) | dict(zip(written, state, strict=True))
            return self.translation(*(now[n] for n in range(len(now))), *rows[len(self.varying) :], *parts)

        def body(carried: tuple[Array, list, list, list]) -> tuple[Array, list, list, list]:
            i, state, parts, told = carried
            outputs, state = step(i, state, parts)
            told = [lax.dynamic_update_index_in_dim(t, o, i, 0) for t, o in zip(told, outputs, strict=True)]
            return i + 1, state, parts_of(state), told

        begin = [fixed[n] for n in written]
        each = [node.meta["val"] for node in self.translation.outputs]
        told = [jnp.zeros((MOST, *t.shape), dtype_of(t.dtype)) for t in each]
        carried = jnp.zeros_like(count), begin, parts_of(begin), told
        _, state, _, told = lax.while_loop(lambda c: c[0] < count, body, carried)
        return told, state


def suits(translation: Translation, inputs: Sequence[Tensor], own: int, given: Sequence[int]) -> bool:
    """Whether steps are worth a loop: they are handed little, and many of them end soon.

    None of them is a convolution, which is slow in XLA's loops.
    """
    written = sum(inputs[i].nbytes for i in translation.written)
    read = [inputs[i].nbytes for i in _varying(translation, inputs, own)]
    read += [prod(draw.shape) * draw.dtype.itemsize for draw in translation.draws]
    slow = any("convolution" in str(node.target) for node in translation.nodes)
    small = written <= SHORT and sum(read) <= SMALL
    return small and not slow and not {*translation.written} & {*given}


def _varying(translation: Translation, inputs: Sequence[Tensor], own: int) -> list[int]:
    return [i for i in range(own, len(inputs)) if i not in translation.written]
