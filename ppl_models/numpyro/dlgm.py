"""The deep latent Gaussian model (Rezende, Mohamed, Wierstra 2014, arXiv 1401.4082)."""

import equinox as eqx
import jax
import numpyro
from jax import Array

from ppl_models.parts.arguments.kinds import Count, Event, Several, Whole
from ppl_models.parts.arguments.sizes import event_size

from .parts import likelihoods
from .parts.distributions import StandardNormal
from .parts.nets import Linear, Net
from .parts.program import Program


class DLGM(Program):
    """Port of `ppl_models.DLGM`: same sites, arguments and names of parameters; `key` seeds the weights."""

    noise: tuple[Linear, ...]
    states: tuple[Net, ...]
    decoder: Net
    likelihood: eqx.Module
    priors: tuple[StandardNormal, ...]
    event: int = eqx.field(static=True)
    latent: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        event: Event = 784,
        latent: Several = (50, 50),
        hidden: Count = 256,
        depth: Whole = 1,
        likelihood: str | eqx.Module = "bernoulli",
        *,
        key: Array,
    ) -> None:
        self.event, _ = event_size("DLGM", event)
        self.latent = latent
        self.likelihood = likelihoods.likelihood(likelihood, "DLGM")
        keys = iter(jax.random.split(key, 2 * len(self.latent)))
        self.priors = tuple(StandardNormal(size) for size in self.latent)
        self.noise = tuple(Linear(size, hidden, bias=False, key=next(keys)) for size in self.latent)
        self.states = tuple(Net([hidden], hidden, hidden, depth, norm=True, key=next(keys)) for _ in self.latent[1:])
        self.decoder = Net([hidden], self.likelihood.count * self.event, hidden, depth, norm=True, key=next(keys))

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        h: Array | None = None
        with numpyro.plate("data", n):
            for i, (prior, noise) in enumerate(zip(self.priors, self.noise, strict=True)):
                # p(zl), hl = Tl(h{l-1}) + Gl zl
                z = numpyro.sample(f"z{i + 1}", prior())
                h = noise(z) if h is None else self.states[i - 1](h) + noise(z)
            # p(x | z1, ..., zL)
            return numpyro.sample("x", self.likelihood(self.decoder(h)), obs=x)
