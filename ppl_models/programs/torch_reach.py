"""What of the user's a program over torch can reach: modules, tensors, containers, generators of random numbers."""

import sys
import sysconfig
import types
from collections import deque
from collections.abc import Iterable
from copy import copy
from functools import cache
from typing import Any

import numpy as np
import pyro.nn
import pyro.poutine.messenger
import torch
from torch import Tensor, nn

from .reach import closed_over, global_names, parts

# What these hold in modules and classes is none of the user's; it is their objects that are looked into.
LIBRARIES = ("torch", "pyro", "numpy", "builtins", "jax", "scipy", "ppl_models", "guides")
CLOSED = ("torch", "pyro", "numpy", "builtins", "jax", "scipy")  # nor do their objects matter, but for modules
ROOTS = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))
HOLDERS = (
    torch.distributions.Distribution,
    torch.distributions.Transform,
    pyro.nn.PyroSample,
    pyro.poutine.messenger.Messenger,
)
PLAIN = (type(None), bool, int, float, complex, str, bytes, type, types.ModuleType, torch.dtype, torch.device)


def reachable(roots: Iterable[Any], containers: list | None = None) -> tuple[list[nn.Module], list[Tensor]]:
    """The modules and tensors that programs hold: attributes, closures, default arguments, globals they name.

    Args:
        roots: programs, or anything else.
        containers: filled with each container and generator of random numbers met, and a copy of what it holds.
    """
    modules: list[nn.Module] = []
    tensors: list[Tensor] = []
    seen: set[int] = set()
    stack, kept = list(roots), []
    while stack and len(seen) < 100_000:
        item = stack.pop()
        if isinstance(item, PLAIN) or id(item) in seen:
            continue
        seen.add(id(item))
        kept.append(item)  # a temporary that is let go could lend its id to another
        if containers is not None and isinstance(item, (dict, list, set, deque)):
            containers.append((item, copy(item)))
        if containers is not None and isinstance(item, (torch.Generator, np.random.Generator)):
            containers.append((item, stream_of(item)))
        if isinstance(item, Tensor):
            tensors.append(item)
        elif (inside := parts(item, _named)) is not None:
            stack.extend(inside)
        elif isinstance(item, nn.Module):
            modules.append(item)
            if isinstance(item, torch.jit.ScriptModule):
                modules += [m for m in item.modules() if m is not item]
                tensors += [*item.parameters(), *item.buffers()]
            stack.extend([vars(item), *_shared(type(item))])
        elif isinstance(item, HOLDERS):
            stack.append(vars(item))
        elif (type(item).__module__ or "").partition(".")[0] not in CLOSED and hasattr(item, "__dict__"):
            stack.extend([vars(item), *_shared(type(item))])
    return modules, tensors


@cache
def _installed(module: str | None) -> bool:
    """Whether a module is of a library, so that its globals hold nothing of the user's."""
    package = (module or "").partition(".")[0]
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return package in LIBRARIES or package in sys.builtin_module_names or file.startswith(ROOTS)


def _shared(kind: type) -> list[Any]:
    """What the classes of an object hold and their methods name; a library's own hold nothing of the user's."""
    mine = [c for c in kind.__mro__ if not _installed(c.__module__)]
    return [getattr(v, "__func__", v) for c in mine for v in vars(c).values()]


def _named(function: types.FunctionType) -> list[Any]:
    """What a function closes over, has as defaults or names among its globals."""
    if (function.__module__ or "").partition(".")[0] in CLOSED:
        return []
    found = closed_over(function)
    for names, values in () if _installed(function.__module__) else global_names(function):
        found += values
        for item in values:  # net in nets.net, Model.net
            if isinstance(item, types.ModuleType) and not _installed(item.__name__):
                found += [vars(item)[name] for name in names if name in vars(item)]
            elif isinstance(item, type):
                found += _shared(item)
    return found


def stream_of(generator: Any) -> Any:
    """The state of a generator of random numbers."""
    return generator.get_state() if isinstance(generator, torch.Generator) else generator.bit_generator.state


def refill(item: Any, content: Any) -> None:
    """Put a container, or a generator of random numbers, back to what it held."""
    if isinstance(item, torch.Generator):
        item.set_state(content)
    elif isinstance(item, np.random.Generator):
        item.bit_generator.state = content
    elif isinstance(item, dict):
        if [*map(id, item.keys()), *map(id, item.values())] != [*map(id, content.keys()), *map(id, content.values())]:
            item.clear()
            item.update(content)
    elif [*map(id, item)] != [*map(id, content)]:
        item.clear()
        (item.update if isinstance(item, set) else item.extend)(content)
