"""The self-reflective VAE's generative model (Apostolopoulou, Rosenfeld, Dubrawski 2020, arXiv 2007.05166)."""

from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array

from ppl_models.parts.arguments.kinds import Count, Event
from ppl_models.parts.arguments.sizes import Blocks, Network, event_size
from ppl_models.parts.flows.words import Bijection

from .parts import likelihoods
from .parts.bijectors import ConditionalRankOneAffine, Identity, bijection as bijection_of
from .parts.distributions import StandardNormal, diagonal_normal
from .parts.flows.autoregressive import AutoregressiveFlow
from .parts.nets import ConvNet, GatedNet, Net
from .parts.program import Program
from .parts.vamp import VampPrior


class SeReVAE(Program):
    """Port of `ppl_models.SeReVAE`: same sites, arguments and names of parameters; `key` seeds the weights."""

    priors: tuple[Net, ...]
    bijectors: tuple[ConditionalRankOneAffine | AutoregressiveFlow | Identity, ...]
    standard: StandardNormal | None
    vamp: VampPrior | None
    estimates: tuple[Net | ConvNet, ...]
    corrections: tuple[Net | ConvNet, ...]
    likelihood: eqx.Module
    event: int = eqx.field(static=True)
    image: tuple[int, ...] | None = eqx.field(static=True)
    layers: int = eqx.field(static=True)
    latent: int = eqx.field(static=True)
    feedback: bool = eqx.field(static=True)
    coupling: bool = eqx.field(static=True)
    stretches: Blocks = eqx.field(static=True)
    blocks: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        event: Event = 784,
        layers: Count = 10,
        latent: Count = 10,
        hidden: Count = 256,
        depth: Count = 1,
        likelihood: str | eqx.Module = "bernoulli",
        network: Network = "mlp",
        bijection: Bijection = "rank-one",
        prior: Literal["learned", "standard", "vamp"] = "learned",
        feedback: bool = True,
        coupling: bool = True,
        *,
        key: Array,
    ) -> None:
        self.event, self.image = event_size("SeReVAE", event, network)
        self.layers = layers
        self.latent = latent
        self.feedback, self.coupling = feedback, coupling
        # at least one: the normalization inside bounds z_l, since u(z) enters squared and multiplies along the chain
        self.stretches = Blocks("SeReVAE", layers, self.event, self.image)
        self.likelihood = likelihoods.likelihood(likelihood, "SeReVAE")
        k = self.likelihood.count
        self.blocks, shapes = tuple(self.stretches.sizes), self.stretches.shapes
        small = max(hidden // 4, 1)
        self.standard = StandardNormal(latent) if prior == "standard" else None
        self.vamp = None
        if prior == "vamp":
            unit, own = likelihoods.in_unit(self.likelihood), jax.random.split(key)
            encoder = GatedNet([self.event], 2 * latent, hidden, key=own[0])
            self.vamp = VampPrior(encoder, self.event, 500, unit, key=own[1])
        priors, bijectors, estimates, corrections = [], [], [], []
        for i, (shape, own) in enumerate(zip(shapes, jax.random.split(key, layers), strict=True)):
            above = [latent] if i and feedback else []
            keys = jax.random.split(own, 4)
            if prior == "learned" or (prior == "vamp" and i):
                priors.append(Net(above, 2 * latent, small, depth, gain=0.1 if above else 0.0, norm=True, key=keys[0]))
            if prior != "vamp" or i:
                bijectors.append(bijection_of(bijection, latent, above, small, depth, key=keys[1]))
            if self.image is not None:
                channels, out = max(hidden // 16, 4), (k * shape[0], *shape[1:])
                estimates.append(ConvNet([latent], out, channels=channels, depth=depth, key=keys[2]))
                if i and coupling:
                    corrections.append(ConvNet([latent], out, shapes[i - 1], channels, depth, key=keys[3]))
            else:
                estimates.append(Net([latent], k * shape[0], hidden, depth, norm=True, key=keys[2]))
                if i and coupling:
                    inputs = [latent, self.blocks[i - 1]]
                    corrections.append(Net(inputs, k * shape[0], hidden, depth, norm=True, key=keys[3]))
        self.priors, self.bijectors = tuple(priors), tuple(bijectors)
        self.estimates, self.corrections = tuple(estimates), tuple(corrections)

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        observed = [None] * self.layers if x is None else self.cut(x)
        drawn = []
        with numpyro.plate("data", n):
            above = []
            for i in range(self.layers):
                # p(zl | z{l-1}): eps_l ~ N(mu, sigma^2) pushed through the bijection
                z = numpyro.sample(f"z{i + 1}", self._prior(i, *above))
                # p(xl | zl, x{l-1})
                params = self.estimates[i](z)
                if i and self.coupling:
                    params = params + self.corrections[i - 1](z, drawn[-1])
                drawn.append(numpyro.sample(f"x{i + 1}", self.likelihood(params), obs=observed[i]))
                above = [z] if self.feedback else []
        return self.join(drawn) if x is None else x

    def _prior(self, i: int, *above: Array) -> dist.Distribution:
        """p(zl | z{l-1}) of layer l = i + 1, event shape (latent,)."""
        if self.vamp is not None and not i:
            return self.vamp()
        i -= self.layers  # networks are counted from the last: with "vamp" the first layer has none
        if self.standard is None:
            loc, log_scale = jnp.split(self.priors[i](*above), 2, -1)
            eps = diagonal_normal(loc, likelihoods.bounded_exp(log_scale))
        else:
            eps = self.standard()
        steps = self.bijectors[i].transforms(*above)  # NumPyro wants one at least
        return dist.TransformedDistribution(eps, steps) if steps else eps

    def cut(self, x: Array) -> list[Array]:
        """The blocks of rows x (*batch, event): consecutive values, or bands of rows of an image."""
        return self.stretches.cut(x)

    def join(self, blocks: Sequence[Array]) -> Array:
        """The rows (*batch, event) of their blocks."""
        return self.stretches.join(blocks, jnp.concatenate)
