"""A hierarchy with deterministic paths from every latent to the data (MatNet: Bachman 2016, arXiv 1612.04739)."""

from itertools import pairwise
from math import prod

import pyro
from torch import Tensor, nn

from .parts import likelihoods
from .parts.arguments.kinds import Count, Event, Several, Whole
from .parts.arguments.sizes import Network, data_shape, event_size, state_shapes
from .parts.distributions import StandardNormal, diagonal_normal
from .parts.nets import Net, between
from .parts.program import Program


class MatNet(Program):
    """A hierarchy of latents that all add to one deterministic state, of which later latents and the data are drawn.

        p(x, z) = p(z1) prod_{l=2..L} p(z_l | z_1, ..., z_{l-1}) p(x | z_1, ..., z_L)
        h_1 = G_1 z_1,      h_l = T_l(h_{l-1}) + G_l z_l,      z_l ~ N(mu_l(h_{l-1}), sigma_l(h_{l-1})^2)

    z_1 ~ N(0, I), x ~ likelihood(T_0(h_L)). Latents are numbered in generation order. The published inference network
    is the guide `Merging`, which has a state of its own; other top-down guides have the same factorization.

    Shapes: x (n, event), z_l (n, latent[l - 1]); sites z1..zL and x.

    Args:
        event: number of values in a row of x, or its shape: (channels, height, width) for `network="conv"`.
        latent: sizes of z1..zL.
        hidden: width of the states h_l and of the networks; of a "conv" hidden // 16 (at least 4) are the channels of
            the largest state.
        depth: residual blocks in each network.
        likelihood: see `parts.likelihoods.likelihood`.
        network: "mlp", or "conv", whose states are maps that double on the way down; latents are vectors in both.

    Raises:
        ValueError: no latents, or a size that is not a positive integer; an unknown network or likelihood; x of the
            wrong width, outside the support, not finite, empty.

    Source: Bachman 2016 for the structure; sizes and blocks are the library's. Left out are its latents that are maps
    and, for natural images, its autoregressive likelihood.

    >>> MatNet(event=(1, 8, 8), latent=(2, 3), hidden=32, network="conv")(n=3).shape
    torch.Size([3, 64])

    >>> import torch
    >>> from ppl_models.factorization import factorization
    >>> f = factorization(MatNet(event=4, latent=(2, 2, 2), hidden=8), torch.eye(4)[:3])
    >>> print(f)
    p(z1) p(z2 | z1) p(z3 | z1, z2) p(x | z1, z2, z3)
    >>> print(f.faithful_inverse())
    q(z1 | x) q(z2 | z1, x) q(z3 | z1, z2, x)
    """

    density = "p(x, z) = p(z1) prod_{l=2..L} p(z_l | z_1, ..., z_{l-1}) p(x | z_1, ..., z_L)"
    source = "MatNet: Bachman 2016, arXiv 1612.04739"

    def __init__(
        self,
        event: Event = 784,
        latent: Several = (16, 16, 16, 16, 16),
        hidden: Count = 256,
        depth: Whole = 1,
        likelihood: str | nn.Module = "bernoulli",
        network: Network = "mlp",
    ) -> None:
        super().__init__()
        self.event, image = event_size("MatNet", event, network)
        self.latent = latent
        self.likelihood = likelihoods.likelihood(likelihood, "MatNet")
        shapes = state_shapes(len(latent), hidden, image)
        widths = [prod(shape) for shape in shapes]
        self.prior = StandardNormal(latent[0])
        self.entries = nn.ModuleList(nn.Linear(n, width) for n, width in zip(latent, widths, strict=True))
        heads = zip(widths, latent[1:], strict=False)
        self.heads = nn.ModuleList(Net([w], 2 * n, hidden, depth, gain=0.1, norm=True) for w, n in heads)
        self.states = nn.ModuleList(between(a, b, hidden, depth) for a, b in pairwise(shapes))
        data = data_shape(self.likelihood.count, self.event, image)
        self.decoder = between(shapes[-1], data, hidden, depth)

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.prior.loc.dtype)
        with pyro.plate("data", n):
            # p(z1), h1 = G1 z1
            h = self.entries[0](pyro.sample("z1", self.prior()))
            for i, (head, state) in enumerate(zip(self.heads, self.states, strict=True), 1):
                # p(zl | z1, ..., z{l-1})
                loc, log_scale = head(h).chunk(2, -1)
                z = pyro.sample(f"z{i + 1}", diagonal_normal(loc, likelihoods.bounded_exp(log_scale)))
                # hl = Tl(h{l-1}) + Gl zl
                h = state(h) + self.entries[i](z)
            # p(x | z1, ..., zL)
            return pyro.sample("x", self.likelihood(self.decoder(h)), obs=x)
