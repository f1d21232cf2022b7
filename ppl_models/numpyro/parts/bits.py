"""`RelaxedBits`, `DependentBits`, `Discretized`: ports of `ppl_models.parts.bits`."""

from collections.abc import Callable, Sequence
from math import log
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax
from jax.nn import log_sigmoid, sigmoid
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample
from numpyro.primitives import Messenger

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.states import refuse_discretized

from .flows.autoregressive import MaskedNet

LOGIT = 1e3  # of a bit itself: the sigmoid of +-LOGIT is exactly 1 or 0


class _Logits(type(constraints.real)):
    """-LOGIT and LOGIT, the logits of bits themselves."""

    is_discrete = True

    def __call__(self, x: Array) -> Array:
        """Whether each value is one of the two."""
        return jnp.abs(x) == LOGIT


class RelaxedBits(dist.Distribution):
    """Port of `ppl_models.parts.RelaxedBits`: the logit of a relaxed bit, of the bit itself at a temperature of 0."""

    arg_constraints = {"logits": constraints.real}
    pytree_aux_fields = ("temperature",)

    def __init__(self, logits: Array, temperature: float, *, validate_args: bool | None = None) -> None:
        self.logits, self.temperature = logits, temperature
        super().__init__(jnp.shape(logits), validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int]) -> "RelaxedBits":
        """The same distribution with batch dimensions added on the left."""
        logits = jnp.broadcast_to(self.logits, tuple(batch_shape))
        return RelaxedBits(logits, self.temperature, validate_args=self._validate_args)

    @property
    def has_rsample(self) -> bool:
        """Whether draws are reparametrized: those of relaxed bits are."""
        return self.temperature > 0

    @property
    def support(self) -> constraints.Constraint:
        """R, or the two logits of a bit itself."""
        return constraints.real if self.temperature > 0 else _Logits()

    def hard(self) -> "RelaxedBits":
        """The bit itself, with the same logit."""
        return RelaxedBits(self.logits, 0.0, validate_args=self._validate_args)

    @property
    def mean(self) -> Array:
        """The mean of y, (*batch,)."""
        return self.logits / self.temperature if self.temperature > 0 else LOGIT * (2 * sigmoid(self.logits) - 1)

    @property
    def variance(self) -> Array:
        """The variance of y, (*batch,)."""
        if self.temperature > 0:
            return jnp.full_like(self.logits, jnp.pi**2 / 3 / self.temperature**2)
        return LOGIT**2 - jnp.square(self.mean)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws, (*sample_shape, *batch)."""
        return _drawn(self.logits, _noise(key, self.shape(sample_shape), self.logits), self.temperature)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Log-density in nats, (*batch,)."""
        return _log_prob(value, self.logits, self.temperature)


class DependentBits(dist.Distribution):
    """Port of `ppl_models.parts.DependentBits`: relaxed bits of which each reads others."""

    arg_constraints = {"logits": constraints.real_vector}
    pytree_data_fields = ("logits", "net", "context")  # to name some is to name all
    pytree_aux_fields = ("temperature",)

    def __init__(
        self,
        logits: Array,
        net: MaskedNet,
        context: Sequence[Array],
        temperature: float,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.logits, self.net, self.context, self.temperature = logits, net, tuple(context), temperature
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int]) -> "DependentBits":
        """The same distribution with batch dimensions added on the left."""
        return self._with(jnp.broadcast_to(self.logits, (*batch_shape, self.logits.shape[-1])), self.temperature)

    @property
    def has_rsample(self) -> bool:
        """Whether draws are reparametrized: those of relaxed bits are."""
        return self.temperature > 0

    @property
    def support(self) -> constraints.Constraint:
        """R^n, or the logits of bits themselves."""
        return constraints.real_vector if self.temperature > 0 else constraints.independent(_Logits(), 1)

    def hard(self) -> "DependentBits":
        """The bits themselves, with the same logits."""
        return self._with(self.logits, 0.0)

    def _with(self, logits: Array, temperature: float) -> "DependentBits":
        return DependentBits(logits, self.net, self.context, temperature, validate_args=self._validate_args)

    def _given(self, y: Array) -> Array:
        """The logits of all entries, given the values of those that they read."""
        return self.logits + self.net(sigmoid(y), *self.context)[..., 0]

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws, (*sample_shape, *batch, n)."""
        noise = _noise(key, self.shape(sample_shape), self.logits)

        def step(_: int, y: Array) -> Array:
            return _drawn(self._given(y), noise, self.temperature)

        return step(0, lax.fori_loop(0, self.net.passes - 1, step, jnp.zeros_like(noise)))

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Log-density in nats, (*batch,)."""
        return _log_prob(value, self._given(value), self.temperature).sum(-1)


def _noise(key: Array, shape: Sequence[int], like: Array) -> Array:
    """Logistic noise. A uniform draw may be 0, never 1."""
    u = jnp.maximum(jax.random.uniform(key, tuple(shape), like.dtype), jnp.finfo(like.dtype).eps / 4)
    return jnp.log(u) - jnp.log1p(-u)


def _drawn(logits: Array, noise: Array, temperature: float) -> Array:
    y = logits + noise
    return y / temperature if temperature > 0 else jnp.where(y > 0, LOGIT, -LOGIT).astype(y.dtype)


def _log_prob(y: Array, logits: Array, temperature: float) -> Array:
    if temperature > 0:
        d = temperature * y - logits
        return log(temperature) + log_sigmoid(d) + log_sigmoid(-d)
    return log_sigmoid(jnp.where(y > 0, logits, -logits))


@checked
class Discretized(eqx.Module):
    """Port of `ppl_models.parts.Discretized`: a program in which relaxed bits are the bits themselves."""

    program: Callable

    def __init__(self, program: Callable) -> None:
        self.program = program

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program."""
        handler = _Hard()
        with handler:
            found = self.program(*args, **kwargs)
        if not handler.count:
            refuse_discretized(handler.others)
        return found


class _Hard(Messenger):
    """Put bits in the place of relaxed ones."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.others = 0, list[str]()

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample":
            return
        fn = _hard(msg["fn"])
        if fn is not msg["fn"]:
            msg["fn"], self.count = fn, self.count + 1
        elif not msg["is_observed"]:
            self.others.append(msg["name"])


def _hard(fn: Any) -> Any:
    if isinstance(fn, RelaxedBits | DependentBits):
        return fn.hard()
    if isinstance(fn, dist.Independent):
        base = _hard(fn.base_dist)
        return fn if base is fn.base_dist else base.to_event(fn.reinterpreted_batch_ndims)
    if isinstance(fn, dist.ExpandedDistribution):
        base = _hard(fn.base_dist)
        return fn if base is fn.base_dist else base.expand(fn.batch_shape)
    return fn
