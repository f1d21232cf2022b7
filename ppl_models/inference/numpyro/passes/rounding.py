"""`rounded`: let simplexes of many entries miss the sum 1 by rounding."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax.numpy as jnp
from numpyro.distributions import constraints

from ppl_models.parts.checks import rounding


@contextmanager
def rounded() -> Iterator[None]:
    """Inside, the entries of a simplex may miss the sum 1 by `rounding`, where NumPyro allows 1e-6 of any number.

    What misses it by more has the density 0 while validation is on, as it is by default. Thousands of entries in single
    precision do, off a softmax or the bijection of a guide.
    """
    kind = type(constraints.simplex)
    before = kind.__call__

    def inside(_: Any, value: Any) -> Any:
        value = jnp.asarray(value, jnp.result_type(value, float))
        slack = rounding(value.shape[-1], float(jnp.finfo(value.dtype).eps))
        return (value >= 0).all(-1) & (abs(value.sum(-1) - 1) < slack)

    kind.__call__ = inside
    try:
        yield
    finally:
        kind.__call__ = before
