"""`FlowPrior`: a density of codes by autoregressive steps; `prior`: a prior by its word."""

from typing import Any

import pyro.distributions as dist
from torch import Tensor, nn

from ..distributions import StandardNormal
from .autoregressive import AutoregressiveFlow
from .words import flow_sizes


class FlowPrior(nn.Module):
    """N(0, I) seen through autoregressive steps T: at once for the density of a code, level by level for a draw.

        log p(z) = log N(T(z); 0, I) + log|det dT/dz|

    The same model has the prior N(0, I) of eps = T(z) and a decoder that begins by T^-1; the posterior of eps is then
    one of inverse autoregressive steps.

    Args:
        size: n, the length of a code.
        sizes: of the `AutoregressiveFlow`.

    Source: Chen et al. 2017 (arXiv 1611.02731), section 3.2; Durkan et al. 2019 (arXiv 1906.04032), section 5.3.
    """

    def __init__(self, size: int, **sizes: Any) -> None:
        super().__init__()
        self.base = StandardNormal(size)
        self.flow = AutoregressiveFlow(size, **sizes)

    @property
    def loc(self) -> Tensor:
        """The mean of the base, (n,)."""
        return self.base.loc

    def forward(self) -> dist.TransformedDistribution:
        """The distribution, event shape (n,)."""
        return dist.TransformedDistribution(self.base(), [step.inv for step in reversed(self.flow.transforms())])


def prior(owner: str, word: str, size: int) -> StandardNormal | FlowPrior:
    """The prior of a code: "standard", "maf", "maf-mean" (steps that only shift) or "nsf", with sizes or without.

    "nsf:passes=2" is one of couplings, "maf-mean:steps=4,hidden=640,depth=2" that of Chen et al.

    Raises:
        ValueError: an unknown word or size; `owner` is the model that asks.
    """
    return StandardNormal(size) if word == "standard" else FlowPrior(size, **flow_sizes(f"{owner}: prior", word))
