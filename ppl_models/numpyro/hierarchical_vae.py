"""A hierarchy of Gaussian latents: the generative half of the ladder VAE (Sonderby et al. 2016, arXiv 1602.02282)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jax import Array

from ppl_models.parts.arguments.kinds import Event, Several, Whole
from ppl_models.parts.arguments.sizes import event_size, layer_widths

from .parts import likelihoods
from .parts.distributions import StandardNormal, diagonal_normal
from .parts.nets import Net
from .parts.program import Program


class HierarchicalVAE(Program):
    """Port of `ppl_models.HierarchicalVAE`: same sites, arguments and names of parameters; `key` seeds the weights."""

    priors: tuple[Net, ...]
    decoder: Net
    likelihood: eqx.Module
    prior: StandardNormal
    event: int = eqx.field(static=True)
    latent: tuple[int, ...] = eqx.field(static=True)
    skip: bool = eqx.field(static=True)

    def __init__(
        self,
        event: Event = 784,
        latent: Several = (4, 8, 16, 32, 64),
        hidden: Event = 256,
        depth: Whole = 1,
        likelihood: str | eqx.Module = "bernoulli",
        skip: bool = False,
        *,
        key: Array,
    ) -> None:
        self.event, _ = event_size("HierarchicalVAE", event)
        self.latent = latent
        widths = layer_widths("HierarchicalVAE", hidden, latent)
        self.skip = skip
        self.likelihood = likelihoods.likelihood(likelihood, "HierarchicalVAE")
        *keys, last = jax.random.split(key, len(latent))
        layers = zip(latent, latent[1:], widths, keys, strict=False)
        self.priors = tuple(
            Net([above], 2 * size, width, depth, gain=0.1, norm=True, key=own) for above, size, width, own in layers
        )
        inputs = latent if skip else latent[-1:]
        self.decoder = Net(inputs, self.likelihood.count * self.event, widths[-1], depth, norm=True, key=last)
        self.prior = StandardNormal(latent[0])

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        with numpyro.plate("data", n):
            # p(z1)
            z = [numpyro.sample("z1", self.prior())]
            for i, prior in enumerate(self.priors):
                # p(zl | z{l-1})
                loc, log_scale = jnp.split(prior(z[-1]), 2, -1)
                z.append(numpyro.sample(f"z{i + 2}", diagonal_normal(loc, likelihoods.bounded_exp(log_scale))))
            # p(x | zL), or p(x | z1, ..., zL)
            params = self.decoder(*z) if self.skip else self.decoder(z[-1])
            return numpyro.sample("x", self.likelihood(params), obs=x)
