"""Run programs over torch as if they had never run: parameters, buffers, stores, random numbers and modes come back."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import pyro
import torch
from pyro.distributions.transforms import BatchNorm
from pyro.util import get_rng_state, set_rng_state
from torch import Tensor, nn

from .torch_reach import reachable, refill

NOISE = 65_521  # a prime, so that no two rows of a weight matrix meet the same numbers


class Kept:
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
        self._moved: int | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Take down, let the caller run programs, and put back."""
        store, dtype, rng = pyro.get_param_store(), torch.get_default_dtype(), get_rng_state()
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        containers: list = []
        modules, tensors = reachable(self.programs, containers)
        flags = [(module, module.training) for module in modules]
        for module in modules:
            if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
                raise ValueError(
                    f"found a {type(module).__name__} whose parameters its first call will make, want them made: an "
                    "inspection leaves modules as they are; call the program once"
                )
        attributes = [(m, _containers(m)) for m in modules]
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
                _restore(module, saved)
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

    def jitter(self, seed: int | None) -> None:
        """Scale what is not zero in a parameter by exp(0.3 noise), and put 0.1 noise where it is: signs are kept.

        None takes the parameters as they are.
        """
        if seed == self._moved:
            return
        self._moved = seed
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(NOISE, generator=generator, dtype=torch.double)
        for i, (parameter, data) in enumerate(self.parameters):
            moved = data.clone()
            if seed is not None:
                own = _cycled(noise, 97 * i, data.numel()).view(data.shape).to(data)
                moved = torch.where(data == 0, 0.1 * own, data * (0.3 * own).exp())
            parameter.data = moved


def _cycled(noise: Tensor, start: int, count: int) -> Tensor:
    """So many numbers of an endless repetition of `noise`: fresh ones for each of a million weights would take long."""
    start %= len(noise)
    return noise.repeat((start + count) // len(noise) + 1)[start : start + count]


def _unconstrained(store: Any) -> list[Tensor]:
    return list(store.get_state()["params"].values())


def _containers(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """The attributes of a module, with copies of those that are containers."""
    return {k: (v, copy(v) if isinstance(v, (dict, list, set)) else None) for k, v in vars(module).items()}


def _restore(module: nn.Module, saved: dict[str, tuple[Any, Any]]) -> None:
    for key in set(vars(module)) - set(saved):
        del vars(module)[key]
    for key, (value, content) in saved.items():
        if content is not None:
            value.clear()
            value.extend(content) if isinstance(value, list) else value.update(content)
        vars(module)[key] = value
