"""`masses`: the factor of a discrete latent, by logits that a network gives; `coded`: its value as others read it."""

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.lax import stop_gradient
from numpyro.distributions import Distribution

from guides.parts.families.states import TEMPERATURE, Discrete
from guides.parts.looks.latents import Latent
from ppl_models.programs.numpyro import unwrapped


class States(dist.Independent):
    """See `guides.parts.families.masses.States`."""

    def enumerate_support(self, expand: bool = True) -> Array:
        """All states, (states, *batch, *event); batch dims are of size 1 unless expanded."""
        n = prod(self.event_shape)
        own = len(self.base_dist.enumerate_support(expand=False))  # whole numbers from 0
        found = np.array([*product(range(own), repeat=n)]).reshape(-1, *[1] * len(self.batch_shape), *self.event_shape)
        shape = (len(found), *self.batch_shape, *self.event_shape)
        return jnp.broadcast_to(found, shape) if expand else jnp.asarray(found)

    def expand(self, batch_shape: Sequence[int]) -> "States":
        """The same over more batch dims."""
        return States(self.base_dist.expand((*batch_shape, *self.event_shape)), self.reinterpreted_batch_ndims)


class RelaxedBernoulli(dist.BernoulliLogits):
    """See `guides.parts.families.masses.RelaxedBernoulli`."""

    has_enumerate_support = False
    reparametrized_params: ClassVar[list[str]] = ["logits"]

    @property
    def has_rsample(self) -> bool:
        """Draws have a gradient."""
        return True

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        """A draw, (*sample_shape, *batch)."""
        logits = jnp.asarray(self.logits)
        shape = (*sample_shape, *self.batch_shape)
        noisy = logits + jax.random.logistic(key, shape, logits.dtype)
        soft = jax.nn.sigmoid(noisy / TEMPERATURE)
        return (noisy > 0).astype(soft.dtype) + (soft - stop_gradient(soft))

    rsample = sample


class Limited(dist.CategoricalLogits):
    """See `guides.parts.families.masses.Limited`."""

    arg_constraints: ClassVar[dict] = {}
    pytree_data_fields = ("free", "allowed", "logits")

    def __init__(self, logits: Array, allowed: Array) -> None:
        self.free, self.allowed = jnp.broadcast_arrays(logits, allowed)
        super().__init__(jnp.where(self.allowed, self.free, -jnp.inf), validate_args=False)

    @property
    def has_rsample(self) -> bool:
        """Draws have no gradient."""
        return False

    @property
    def log_support(self) -> Array:
        """log of the mass that the logits alone give to the states that count, (*batch,)."""
        return jax.nn.logsumexp(self.logits, axis=-1) - jax.nn.logsumexp(self.free, axis=-1)


def masses(latent: Latent, raw: Array, discrete: Discrete) -> Distribution:
    """See `guides.parts.families.masses.masses`; NumPyro has no one-hot distribution."""
    facts, relaxed = latent.facts, discrete == "relax"
    logits = raw.reshape(*raw.shape[:-1], *facts.unconstrained_shape)
    if facts.states == "categorical":
        q: Any = dist.CategoricalLogits(logits)
    else:
        q = RelaxedBernoulli(logits) if relaxed else dist.BernoulliLogits(logits)
    dims = len(latent.event_shape) - latent.unplated_dims
    if not dims:
        return q
    return q.to_event(dims) if relaxed else States(q, dims)


def coded(latent: Latent, value: Array, dtype: Any) -> Array:
    """The value of a discrete latent as numbers that networks read, (*batch, *code): one-hot, or 0 and 1."""
    value = jnp.asarray(value)
    if latent.facts.states == "categorical":
        value = value[..., None] == jnp.arange(latent.facts.unconstrained_shape[-1])
    return value.astype(dtype)


def enumerated(q: Distribution) -> dict[str, str]:
    """What a site of a factor of a discrete latent tells those who sum over its states; nothing where it is relaxed."""
    return {} if q.has_rsample else {"enumerate": "parallel"}


def limited(q: Distribution, prior: Distribution) -> Distribution:
    """A factor over whole numbers, without the states that its prior leaves out."""
    own: Any = q
    return Limited(own.logits, unwrapped(prior).probs > 0)
