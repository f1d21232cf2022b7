"""The bidirectional-inference VAE's generative model (BIVA: Maaloe et al. 2019, arXiv 1902.02102)."""

from itertools import pairwise
from math import prod

import pyro
from torch import Tensor, nn

from .parts import likelihoods
from .parts.arguments.kinds import Count, Event, NotNegative, Several, Whole
from .parts.arguments.sizes import Network, data_shape, event_size, state_shapes
from .parts.distributions import StandardNormal, diagonal_normal
from .parts.nets import Net, between
from .parts.program import Program


class BIVA(Program):
    """A top-down hierarchy in which each layer below the top has two latents, with deterministic paths to the data.

        p(x, z) = p(top) prod_{l=L-1..1} p(td_l | above) p(bu_l | above) p(x | all),      above = top, td_>l, bu_>l
        d_{L-1} = A top,      d_{l-1} = T_l(d_l) + B_l td_l + C_l bu_l,      x ~ likelihood(T_0(d_0))

    top ~ N(0, I); td_l and bu_l are diagonal Gaussians, independent given d_l. The guide `Bidirectional` infers bu_l on
    the way up and td_l on the way down. Layers are numbered as in the paper, layer 1 next to the data. Of one layer it
    is a VAE.

    Shapes: x (n, event), top (n, latent[0]), td_l and bu_l (n, latent[L - l]); sites top, td{L-1}, bu{L-1}, ..., td1,
    bu1 and x.

    Args:
        event: number of values in a row of x, or its shape: (channels, height, width) for `network="conv"`.
        latent: sizes of top, of td_{L-1} and of bu_{L-1}, ..., of td_1 and of bu_1.
        hidden: width of the states d_l and of the networks; of a "conv" hidden // 16 (at least 4) are the channels of
            the largest state.
        depth: residual blocks in each network.
        likelihood: see `parts.likelihoods.likelihood`.
        network: "mlp", or "conv", whose states are maps that double on the way down; latents are vectors in both.
        least: the standard deviations of td_l and bu_l are sqrt(least^2 + s^2), s the network's. The published 1 is the
            log-variance softplus(.) of the authors' code; `family="diagonal:least=1"` is its counterpart in a guide.

    Raises:
        ValueError: no latents, or a size that is not a positive integer; an unknown network or likelihood; x of the
            wrong width, outside the support, not finite, empty.

    Source: Maaloe et al. 2019, section 2; sizes and `least` from the authors' code for MNIST, 11 latents of 328 units.
    Blocks are the library's, without weight normalization and dropout.

    >>> BIVA(event=(1, 8, 8), latent=(2, 3), hidden=32, network="conv")(n=3).shape
    torch.Size([3, 64])

    >>> import torch
    >>> from ppl_models.factorization import factorization
    >>> print(factorization(BIVA(event=4, latent=(2, 2, 2), hidden=8), torch.eye(4)[:3]))
    p(top) p(td2 | top) p(bu2 | top) p(td1 | top, td2, bu2) p(bu1 | top, td2, bu2) p(x | top, td2, bu2, td1, bu1)
    """

    density = "p(x, z) = p(top) prod_{l=L-1..1} p(td_l | above) p(bu_l | above) p(x | all)"
    source = "BIVA: Maaloe et al. 2019, arXiv 1902.02102"

    def __init__(
        self,
        event: Event = 784,
        latent: Several = (8, 16, 24, 32, 40, 48),
        hidden: Count = 256,
        depth: Whole = 1,
        likelihood: str | nn.Module = "bernoulli",
        network: Network = "mlp",
        least: NotNegative = 1.0,
    ) -> None:
        super().__init__()
        self.event, image = event_size("BIVA", event, network)
        self.latent, self.least = latent, least
        self.likelihood = likelihoods.likelihood(likelihood, "BIVA")
        shapes = state_shapes(len(latent), hidden, image)
        widths, below = [prod(shape) for shape in shapes], latent[1:]
        self.prior = StandardNormal(latent[0])
        # A; then B_l and C_l, the images of both latents added up
        entries = zip([latent[:1], *((n, n) for n in below)], widths, strict=True)
        self.entries = nn.ModuleList(Net(sizes, width, depth=0) for sizes, width in entries)
        heads = zip(widths, below, strict=False)
        self.heads = nn.ModuleList(Net([w], 4 * n, hidden, depth, gain=0.1, norm=True) for w, n in heads)
        self.states = nn.ModuleList(between(a, b, hidden, depth) for a, b in pairwise(shapes))
        data = data_shape(self.likelihood.count, self.event, image)
        self.decoder = between(shapes[-1], data, hidden, depth)

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.prior.loc.dtype)
        with pyro.plate("data", n):
            # p(top), d{L-1} = A top
            d = self.entries[0](pyro.sample("top", self.prior()))
            for i, (head, state) in enumerate(zip(self.heads, self.states, strict=True), 1):
                layer = len(self.latent) - i
                td_loc, td_scale, bu_loc, bu_scale = head(d).chunk(4, -1)
                # p(tdl | top, td>l, bu>l)
                td = pyro.sample(f"td{layer}", diagonal_normal(td_loc, self._scale(td_scale)))
                # p(bul | top, td>l, bu>l)
                bu = pyro.sample(f"bu{layer}", diagonal_normal(bu_loc, self._scale(bu_scale)))
                # d{l-1} = Tl(dl) + Bl tdl + Cl bul
                d = state(d) + self.entries[i](td, bu)
            # p(x | top, ..., td1, bu1)
            return pyro.sample("x", self.likelihood(self.decoder(d)), obs=x)

    def _scale(self, log_scale: Tensor) -> Tensor:
        return likelihoods.at_least(likelihoods.bounded_exp(log_scale), self.least)
