"""`ProgramSnapshot`: run programs over torch as if they had never run.

Parameters, buffers, stores, containers, random numbers and modes come back; `reachable` finds what there is of them.
`modules_of`: those modules that programs are or hold.
"""

import random
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import cache
from typing import Any

import numpy as np
import pyro
import pyro.nn
import pyro.poutine.messenger
import torch
from pyro.distributions.transforms import BatchNorm
from pyro.util import get_rng_state, set_rng_state
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from ..blame import ROOTS
from .jitter import Jitter
from .reach import closed_over, contents, global_names, parts, restore

NOISE = 65_521  # a prime, so that no two rows of a weight matrix meet the same numbers
# What these hold in modules and classes is none of the user's; it is their objects that are looked into.
LIBRARIES = ("torch", "pyro", "numpy", "builtins", "jax", "scipy", "ppl_models", "guides")
CLOSED = ("torch", "pyro", "numpy", "builtins", "jax", "scipy")  # nor do their objects matter, but for modules
HOLDERS = (
    torch.distributions.Distribution,
    torch.distributions.Transform,
    pyro.nn.PyroSample,
    pyro.poutine.messenger.Messenger,
)
PLAIN = (type(None), bool, int, float, complex, str, bytes, type, types.ModuleType, torch.dtype, torch.device)


class ProgramSnapshot:
    """Everything of the user's that a run may touch, taken down on entry and put back on exit.

    Between the two, tensors hold copies of their data (in double precision where asked), so that writing in place
    changes nothing either; modules are in evaluation mode, Pyro validates nothing, and gradients are recorded only
    where asked.
    """

    def __init__(self, programs: Iterable[Callable], double: bool, grad: bool = False) -> None:
        self.programs, self.double, self.grad = list(programs), double, grad
        self.tensors: dict[int, tuple[Tensor, Tensor, bool]] = {}
        self.parameters: list[tuple[Tensor, Tensor]] = []
        self.training: list[str] = []
        self._moved: Jitter | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Take down, let the caller run programs, and put back."""
        store, dtype, rng = pyro.get_param_store(), torch.get_default_dtype(), get_rng_state()
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        containers: list = []
        modules, tensors = reachable(self.programs, containers)
        flags = [(module, module.training) for module in modules]
        for module in modules:
            if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
                raise ValueError(
                    f"found a {type(module).__name__} whose parameters its first call will make, want them made: an "
                    "inspection leaves modules as they are; call the program once"
                )
        attributes = [(m, contents(vars(m))) for m in modules]
        norms = [m for m in modules if isinstance(m, (nn.modules.batchnorm._BatchNorm, BatchNorm))]
        self.training = [type(m).__name__ for m in norms if m.training]
        try:
            with (
                store.scope(store.get_state()),
                pyro.validation_enabled(False),
                pyro.poutine.block(),
                torch.set_grad_enabled(self.grad),
            ):
                if self.double:
                    torch.set_default_dtype(torch.double)
                for module in modules:
                    module.training = False
                self.detach([*tensors, *_unconstrained(store)])
                yield
        finally:
            torch.set_default_dtype(dtype)
            for tensor, original, flag in self.tensors.values():
                tensor.data = original
                if tensor.is_leaf and tensor.requires_grad != flag:  # Pyro's store wants gradients of all it is given
                    tensor.requires_grad_(flag)
            for item, content in containers:
                refill(item, content)
            for module, saved in attributes:
                restore(vars(module), saved)
            for module, flag in flags:
                module.training = flag
            self.tensors, self.parameters = {}, []
            set_rng_state(rng)
            if cuda is not None:
                torch.cuda.set_rng_state_all(cuda)

    def detach(self, tensors: Iterable[Tensor]) -> None:
        """Let tensors hold copies of their data until the end."""
        for tensor in tensors:
            if id(tensor) in self.tensors or type(tensor) not in (Tensor, nn.Parameter) or tensor.is_sparse:
                continue
            original = tensor.data
            self.tensors[id(tensor)] = tensor, original, tensor.requires_grad
            wide = self.double and original.is_floating_point()
            tensor.data = original.to(torch.double, copy=True) if wide else original.clone()

    def settle(self) -> None:
        """Find the parameters, also those that a first run has made."""
        modules, tensors = reachable(self.programs)
        for module in modules:
            module.training = False
        tensors += _unconstrained(pyro.get_param_store())
        self.detach(tensors)
        floats = {id(t): t for t in tensors if t.is_floating_point() and t.is_leaf}
        self.parameters = [(t, t.data) for t in floats.values() if t.requires_grad or isinstance(t, nn.Parameter)]
        self._moved = None

    def jitter(self, jitter: Jitter | int | None) -> None:
        """Move the parameters as `Jitter` says; None takes them as they are."""
        jitter = Jitter.of(jitter)
        if jitter == self._moved:
            return
        self._moved = jitter
        if jitter is not None:
            generator = torch.Generator().manual_seed(jitter.seed)
            noise = torch.randn(NOISE, generator=generator, dtype=torch.double)
        for i, (parameter, data) in enumerate(self.parameters):
            moved = data.clone()
            if jitter is not None:
                own = _cycled(noise, 97 * i, data.numel()).view(data.shape).to(data)
                moved = torch.where(data == 0, 0.1 * own, data * (0.3 * own).exp())
                moved = moved if jitter.shrink == 1 else jitter.shrink * moved
                moved = (
                    moved * _cycled(noise, 97 * i + 41, data.numel()).view(data.shape).sign() if jitter.flips else moved
                )
            parameter.data = moved


def _cycled(noise: Tensor, start: int, count: int) -> Tensor:
    """So many numbers of an endless repetition of `noise`: fresh ones for each of a million weights would take long."""
    start %= len(noise)
    return noise.repeat((start + count) // len(noise) + 1)[start : start + count]


def _unconstrained(store: Any) -> list[Tensor]:
    return list(store.get_state()["params"].values())


def seed_generators(seed: int) -> None:
    """Seed torch, Python and NumPy, as `pyro.set_rng_seed` does.

    Where there is no accelerator, `torch.manual_seed` would keep a call and its stack trace for every one that there
    might be, for good: a leak, and the time of a small run.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


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


def modules_of(*programs: Any) -> list[nn.Module]:
    """The modules that programs are, and then those that the others hold, however they are wrapped.

    None of them is part of another one in the list, but for the programs themselves.
    """
    own = [program for program in programs if isinstance(program, nn.Module)]
    found = reachable(program for program in programs if not isinstance(program, nn.Module))[0]
    inside = {part for module in [*own, *found] for part in module.modules() if part is not module}
    return list(dict.fromkeys([*own, *(module for module in found if module not in inside)]))


@cache
def _installed(module: str | None) -> bool:
    """Whether a module is of a library, so that its globals hold nothing of the user's."""
    package = (module or "").partition(".")[0]
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return package in LIBRARIES or package in sys.builtin_module_names or file.startswith(ROOTS)


def _shared(kind: type) -> list[Any]:
    """Objects that the classes of an object hold and their methods name; a library's own hold none of the user's."""
    mine = [c for c in kind.__mro__ if not _installed(c.__module__)]
    return [getattr(v, "__func__", v) for c in mine for v in vars(c).values()]


def _named(function: types.FunctionType) -> list[Any]:
    """Objects that a function closes over, has as defaults or names among its globals."""
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
