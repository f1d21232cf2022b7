"""Neural spline flow: a density of vectors without latents (Durkan et al. 2019, arXiv 1906.04032)."""

from typing import ClassVar

import equinox as eqx
import numpyro
from jax import Array

from ppl_models.parts.arguments.kinds import Count, Event, Positive
from ppl_models.parts.arguments.sizes import event_size
from ppl_models.parts.flows.orders import BOUND

from .parts.flows.autoregressive import AutoregressiveFlow
from .parts.flows.densities import FlowDensity, real_rows
from .parts.program import Program


class NSF(Program):
    """Port of `ppl_models.NSF`: same sites, arguments and names of parameters; `key` seeds the weights."""

    data: FlowDensity
    event: int = eqx.field(static=True)
    bound: float = eqx.field(static=True)
    of_reals: ClassVar[bool] = True  # `fit` and `evaluate` look whether its data are on a few levels

    def __init__(
        self,
        event: Event = 784,
        steps: Count = 5,
        hidden: Count = 128,
        depth: Count = 1,
        bins: Count = 8,
        passes: Count | None = None,
        bound: Positive = BOUND,
        *,
        key: Array,
    ) -> None:
        self.event, _ = event_size("NSF", event)
        self.bound = bound
        sizes = {"kind": "spline", "passes": passes, "bins": bins, "gain": 0.0, "bound": bound, "key": key}
        self.data = FlowDensity(self.event, AutoregressiveFlow(self.event, steps, (), hidden, depth, **sizes))

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = real_rows(x, n, self.event, self.dtype, self.bound)
        with numpyro.plate("data", n):
            # p(x)
            return numpyro.sample("x", self.data(), obs=x)
