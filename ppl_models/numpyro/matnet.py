"""A hierarchy with deterministic paths from every latent to the data (MatNet: Bachman 2016, arXiv 1612.04739)."""

from itertools import pairwise
from math import prod

import equinox as eqx
import jax
import numpyro
from jax import Array
from jax.numpy import split

from ppl_models.parts.arguments.kinds import Count, Event, Several, Whole
from ppl_models.parts.arguments.sizes import Network, data_shape, event_size, state_shapes

from .parts import likelihoods
from .parts.distributions import StandardNormal, diagonal_normal
from .parts.nets import Linear, MapNet, Net, between
from .parts.program import Program


class MatNet(Program):
    """Port of `ppl_models.MatNet`: same sites, arguments and names of parameters; `key` seeds the weights."""

    entries: tuple[Linear, ...]
    heads: tuple[Net, ...]
    states: tuple[Net | MapNet, ...]
    decoder: Net | MapNet
    likelihood: eqx.Module
    prior: StandardNormal
    event: int = eqx.field(static=True)
    latent: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        event: Event = 784,
        latent: Several = (16, 16, 16, 16, 16),
        hidden: Count = 256,
        depth: Whole = 1,
        likelihood: str | eqx.Module = "bernoulli",
        network: Network = "mlp",
        *,
        key: Array,
    ) -> None:
        self.event, image = event_size("MatNet", event, network)
        self.latent = latent
        self.likelihood = likelihoods.likelihood(likelihood, "MatNet")
        keys = iter(jax.random.split(key, 3 * len(latent)))
        shapes = state_shapes(len(latent), hidden, image)
        widths = [prod(shape) for shape in shapes]
        self.prior = StandardNormal(latent[0])
        self.entries = tuple(Linear(n, width, key=next(keys)) for n, width in zip(latent, widths, strict=True))
        heads = zip(widths, latent[1:], strict=False)
        self.heads = tuple(Net([w], 2 * n, hidden, depth, gain=0.1, norm=True, key=next(keys)) for w, n in heads)
        self.states = tuple(between(a, b, hidden, depth, key=next(keys)) for a, b in pairwise(shapes))
        data = data_shape(self.likelihood.count, self.event, image)
        self.decoder = between(shapes[-1], data, hidden, depth, key=next(keys))

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        with numpyro.plate("data", n):
            # p(z1), h1 = G1 z1
            h = self.entries[0](numpyro.sample("z1", self.prior()))
            for i, (head, state) in enumerate(zip(self.heads, self.states, strict=True), 1):
                # p(zl | z1, ..., z{l-1})
                loc, log_scale = split(head(h), 2, -1)
                z = numpyro.sample(f"z{i + 1}", diagonal_normal(loc, likelihoods.bounded_exp(log_scale)))
                # hl = Tl(h{l-1}) + Gl zl
                h = state(h) + self.entries[i](z)
            # p(x | z1, ..., zL)
            return numpyro.sample("x", self.likelihood(self.decoder(h)), obs=x)
