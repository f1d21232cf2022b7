"""SeRe-MAF, the flow of Apostolopoulou, Rosenfeld, Dubrawski 2020, arXiv 2007.05166: its generative model."""

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array

from ppl_models.parts.arguments.kinds import Count, Event
from ppl_models.parts.arguments.sizes import Blocks, all_sizes
from ppl_models.parts.flows.words import Bijection

from .parts.bijectors import ConditionalRankOneAffine, Identity, bijection as bijection_of
from .parts.distributions import RankOneNormal, diagonal_normal
from .parts.flows.autoregressive import AutoregressiveFlow
from .parts.flows.densities import real_rows, seen
from .parts.likelihoods import bounded_exp
from .parts.nets import Net
from .parts.program import Program


class SeReMAF(Program):
    """Port of `ppl_models.SeReMAF`: same sites, arguments and names of parameters; `key` seeds the weights."""

    priors: tuple[Net, ...]
    bijectors: tuple[ConditionalRankOneAffine | AutoregressiveFlow | Identity, ...]
    bases: tuple[Net, ...]
    flows: tuple[AutoregressiveFlow, ...]
    event: int = eqx.field(static=True)
    image: tuple[int, ...] | None = eqx.field(static=True)
    layers: int = eqx.field(static=True)
    latent: int = eqx.field(static=True)
    stretches: Blocks = eqx.field(static=True)
    blocks: tuple[int, ...] = eqx.field(static=True)
    of_reals: ClassVar[bool] = True  # `fit` and `evaluate` look whether its data are on a few levels

    def __init__(
        self,
        event: Event = (3, 32, 32),
        layers: Count = 5,
        latent: Count = 40,
        hidden: Count = 1024,
        depth: Count = 1,
        steps: Count = 2,
        code_hidden: Count = 128,
        bijection: Bijection = "spline",
        *,
        key: Array,
    ) -> None:
        sizes = all_sizes("SeReMAF", "event", event)
        self.event, self.image = prod(sizes), sizes if len(sizes) == 3 else None
        self.layers, self.latent = layers, latent
        self.stretches = Blocks("SeReMAF", layers, self.event, self.image)
        self.blocks = tuple(self.stretches.sizes)
        priors, bijectors, bases, flows = [], [], [], []
        for i, (size, own) in enumerate(zip(self.blocks, jax.random.split(key, layers), strict=True)):
            above, read = ([latent], [latent, self.blocks[i - 1]]) if i else ([], [latent])
            keys = jax.random.split(own, 4)
            priors.append(Net(above, 2 * latent, code_hidden, gain=0.1 if i else 0.0, norm=True, key=keys[0]))
            bijectors.append(bijection_of(bijection, latent, above, code_hidden, 1, key=keys[1]))
            bases.append(Net([latent], 3 * size, code_hidden, gain=0.1, norm=True, key=keys[2]))
            flows.append(AutoregressiveFlow(size, steps, read, hidden, depth, key=keys[3]))
        self.priors, self.bijectors, self.bases, self.flows = map(tuple, (priors, bijectors, bases, flows))

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = real_rows(x, n, self.event, self.dtype)
        observed = [None] * self.layers if x is None else self.cut(x)
        drawn = []
        with numpyro.plate("data", n):
            above = []
            for i in range(self.layers):
                # p(zl | z{l-1}): eps_l ~ N(mu, sigma^2) pushed through the bijection
                loc, log_scale = jnp.split(self.priors[i](*above), 2, -1)
                eps = diagonal_normal(loc, bounded_exp(log_scale))
                steps = self.bijectors[i].transforms(*above)  # NumPyro wants one at least
                z = numpyro.sample(f"z{i + 1}", dist.TransformedDistribution(eps, steps) if steps else eps)
                # p(xl | zl, x{l-1}): a Gaussian of the code, seen through steps that read the code and the block before
                loc, log_d, u = jnp.split(self.bases[i](z), 3, -1)
                steps = self.flows[i].transforms(z, *drawn[-1:])
                base = RankOneNormal(loc, bounded_exp(log_d), u)
                drawn.append(numpyro.sample(f"x{i + 1}", seen(base, steps), obs=observed[i]))
                above = [z]
        return self.join(drawn) if x is None else x

    def cut(self, x: Array) -> list[Array]:
        """The blocks of rows x (*batch, event): consecutive values, or bands of rows of an image."""
        return self.stretches.cut(x)

    def join(self, blocks: Sequence[Array]) -> Array:
        """The rows (*batch, event) of their blocks."""
        return self.stretches.join(blocks, jnp.concatenate)
