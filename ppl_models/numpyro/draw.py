"""DRAW, an image drawn in strokes by a recurrent network (Gregor et al. 2015, arXiv 1502.04623)."""

from typing import Annotated, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jax import Array

from ppl_models.parts.arguments.kinds import Count, Event, Number
from ppl_models.parts.arguments.sizes import event_size, image_size

from .parts import likelihoods
from .parts.distributions import StandardNormal
from .parts.nets import LSTM, Linear, Window
from .parts.program import Program


class DRAW(Program):
    """Port of `ppl_models.DRAW`: same sites, arguments and names of parameters; `key` seeds the weights."""

    canvas: Array
    likelihood: eqx.Module
    decoder: LSTM
    window: Window | None
    stroke: Linear
    prior: StandardNormal
    event: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    latent: int = eqx.field(static=True)
    wants_image: ClassVar[bool] = True

    def __init__(
        self,
        event: Event = 784,
        steps: Count = 10,
        latent: Count = 10,
        hidden: Count = 256,
        window: Annotated[int, Number(whole=True, least=2)] | None = None,
        likelihood: str | eqx.Module = "bernoulli",
        *,
        key: Array,
    ) -> None:
        self.event, _ = event_size("DRAW", event)
        self.steps, self.latent = steps, latent
        self.likelihood = likelihoods.likelihood(likelihood, "DRAW")
        values, keys = self.likelihood.count, jax.random.split(key, 3)
        self.canvas = jnp.zeros(values * self.event)
        self.decoder = LSTM([latent], hidden, key=keys[0])
        if window is None:
            self.window, self.stroke = None, Linear(hidden, values * self.event, key=keys[1])
        else:
            channels, *size = image_size("DRAW", event, "a window wants")
            self.window = Window(hidden, (values * channels, *size), window, key=keys[2])
            self.stroke = Linear(hidden, values * channels * window**2, key=keys[1])
        self.prior = StandardNormal(latent)

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        canvas, (h, memory) = jnp.broadcast_to(self.canvas, (n, len(self.canvas))), self.decoder.start(n)
        with numpyro.plate("data", n):
            for t in range(1, self.steps + 1):
                numpyro.deterministic(f"mean{t}", self.likelihood.mean(canvas))
                numpyro.deterministic(f"state{t}", h)
                # p(zt)
                z = numpyro.sample(f"z{t}", self.prior())
                # ht = LSTM(zt, h{t-1}),  ct = c{t-1} + write(ht)
                h, memory = self.decoder((h, memory), z)
                canvas = canvas + self.write(h)
            # p(x | z1, ..., zT)
            return numpyro.sample("x", self.likelihood(canvas), obs=x)

    def write(self, h: Array) -> Array:
        """The stroke of a state: (*batch, hidden) -> (*batch, numbers of the likelihood)."""
        stroke = self.stroke(h)
        return stroke if self.window is None else self.window.write(h, stroke)
