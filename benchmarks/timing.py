"""Timing in turns: what is compared runs side by side in every round, so that what else the machine does hits all."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter

from ppl_models.runs.machine import machine as machine


def in_turns(
    work: Mapping[str, Callable[[], object]], rounds: int, warm: int = 1, clock: Callable[[], float] = perf_counter
) -> dict[str, list[float]]:
    """Seconds of each piece of work in each round, in an order drawn anew for every round; the first ones do not count.

    Each piece must wait for what it has started (a device, a thread) before it returns. On a machine that does much
    else, `time.process_time` for a clock counts what the process itself computes.
    """
    order, shuffle = list(work), random.Random(0).shuffle
    times: dict[str, list[float]] = {name: [] for name in work}
    for i in range(-warm, rounds):
        shuffle(order)
        for name in order:
            start = clock()
            work[name]()
            if i >= 0:
                times[name].append(clock() - start)
    return times


def ratio(times: list[float], base: list[float]) -> float:
    """The median over the rounds of the ratio to what ran in the same round."""
    return median(t / b for t, b in zip(times, base, strict=True))


def on_threads(threads: int, module: str, args: list[str], environment: Mapping[str, str] | None = None) -> None:
    """Run `python -m module args` confined to so many of the cores that this process may use.

    A process of its own, because XLA sizes its pools once, by the cores it finds that it may use.

    Raises:
        subprocess.CalledProcessError: it fails.
    """
    fixed = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), **(environment or {})}
    command = [sys.executable, "-m", module, *args]
    if not hasattr(os, "sched_setaffinity"):
        subprocess.run(command, env={**os.environ, **fixed}, check=True)
        return
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, sorted(allowed)[-threads:])  # a child starts with what its parent has
        subprocess.run(command, env={**os.environ, **fixed}, check=True)
    finally:
        os.sched_setaffinity(0, allowed)


def without_caches(folder: str) -> dict[str, str]:
    """The environment in which nothing is found that was compiled before: set-up is that of a first time."""
    return {"TORCHINDUCTOR_CACHE_DIR": folder, "XDG_CACHE_HOME": folder}


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
