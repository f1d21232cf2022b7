"""Port of `ppl_models.parts.nets.attention`: a grid of Gaussian filters over an image, placed by a state."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from ppl_models.parts.arguments.windows import first_window

from .layers import Linear


class Window(eqx.Module):
    """Port of `ppl_models.parts.Window`; `key` seeds the weights."""

    numbers: Linear
    image: tuple[int, ...] = eqx.field(static=True)
    size: int = eqx.field(static=True)

    def __init__(self, state: int, image: Sequence[int], size: int, *, key: Array) -> None:
        self.image, self.size = tuple(image), size
        numbers, start = Linear(state, 5, key=key), jnp.asarray(first_window(image, size))
        self.numbers = eqx.tree_at(lambda linear: linear.bias, numbers, numbers.bias.at[2:4].add(start))

    def __call__(self, h: Array) -> tuple[Array, Array, Array]:
        """F_Y (*batch, 1, N, B), F_X (*batch, 1, N, A) and the intensity (*batch, 1, 1, 1) of h (*batch, state)."""
        height, width = self.image[1:]
        x, y, spread, stride, intensity = jnp.moveaxis(self.numbers(h)[..., None, None], -3, 0)
        stride = (max(height, width) - 1) / (self.size - 1) * jnp.exp(stride)
        grid = jnp.arange(self.size)[:, None] - (self.size - 1) / 2

        def filters(center: Array, length: int) -> Array:
            middles = (length + 1) / 2 * (center + 1) + grid * stride  # (*batch, N, 1)
            places = jnp.arange(1, length + 1)
            return jax.nn.softmax(-0.5 * jnp.square(places - middles) * jnp.exp(-spread), -1)[..., None, :, :]

        return filters(y, height), filters(x, width), jnp.exp(intensity)[..., None, :, :]

    def read(self, h: Array, *images: Array) -> Array:
        """The patches of flat images (*batch, channels B A) each, side by side: (*batch, images channels N N); batches
        broadcast."""
        rows, columns, intensity = self(h)
        patches = [intensity * (rows @ x.reshape(*x.shape[:-1], *self.image) @ columns.mT) for x in images]
        batch = jnp.broadcast_shapes(*(patch.shape[:-3] for patch in patches))
        flat = (patch.reshape(*patch.shape[:-3], -1) for patch in patches)
        return jnp.concatenate([jnp.broadcast_to(patch, (*batch, patch.shape[-1])) for patch in flat], -1)

    def write(self, h: Array, patch: Array) -> Array:
        """The flat image (*batch, channels B A) of a patch (*batch, channels N N)."""
        rows, columns, intensity = self(h)
        w = patch.reshape(*patch.shape[:-1], self.image[0], self.size, self.size)
        image = rows.mT @ w @ columns / intensity
        return image.reshape(*image.shape[:-3], -1)
