"""`unrolled`, `compiled`: runs of NumPyro programs that scan, whose loops JAX would compile anew in each eager run."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..state.jax import Parameters, tidied
from ..state.jitter import Jitter
from .experiments import Leaves, Values
from .site_records import ProgramRun, SiteRecord

UNROLLED = 40  # steps of a scan that a loop in Python is quicker with


def unrolled(scan: Callable) -> Callable:
    """A scan of NumPyro's as a loop in Python, unless it is long."""

    def run(step: Callable, init: Any, xs: Any, length: int | None, *args: Any, **kwargs: Any) -> Any:
        def inside(*given: Any) -> Any:
            with jax.disable_jit(False):
                return step(*given)

        length = jnp.shape(jax.tree.leaves(xs)[0])[0] if length is None else length
        with jax.disable_jit(length <= UNROLLED):
            return scan(inside, init, xs, length, *args, **kwargs)

    return run


def compiled(
    program: Callable,
    numbers: Callable[..., dict[str, tuple[Any, Any]]],
    eagerly: Callable[..., ProgramRun],
    parameters: Parameters,
    like: ProgramRun,
) -> Callable[[Values, int, Jitter | int | None, Leaves], ProgramRun]:
    """A function that runs a program, compiled as a whole at its first call; what it draws is drawn by an eager run.

    Args:
        program: which.
        numbers: of held values, leaves and a seed, the value and the signal of each site; JAX can trace it.
        eagerly: of held values, a seed, a jitter and leaves, a run.
        parameters: of the program; `numbers` reads them there.
        like: a run with such values held, whose sites any other has.
    """

    @jax.jit
    def traced(values: Any, moved: Any, leaves: Any, seed: int) -> dict[str, tuple[Any, Any]]:
        with parameters.given(moved):
            return numbers(values, leaves, seed)

    def run(values: Values, seed: int, jitter: Jitter | int | None, leaves: Leaves) -> ProgramRun:
        parameters.jitter(jitter)
        with tidied(program):
            found = traced(dict(values), parameters.now(), list(leaves), seed)
        if found.keys() != like.keys():
            raise ValueError(f"found the sites {[*found]}, which were {[*like]} in another run")
        again = cache(lambda: eagerly(values, seed, jitter, leaves))

        def record(name: str, site: SiteRecord) -> SiteRecord:
            value, signal = map(np.array, found[name])
            fresh = site.fresh and (lambda: _drawn(again()[name].fresh))
            states = site.states and (lambda: _drawn(again()[name].states))
            base = site.base and (lambda: _drawn(again()[name].base))
            found_site = replace(site.site, value=value)
            return replace(site, site=found_site, signal=signal, fresh=fresh, states=states, base=base)

        return ProgramRun(record(name, site) for name, site in like.items())

    return run


def _drawn(draw: Callable[[], np.ndarray | None] | None) -> np.ndarray | None:
    if draw is None:
        raise NotImplementedError("the site has no distribution in this run")
    return draw()
