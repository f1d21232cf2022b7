"""Masked autoregressive flow: a density of vectors without latents (Papamakarios et al. 2017, arXiv 1705.07057)."""

import equinox as eqx
import numpyro
from jax import Array

from ppl_models.parts.kinds import Count, Event
from ppl_models.parts.sizes import event_size

from .parts.flows.autoregressive import AutoregressiveFlow
from .parts.flows.densities import FlowDensity, real_rows
from .parts.program import Program


class MAF(Program):
    """Port of `ppl_models.MAF`: same sites, arguments and names of parameters; `key` seeds the weights."""

    data: FlowDensity
    event: int = eqx.field(static=True)

    def __init__(
        self, event: Event = 784, steps: Count = 5, hidden: Count = 512, depth: Count = 1, *, key: Array
    ) -> None:
        self.event, _ = event_size("MAF", event)
        self.data = FlowDensity(self.event, AutoregressiveFlow(self.event, steps, (), hidden, depth, gain=0.0, key=key))

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = real_rows(x, n, self.event, self.dtype)
        with numpyro.plate("data", n):
            # p(x)
            return numpyro.sample("x", self.data(), obs=x)
