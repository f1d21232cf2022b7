"""`Autoregressive`: families of one factor over R^n by autoregressive steps, whose networks are the factor's own."""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import AffineTransform

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.distributions import diagonal_normal
from ppl_models.parts.flows.autoregressive import AutoregressiveFlow
from ppl_models.parts.flows.orders import contraction

from .continuous import Diagonal
from .stepwise import Stepwise


@checked
class Autoregressive(Stepwise):
    """A family of autoregressive steps, see `Stepwise`, whose networks are modules of torch."""

    def over(self, n: int) -> "Steps":
        """The family as a module, for one factor over R^n."""
        flow = AutoregressiveFlow(n, self.steps, (self.context,), self.hidden, self.depth, self.kind)
        return Steps(n, flow, contraction(self.kind, self.steps), self.backward)


class Steps(nn.Module):
    """An `Autoregressive` family for one factor: the diagonal family, whose noise goes through the steps.

        z = m + s T(y),    y ~ N(0, I),    m and s of the diagonal family, T given a context

    T is the composition of the steps, times a constant with which T starts near the identity. m and s come after the
    steps: so these work in units of the factor, whatever the units of the prior, and m and s can be those of a product
    with the prior. (In the paper they come before the steps, which are given a context from the same network.)

    Args:
        n: entries of the factor.
        flow: the steps.
        unit: the scale of T at the start, before the constant: 0.88 a step for gates, else 1.
        backward: whether a draw goes through them backward.
    """

    def __init__(self, n: int, flow: AutoregressiveFlow, unit: float, backward: bool) -> None:
        super().__init__()
        self.n, self.flow, self.unit, self.backward = n, flow, unit, backward

    def residual(self, raw: Tensor, loc: Tensor | float, scale: Tensor | float) -> TorchDistributionMixin:
        """See the class."""
        return self._pushed(Diagonal().residual(raw[..., : 2 * self.n], loc, scale), raw)

    def precision_weighted(self, raw: Tensor, loc: Tensor, scale: Tensor) -> TorchDistributionMixin:
        """See the class."""
        return self._pushed(Diagonal().precision_weighted(raw[..., : 2 * self.n], loc, scale), raw)

    def _pushed(self, gaussian: Any, raw: Tensor) -> TorchDistributionMixin:
        loc, scale = gaussian.base_dist.loc, gaussian.base_dist.scale
        steps = self.flow.transforms(raw[..., 2 * self.n :])
        steps = [step.inv for step in reversed(steps)] if self.backward else steps
        noise = diagonal_normal(torch.zeros_like(loc), torch.ones_like(loc))
        return dist.TransformedDistribution(noise, [*steps, AffineTransform(loc, scale / self.unit, cache_size=1)])
