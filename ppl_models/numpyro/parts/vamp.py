"""Ports of `ppl_models.parts.vamp`: the mixture of an encoder's densities at learned pseudo-inputs."""

from collections.abc import Callable, Sequence
from math import log, pi

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.nn import logsumexp
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from .distributions import diagonal_normal
from .likelihoods import bounded_exp
from .nets import GatedNet

Encoder = Callable[[Array], dist.Independent]


class EncoderMixture(dist.Distribution):
    """Port of `ppl_models.parts.EncoderMixture`: equal parts of K diagonal Gaussians of an encoder, a pytree."""

    arg_constraints = {
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
    }
    support = constraints.real_vector
    pytree_data_fields = ("loc", "scale", "encoder")  # to name some is to name all
    pytree_aux_fields = ("encodes",)

    def __init__(
        self,
        loc: Array,
        scale: Array,
        encoder: Encoder,
        encodes: int,
        batch_shape: Sequence[int] = (),
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.scale, self.encoder, self.encodes = loc, scale, encoder, encodes
        super().__init__(tuple(batch_shape), loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int]) -> "EncoderMixture":
        """The same distribution over this batch shape, of the same K components."""
        own = (self.loc, self.scale, self.encoder, self.encodes)
        return EncoderMixture(*own, batch_shape, validate_args=self._validate_args)

    @property
    def mean(self) -> Array:
        """The mean, (*batch, n)."""
        return jnp.broadcast_to(self.loc.mean(0), self.shape())

    @property
    def variance(self) -> Array:
        """The variance of each entry, (*batch, n): that within components and that of their means."""
        return jnp.broadcast_to(jnp.square(self.scale).mean(0) + self.loc.var(0), self.shape())

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws, (*sample_shape, *batch, n), which are not reparametrized."""
        keys, shape = jax.random.split(key), self.shape(sample_shape)
        k = jax.random.randint(keys[0], shape[:-1], 0, len(self.loc))
        noise = jax.random.normal(keys[1], shape, self.loc.dtype)
        return jax.lax.stop_gradient(self.loc[k] + self.scale[k] * noise)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Log-density in nats, (*batch,)."""
        n, k = self.event_shape[0], len(self.loc)
        # (*batch, n, K), summed over n: a product of matrices would lose digits where components are narrow
        miss = jnp.square((value[..., None] - self.loc.T) * jnp.reciprocal(self.scale).T).sum(-2)
        found = logsumexp(-0.5 * miss - jnp.log(self.scale).sum(-1), -1) - 0.5 * n * log(2 * pi) - log(k)
        return jnp.broadcast_to(found, jnp.broadcast_shapes(found.shape, self.batch_shape))


class VampPrior(eqx.Module):
    """Port of `ppl_models.parts.VampPrior`; `key` seeds the pseudo-inputs. Networks here have no modes."""

    network: GatedNet
    rows: Array
    unit: bool = eqx.field(static=True)

    def __init__(self, network: GatedNet, event: int, components: int, unit: bool = True, *, key: Array) -> None:
        self.network, self.unit = network, unit
        self.rows = 0.05 + 0.01 * jax.random.normal(key, (components, event))

    @property
    def pseudo_inputs(self) -> Array:
        """u, (K, event)."""
        return jnp.clip(self.rows, 0, 1) if self.unit else self.rows

    def moments(self, x: Array) -> tuple[Array, Array]:
        """m and s of rows, (*batch, n) each."""
        loc, log_scale = jnp.split(self.network(x), 2, -1)
        return loc, bounded_exp(log_scale)

    def encode(self, x: Array) -> dist.Independent:
        """q(z | x) of rows (*batch, event)."""
        return diagonal_normal(*self.moments(x))

    def __call__(self) -> EncoderMixture:
        """The distribution, event shape (n,)."""
        return EncoderMixture(*self.moments(self.pseudo_inputs), self.encode, self.rows.shape[-1])
