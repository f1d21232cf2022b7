"""`Autoregressive`: families of one factor over R^n by autoregressive steps, whose networks are the factor's own."""

from typing import Any

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import AffineTransform

from ppl_models.parts.checked import checked
from ppl_models.parts.distributions import diagonal_normal
from ppl_models.parts.flows.autoregressive import AutoregressiveFlow
from ppl_models.parts.flows.orders import contraction
from ppl_models.parts.likelihoods import bounded_exp

from .families import Diagonal
from .stepwise import Stepwise


@checked
class Autoregressive(Stepwise):
    """A family of autoregressive steps, see `Stepwise`, whose networks are modules of torch."""

    def over(self, n: int) -> "Steps":
        """The family as a module, for one factor over R^n."""
        flow = AutoregressiveFlow(n, self.steps, (self.context,), self.hidden, self.depth, self.kind)
        return Steps(n, flow, contraction(self.kind, self.steps), self.backward)


class Steps(nn.Module):
    """An `Autoregressive` family for one factor: a diagonal Gaussian pushed through its steps, in units of the prior.

        z = loc + scale T(y),    y ~ N(shift / scale, diag exp(r)^2),    T given a context beside shift and r

    T is what the steps make of y, times a constant with which it starts near the identity. As a product with a prior,
    the product of the Gaussians comes first: N(m, s^2), and z = m + s T(y), y ~ N(0, I).

    Args:
        n: entries of the factor.
        flow: the steps.
        unit: what they multiply differences by at the start.
        backward: whether a draw goes through them backward.
    """

    def __init__(self, n: int, flow: AutoregressiveFlow, unit: float, backward: bool) -> None:
        super().__init__()
        self.n, self.flow, self.unit, self.backward = n, flow, unit, backward

    def residual(self, raw: Tensor, loc: Tensor | float, scale: Tensor | float) -> TorchDistributionMixin:
        """See the class."""
        shift, log_scale, context = raw.split([self.n, self.n, raw.shape[-1] - 2 * self.n], -1)
        return self._pushed(diagonal_normal(shift / scale, bounded_exp(log_scale)), context, loc, scale)

    def precision_weighted(self, raw: Tensor, loc: Tensor, scale: Tensor) -> TorchDistributionMixin:
        """See the class."""
        raw, context = raw.split([2 * self.n, raw.shape[-1] - 2 * self.n], -1)
        merged: Any = Diagonal().precision_weighted(raw, loc, scale).base_dist
        base = diagonal_normal(merged.loc.new_zeros(()).expand(merged.loc.shape), merged.scale.new_ones(()))
        return self._pushed(base, context, merged.loc, merged.scale)

    def _pushed(self, base: Any, context: Tensor, loc: Tensor | float, scale: Tensor | float) -> Any:
        steps = self.flow.transforms(context)
        steps = [step.inv for step in reversed(steps)] if self.backward else steps
        return dist.TransformedDistribution(base, [*steps, AffineTransform(loc, scale / self.unit, cache_size=1)])
