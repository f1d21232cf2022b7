"""Gated PixelCNN: images drawn pixel by pixel, without latents (van den Oord et al. 2016, arXiv 1606.05328)."""

from math import prod
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpyro
from jax import Array

from ppl_models.parts.arguments.kinds import Count, Event
from ppl_models.parts.arguments.sizes import image_size

from .parts import likelihoods
from .parts.nets import PixelCNN as Network
from .parts.pixels import AutoregressiveImage, PixelMixture, mixture_of
from .parts.program import Program


class PixelCNN(Program):
    """Port of `ppl_models.PixelCNN`: same sites, arguments and names of parameters; `key` seeds the weights."""

    likelihood: eqx.Module
    mixture: PixelMixture | None
    network: Network
    image: tuple[int, int, int] = eqx.field(static=True)
    event: int = eqx.field(static=True)
    wants_image: ClassVar[bool] = True

    def __init__(
        self,
        event: Event = (1, 28, 28),
        hidden: Count = 32,
        depth: Count = 12,
        likelihood: str | eqx.Module = "bernoulli",
        components: Count = 10,
        radius: Count = 3,
        window: Count | None = None,
        *,
        key: Array,
    ) -> None:
        self.image = image_size("PixelCNN", event)
        self.event = prod(self.image)
        self.likelihood = likelihoods.likelihood(likelihood, "PixelCNN")
        self.mixture, output = mixture_of(self.likelihood, self.image[0], components)
        self.network = Network(self.image, output, 0, hidden, depth, radius, window, key=key)

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        with numpyro.plate("data", n):
            # p(x) = prod_i p(x_i | x_1, ..., x_{i-1})
            pixel = self.likelihood if self.mixture is None else self.mixture
            return numpyro.sample("x", AutoregressiveImage(self.network, jnp.zeros((n, 0), self.dtype), pixel), obs=x)
