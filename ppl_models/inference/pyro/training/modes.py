"""What a training borrows and gives back: modes of modules; and what it says when a step is not finite."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from ..engine.step import Eager, StepInputs, negative


@contextmanager
def set_to(programs: Sequence[nn.Module], training: bool) -> Iterator[None]:
    """Inside, programs are in this mode (a wholly frozen one never trains); outside, every module in its own again."""
    before = {module: module.training for program in programs for module in program.modules()}
    for program in programs:
        program.train(training and any(p.requires_grad for p in program.parameters()))
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


@torch.no_grad()
def diagnosis(eager: Eager, now: StepInputs, batch: Sequence[Any]) -> str:
    """What was not finite in a step that was not taken: the data of the batch, a term of the loss, or the gradient."""
    value, found = eager.value, eager.found
    if value is None or now.step + 1 != eager.steps:  # a captured step, which shows no terms: the same with other noise
        with pyro.validation_enabled(False):
            again = negative(eager.config, eager.model, eager.guide, batch, now.beta)
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
