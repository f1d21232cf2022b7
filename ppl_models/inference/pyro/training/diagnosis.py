"""`diagnosis`: the message about a step that was not finite."""

from collections.abc import Sequence
from typing import Any

import pyro
import torch
from torch import Tensor

from ..engine.step import Eager, StepInputs, negative


@torch.no_grad()
def diagnosis(eager: Eager, now: StepInputs, batch: Sequence[Any]) -> str:
    """The cause of a step that was not finite: the data of the batch, a term of the loss, or the gradient."""
    value, found = eager.value, eager.found
    if value is None or now.step + 1 != eager.steps:  # a captured step, which shows no terms: the same with other noise
        with pyro.validation_enabled(False):
            again = negative(eager.config, eager.model, eager.guide, batch, now.beta, eager.slots.objective)
        value, found = again.value, again.found
    finite = bool(torch.isfinite(value))
    text = f"fit: the {'gradient is not finite' if finite else f'loss is {value.item()}'} at step {now.step + 1}"
    if not all(torch.isfinite(x).all() for x in batch if isinstance(x, Tensor)):
        return text + ": the batch has NaN or infinite values; look at the data and their transform"
    sites = [(f"divergence of site {n!r}", t) for f in found for n, t in f.kl.items()]
    sites += [(f"log p of the observed site {n!r}", t) for f in found for n, t in f.log_likelihood.items()]
    bad = [name for name, t in sites if not torch.isfinite(t).all()]
    if bad:
        text += f"; the first term that is not finite is the {bad[0]}"
    return text + "; try a smaller lr, clip=1, or warmup, and look at the data"
