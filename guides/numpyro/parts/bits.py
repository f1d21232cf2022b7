"""`Bits`, `AutoregressiveBits`: families of one factor of logits of relaxed bits; see `guides.parts.families.bits`."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import Distribution
from numpyro.distributions.transforms import AffineTransform

from ppl_models.numpyro.parts.bits import DependentBits, RelaxedBits
from ppl_models.numpyro.parts.flows.autoregressive import MaskedNet
from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count, Positive

from ...parts.checks import TEMPERATURE, entries_of, refuse_alone


@checked
class Bits:
    """See `guides.parts.families.bits.Bits`."""

    units, alone = "diagonal", "bits"

    def __init__(self, temperature: Positive = TEMPERATURE) -> None:
        self.temperature = temperature

    def count(self, n: int, precision_weighted: bool = False) -> int:
        """n: a logit each."""
        return n

    def residual(self, raw: Array, loc: Array | float, scale: Array | float) -> Distribution:
        """loc + scale y; raw = 0 leaves fair bits."""
        return _moved(RelaxedBits(raw, self.temperature).to_event(1), loc, scale)

    def precision_weighted(self, raw: Array, loc: Array, scale: Array) -> Distribution:
        """Raise ValueError: bits have no precision to add up."""
        refuse_alone("precision_weighted", self.alone)


@checked
class AutoregressiveBits:
    """See `guides.parts.families.bits.AutoregressiveBits`."""

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

    def over(self, n: int, *, key: Array) -> "Masked":
        """The family as a module, for one factor over R^n; `key` seeds the weights."""
        reads = entries_of(self.reads, n)
        return Masked(MaskedNet(reads, 1, (self.context,), self.hidden, self.depth, key=key), n, self.temperature)


class Masked(eqx.Module):
    """See `guides.parts.families.bits.Masked`."""

    net: MaskedNet
    n: int = eqx.field(static=True)
    temperature: float = eqx.field(static=True)

    def __init__(self, net: MaskedNet, n: int, temperature: float) -> None:
        self.net, self.n, self.temperature = net, n, temperature

    def residual(self, raw: Array, loc: Array | float, scale: Array | float) -> Distribution:
        """loc + scale y."""
        return _moved(DependentBits(raw[..., : self.n], self.net, (raw[..., self.n :],), self.temperature), loc, scale)

    def precision_weighted(self, raw: Array, loc: Array, scale: Array) -> Distribution:
        """Raise ValueError: bits have no precision to add up."""
        refuse_alone("precision_weighted", AutoregressiveBits.alone)


def _moved(q: Any, loc: Array | float, scale: Array | float) -> Distribution:
    if not (isinstance(loc, Array) or isinstance(scale, Array)) and (loc, scale) == (0.0, 1.0):
        return q  # which can be discretized
    return dist.TransformedDistribution(q, [AffineTransform(loc, scale)])
