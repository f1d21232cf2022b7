"""The data sets of `ppl_models.data` for JAX: stored values, and the transform to what a model sees."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import log, log2
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jax.nn import softplus


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of stored values, and how a model is to see them: drawn anew with every key where that is random.

    Attributes:
        values: (N, D), grey levels (uint8) or real numbers; (N, 2 D) for codes that are drawn anew.
        transform: (key, values) -> rows (N, D), floating; it can be traced by JAX.
        discrete: whether a row is one of finitely many, so that its likelihood is a probability.
        bits: (nll, x) -> bits per dimension, see `ppl_models.data.Data.bits_per_dim`; None for real data.
    """

    values: np.ndarray = field(repr=False)
    transform: Callable[[jax.Array, jax.Array], jax.Array]
    discrete: bool
    bits: Callable[[jax.Array, jax.Array], jax.Array] | None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the rows, (N, D)."""
        return self.values.shape

    def draw(self, key: jax.Array, index: Any = slice(None)) -> jax.Array:
        """The rows at `index` as a model sees them."""
        return self.transform(key, jnp.asarray(self.values[index]))


def rows_of(data: Any) -> Rows:
    """A `ppl_models.data.Data` as `Rows`; torch is not imported for it.

    A binarization with a seed of its own is drawn once, by torch, and is the same numbers here.

    Raises:
        ValueError: a transform that is none of `ppl_models.data`'s.
    """
    transform = data.transform
    kind, levels = type(transform).__name__, data.levels
    if kind not in TRANSFORMS:
        raise ValueError(f"data: found the transform {transform!r}, want one of {', '.join(TRANSFORMS)}")
    fixed = getattr(transform, "seed", None) is not None
    values = np.asarray(data[:] if fixed else data.values)
    known = {} if levels is None else {"levels": levels}
    if kind == "Logit":
        known["alpha"] = transform.alpha
    size = values.shape[1]
    bits = None if levels is None else partial(_bits, kind=kind, size=size, **known)
    return Rows(values, _identity if fixed else partial(TRANSFORMS[kind], **known), data.discrete, bits)


def _identity(key: jax.Array, values: jax.Array) -> jax.Array:
    """y = v."""
    return values.astype(_float())


def _redrawn(key: jax.Array, values: jax.Array) -> jax.Array:
    """y ~ N(m, s^2), m and s side by side in v."""
    mean, deviation = jnp.split(values.astype(_float()), 2, -1)
    return mean + deviation * random.normal(key, mean.shape, mean.dtype)


def _scale(key: jax.Array, values: jax.Array, levels: int) -> jax.Array:
    """y = v / (levels - 1)."""
    return values.astype(_float()) / (levels - 1)


def _binarize(key: jax.Array, values: jax.Array, levels: int) -> jax.Array:
    """y ~ Bernoulli(v / (levels - 1))."""
    return random.bernoulli(key, _scale(key, values, levels)).astype(_float())


def _dequantize(key: jax.Array, values: jax.Array, levels: int) -> jax.Array:
    """y = (v + u) / levels, u ~ Uniform[0, 1): floor(levels y) is v again."""
    v = values.astype(_float())
    noisy = jnp.minimum(v + random.uniform(key, v.shape, v.dtype), jnp.nextafter(v + 1, v))  # v + u may round to v + 1
    return noisy / levels


def _logit(key: jax.Array, values: jax.Array, levels: int, alpha: float) -> jax.Array:
    """y = logit(alpha + (1 - 2 alpha) u), u dequantized."""
    u = _dequantize(key, values, levels)
    # not 1 - white: near white that is of the size of alpha and would drown in rounding
    white, black = alpha + (1 - 2 * alpha) * u, alpha + (1 - 2 * alpha) * (1 - u)
    return jnp.log(white) - jnp.log(black)


def _bits(nll: jax.Array, x: jax.Array, kind: str, size: int, levels: int, alpha: float = 0.0) -> jax.Array:
    """Bits per dimension of nats per datum, see `ppl_models.data.Data.bits_per_dim`."""
    bits = nll / (size * log(2))
    if kind == "Logit":
        log_abs_det = (jnp.log1p(-2 * alpha) + softplus(-x) + softplus(x)).sum(-1)
        return bits - log_abs_det / (size * log(2)) + log2(levels)
    return bits + log2(levels) if kind == "Dequantize" else bits


def _float() -> jnp.dtype:
    """The type of new arrays of JAX: float32, or float64 where that is enabled."""
    return jnp.zeros(()).dtype


TRANSFORMS = {
    "Identity": _identity,
    "Scale": _scale,
    "Binarize": _binarize,
    "Dequantize": _dequantize,
    "Logit": _logit,
    "Redrawn": _redrawn,
}
