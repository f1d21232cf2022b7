"""`set_to`: modules in training or evaluation mode, and afterwards in their own again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn


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
