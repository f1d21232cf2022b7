"""VAEs of one and two layers whose prior is a mixture of their encoder (Tomczak & Welling 2018, arXiv 1705.07120)."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jax import Array

from ppl_models.parts.arguments.kinds import Count, Event
from ppl_models.parts.arguments.sizes import event_size

from .parts import likelihoods
from .parts.distributions import diagonal_normal
from .parts.nets import GatedNet
from .parts.program import Program
from .parts.vamp import VampPrior


class VampVAE(Program):
    """Port of `ppl_models.VampVAE`: same sites, arguments and names of parameters; `key` seeds the weights."""

    prior: VampPrior
    conditional: GatedNet | None
    decoder: GatedNet
    likelihood: eqx.Module
    event: int = eqx.field(static=True)
    latent: int = eqx.field(static=True)
    layers: int = eqx.field(static=True)

    def __init__(
        self,
        event: Event = 784,
        latent: Count = 40,
        layers: Literal[1, 2] = 1,
        hidden: Count = 300,
        components: Count = 500,
        likelihood: str | eqx.Module = "bernoulli",
        *,
        key: Array,
    ) -> None:
        self.event, _ = event_size("VampVAE", event)
        self.latent, self.layers = latent, layers
        self.likelihood = likelihoods.likelihood(likelihood, "VampVAE")
        unit = likelihoods.in_unit(self.likelihood)
        keys = jax.random.split(key, 4)
        encoder = GatedNet([self.event], 2 * latent, hidden, key=keys[0])
        self.prior = VampPrior(encoder, self.event, components, unit, key=keys[1])
        self.conditional = GatedNet([latent], 2 * latent, hidden, gain=0.1, key=keys[2]) if layers == 2 else None
        self.decoder = GatedNet([latent] * layers, self.likelihood.count * self.event, hidden, key=keys[3])

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        with numpyro.plate("data", n):
            # p(z1) = (1/K) sum_k q(z1 | u_k)
            z = [numpyro.sample("z1", self.prior())]
            if self.conditional is not None:
                # p(z2 | z1)
                loc, log_scale = jnp.split(self.conditional(*z), 2, -1)
                z.append(numpyro.sample("z2", diagonal_normal(loc, likelihoods.bounded_exp(log_scale))))
            # p(x | z1), or p(x | z1, z2)
            return numpyro.sample("x", self.likelihood(self.decoder(*z)), obs=x)
