"""The ways to train a workload, as functions that run so many steps and wait for the last.

Each has a pair of its own from the same seed, the same rows already on the device, and Adam with the same numbers
(PyTorch's fused AdamW without decay, NumPyro's Adam); nobody clips or averages.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from ppl_models.inference import training_step

from .workloads import Workload

LR = 1e-3
Run = Callable[[int], None]


def waited(step: Callable[[], object], x: Tensor) -> Run:
    """So many steps, and a wait for the device of x."""

    def many(steps):
        for _ in range(steps):
            step()

    return ended(many, x)


def ended(many: Run, x: Tensor) -> Run:
    """A function that takes many steps, and then waits for the device of x."""

    def run(steps):
        many(steps)
        if x.is_cuda:
            torch.cuda.synchronize()

    return run


def pyro_svi(workload: Workload, device: str, particles: int = 1) -> Run:
    """Pyro as shipped: `SVI`, `pyro.optim.Adam`, `Trace_ELBO`, validation on."""
    model, guide, x = workload.build(device=device)
    elbo = Trace_ELBO(particles, vectorize_particles=particles > 1)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": LR}), elbo)

    def step():
        with pyro.validation_enabled(True):
            svi.step(x)

    return waited(step, x)


def hand(workload: Workload, device: str, particles: int = 1, mode: str | None = None) -> Run:
    """Written by hand, eager or with `torch.compile` in a mode."""
    model, guide, x = workload.build(device=device)
    bound: nn.Module = workload.hand(model, guide)
    draws = None if particles == 1 else particles

    def loss(x):
        return -bound(x, draws).mean()

    compiled = torch.compile(loss, fullgraph=True, dynamic=False, mode=mode) if mode else loss
    optimizer = torch.optim.AdamW(bound.parameters(), lr=LR, weight_decay=0.0, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        compiled(x).backward()
        optimizer.step()

    return waited(step, x)


def ours(workload: Workload, device: str, particles: int = 1, compile: str | bool = False, **options: Any) -> Run:
    """The collection's own step of the Pyro pair."""
    model, guide, x = workload.build(device=device)
    options |= {"particles": particles} if particles > 1 else {}
    step = training_step(model, guide, (x,), compile=compile, lr=LR, **options)

    def many(steps):
        step.many([(x,)] * steps)
        for note in step.notes:  # it fell back, and would be timed for what it is not
            raise NotImplementedError(note)

    return ended(many, x)


def numpyro(workload: Workload, device: str, scan: bool) -> Run:
    """The pair in NumPyro, one call a step or all in one."""
    from . import by_numpyro

    pair = workload.build()
    return by_numpyro.scanned(*pair, lr=LR) if scan else by_numpyro.jitted(*pair, lr=LR)


VARIANTS: dict[str, Callable[..., Run]] = {
    "pyro-svi": pyro_svi,
    "hand-eager": hand,
    "hand-compiled": lambda *args, **options: hand(*args, mode="default", **options),
    "hand-graphs": lambda *args, **options: hand(*args, mode="reduce-overhead", **options),
    "numpyro-jit": lambda *args: numpyro(*args, scan=False),
    "numpyro-scan": lambda *args: numpyro(*args, scan=True),
    "ours-eager": ours,
    "ours-compiled": lambda *args, **options: ours(*args, compile=True, **options),
    "ours-bfloat16": lambda *args, **options: ours(*args, compile=True, precision="bfloat16", **options),
    "ours-inductor": lambda *args, **options: ours(*args, compile="inductor", **options),
}
BASE, OURS = "hand-eager", "ours-compiled"
RIVALS = ("hand-compiled", "hand-graphs", "numpyro-jit", "numpyro-scan")


def absent(name: str, device: str) -> str | None:
    """Why a variant cannot run here, None if it can."""
    if name == "hand-graphs" and device != "cuda":
        return "CUDA graphs want a CUDA device"
    if name.startswith("numpyro"):
        if any(find_spec(package) is None for package in ("jax", "numpyro")):
            return "jax or numpyro is not installed"
        import jax

        if device == "cuda" and jax.default_backend() != "gpu":
            return "this jax has no CUDA"
    return None
