"""Message about a step that is not finite."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax import Array

from ..engine.step import State, Step


def diagnosis(step: Step, state: State, number: int, now: Mapping[str, Array], stored: Sequence[Array]) -> str:
    """The cause of a step that was not finite, found by running it again: a term of the loss, or the gradient."""
    value, told = jax.jit(step.finite)(state, now, stored)
    finite = np.isfinite(value)
    text = f"fit: the {'gradient is not finite' if finite else f'loss is {value}'} at step {number + 1}"
    bad = [name for name, good in told.items() if not good]
    if bad:
        text += f"; the first term that is not finite is the {bad[0]}"
    return text + "; try a smaller lr, clip=1, or warmup, and look at the data"
