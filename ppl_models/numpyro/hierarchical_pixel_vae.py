"""A vector, a map of latents decoded by a PixelCNN (two-level PixelVAE: Gulrajani et al. 2017, arXiv 1611.05013)."""

from math import prod
from typing import ClassVar

import equinox as eqx
import jax
import numpyro
from jax import Array

from ppl_models.parts.arguments.kinds import Count, Event, Several
from ppl_models.parts.arguments.sizes import image_size, map_sizes

from .parts import likelihoods
from .parts.distributions import StandardNormal
from .parts.flows.densities import FlowDensity
from .parts.flows.raster import RasterFlow
from .parts.nets import MapNet, PixelCNN
from .parts.pixels import AutoregressiveImage, PixelMixture, mixture_of
from .parts.program import Program


class HierarchicalPixelVAE(Program):
    """Port of `ppl_models.HierarchicalPixelVAE`: same sites, arguments and names; `key` seeds the weights."""

    likelihood: eqx.Module
    mixture: PixelMixture | None
    top: StandardNormal
    prior: FlowDensity
    features: MapNet
    decoder: PixelCNN
    image: tuple[int, int, int] = eqx.field(static=True)
    event: int = eqx.field(static=True)
    latent: tuple[int, ...] = eqx.field(static=True)
    map: tuple[int, ...] = eqx.field(static=True)
    wants_image: ClassVar[bool] = True

    def __init__(
        self,
        event: Event = (1, 28, 28),
        latent: Several = (512, 64),
        hidden: Count = 32,
        depth: Count = 4,
        likelihood: str | eqx.Module = "bernoulli",
        components: Count = 10,
        radius: Count = 2,
        *,
        key: Array,
    ) -> None:
        self.image = image_size("HierarchicalPixelVAE", event)
        self.event = prod(self.image)
        self.latent = latent
        sizes = map_sizes("HierarchicalPixelVAE", latent, self.image)
        self.map = (latent[1], *sizes[0])
        self.likelihood = likelihoods.likelihood(likelihood, "HierarchicalPixelVAE")
        self.mixture, output = mixture_of(self.likelihood, self.image[0], components)
        keys = jax.random.split(key, 3)
        self.top = StandardNormal(latent[0])
        flow = RasterFlow(self.map, latent[0], hidden, depth, radius, key=keys[0])
        self.prior = FlowDensity(prod(self.map), flow)
        self.features = MapNet(self.map, hidden, sizes, hidden, key=keys[1])
        self.decoder = PixelCNN(self.image, output, hidden, hidden, depth, radius, maps=True, key=keys[2])

    @property
    def pixel(self) -> eqx.Module:
        """From the numbers of a pixel to its distribution."""
        return self.likelihood if self.mixture is None else self.mixture

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        with numpyro.plate("data", n):
            # p(z1)
            z1 = numpyro.sample("z1", self.top())
            # p(z2 | z1) = prod_i p(z2_i | z2_1, ..., z2_{i-1}, z1)
            z2 = numpyro.sample("z2", self.prior(z1))
            # p(x | z2) = prod_j p(x_j | x_1, ..., x_{j-1}, z2)
            return numpyro.sample("x", AutoregressiveImage(self.decoder, self.features(z2), self.pixel), obs=x)
