"""A latent vector with an autoregressive decoder of images (PixelVAE: Gulrajani et al. 2017, arXiv 1611.05013)."""

from math import prod
from typing import ClassVar

import equinox as eqx
import jax
import numpyro
from jax import Array

from ppl_models.parts.arguments.kinds import Count, Event
from ppl_models.parts.arguments.sizes import image_size

from .parts import likelihoods
from .parts.distributions import StandardNormal
from .parts.flows.densities import FlowDensity
from .parts.flows.priors import prior as prior_of
from .parts.nets import PixelCNN
from .parts.pixels import AutoregressiveImage, PixelMixture, mixture_of
from .parts.program import Program


class PixelVAE(Program):
    """Port of `ppl_models.PixelVAE`: same sites, arguments and names of parameters; `key` seeds the weights."""

    likelihood: eqx.Module
    mixture: PixelMixture | None
    decoder: PixelCNN
    prior: StandardNormal | FlowDensity
    image: tuple[int, int, int] = eqx.field(static=True)
    event: int = eqx.field(static=True)
    latent: int = eqx.field(static=True)
    wants_image: ClassVar[bool] = True

    def __init__(
        self,
        event: Event = (1, 28, 28),
        latent: Count = 10,
        hidden: Count = 32,
        depth: Count = 12,
        likelihood: str | eqx.Module = "bernoulli",
        components: Count = 10,
        radius: Count = 3,
        window: Count | None = None,
        prior: str = "standard",
        *,
        key: Array,
    ) -> None:
        self.image = image_size("PixelVAE", event)
        self.event = prod(self.image)
        self.latent = latent
        self.likelihood = likelihoods.likelihood(likelihood, "PixelVAE")
        self.mixture, output = mixture_of(self.likelihood, self.image[0], components)
        self.decoder = PixelCNN(self.image, output, self.latent, hidden, depth, radius, window, key=key)
        self.prior = prior_of("PixelVAE", prior, self.latent, key=jax.random.fold_in(key, 1))

    @property
    def pixel(self) -> eqx.Module:
        """From the numbers of a pixel to its distribution."""
        return self.likelihood if self.mixture is None else self.mixture

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        with numpyro.plate("data", n):
            # p(z)
            z = numpyro.sample("z1", self.prior())
            # p(x | z) = prod_i p(x_i | x_1, ..., x_{i-1}, z)
            return numpyro.sample("x", AutoregressiveImage(self.decoder, z, self.pixel), obs=x)
