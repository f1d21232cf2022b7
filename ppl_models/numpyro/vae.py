"""The variational autoencoder's generative model (Kingma & Welling 2014, arXiv 1312.6114)."""

import equinox as eqx
import jax
import numpyro
from jax import Array

from ppl_models.parts.arguments.kinds import Count, Event, Whole
from ppl_models.parts.arguments.sizes import Network, event_size

from .parts import likelihoods
from .parts.distributions import StandardNormal
from .parts.flows.densities import FlowDensity
from .parts.flows.priors import prior as prior_of
from .parts.nets import ConvNet, Net
from .parts.program import Program


class VAE(Program):
    """Port of `ppl_models.VAE`: same sites, arguments and names of parameters; `key` seeds the weights."""

    decoder: Net | ConvNet
    likelihood: eqx.Module
    prior: StandardNormal | FlowDensity
    event: int = eqx.field(static=True)
    latent: int = eqx.field(static=True)

    def __init__(
        self,
        event: Event = 784,
        latent: Count = 50,
        hidden: Count = 256,
        depth: Whole = 1,
        likelihood: str | eqx.Module = "bernoulli",
        network: Network = "mlp",
        prior: str = "standard",
        *,
        key: Array,
    ) -> None:
        self.event, image = event_size("VAE", event, network)
        self.latent = latent
        self.likelihood = likelihoods.likelihood(likelihood, "VAE")
        if image is None:
            self.decoder = Net([self.latent], self.likelihood.count * self.event, hidden, depth, norm=True, key=key)
        else:
            channels = (self.likelihood.count * image[0], *image[1:])
            self.decoder = ConvNet([self.latent], channels, channels=max(hidden // 16, 4), depth=depth, key=key)
        self.prior = prior_of("VAE", prior, self.latent, key=jax.random.fold_in(key, 1))

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        with numpyro.plate("data", n):
            # p(z)
            z = numpyro.sample("z1", self.prior())
            # p(x | z)
            return numpyro.sample("x", self.likelihood(self.decoder(z)), obs=x)
