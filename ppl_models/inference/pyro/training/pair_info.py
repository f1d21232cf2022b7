"""What a training must know of a pair before its first step."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from pyro.infer.elbo import ELBO
from torch import Tensor, nn

from ..passes.particles import vectorizes
from ..passes.terms import plate_nesting
from .checkpoint import contents


class Look(NamedTuple):
    """What was found: see `checkpoint.contents` for `saved`, and `losses.estimate` for the others."""

    saved: dict[str, nn.Module | dict[str, Tensor]]
    nesting: int | None
    particles: int
    passes: int


def look_at(model: Callable, guide: Callable, args: Sequence[Any], particles: int, loss: ELBO | None) -> Look:
    """Run a pair a few times on a batch, with Pyro's validation as it is: wrong data speak up here.

    Args:
        model, guide, args: the pair and the batch.
        particles: draws a step, in one pass if the programs are right with one, else one by one.
        loss: one of Pyro's, which finds its own nesting of plates.
    """
    nesting = plate_nesting(model, guide, args, {}) if loss is None else None
    saved = contents(model, guide, args)
    with torch.no_grad():
        alone = particles > 1 and vectorizes(model, guide, args, nesting) is not None
    return Look(saved, nesting, *((1, particles) if alone else (particles, 1)))
