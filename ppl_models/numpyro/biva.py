"""The bidirectional-inference VAE's generative model (BIVA: Maaloe et al. 2019, arXiv 1902.02102)."""

from itertools import pairwise
from math import prod

import equinox as eqx
import jax
import numpyro
from jax import Array
from jax.numpy import split

from ppl_models.parts.arguments.kinds import Count, Event, NotNegative, Several, Whole
from ppl_models.parts.arguments.sizes import Network, data_shape, event_size, state_shapes

from .parts import likelihoods
from .parts.distributions import StandardNormal, diagonal_normal
from .parts.nets import MapNet, Net, between
from .parts.program import Program


class BIVA(Program):
    """Port of `ppl_models.BIVA`: same sites, arguments and names of parameters; `key` seeds the weights."""

    entries: tuple[Net, ...]
    heads: tuple[Net, ...]
    states: tuple[Net | MapNet, ...]
    decoder: Net | MapNet
    likelihood: eqx.Module
    prior: StandardNormal
    event: int = eqx.field(static=True)
    latent: tuple[int, ...] = eqx.field(static=True)
    least: float = eqx.field(static=True)

    def __init__(
        self,
        event: Event = 784,
        latent: Several = (8, 16, 24, 32, 40, 48),
        hidden: Count = 256,
        depth: Whole = 1,
        likelihood: str | eqx.Module = "bernoulli",
        network: Network = "mlp",
        least: NotNegative = 1.0,
        *,
        key: Array,
    ) -> None:
        self.event, image = event_size("BIVA", event, network)
        self.latent, self.least = latent, least
        self.likelihood = likelihoods.likelihood(likelihood, "BIVA")
        keys = iter(jax.random.split(key, 3 * len(latent)))
        shapes = state_shapes(len(latent), hidden, image)
        widths, below = [prod(shape) for shape in shapes], latent[1:]
        self.prior = StandardNormal(latent[0])
        entries = zip([latent[:1], *((n, n) for n in below)], widths, strict=True)
        self.entries = tuple(Net(sizes, width, depth=0, key=next(keys)) for sizes, width in entries)
        heads = zip(widths, below, strict=False)
        self.heads = tuple(Net([w], 4 * n, hidden, depth, gain=0.1, norm=True, key=next(keys)) for w, n in heads)
        self.states = tuple(between(a, b, hidden, depth, key=next(keys)) for a, b in pairwise(shapes))
        data = data_shape(self.likelihood.count, self.event, image)
        self.decoder = between(shapes[-1], data, hidden, depth, key=next(keys))

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        with numpyro.plate("data", n):
            # p(top), d{L-1} = A top
            d = self.entries[0](numpyro.sample("top", self.prior()))
            for i, (head, state) in enumerate(zip(self.heads, self.states, strict=True), 1):
                layer = len(self.latent) - i
                td_loc, td_scale, bu_loc, bu_scale = split(head(d), 4, -1)
                # p(tdl | top, td>l, bu>l)
                td = numpyro.sample(f"td{layer}", diagonal_normal(td_loc, self._scale(td_scale)))
                # p(bul | top, td>l, bu>l)
                bu = numpyro.sample(f"bu{layer}", diagonal_normal(bu_loc, self._scale(bu_scale)))
                # d{l-1} = Tl(dl) + Bl tdl + Cl bul
                d = state(d) + self.entries[i](td, bu)
            # p(x | top, ..., td1, bu1)
            return numpyro.sample("x", self.likelihood(self.decoder(d)), obs=x)

    def _scale(self, log_scale: Array) -> Array:
        return likelihoods.at_least(likelihoods.bounded_exp(log_scale), self.least)
