"""A hierarchy of Gaussian latents: the generative half of the ladder VAE (Sonderby et al. 2016, arXiv 1602.02282)."""

import pyro
from torch import Tensor, nn

from .parts import likelihoods
from .parts.arguments.kinds import Event, Several, Whole
from .parts.arguments.sizes import event_size, layer_widths
from .parts.distributions import StandardNormal, diagonal_normal
from .parts.nets import Net
from .parts.program import Program


class HierarchicalVAE(Program):
    """A Markov chain of latent vectors, the last of which, or all of which, give the data.

        p(x, z) = p(z1) prod_{l=2..L} p(z_l | z_{l-1}) p(x | z_L)                skip=False
        p(x, z) = p(z1) prod_{l=2..L} p(z_l | z_{l-1}) p(x | z_1, ..., z_L)      skip=True

    z_1 ~ N(0, I), z_l ~ N(mu(z_{l-1}), sigma(z_{l-1})^2). Latents are numbered in generation order: z_1 is the top,
    which most papers call z_L.

    Shapes: x (n, event), z_l (n, latent[l - 1]); sites z1..zL and x.

    Args:
        event: number of values in a row of x, or its shape.
        latent: sizes of z1..zL, smallest first in the ladder VAE.
        hidden: width of the networks, one for all or one a layer (z_1 -> z_2, ..., z_L -> x).
        depth: residual blocks in each network.
        likelihood: see `parts.likelihoods.likelihood`.
        skip: whether x reads every latent, not the last alone.

    Raises:
        ValueError: no latents, a size that is not a positive integer, or widths that do not match the latents; x of the
            wrong width, outside the support, not finite, empty.

    Source: Sonderby et al. 2016, eq. 1 to 3, for `skip=False`; Maaloe et al. 2019 (arXiv 1902.02102) for skips.

    >>> HierarchicalVAE(event=64, latent=(2, 4, 8))(n=3).shape
    torch.Size([3, 64])

    >>> import torch
    >>> from ppl_models.factorization import factorization
    >>> for skip in (False, True):
    ...     model = HierarchicalVAE(event=4, latent=(2, 2, 2), hidden=8, skip=skip)
    ...     print(factorization(model, torch.eye(4)[:3]))
    p(z1) p(z2 | z1) p(z3 | z2) p(x | z3)
    p(z1) p(z2 | z1) p(z3 | z2) p(x | z1, z2, z3)
    """

    density = "p(x, z) = p(z1) prod_{l=2..L} p(z_l | z_{l-1}) p(x | z_L)"
    source = "Sonderby et al. 2016, arXiv 1602.02282"

    def __init__(
        self,
        event: Event = 784,
        latent: Several = (4, 8, 16, 32, 64),
        hidden: Event = 256,
        depth: Whole = 1,
        likelihood: str | nn.Module = "bernoulli",
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.event, _ = event_size("HierarchicalVAE", event)
        self.latent = latent
        widths = layer_widths("HierarchicalVAE", hidden, latent)
        self.skip = skip
        self.likelihood = likelihoods.likelihood(likelihood, "HierarchicalVAE")
        self.priors = nn.ModuleList()
        for above, size, width in zip(latent, latent[1:], widths, strict=False):
            self.priors.append(Net([above], 2 * size, width, depth, gain=0.1, norm=True))
        inputs = latent if skip else latent[-1:]
        self.decoder = Net(inputs, self.likelihood.count * self.event, widths[-1], depth, norm=True)
        self.prior = StandardNormal(latent[0])

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.prior.loc.dtype)
        with pyro.plate("data", n):
            # p(z1)
            z = [pyro.sample("z1", self.prior())]
            for i, prior in enumerate(self.priors):
                # p(zl | z{l-1})
                loc, log_scale = prior(z[-1]).chunk(2, -1)
                z.append(pyro.sample(f"z{i + 2}", diagonal_normal(loc, likelihoods.bounded_exp(log_scale))))
            # p(x | zL), or p(x | z1, ..., zL)
            params = self.decoder(*z) if self.skip else self.decoder(z[-1])
            return pyro.sample("x", self.likelihood(params), obs=x)
