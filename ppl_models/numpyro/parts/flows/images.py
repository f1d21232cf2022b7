"""`MultiScale`, and the steps it is made of: ports of `ppl_models.parts.flows.images`."""

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import silu
from jax.scipy.linalg import lu, solve_triangular
from numpyro.distributions import constraints
from numpyro.distributions.transforms import AffineTransform, IndependentTransform, Transform

from ppl_models.parts.flows.scales import Style, plan, slots

from ..nets import Conv, ConvBlock
from ..program import Constant
from .autoregressive import Autoregressive, affine


class MaskedConv(eqx.Module):
    """Port of `ppl_models.parts.flows.images.MaskedConv`; `key` seeds the weights."""

    first: Conv
    blocks: tuple[ConvBlock, ...]
    last: Conv
    places: Constant = eqx.field(static=True)  # no leaves: in no file, as buffers that are not persistent
    at: Constant = eqx.field(static=True)
    changed: Constant = eqx.field(static=True)
    passes: ClassVar[int] = 2

    def __init__(
        self, size: int, places: np.ndarray, changed: np.ndarray, hidden: int, depth: int, *, key: Array
    ) -> None:
        first, last, *inner = jax.random.split(key, depth + 2)
        self.places, self.at, self.changed = _table(places), _table(slots(size, places)), Constant(changed)
        self.first = Conv(len(places), hidden, 3, padding=1, key=first)
        self.blocks = tuple(ConvBlock(hidden, key=own) for own in inner)
        self.last = jax.tree.map(jnp.zeros_like, Conv(hidden, 2 * len(places), 3, padding=1, key=last))

    def __call__(self, x: Array) -> Array:
        """(*batch, n) -> (*batch, n, 2)."""
        places, changed = self.places.value, self.changed.value
        h = self.first(x[..., places].reshape(-1, *places.shape) * ~changed)
        for block in self.blocks:
            h = block(h)
        h = self.last(silu(h)).reshape(-1, 2, *places.shape) * changed
        numbers = jnp.pad(h.reshape(len(h), 2, -1), ((0, 0), (0, 0), (0, 1)))[..., self.at.value]
        return numbers.swapaxes(1, 2).reshape(*x.shape, 2)

    def transforms(self) -> list[Transform]:
        """The coupling, an affine one."""
        return [Autoregressive(self, affine)]


class OnPlaces(Transform):
    """Port of `ppl_models.parts.flows.images.OnPlaces`."""

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, transform: Transform, places: Constant) -> None:
        self.transform, self.places = transform, places

    def _image(self, x: Array) -> Array:
        return x[..., self.places.value]

    def _put(self, x: Array, image: Array) -> Array:
        return jnp.asarray(x).at[..., self.places.value].set(image, unique_indices=True)

    def __call__(self, x: Array) -> Array:
        """y of x, (*batch, n) both."""
        return self._put(x, self.transform(self._image(x)))

    def _inverse(self, y: Array) -> Array:
        return self._put(y, self.transform._inverse(self._image(y)))

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Any = None) -> Array:
        """log|det dy/dx|, (*batch,)."""
        return self.transform.log_abs_det_jacobian(self._image(x), self._image(y))

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[tuple[str, ...], dict[str, Any]]]:
        """The transform of the places."""
        return (self.transform,), (("transform",), {"places": self.places})


class ChannelMix(Transform):
    """y = P L U x of the channels of images, P a permutation, L and U in one matrix, L with ones on its diagonal.

    It is Pyro's `ConditionedGeneralizedChannelPermute`, of which the parameters have no batch.
    """

    domain = constraints.independent(constraints.real, 3)
    codomain = constraints.independent(constraints.real, 3)

    def __init__(self, permutation: Array, matrix: Array) -> None:
        self.permutation, self.matrix = permutation, matrix

    def __call__(self, x: Array) -> Array:
        """y of x, (*batch, channels, height, width) both."""
        lower = jnp.tril(self.matrix, -1) + jnp.eye(len(self.matrix), dtype=self.matrix.dtype)
        mix = self.permutation @ jnp.matmul(lower, jnp.triu(self.matrix), precision="highest")
        return jnp.einsum("ij,...jhw->...ihw", mix, x, precision="highest")

    def _inverse(self, y: Array) -> Array:
        first = jnp.moveaxis(y, -3, 0)
        unmixed = self.permutation.argmax(0)  # rows of P^-1 y
        h = solve_triangular(self.matrix, first[unmixed].reshape(len(first), -1), lower=True, unit_diagonal=True)
        return jnp.moveaxis(solve_triangular(self.matrix, h).reshape(first.shape), 0, -3)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Any = None) -> Array:
        """log|det dy/dx|, (*batch,)."""
        *batch, _, height, width = jnp.shape(x)
        return jnp.broadcast_to(height * width * jnp.log(abs(jnp.diag(self.matrix))).sum(), tuple(batch))

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[tuple[str, ...], dict[str, Any]]]:
        """Both matrices."""
        return (self.permutation, self.matrix), (("permutation", "matrix"), {})


class ChannelMap(eqx.Module):
    """Port of `ppl_models.parts.flows.images.ChannelMap`; `key` seeds the weights, outside of `jax.jit`."""

    permutation: Constant
    matrix: Array
    log_scale: Array
    shift: Array
    places: Constant = eqx.field(static=True)

    def __init__(self, places: np.ndarray, *, key: Array) -> None:
        channels = len(places)
        permutation, lower, upper = lu(jnp.linalg.qr(jax.random.normal(key, (channels, channels)))[0])
        self.places, self.permutation = _table(places), Constant(np.asarray(permutation))
        self.matrix = jnp.tril(lower, -1) + upper
        self.log_scale, self.shift = jnp.zeros((channels, 1, 1)), jnp.zeros((channels, 1, 1))

    def transforms(self) -> list[Transform]:
        """The normalization, then the convolution."""
        scaled = IndependentTransform(AffineTransform(self.shift, jnp.exp(self.log_scale)), 3)
        mixed = ChannelMix(self.permutation.value, self.matrix)
        return [OnPlaces(scaled, self.places), OnPlaces(mixed, self.places)]


class MultiScale(eqx.Module):
    """Port of `ppl_models.parts.flows.images.MultiScale`; `key` seeds the weights."""

    steps: tuple[MaskedConv | ChannelMap, ...]

    def __init__(
        self, image: Sequence[int], style: Style, levels: int, hidden: int, depth: int, steps: int = 8, *, key: Array
    ) -> None:
        found = list(plan(image, style, levels, steps))
        self.steps = tuple(
            ChannelMap(places, key=own)
            if changed is None
            else MaskedConv(prod(image), places, changed, hidden, depth, key=own)
            for (places, changed), own in zip(found, jax.random.split(key, len(found)), strict=True)
        )

    def transforms(self) -> list[Transform]:
        """The steps, from images to noise."""
        return [transform for step in self.steps for transform in step.transforms()]


def _table(places: np.ndarray) -> Constant:
    return Constant(places.astype(np.int32))
