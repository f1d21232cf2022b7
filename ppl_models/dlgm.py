"""The deep latent Gaussian model (Rezende, Mohamed, Wierstra 2014, arXiv 1401.4082)."""

import pyro
from torch import Tensor, nn

from .parts import likelihoods
from .parts.arguments.kinds import Count, Event, Several, Whole
from .parts.arguments.sizes import event_size
from .parts.distributions import StandardNormal
from .parts.nets import Net
from .parts.program import Program


class DLGM(Program):
    """Independent noise at every layer of a deterministic decoder, in the form in which the paper infers it.

        p(x, z) = prod_l p(z_l) p(x | z_1, ..., z_L),      z_l ~ N(0, I)
        h_1 = G_1 z_1,      h_l = T_l(h_{l-1}) + G_l z_l,      x ~ likelihood(T_0(h_L))

    Latents are numbered in generation order, z_1 at the top (the paper's xi_L). Given x, every latent depends on all
    the others, so no independence that a guide asserts is right: `guides.MeanField(model, x, family="rank-one")` is the
    paper's recognition model nonetheless.

    Shapes: x (n, event), z_l (n, latent[l - 1]); sites z1..zL and x.

    Args:
        event: number of values in a row of x, or its shape.
        latent: sizes of z1..zL.
        hidden: size of the states h_l, and width of the networks T_l.
        depth: residual blocks in each T_l.
        likelihood: see `parts.likelihoods.likelihood`.

    Raises:
        ValueError: no latents, or a size that is not a positive integer; x of the wrong width, outside the support, not
            finite, empty.

    Source: Rezende et al. 2014, eq. 1 to 4, and eq. 15 for the recognition model.

    >>> DLGM(event=64, latent=(4, 4))(n=3).shape
    torch.Size([3, 64])

    >>> import torch
    >>> from ppl_models.factorization import factorization
    >>> f = factorization(DLGM(event=4, latent=(2, 2, 2), hidden=8), torch.eye(4)[:3])
    >>> print(f)
    p(z1) p(z2) p(z3) p(x | z1, z2, z3)
    >>> print(f.faithful_inverse())
    q(z1 | x) q(z2 | z1, x) q(z3 | z1, z2, x)
    """

    density = "p(x, z) = prod_l p(z_l) p(x | z_1, ..., z_L)"
    source = "Rezende, Mohamed, Wierstra 2014, arXiv 1401.4082"

    def __init__(
        self,
        event: Event = 784,
        latent: Several = (50, 50),
        hidden: Count = 256,
        depth: Whole = 1,
        likelihood: str | nn.Module = "bernoulli",
    ) -> None:
        super().__init__()
        self.event, _ = event_size("DLGM", event)
        self.latent = latent
        self.likelihood = likelihoods.likelihood(likelihood, "DLGM")
        self.priors = nn.ModuleList(StandardNormal(size) for size in self.latent)
        self.noise = nn.ModuleList(nn.Linear(size, hidden, bias=False) for size in self.latent)
        self.states = nn.ModuleList(Net([hidden], hidden, hidden, depth, norm=True) for _ in self.latent[1:])
        self.decoder = Net([hidden], self.likelihood.count * self.event, hidden, depth, norm=True)

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.priors[0].loc.dtype)
        h: Tensor | None = None
        with pyro.plate("data", n):
            for i, (prior, noise) in enumerate(zip(self.priors, self.noise, strict=True)):
                # p(zl), hl = Tl(h{l-1}) + Gl zl
                z = pyro.sample(f"z{i + 1}", prior())
                h = noise(z) if h is None else self.states[i - 1](h) + noise(z)
            # p(x | z1, ..., zL)
            return pyro.sample("x", self.likelihood(self.decoder(h)), obs=x)
