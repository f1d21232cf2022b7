"""`Autoregressive`: families of one factor over R^n by autoregressive steps; see `guides.parts.flows`."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import Distribution
from numpyro.distributions.transforms import AffineTransform

from ppl_models.numpyro.parts.distributions import diagonal_normal
from ppl_models.numpyro.parts.flows.autoregressive import AutoregressiveFlow
from ppl_models.numpyro.parts.likelihoods import bounded_exp
from ppl_models.parts.checked import checked
from ppl_models.parts.flows.orders import contraction

from ...parts.stepwise import Stepwise
from .families import Diagonal


@checked
class Autoregressive(Stepwise):
    """A family of autoregressive steps, see `Stepwise`, whose networks are modules of Equinox."""

    def over(self, n: int, *, key: Array) -> "Steps":
        """The family as a module, for one factor over R^n; `key` seeds the weights."""
        flow = AutoregressiveFlow(n, self.steps, (self.context,), self.hidden, self.depth, self.kind, key=key)
        return Steps(n, flow, contraction(self.kind, self.steps), self.backward)


class Steps(eqx.Module):
    """See `guides.parts.flows.Steps`."""

    flow: AutoregressiveFlow
    n: int = eqx.field(static=True)
    unit: float = eqx.field(static=True)
    backward: bool = eqx.field(static=True)

    def __init__(self, n: int, flow: AutoregressiveFlow, unit: float, backward: bool) -> None:
        self.n, self.flow, self.unit, self.backward = n, flow, unit, backward

    def residual(self, raw: Array, loc: Array | float, scale: Array | float) -> Distribution:
        """See the class."""
        shift, log_scale, context = jnp.split(raw, [self.n, 2 * self.n], -1)
        return self._pushed(diagonal_normal(shift / scale, bounded_exp(log_scale)), context, loc, scale)

    def precision_weighted(self, raw: Array, loc: Array, scale: Array) -> Distribution:
        """See the class."""
        raw, context = jnp.split(raw, [2 * self.n], -1)
        product: Any = Diagonal().precision_weighted(raw, loc, scale)
        loc, scale = product.base_dist.loc, product.base_dist.scale
        return self._pushed(diagonal_normal(jnp.zeros_like(loc), jnp.ones_like(scale)), context, loc, scale)

    def _pushed(self, base: Any, context: Array, loc: Array | float, scale: Array | float) -> Distribution:
        steps = self.flow.transforms(context)
        steps = [step.inv for step in reversed(steps)] if self.backward else steps
        return dist.TransformedDistribution(base, [*steps, AffineTransform(loc, scale / self.unit)])
