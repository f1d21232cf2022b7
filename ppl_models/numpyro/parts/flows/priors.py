"""`FlowPrior`, `prior`: ports of `ppl_models.parts.flows.priors`."""

from typing import Any

import equinox as eqx
import numpyro.distributions as dist
from jax import Array

from ppl_models.parts.flows.words import flow_sizes

from ..distributions import StandardNormal
from .autoregressive import AutoregressiveFlow


class FlowPrior(eqx.Module):
    """Port of `ppl_models.parts.flows.priors.FlowPrior`; `key` seeds the weights."""

    base: StandardNormal
    flow: AutoregressiveFlow

    def __init__(self, size: int, *, key: Array, **sizes: Any) -> None:
        self.base = StandardNormal(size)
        self.flow = AutoregressiveFlow(size, **sizes, key=key)

    def __call__(self) -> dist.TransformedDistribution:
        """The distribution, event shape (n,)."""
        return dist.TransformedDistribution(self.base(), [step.inv for step in reversed(self.flow.transforms())])


def prior(owner: str, word: str, size: int, *, key: Array) -> StandardNormal | FlowPrior:
    """Port of `ppl_models.parts.flows.priors.prior`; `key` seeds the weights."""
    if word == "standard":
        return StandardNormal(size)
    return FlowPrior(size, **flow_sizes(f"{owner}: prior", word), key=key)
