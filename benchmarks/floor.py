"""`floor`: the least that a step can take on a CPU, by its products and by the update of its parameters.

    multiplications and additions of the products / the peak of products  +  bytes of the update / the bandwidth

Both are measured in the process that asks, on its threads. The update reads parameters, gradients and two moments, and
writes all but the gradients; what else a step reads and writes is left out, so that a step is above the floor.
"""

from importlib.util import find_spec
from time import perf_counter

import torch
from torch.utils.flop_counter import FlopCounterMode

from ppl_models.inference import training_step

from .workloads import Workload

SIDE, LARGE = 1536, 2**26  # of a product; elements of what is copied
TIMES = 7


def floor(workload: Workload) -> dict[str, float]:
    """Milliseconds, and what they are made of."""
    model, guide, x = workload.build()
    step = training_step(model, guide, (x,), compile=False)
    step(x)
    with FlopCounterMode(display=False) as counter:
        step(x)
    parameters = {p for module in (model, guide) for p in module.parameters()}
    moved = sum(7 * p.numel() * p.element_size() for p in parameters)
    operations, peak, speed = counter.get_total_flops(), flops_a_second(), bytes_a_second()
    ms = 1e3 * (operations / peak + moved / speed)
    return {"ms": ms, "gflop": operations / 1e9, "mb": moved / 1e6, "gflop_s": peak / 1e9, "gb_s": speed / 1e9}


def flops_a_second() -> float:
    """The most that products of single precision reach, by torch or by XLA."""
    a = torch.rand(SIDE, SIDE)
    best = _fastest(lambda: a @ a)
    if find_spec("jax"):
        import jax

        product, b = jax.jit(lambda b: b @ b), jax.numpy.asarray(a.numpy())
        best = min(best, _fastest(lambda: product(b).block_until_ready()))
    return 2 * SIDE**3 / best


def bytes_a_second() -> float:
    """What a copy of much more than the caches reads and writes."""
    source, target = torch.rand(LARGE), torch.empty(LARGE)
    return 2 * source.nbytes / _fastest(lambda: target.copy_(source))


def _fastest(work) -> float:
    times = []
    for _ in range(TIMES + 1):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return min(times[1:])
