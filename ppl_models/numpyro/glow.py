"""Glow: couplings of images with invertible 1 x 1 convolutions (Kingma & Dhariwal 2018, arXiv 1807.03039)."""

from math import prod
from typing import ClassVar

import equinox as eqx
import numpyro
from jax import Array

from ppl_models.parts.arguments.kinds import Count, Event
from ppl_models.parts.arguments.sizes import image_size
from ppl_models.parts.flows.scales import levels_of_image

from .parts.flows.densities import FlowDensity, real_rows
from .parts.flows.images import MultiScale
from .parts.program import Program


class Glow(Program):
    """Port of `ppl_models.Glow`: same sites, arguments and names of parameters; `key` seeds the weights."""

    data: FlowDensity
    event: int = eqx.field(static=True)
    wants_image: ClassVar[bool] = True
    of_reals: ClassVar[bool] = True  # `fit` and `evaluate` look whether its data are on a few levels

    def __init__(
        self,
        event: Event = (1, 28, 28),
        steps: Count = 8,
        hidden: Count = 64,
        depth: Count = 1,
        levels: Count | None = None,
        *,
        key: Array,
    ) -> None:
        image = image_size("Glow", event)
        self.event = prod(image)
        levels = levels_of_image("Glow", image, levels, 1)
        self.data = FlowDensity(self.event, MultiScale(image, "glow", levels, hidden, depth, steps, key=key))

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = real_rows(x, n, self.event, self.dtype)
        with numpyro.plate("data", n):
            # p(x)
            return numpyro.sample("x", self.data(), obs=x)
