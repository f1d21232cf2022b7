"""What to say of a step that is not finite."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jax import Array

from .step import State, Step


def diagnosis(step: Step, state: State, number: int, now: Mapping[str, Array], stored: Sequence[Array]) -> str:
    """What was not finite in a step that was not taken, which is run again: a term of the loss, or the gradient."""
    found = step.terms(state, {name: jnp.asarray(value) for name, value in now.items()}, stored)
    value = sum(float(loss) for loss, _ in found) / len(found)
    finite = bool(jnp.isfinite(value))
    text = f"fit: the {'gradient is not finite' if finite else f'loss is {value}'} at step {number + 1}"
    each = [terms for _, terms in found if terms is not None]
    sites = [(f"divergence of site {n!r}", t) for terms in each for n, t in terms.kl.items()]
    sites += [(f"log p of the observed site {n!r}", t) for terms in each for n, t in terms.log_likelihood.items()]
    bad = [name for name, t in sites if not bool(jnp.isfinite(t).all())]
    if bad:
        text += f"; the first term that is not finite is the {bad[0]}"
    return text + "; try a smaller lr, clip=1, or warmup, and look at the data"
