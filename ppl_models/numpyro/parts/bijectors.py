"""Conditional bijections: modules that give a NumPyro transform, whose parameters networks compute."""

from collections.abc import Sequence
from math import expm1, log

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import softplus
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform
from numpyro.distributions.util import array_equiv

from ppl_models.parts.flows.words import Bijection

from .flows.autoregressive import AutoregressiveFlow
from .nets import Net


class RankOneAffine(Transform):
    """Port of `ppl_models.parts.RankOneAffine`: z = c + (diag(d) + u u^T) eps, d > 0.

    Two are equal, and leave divergences unchanged, if they have the very same arrays or if these were computed from the
    very same ones: NumPyro runs a model a second time to score what a guide has drawn through the model's bijection.

    Args:
        shift, scale, vector: c, d and u, (*batch, n).
        origin: all the arrays that c, d and u were computed from, or nothing if that is not known.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, shift: Array, scale: Array, vector: Array, origin: Sequence[Array] = ()) -> None:
        self.shift, self.scale, self.vector, self.origin = shift, scale, vector, tuple(origin)

    def __call__(self, eps: Array) -> Array:
        """z of eps, (*batch, n) both."""
        along = (self.vector * eps).sum(-1, keepdims=True)
        return self.shift + self.scale * eps + self.vector * along

    def _inverse(self, z: Array) -> Array:
        w = (z - self.shift) / self.scale
        ratio = self.vector / self.scale
        along = (self.vector * w).sum(-1, keepdims=True)
        return w - ratio * along / (1 + (self.vector * ratio).sum(-1, keepdims=True))

    def log_abs_det_jacobian(self, eps: Array, z: Array, intermediates: object = None) -> Array:
        """log|det dz/deps|, (*batch,)."""
        log_det = jnp.log(self.scale).sum(-1) + jnp.log1p((jnp.square(self.vector) / self.scale).sum(-1))
        return jnp.broadcast_to(log_det, jnp.broadcast_shapes(log_det.shape, jnp.shape(eps)[:-1]))

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of z, for eps of a shape: batches broadcast."""
        return jnp.broadcast_shapes(shape, *(jnp.shape(a) for a in (self.shift, self.scale, self.vector)))

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of eps, for z of a shape."""
        return self.forward_shape(shape)

    def tree_flatten(self) -> tuple[tuple[Array, ...], tuple[tuple[str, ...], dict[str, tuple[Array, ...]]]]:
        """The arrays, and that nothing is known of their origin: those of another tree are other arrays."""
        return (self.shift, self.scale, self.vector), (("shift", "scale", "vector"), {"origin": ()})

    def eq(self, other: object, static: bool = False) -> bool | Array:
        """Whether both are known to be one map; with `static` from the identities of arrays alone."""
        if not isinstance(other, RankOneAffine):
            return False
        mine, theirs = self.origin, other.origin
        if mine and len(mine) == len(theirs) and all(one is two for one, two in zip(mine, theirs, strict=True)):
            return True
        names = ("shift", "scale", "vector")
        equal = [array_equiv(getattr(self, name), getattr(other, name), static=static) for name in names]
        return equal[0] & equal[1] & equal[2]


class ConditionalRankOneAffine(eqx.Module):
    """Port of `ppl_models.parts.ConditionalRankOneAffine`; `key` seeds the weights."""

    net: Net

    def __init__(self, size: int, inputs: Sequence[int] = (), hidden: int = 64, depth: int = 1, *, key: Array) -> None:
        keys = jax.random.split(key)
        # normalized: u enters squared, and a chain of layers would square it again and again
        net = Net(inputs, 3 * size, hidden, depth, gain=0.1, norm=True, key=keys[0])
        shift, scale = jnp.zeros(size), jnp.full(size, log(expm1(1 - 1e-3)))
        self.net = net.with_bias(jnp.concatenate([shift, scale, 0.1 * jax.random.normal(keys[1], (size,))]))

    def __call__(self, *context: Array) -> RankOneAffine:
        """The transform for contexts (*batch, n_i)."""
        shift, scale, vector = jnp.split(self.net(*context), 3, -1)
        return RankOneAffine(shift, softplus(scale) + 1e-3, vector, (*jax.tree.leaves(self.net), *context))

    def transforms(self, *context: Array) -> list[Transform]:
        """The same, as the one of a list."""
        return [self(*context)]


class Identity(eqx.Module):
    """Port of `ppl_models.parts.bijectors.Identity`."""

    def transforms(self, *context: Array) -> list[Transform]:
        """None."""
        return []


def bijection(
    word: Bijection, size: int, inputs: Sequence[int], hidden: int, depth: int, *, key: Array
) -> ConditionalRankOneAffine | AutoregressiveFlow | Identity:
    """Port of `ppl_models.parts.bijectors.bijection`; `key` seeds the weights."""
    if word == "identity":
        return Identity()
    if word == "spline":
        return AutoregressiveFlow(size, 2, inputs, hidden, max(depth, 1), "spline", passes=2, key=key)
    return ConditionalRankOneAffine(size, inputs, hidden, depth, key=key)
