"""`counted_calls`, `counted_traces`: how often modules of a class are called, of torch and of Equinox."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
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


@contextmanager
def counted_traces(kind: type) -> Iterator[Callable[[], int]]:
    """As `counted_calls`, of modules of Equinox: once for each place of a compiled function, a loop's body included."""
    count, own = [0], kind.__call__

    def call(self: Any, *args: Any) -> Any:
        count[0] += 1
        return own(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "__call__", call)
        yield lambda: count[0]
