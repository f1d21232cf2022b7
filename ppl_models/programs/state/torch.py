"""`ProgramSnapshot`: run programs over torch as if they had never run.

Parameters, buffers, stores, containers, random numbers and modes come back; `reachable` finds what there is of them.
`modules_of`: those modules that programs are or hold.
"""

import random
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..blame import ROOTS
from .jitter import Jitter
from .reach import closed_over, global_names, held_by, parts, put_back
from .torch_copies import noise_of, places_for, repeat

MOST = 100_000  # objects that are looked into, modules and tensors apart
# What these hold in modules and classes is none of the user's; it is their objects that are looked into.
LIBRARIES = ("torch", "pyro", "numpy", "builtins", "jax", "scipy", "ppl_models", "guides")
CLOSED = ("torch", "pyro", "numpy", "builtins", "jax", "scipy")  # nor do their objects matter, but for modules
HOLDERS = (
    torch.distributions.Distribution,
    torch.distributions.Transform,
    pyro.nn.PyroSample,
    pyro.poutine.messenger.Messenger,
)
GENERATORS = torch.Generator, np.random.Generator
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
        self.generators = False  # whether programs hold any of their own
        self._moved: Jitter | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Take down, let the caller run programs, and put back."""
        store, dtype, rng = pyro.get_param_store(), torch.get_default_dtype(), get_rng_state()
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        containers: list = []
        modules, tensors = reachable(self.programs, containers)
        self.generators = any(isinstance(item, GENERATORS) for item, _ in containers)
        flags = [(module, module.training) for module in modules]
        for module in modules:
            if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
                raise ValueError(
                    f"found a {type(module).__name__} whose parameters its first call will make, want them made: an "
                    "inspection leaves modules as they are; call the program once"
                )
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
            for module, flag in flags:
                if module.training is not flag:
                    module.training = flag
            for item, content in containers:
                if item or content:
                    refill(item, content)
            self.tensors, self.parameters = {}, []
            set_rng_state(rng)
            if cuda is not None:
                torch.cuda.set_rng_state_all(cuda)

    def detach(self, tensors: Iterable[Tensor]) -> None:
        """Let tensors hold copies of their data until the end."""
        new = {id(t): t for t in tensors if _replaceable(t)}
        found = [tensor for key, tensor in new.items() if key not in self.tensors]
        for tensor, place in zip(found, places_for([t.data for t in found], self.double), strict=True):
            self.tensors[id(tensor)] = tensor, tensor.data, tensor.requires_grad
            tensor.data = place.copy_(tensor.data)

    def settle(self) -> None:
        """Find the parameters, also those that a first run has made."""
        modules, tensors = reachable(self.programs)
        for module in modules:
            module.training = False
        tensors += _unconstrained(pyro.get_param_store())
        self.detach(tensors)
        floats = {id(t): t for t in tensors if id(t) in self.tensors and t.is_floating_point() and t.is_leaf}
        self.parameters = [(t, t.data) for t in floats.values() if t.requires_grad or isinstance(t, nn.Parameter)]
        self._moved = None

    def jitter(self, jitter: Jitter | int | None) -> None:
        """Move the parameters as `Jitter` says; None takes them as they are."""
        jitter = Jitter.of(jitter)
        if jitter == self._moved:
            return
        self._moved = jitter
        places = places_for([data for _, data in self.parameters])
        if jitter is None:
            for (parameter, data), place in zip(self.parameters, places, strict=True):
                parameter.data = place.copy_(data)
            return
        noise = noise_of(jitter.seed)
        scale = jitter.shrink * noise.roll(-41).sign() if jitter.flips else jitter.shrink
        factors, fresh = scale * (0.3 * noise).exp(), scale * 0.1 * noise
        for i, ((parameter, data), place) in enumerate(zip(self.parameters, places, strict=True)):
            others = int(data.count_nonzero())
            parameter.data = repeat(factors if others else fresh, 97 * i, place)
            if others:
                place.mul_(data)
            if 0 < others < data.numel():
                place.copy_(torch.where(data == 0, repeat(fresh, 97 * i, torch.empty_like(place)), place))


def _replaceable(tensor: Tensor) -> bool:
    """Whether a tensor can hold other data for a while: one that cannot is not moved either."""
    plain = type(tensor) is Tensor or isinstance(tensor, nn.Parameter)
    return plain and not tensor.is_sparse and not is_traceable_wrapper_subclass(tensor)


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


def streams() -> tuple | None:
    """What tells whether the generators of `seed_generators` have been drawn from since they were seeded.

    None where there are those of accelerators, too. Python's and NumPy's are asked for their next number, and so moved
    on: to read their states takes a hundred times as long.
    """
    if torch.accelerator.is_available():
        return None
    return torch.default_generator.get_state().numpy().tobytes(), random.random(), np.random.random_sample()


def reachable(roots: Iterable[Any], containers: list | None = None) -> tuple[list[nn.Module], list[Tensor]]:
    """The modules and tensors that programs hold: attributes, closures, default arguments, globals they name.

    Args:
        roots: programs, or anything else.
        containers: filled with each container and generator of random numbers met, and a copy of what it holds.
    """
    modules: list[nn.Module] = []
    tensors: list[Tensor] = []
    seen: set[int] = set()
    stack, kept, others = list(roots), [], 0
    while stack and others < MOST:
        item = stack.pop()
        kind = type(item)
        if kind in PLAIN or id(item) in seen or isinstance(item, PLAIN):
            continue
        seen.add(id(item))
        kept.append(item)  # a temporary that is let go could lend its id to another
        if kind is nn.Parameter or isinstance(item, Tensor):
            tensors.append(item)
            continue
        if isinstance(item, nn.Module):
            modules.append(item)
            stack += _attributes(item, containers)
            if isinstance(item, torch.jit.ScriptModule):
                modules += (inner := [m for m in item.modules() if m is not item])
                tensors += [*item.parameters(), *item.buffers()]
                for module in inner:
                    stack += _attributes(module, containers)
            stack += _shared(kind)
            continue
        others += 1
        if containers is not None and isinstance(item, (dict, list, set, deque)):
            containers.append((item, held_by(item)))
        if containers is not None and isinstance(item, GENERATORS):
            containers.append((item, stream_of(item)))
        if (inside := parts(item, _named)) is not None:
            stack += inside
        elif isinstance(item, HOLDERS):
            stack.append(vars(item))
        elif (type(item).__module__ or "").partition(".")[0] not in CLOSED and hasattr(item, "__dict__"):
            stack += [vars(item), *_shared(kind)]
    return modules, tensors


def _attributes(module: nn.Module, containers: list | None) -> list[Any]:
    """What a module holds, its parameters, buffers, parts and hooks: two dozen containers, most of them empty."""
    found, mine = [], vars(module)
    if containers is not None:
        containers.append((mine, dict(mine)))
    for value in mine.values():
        if type(value) not in (dict, OrderedDict, set):
            found.append(value)
            continue
        if containers is not None:
            containers.append((value, held_by(value)))
        if value:
            found += value if isinstance(value, set) else value.values()
    return found


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
    else:
        put_back(item, content)
