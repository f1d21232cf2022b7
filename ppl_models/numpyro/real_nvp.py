"""Real-valued non-volume-preserving flow: couplings, of images in scales (Dinh et al. 2017, arXiv 1605.08803)."""

from math import prod
from typing import ClassVar

import equinox as eqx
import numpyro
from jax import Array

from ppl_models.parts.arguments.kinds import Count, Event, Whole
from ppl_models.parts.arguments.sizes import all_sizes
from ppl_models.parts.flows.scales import levels_of_image

from .parts.flows.autoregressive import AutoregressiveFlow
from .parts.flows.densities import FlowDensity, real_rows
from .parts.flows.images import MultiScale
from .parts.program import Program


class RealNVP(Program):
    """Port of `ppl_models.RealNVP`: same sites, arguments and names of parameters; `key` seeds the weights."""

    data: FlowDensity
    event: int = eqx.field(static=True)
    wants_image: ClassVar[bool] = True
    of_reals: ClassVar[bool] = True  # `fit` and `evaluate` look whether its data are on a few levels

    def __init__(
        self,
        event: Event = 784,
        steps: Count = 6,
        hidden: Count = 64,
        depth: Count = 2,
        levels: Whole | None = None,
        *,
        key: Array,
    ) -> None:
        shape = all_sizes("RealNVP", "event", event)
        self.event = prod(shape)
        if len(shape) == 3:
            levels = levels_of_image("RealNVP", shape, levels, 0)
            flow = MultiScale(shape, "real-nvp", levels, hidden, depth, key=key)
        else:
            flow = AutoregressiveFlow(self.event, steps, (), hidden, depth, passes=2, gain=0.0, key=key)
        self.data = FlowDensity(self.event, flow)

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = real_rows(x, n, self.event, self.dtype)
        with numpyro.plate("data", n):
            # p(x)
            return numpyro.sample("x", self.data(), obs=x)
