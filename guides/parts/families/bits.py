"""`Bits`, `AutoregressiveBits`: families of one factor over logits of relaxed bits, each for itself or given others."""

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions.transforms import AffineTransform

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count, Positive
from ppl_models.parts.bits import DependentBits, RelaxedBits
from ppl_models.parts.flows.autoregressive import MaskedNet

from ..checks import TEMPERATURE, entries_of, refuse_alone


@checked
class Bits:
    """Independent relaxed bits: y_i = (a_i + logistic noise) / t, a_i the numbers of the factor's network.

    Args:
        temperature: t, which need not be the prior's; where it is another, equal logits leave a divergence.

    Source: Maddison, Mnih, Teh 2017 (arXiv 1611.00712), of which we take it, unverified, that 2/3 goes with 1/2 in the
    prior.
    """

    units, alone = "diagonal", "bits"

    def __init__(self, temperature: Positive = TEMPERATURE) -> None:
        self.temperature = temperature

    def count(self, n: int, precision_weighted: bool = False) -> int:
        """n: a logit each."""
        return n

    def residual(self, raw: Tensor, loc: Tensor | float, scale: Tensor | float) -> TorchDistributionMixin:
        """loc + scale y; raw = 0 leaves fair bits."""
        return _moved(RelaxedBits(raw, self.temperature).to_event(1), loc, scale)

    def precision_weighted(self, raw: Tensor, loc: Tensor, scale: Tensor) -> TorchDistributionMixin:
        """Raise ValueError: bits have no precision to add up."""
        refuse_alone("precision_weighted", self.alone)


@checked
class AutoregressiveBits:
    """Relaxed bits of which each is given others: y_i = (a_i + f_i(b_pa(i), c) + logistic noise) / t, b = sigmoid(y).

    f is a masked network (`parts.flows.autoregressive.MaskedNet`); a and its context c are the numbers of the factor's
    own network. A density takes one call of f, a draw one for each entry of the longest path of reading.

    Args:
        reads: whether each entry is given each other, a matrix as `parents.needed_entries` gives it; None for all the
            entries before it, with which a factor can be exact whatever the decoder.
        temperature: t, as for `Bits`.
        hidden, depth: of f.
        context: how many numbers c are.

    Source: Webb et al. 2018 (arXiv 1712.00287) in what a bit is given; Germain et al. 2015 (arXiv 1502.03509) in how.
    """

    units, alone = "diagonal", "autoregressive-bits"

    def __init__(
        self,
        reads: Sequence[Sequence[bool]] | None = None,
        temperature: Positive = TEMPERATURE,
        hidden: Count = 100,
        depth: Count = 1,
        context: Count = 32,
    ) -> None:
        self.reads, self.temperature = reads, temperature
        self.hidden, self.depth, self.context = hidden, depth, context

    def count(self, n: int, precision_weighted: bool = False) -> int:
        """n + context: a logit each, and the context."""
        return n + self.context

    def over(self, n: int) -> "Masked":
        """The family as a module, for one factor over R^n."""
        reads = entries_of(self.reads, n)
        return Masked(MaskedNet(reads, 1, (self.context,), self.hidden, self.depth), self.temperature)


class Masked(nn.Module):
    """An `AutoregressiveBits` family for one factor.

    Args:
        net: f.
        temperature: t.
    """

    def __init__(self, net: MaskedNet, temperature: float) -> None:
        super().__init__()
        self.net, self.temperature = net, temperature

    def residual(self, raw: Tensor, loc: Tensor | float, scale: Tensor | float) -> TorchDistributionMixin:
        """loc + scale y."""
        n = self.net.entries.in_features
        return _moved(DependentBits(raw[..., :n], self.net, (raw[..., n:],), self.temperature), loc, scale)

    def precision_weighted(self, raw: Tensor, loc: Tensor, scale: Tensor) -> TorchDistributionMixin:
        """Raise ValueError: bits have no precision to add up."""
        refuse_alone("precision_weighted", AutoregressiveBits.alone)


def _moved(q: Any, loc: Tensor | float, scale: Tensor | float) -> TorchDistributionMixin:
    if not (isinstance(loc, Tensor) or isinstance(scale, Tensor)) and (loc, scale) == (0.0, 1.0):
        return q  # which can be discretized
    return dist.TransformedDistribution(q, [AffineTransform(loc, scale, cache_size=1)])
