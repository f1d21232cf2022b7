"""Infused inference: the model's own chain, with values of the datum infused into it."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import Distribution, Normal, constraints

from guides.parts.families.factors import Rows
from ppl_models.parts.arguments.kinds import Image, Number, Positive
from ppl_models.programs.numpyro import unwrapped

from ..parts.infusion import channels_of, rates_of, refuse_prior
from .parts.families import gaussian_base
from .parts.guide import TopDown, TopDownGuide
from .parts.table import Table


class InfusedNormal(Distribution):
    """Port of `guides.infused.InfusedNormal`."""

    arg_constraints: ClassVar[dict] = {
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    reparametrized_params = ["loc", "scale"]
    pytree_data_fields = ("loc", "scale", "target")
    pytree_aux_fields = ("rate", "width", "channels")

    def __init__(
        self, loc: Array, scale: Array, target: Array, rate: float, width: float = 0.01, channels: int = 1
    ) -> None:
        self.loc, self.scale, self.target = jnp.broadcast_arrays(loc, scale, target)
        self.rate, self.width, self.channels = rate, width, channels
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Sequence[int]) -> "InfusedNormal":
        """The same distribution with batch dimensions added on the left."""
        shape = (*batch_shape, *self.event_shape)
        loc, scale, target = (jnp.broadcast_to(t, shape) for t in (self.loc, self.scale, self.target))
        return InfusedNormal(loc, scale, target, self.rate, self.width, self.channels)

    @property
    def mean(self) -> Array:
        """The mean, (*batch, n)."""
        return (1 - self.rate) * self.loc + self.rate * self.target

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Reparametrized draws, (*sample_shape, *batch, n)."""
        shape, keys = self.shape(sample_shape), jax.random.split(key)
        pixels = (*shape[:-1], 1, shape[-1] // self.channels)
        chosen = jax.random.uniform(keys[0], pixels, self.loc.dtype) < self.rate
        chosen = jnp.broadcast_to(chosen, (*shape[:-1], self.channels, pixels[-1])).reshape(shape)
        noise = jax.random.normal(keys[1], shape, self.loc.dtype)
        return jnp.where(chosen, self.target + self.width * noise, self.loc + self.scale * noise)

    def log_prob(self, value: Array, intermediates: object = None) -> Array:
        """Log-density in nats, (*batch,)."""
        own = Normal(self.loc, self.scale, validate_args=False).log_prob(value)
        if self.rate == 0:
            return own.sum(-1)
        infused = Normal(self.target, self.width, validate_args=False).log_prob(value)
        own, infused = (t.reshape(*t.shape[:-1], self.channels, -1).sum(-2) for t in (own, infused))
        rate = jnp.asarray(self.rate, own.dtype)
        return jnp.logaddexp(own + jnp.log1p(-rate), infused + jnp.log(rate)).sum(-1)


class Infused(TopDownGuide):
    """Port of `guides.Infused`: same arguments; nothing is drawn with `key`, which it takes as all guides do."""

    factors: Rows = eqx.field(static=True)
    rates: Table = eqx.field(static=True)
    width: float = eqx.field(static=True)
    channels: int = eqx.field(static=True)

    def __init__(
        self,
        model: Callable,
        *args: Any,
        rate: Annotated[float, Number(least=0, most=0.5)] = 0.02,
        width: Positive = 0.01,
        image: Image | None = None,
        key: Array,
    ) -> None:
        super().__init__(model, *args)
        self.rates, self.width = Table(rates_of(self.order, rate)), width
        self.channels = channels_of(self.layout, image)
        self.factors = Rows(self.layout)

    def get_posterior(self, name: str, prior: Distribution, run: TopDown) -> Distribution:
        """q(z_t | pa(z_t), x): the prior's Gaussian, or a narrow one around the datum."""
        base = gaussian_base(prior)
        if base is None or base[3] or len(base[2]) != 1:
            refuse_prior(name, type(unwrapped(prior)).__name__)
        return InfusedNormal(*base[:2], run.raw(name), self.rates[name], self.width, self.channels)
