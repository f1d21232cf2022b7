"""Likelihoods p(x | parameters): from a network's output to a distribution over the observed rows."""

from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.nn import sigmoid
from jax.scipy.special import logit
from numpyro.util import not_jax_tracer

from ppl_models.parts.arguments.sizes import check_count as check_count
from ppl_models.parts.checks import (
    Arrays,
    check_batch,
    check_binary,
    check_finite,
    check_levels,
    check_likelihood,
    check_scale,
    count_of_levels,
    likelihood_of,
)

from .distributions import DiscretizedLogistic, FloatBernoulli
from .program import Constant

ARRAYS = Arrays(
    (jax.Array, np.ndarray),
    "array",
    made="jnp.asarray(...)",
    floated="{0}.astype(float)",
    converted="{0}.astype('{1}')",
    one="{0}[None]",
    flat="{0}.reshape(len({0}), -1)",
    is_floating=lambda x: jnp.issubdtype(x.dtype, jnp.floating),
    dtype_of=lambda x: jax.dtypes.canonicalize_dtype(x.dtype),
)


def check_data(x: Array, event: int | Sequence[int], name: str = "x", dtype: np.dtype | None = None) -> Array:
    """Return `x` if it is a batch of rows of shape `event`, or raise as `ppl_models.parts.check_data` does.

    Values are read only while NumPyro's validation is on, and where there are any: not under `jax.jit`. A NumPy array
    counts as what JAX takes it for: float64 is float32 unless `jax_enable_x64` is set.
    """
    check_batch(ARRAYS, name, x, event, dtype)
    if (values := readable(x)) is not None:
        check_finite(f"site {name!r}", np.isfinite(values))
    return x


def readable(x: Array) -> np.ndarray | None:
    """The values of x where they are known and NumPyro's validation is on."""
    # not by JAX: within `jax.jit` it would compute with known numbers too as if they were unknown
    return np.asarray(x) if dist.Distribution._validate_args and not_jax_tracer(x) else None


def rows(x: Array | None, n: int, event: int, likelihood: eqx.Module, dtype: np.dtype) -> int:
    """The number of data in a run of a model: the rows of x, once they are checked, or `n` if it generates."""
    if x is None:
        return check_count(n)
    check_data(x, event, dtype=dtype)
    likelihood.check(x)
    return len(x)


class Bernoulli(eqx.Module):
    """Binary pixels: x_i ~ Bernoulli(sigmoid(logits_i)), independent; one number a pixel."""

    count: ClassVar[int] = 1

    def __call__(self, params: Array) -> dist.Distribution:
        """The distribution of rows (*batch, D) from logits (*batch, D)."""
        return FloatBernoulli(params).to_event(1)

    def mean(self, params: Array) -> Array:
        """E[x] given the parameters, (*batch, D)."""
        return sigmoid(params)

    def squash(self, h: Array) -> Array:
        """Any numbers as means, (*batch, D): in (0, 1)."""
        return sigmoid(h)

    def around(self, mean: Array, log_scale: Array | None = None) -> Array:
        """The parameters of a mean in [0, 1], (*batch, D): its logits, within +-13.8."""
        return logit(jnp.clip(mean, 1e-6, 1 - 1e-6))

    def check(self, x: Array, name: str = "x") -> None:
        """Raise ValueError unless every value is 0 or 1 (read where `check_data` reads them)."""
        values = readable(x)
        if values is not None:
            check_binary(values[(values != 0) & (values != 1)], name)


class Gaussian(eqx.Module):
    """Port of `ppl_models.parts.Gaussian`: x_i ~ N(loc_i, scale_i^2), the scale given or learned."""

    scale: Constant | None

    def __init__(self, scale: float | None = None) -> None:
        check_scale(scale)
        self.scale = None if scale is None else Constant(scale)

    @property
    def count(self) -> int:
        """Numbers a value."""
        return 2 if self.scale is None else 1

    def __call__(self, params: Array) -> dist.Distribution:
        """The distribution of rows (*batch, D) from (*batch, count * D)."""
        if self.scale is not None:
            return dist.Normal(params, self.scale.number).to_event(1)
        loc, log_scale = jnp.split(params, 2, -1)
        return dist.Normal(loc, bounded_exp(log_scale)).to_event(1)

    def mean(self, params: Array) -> Array:
        """E[x] given the parameters, (*batch, D)."""
        return params if self.scale is not None else jnp.split(params, 2, -1)[0]

    def squash(self, h: Array) -> Array:
        """Any numbers as means: they are."""
        return h

    def around(self, mean: Array, log_scale: Array | None = None) -> Array:
        """The parameters of a mean, (*batch, D), with one log scale for all of its values where it is learned."""
        return mean if self.scale is not None else _with_scale(mean, log_scale)

    def check(self, x: Array, name: str = "x") -> None:
        """Any finite value will do."""


