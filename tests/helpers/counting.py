"""`counted_calls`: how often modules of a class are called."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def counted_calls(kind: type[nn.Module]) -> Iterator[Callable[[], int]]:
    """Inside, a function that gives the number of calls of all modules of a class so far."""
    count = [0]

    def hook(module: nn.Module, args: object) -> None:
        count[0] += isinstance(module, kind)

    handle = nn.modules.module.register_module_forward_pre_hook(hook)
    try:
        yield lambda: count[0]
    finally:
        handle.remove()
