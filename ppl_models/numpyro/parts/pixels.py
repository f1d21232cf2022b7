"""Distributions of images: autoregressive over pixels, and over the channels of one as mixtures of logistics."""

from collections.abc import Callable, Sequence
from copy import copy
from math import prod
from typing import ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.nn import log_softmax
from jax.scipy.special import logsumexp
from jax.tree_util import Partial
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from .distributions import DiscretizedLogistic
from .likelihoods import Logistic
from .nets import PixelCNN


class AutoregressiveImage(dist.Distribution):
    """Port of `ppl_models.parts.pixels.AutoregressiveImage`, of which `pixel` is a module."""

    arg_constraints: ClassVar[dict] = {"context": constraints.real_vector}
    pytree_data_fields = ("net", "context", "pixel")

    def __init__(
        self,
        net: PixelCNN,
        context: Array,
        pixel: Callable[[Array], dist.Distribution],
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.net, self.context, self.pixel = net, context, pixel
        super().__init__(jnp.shape(context)[:-1], (prod(net.image),), validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int]) -> "AutoregressiveImage":
        """The same distribution with batch dimensions added on the left."""
        context = jnp.broadcast_to(self.context, (*batch_shape, self.context.shape[-1]))
        return AutoregressiveImage(self.net, context, self.pixel, validate_args=self._validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """The support of the values of a pixel."""
        support = self.pixel(jnp.zeros(self.net.output)).support
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        return constraints.independent(support, 1)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Log-density in nats, (*batch,)."""
        batch = jnp.broadcast_shapes(jnp.shape(value)[:-1], self.context.shape[:-1])
        images = jnp.broadcast_to(value, (*batch, self.event_shape[0])).reshape(-1, *self.net.image)
        context = jnp.broadcast_to(self.context, (*batch, self.context.shape[-1])).reshape(
            len(images), self.context.shape[-1]
        )
        each = self.pixel(self.net(images, context)).log_prob(images.transpose(0, 2, 3, 1))
        return each.sum((-2, -1)).reshape(batch)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws, (*sample_shape, *batch, D)."""
        batch = (*sample_shape, *self.context.shape[:-1])
        context = jnp.broadcast_to(self.context, (*batch, self.context.shape[-1])).reshape(
            prod(batch), self.context.shape[-1]
        )
        return self.net.generate(context, Partial(_draw, self.pixel), key).reshape(*batch, -1)


def _draw(pixel: Callable[[Array], dist.Distribution], key: Array, params: Array) -> Array:
    return pixel(params).sample(key)


class LogisticMixture(dist.Distribution):
    """Port of `ppl_models.parts.pixels.LogisticMixture`."""

    arg_constraints: ClassVar[dict] = {
        "logits": constraints.real_vector,
        "loc": constraints.independent(constraints.real, 2),
    }
    support = constraints.independent(DiscretizedLogistic.support, 1)
    pytree_data_fields = ("logits", "loc", "scale", "mixing")
    pytree_aux_fields = ("levels",)

    def __init__(
        self,
        logits: Array,
        loc: Array,
        scale: Array,
        mixing: Array,
        levels: int = 256,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.logits, self.loc, self.scale = log_softmax(logits, -1), loc, scale
        self.mixing, self.levels = jnp.tril(mixing, -1), levels
        super().__init__(jnp.shape(logits)[:-1], jnp.shape(loc)[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int]) -> Self:
        """The same distribution with batch dimensions added on the left."""
        new, batch, rank = copy(self), tuple(batch_shape), len(self.batch_shape)
        for name in self.pytree_data_fields:
            value = getattr(self, name)
            setattr(new, name, jnp.broadcast_to(value, batch + value.shape[rank:]))
        new._batch_shape = batch
        return new

    def _channels(self, x: Array) -> DiscretizedLogistic:
        """Of every component and channel given the channels before it, x (*batch, channels) in [0, 1]."""
        loc = self.loc + (self.mixing @ (2 * x - 1)[..., None, :, None]).squeeze(-1)
        return DiscretizedLogistic(0.5 + 0.5 * loc, 0.5 * self.scale, self.levels, validate_args=False)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Log-probability of the levels of a pixel in nats, (*batch,)."""
        each = self._channels(value).log_prob(value[..., None, :]).sum(-1)
        return logsumexp(self.logits + each, -1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws on the grid of levels, (*sample_shape, *batch, channels)."""
        wide = self.expand((*sample_shape, *self.batch_shape))
        key, *keys = jax.random.split(key, 1 + self.event_shape[0])
        component = jax.random.categorical(key, wide.logits)[..., None]
        x = jnp.full_like(wide.loc[..., 0, :], 0.5)
        for c, own in enumerate(keys):
            each = wide._channels(x).sample(own)[..., c]
            x = x.at[..., c].set(jnp.take_along_axis(each, component, -1)[..., 0])
        return jax.lax.stop_gradient(x)


class PixelMixture(eqx.Module):
    """Port of `ppl_models.parts.pixels.PixelMixture`."""

    channels: int = eqx.field(static=True)
    levels: int = eqx.field(static=True)
    components: int = eqx.field(static=True)

    def __init__(self, channels: int, levels: int = 256, components: int = 10) -> None:
        self.channels, self.levels, self.components = channels, levels, components

    @property
    def output(self) -> int:
        """Numbers a pixel."""
        return self.components * (1 + 2 * self.channels + self.channels * (self.channels - 1) // 2)

    def __call__(self, params: Array) -> LogisticMixture:
        """(*batch, output) -> the distribution of a pixel, batch (*batch), event (channels,)."""
        k, c = self.components, self.channels
        logits, loc, log_scale, mixing = jnp.split(params, [k, k + k * c, k + 2 * k * c], -1)
        loc, log_scale = (t.reshape(*t.shape[:-1], k, c) for t in (loc, log_scale))
        matrix = jnp.zeros((*loc.shape, c), loc.dtype)
        if c > 1:
            row, column = jnp.tril_indices(c, -1)
            matrix = matrix.at[..., row, column].set(jnp.tanh(mixing).reshape(*mixing.shape[:-1], k, -1))
        return LogisticMixture(logits, loc, jnp.exp(jnp.maximum(log_scale, -7)), matrix, self.levels)


def mixture_of(likelihood: eqx.Module, channels: int, components: int) -> tuple[PixelMixture | None, int]:
    """Port of `ppl_models.parts.pixels.mixture_of`."""
    if not isinstance(likelihood, Logistic):
        return None, likelihood.count * channels
    mixture = PixelMixture(channels, likelihood.levels, components)
    return mixture, mixture.output
