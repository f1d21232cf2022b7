"""`rounded`: let simplexes of many entries miss the sum 1 by rounding."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributions import constraints

from ppl_models.parts.checks import rounding


@contextmanager
def rounded() -> Iterator[None]:
    """Inside, validation lets the entries of a simplex miss the sum 1 by `rounding`; torch allows 1e-6 of any number.

    Thousands of entries in single precision miss it by more, off a softmax or the bijection of a guide.
    """

    def check(value: Tensor) -> Tensor:
        eps = torch.finfo(value.dtype).eps if value.is_floating_point() else 0.0
        return (value >= 0).all(-1) & ((value.sum(-1) - 1).abs() < rounding(value.shape[-1], eps))

    known = vars(constraints.simplex)  # the one object that every distribution asks
    before = dict(known)
    known["check"] = check
    try:
        yield
    finally:
        known.clear()
        known.update(before)
