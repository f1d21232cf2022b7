"""Masked autoregressive flow: a density of vectors without latents (Papamakarios et al. 2017, arXiv 1705.07057)."""

from math import prod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jax import Array

from ppl_models.parts.arguments.kinds import Count, Event
from ppl_models.parts.arguments.sizes import Blocks, all_sizes

from .parts.flows.autoregressive import AutoregressiveFlow
from .parts.flows.densities import FlowDensity, real_rows
from .parts.program import Program


class MAF(Program):
    """Port of `ppl_models.MAF`: same sites, arguments and names of parameters; `key` seeds the weights."""

    data: FlowDensity
    rest: tuple[FlowDensity, ...]
    event: int = eqx.field(static=True)
    stretches: Blocks = eqx.field(static=True)
    of_reals: ClassVar[bool] = True  # `fit` and `evaluate` look whether its data are on a few levels

    def __init__(
        self,
        event: Event = 784,
        steps: Count = 5,
        hidden: Count = 512,
        depth: Count = 1,
        blocks: Count = 1,
        *,
        key: Array,
    ) -> None:
        shape = all_sizes("MAF", "event", event)
        self.event = prod(shape)
        self.stretches = Blocks("MAF", blocks, self.event, shape if blocks > 1 and len(shape) == 3 else None)
        sizes, found = self.stretches.sizes, []
        for i, (size, own) in enumerate(zip(sizes, jax.random.split(key, blocks), strict=True)):
            flow = AutoregressiveFlow(size, steps, sizes[i - 1 : i] if i else (), hidden, depth, gain=0.0, key=own)
            found.append(FlowDensity(size, flow))
        self.data, self.rest = found[0], tuple(found[1:])

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n, densities = real_rows(x, n, self.event, self.dtype), [self.data, *self.rest]
        names = [f"x{i + 1}" for i in range(len(densities))] if self.rest else ["x"]
        observed = [None] * len(densities) if x is None else self.stretches.cut(x)
        drawn: list[Array] = []
        with numpyro.plate("data", n):
            for name, density, block in zip(names, densities, observed, strict=True):
                # p(xl | x{l-1})
                drawn.append(numpyro.sample(name, density(*drawn[-1:]), obs=block))
        return self.stretches.join(drawn, jnp.concatenate) if x is None else x
