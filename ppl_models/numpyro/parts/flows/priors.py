"""`prior`: port of `ppl_models.parts.flows.priors`."""

from jax import Array

from ppl_models.parts.flows.words import flow_sizes

from ..distributions import StandardNormal
from .autoregressive import AutoregressiveFlow
from .densities import FlowDensity


def prior(owner: str, word: str, size: int, *, key: Array) -> StandardNormal | FlowDensity:
    """Port of `ppl_models.parts.flows.priors.prior`; `key` seeds the weights."""
    if word == "standard":
        return StandardNormal(size)
    return FlowDensity(size, AutoregressiveFlow(size, **flow_sizes(f"{owner}: prior", word), key=key))