class SharedGaussian(eqx.Module):
    """Port of `ppl_models.parts.SharedGaussian`: x_i ~ N(loc_i, gamma^2) with one learned gamma for all values."""

    log_scale: Array
    count: ClassVar[int] = 1

    def __init__(self) -> None:
        self.log_scale = jnp.zeros(())

    def __call__(self, params: Array) -> dist.Distribution:
        """The distribution of rows (*batch, D) from their means, (*batch, D)."""
        return dist.Normal(params, jnp.exp(self.log_scale)).to_event(1)

    def mean(self, params: Array) -> Array:
        """E[x] given the parameters, (*batch, D)."""
        return params

    def squash(self, h: Array) -> Array:
        """Any numbers as means: they are."""
        return h

    def around(self, mean: Array, log_scale: Array | None = None) -> Array:
        """The parameters of a mean, (*batch, D)."""
        return mean

    def check(self, x: Array, name: str = "x") -> None:
        """Any finite value will do."""


class UnitGaussian(eqx.Module):
    """Port of `ppl_models.parts.UnitGaussian`: x_i ~ N(sigmoid(h_i), scale^2), one number a value."""

    count: ClassVar[int] = 1
    scale: Constant

    def __init__(self, scale: float) -> None:
        check_scale(scale)
        self.scale = Constant(scale)

    def __call__(self, params: Array) -> dist.Distribution:
        """The distribution of rows (*batch, D) from the logits of their means, (*batch, D)."""
        return dist.Normal(sigmoid(params), self.scale.number).to_event(1)

    def mean(self, params: Array) -> Array:
        """E[x] given the parameters, (*batch, D)."""
        return sigmoid(params)

    def squash(self, h: Array) -> Array:
        """Any numbers as means, (*batch, D): in (0, 1)."""
        return sigmoid(h)

    def around(self, mean: Array, log_scale: Array | None = None) -> Array:
        """The parameters of a mean in [0, 1], (*batch, D): its logits, within +-13.8."""
        return logit(jnp.clip(mean, 1e-6, 1 - 1e-6))

    def check(self, x: Array, name: str = "x") -> None:
        """Any finite value will do."""


class Logistic(eqx.Module):
    """Port of `ppl_models.parts.Logistic`: a logistic density integrated over the bin of each grey level."""

    count: ClassVar[int] = 2
    levels: int = eqx.field(static=True)

    def __init__(self, levels: int = 256) -> None:
        self.levels = count_of_levels(levels)

    def __call__(self, params: Array) -> dist.Distribution:
        """The distribution of rows (*batch, D) in [0, 1] from (loc, log scale), (*batch, 2 D)."""
        loc, log_scale = jnp.split(params, 2, -1)
        # 0.5 and 0.1 are where an untrained network's zeros should point: mid grey, a wide bin
        return DiscretizedLogistic(0.5 + loc, 0.1 * bounded_exp(log_scale), self.levels).to_event(1)

    def mean(self, params: Array) -> Array:
        """The location, clipped to [0, 1], (*batch, D)."""
        return jnp.clip(0.5 + jnp.split(params, 2, -1)[0], 0, 1)

    def squash(self, h: Array) -> Array:
        """Any numbers as locations, (*batch, D): in (0, 1)."""
        return sigmoid(h)

    def around(self, mean: Array, log_scale: Array | None = None) -> Array:
        """The parameters of a location in [0, 1], (*batch, D), with one log scale for all of its values."""
        return _with_scale(mean - 0.5, log_scale)

    def check(self, x: Array, name: str = "x") -> None:
        """Raise ValueError unless every value is one of the levels (read where `check_data` reads them)."""
        values = readable(x)
        if values is not None:
            k = values * (self.levels - 1)
            check_levels(values[(values < 0) | (values > 1) | (np.abs(k - k.round()) > 1e-3)], name, self.levels)


def _with_scale(mean: Array, log_scale: Array) -> Array:
    return jnp.concatenate([mean, jnp.broadcast_to(log_scale, mean.shape)], -1)


def in_unit(likelihood: eqx.Module) -> bool:
    """Whether data of a likelihood are taken to be in [0, 1]: those of any but a Gaussian of free means."""
    return not isinstance(likelihood, Gaussian | SharedGaussian)


def bounded_exp(log_scale: Array, bound: float = 5.0) -> Array:
    """exp(bound * tanh(s / bound)): a scale that neither vanishes nor explodes, in [e^-bound, e^bound]."""
    return jnp.exp(bound * jnp.tanh(log_scale / bound))


def at_least(scale: Array, least: float) -> Array:
    """sqrt(least^2 + scale^2): a scale that is not below `least`, and untouched where that is 0."""
    return jnp.sqrt(least**2 + jnp.square(scale)) if least else scale


def likelihood(spec: str | eqx.Module, owner: str = "", more: Sequence[str] = ()) -> eqx.Module:
    """A likelihood by name, as `ppl_models.parts.likelihood`; a module is passed through if it has what is needed."""
    if isinstance(spec, eqx.Module):
        check_likelihood(spec, "__call__", more, owner, "ppl_models.numpyro.parts.Bernoulli")
        return spec
    kinds = {"bernoulli": Bernoulli, "gaussian": Gaussian, "unit-gaussian": UnitGaussian, "logistic": Logistic}
    kinds["shared-gaussian"] = SharedGaussian
    return likelihood_of(spec, kinds, owner)
