"""`prior`: the prior of a code by its word."""

from ..distributions import StandardNormal
from .autoregressive import AutoregressiveFlow
from .densities import FlowDensity
from .words import flow_sizes


def prior(owner: str, word: str, size: int) -> StandardNormal | FlowDensity:
    """The prior of a code: "standard", "maf", "maf-mean" (steps that only shift) or "nsf", with sizes or without.

    A flow's takes one call a step for the density of a code, and one a level for a draw. The same model has the prior
    N(0, I) of eps = T(z) and a decoder that begins by T^-1; the posterior of eps is then one of inverse autoregressive
    steps. "nsf:passes=2" is one of couplings, "maf-mean:steps=4,hidden=640,depth=2" that of Chen et al.

    Raises:
        ValueError: an unknown word or size; `owner` is the model that asks.

    Source: Chen et al. 2017 (arXiv 1611.02731), section 3.2; Durkan et al. 2019 (arXiv 1906.04032), section 5.3.
    """
    if word == "standard":
        return StandardNormal(size)
    return FlowDensity(size, AutoregressiveFlow(size, **flow_sizes(f"{owner}: prior", word)))
