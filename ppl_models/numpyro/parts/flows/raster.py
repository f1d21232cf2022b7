"""`RasterFlow`: port of `ppl_models.parts.flows.raster`."""

from collections.abc import Sequence
from math import prod

import equinox as eqx
import jax.numpy as jnp
from jax import Array
from numpyro.distributions.transforms import Transform

from ..nets import PixelCNN
from .autoregressive import Autoregressive, affine


class RasterFlow(eqx.Module):
    """Port of `ppl_models.parts.flows.raster.RasterFlow`; `key` seeds the weights."""

    net: PixelCNN
    passes: int = eqx.field(static=True)

    def __init__(self, image: Sequence[int], context: int, hidden: int, depth: int, radius: int, *, key: Array) -> None:
        net = PixelCNN(image, 2 * image[0], context, hidden, depth, radius, key=key)
        start = 0.1 * net.last.weight, jnp.zeros_like(net.last.bias)
        self.net = eqx.tree_at(lambda net: (net.last.weight, net.last.bias), net, start)
        self.passes = prod(image[1:])

    def __call__(self, z: Array, context: Array) -> Array:
        """z (*batch, n) and the context (*batch, context) -> (*batch, n, 2); batches broadcast."""
        batch = jnp.broadcast_shapes(z.shape[:-1], context.shape[:-1])
        images = jnp.broadcast_to(z, (*batch, z.shape[-1])).reshape(-1, *self.net.image)
        wide = jnp.broadcast_to(context, (*batch, context.shape[-1])).reshape(len(images), -1)
        numbers = self.net(images, wide)
        numbers = numbers.reshape(*numbers.shape[:-1], -1, 2).transpose(0, 3, 1, 2, 4)
        return numbers.reshape(*batch, -1, 2)

    def transforms(self, context: Array) -> list[Transform]:
        """The step for a context (*batch, context)."""
        return [Autoregressive(self, affine, [context])]
