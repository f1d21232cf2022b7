"""`Autoregressive`: families of one factor over R^n by autoregressive steps; see `guides.parts.families.flows`."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import Distribution
from numpyro.distributions.transforms import AffineTransform

from guides.parts.families.stepwise import Stepwise
from ppl_models.numpyro.parts.distributions import diagonal_normal
from ppl_models.numpyro.parts.flows.autoregressive import AutoregressiveFlow
from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.flows.orders import contraction

from .families import Diagonal


@checked
class Autoregressive(Stepwise):
    """A family of autoregressive steps, see `Stepwise`, whose networks are modules of Equinox."""

    def over(self, n: int, *, key: Array) -> "Steps":
        """The family as a module, for one factor over R^n; `key` seeds the weights."""
        flow = AutoregressiveFlow(n, self.steps, (self.context,), self.hidden, self.depth, self.kind, key=key)
        return Steps(n, flow, contraction(self.kind, self.steps), self.backward)


class Steps(eqx.Module):
    """See `guides.parts.families.flows.Steps`."""

    flow: AutoregressiveFlow
    n: int = eqx.field(static=True)
    unit: float = eqx.field(static=True)
    backward: bool = eqx.field(static=True)

    def __init__(self, n: int, flow: AutoregressiveFlow, unit: float, backward: bool) -> None:
        self.n, self.flow, self.unit, self.backward = n, flow, unit, backward

    def residual(self, raw: Array, loc: Array | float, scale: Array | float) -> Distribution:
        """See the class."""
        return self._pushed(Diagonal().residual(raw[..., : 2 * self.n], loc, scale), raw)

    def precision_weighted(self, raw: Array, loc: Array, scale: Array) -> Distribution:
        """See the class."""
        return self._pushed(Diagonal().precision_weighted(raw[..., : 2 * self.n], loc, scale), raw)

    def _pushed(self, gaussian: Any, raw: Array) -> Distribution:
        loc, scale = gaussian.base_dist.loc, gaussian.base_dist.scale
        steps = self.flow.transforms(raw[..., 2 * self.n :])
        steps = [step.inv for step in reversed(steps)] if self.backward else steps
        noise = diagonal_normal(jnp.zeros_like(loc), jnp.ones_like(loc))
        return dist.TransformedDistribution(noise, [*steps, AffineTransform(loc, scale / self.unit)])
