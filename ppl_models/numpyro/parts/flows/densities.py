"""`seen`, `FlowDensity`, `real_rows`: ports of `ppl_models.parts.flows.densities`."""

from collections.abc import Sequence
from typing import Any, Protocol

import equinox as eqx
import numpy as np
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import Distribution
from numpyro.distributions.transforms import Transform

from ppl_models.parts.arguments.sizes import check_count
from ppl_models.parts.checks import check_inside, check_spread

from ..distributions import StandardNormal
from ..likelihoods import check_data, readable


class Flow(Protocol):
    """A module whose `transforms(*context)` are bijections, as they are called on data."""

    def transforms(self, *context: Array) -> list[Transform]:
        """The first to be called first."""


def real_rows(x: Array | None, n: int, event: int, dtype: np.dtype, bound: float | None = None) -> int:
    """Port of `ppl_models.parts.flows.densities.real_rows`; values are read where `check_data` reads them."""
    if x is None:
        return check_count(n)
    check_data(x, event, dtype=dtype)
    if (values := readable(x)) is not None:
        check_spread(values.reshape(-1), np.unique, "x")
        if bound is not None:
            check_inside(values.reshape(-1), bound)
    return len(x)


def seen(base: Distribution, steps: Sequence[Transform]) -> dist.TransformedDistribution:
    """Port of `ppl_models.parts.flows.densities.seen`."""
    return dist.TransformedDistribution(base, [step.inv for step in reversed(steps)])


class FlowDensity(eqx.Module):
    """Port of `ppl_models.parts.flows.densities.FlowDensity`."""

    base: StandardNormal
    flow: Any

    def __init__(self, size: int, flow: Flow) -> None:
        self.base, self.flow = StandardNormal(size), flow

    def __call__(self, *context: Array) -> dist.TransformedDistribution:
        """The distribution, event shape (n,)."""
        return seen(self.base(), self.flow.transforms(*context))
