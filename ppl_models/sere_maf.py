"""SeRe-MAF, the flow of Apostolopoulou, Rosenfeld, Dubrawski 2020, arXiv 2007.05166: its generative model."""

from collections.abc import Sequence
from math import prod

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .parts.arguments.kinds import Count, Event
from .parts.arguments.sizes import Blocks, all_sizes
from .parts.bijectors import Bijection, bijection as bijection_of
from .parts.distributions import RankOneNormal, diagonal_normal
from .parts.flows.autoregressive import AutoregressiveFlow
from .parts.flows.densities import real_rows, seen
from .parts.likelihoods import bounded_exp
from .parts.nets import Net
from .parts.program import Program


class SeReMAF(Program):
    """The hierarchy of the self-reflective VAE with a masked autoregressive flow for each block of real data.

        p(x, z) = p(z1) p(x1 | z1)  prod_{l=2..L}  p(zl | z{l-1}) p(xl | zl, x{l-1})
        log p(x_l | z_l, x_{l-1}) = log N(T_l(x_l); mu(z_l), C(z_l)) + log|det dT_l/dx_l|,    C^-1 = diag(d) + u u^T

    T_l is a stack of masked autoregressive steps; all units of its networks may read z_l and x_{l-1}. The Gaussian base
    reads the code alone. As in the SeRe-VAE, z_l = f_l(eps_l; z_{l-1}), eps_l ~ N(mu_l(z_{l-1}), sigma_l(z_{l-1})^2),
    and f_l is a bijection, which a guide shares by taking the prior's own transforms. A density takes one call of each
    network, a draw of a block as many as the block has values.

    Shapes: x (n, event), z_l (n, latent); sites z1..zL, and x1..xL with event sizes `model.blocks`.

    Args:
        event: number of values in a row of x, or the shape (channels, height, width) of an image, whose blocks are then
            bands of rows of all channels.
        layers: L. Blocks are equal but the last, which takes the rest.
        latent: size of each z_l.
        hidden, depth: of the masked networks.
        steps: masked networks of a block; the order of the entries is reversed from one to the next.
        code_hidden: width of the networks that read codes alone.
        bijection: "spline", "rank-one" or "identity", see `parts.bijectors.bijection`.

    Raises:
        ValueError: a size that is not a positive integer; more layers than values (or rows); x of the wrong width, not
            finite, empty; x of a few levels, which want to be dequantized.

    Source: section 5.2 and table 3: 5 layers of 40 latents, 2 networks of width 1024 a block. The paper does not say
    how an image is cut, whether its networks have one hidden layer or two, and whether the base reads x_{l-1}: these
    are ours. Log scales are bounded by 3; all starts near N(0, I).

    >>> SeReMAF((3, 32, 32)).blocks
    [576, 576, 576, 576, 768]

    >>> from ppl_models.factorization import factorization
    >>> f = factorization(SeReMAF(event=6, layers=3, latent=2, hidden=8), torch.randn(3, 6))
    >>> print(f)
    p(z1) p(x1 | z1) p(z2 | z1) p(x2 | x1, z2) p(z3 | z2) p(x3 | x2, z3)
    >>> print(f.faithful_inverse())
    q(z1 | x1, x2, x3) q(z2 | z1, x1, x2, x3) q(z3 | z2, x2, x3)
    """

    density = "p(x, z) = p(z1) p(x1 | z1)  prod_{l=2..L}  p(zl | z{l-1}) p(xl | zl, x{l-1})"
    source = "Apostolopoulou, Rosenfeld, Dubrawski 2020, arXiv 2007.05166"
    of_reals = True  # not of levels: `inspect` dequantizes grey levels

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
    ) -> None:
        super().__init__()
        sizes = all_sizes("SeReMAF", "event", event)
        self.event, self.image = prod(sizes), sizes if len(sizes) == 3 else None
        self.layers, self.latent = layers, latent
        self.stretches = Blocks("SeReMAF", layers, self.event, self.image)
        self.blocks = self.stretches.sizes
        self.priors, self.bijectors = nn.ModuleList(), nn.ModuleList()
        self.bases, self.flows = nn.ModuleList(), nn.ModuleList()
        for i, size in enumerate(self.blocks):
            above, read = ([latent], [latent, self.blocks[i - 1]]) if i else ([], [latent])
            self.priors.append(Net(above, 2 * latent, code_hidden, gain=0.1 if i else 0.0, norm=True))
            self.bijectors.append(bijection_of(bijection, latent, above, code_hidden, 1))
            self.bases.append(Net([latent], 3 * size, code_hidden, gain=0.1, norm=True))
            self.flows.append(AutoregressiveFlow(size, steps, read, hidden, depth))

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        dtype = next(self.parameters()).dtype
        n = real_rows(x, n, self.event, dtype)
        observed = [None] * self.layers if x is None else self.cut(x)
        drawn = []
        with pyro.plate("data", n):
            above = []
            for i in range(self.layers):
                # p(zl | z{l-1}): eps_l ~ N(mu, sigma^2) pushed through the bijection
                loc, log_scale = self.priors[i](*above).chunk(2, -1)
                eps = diagonal_normal(loc, bounded_exp(log_scale))
                z = pyro.sample(f"z{i + 1}", dist.TransformedDistribution(eps, self.bijectors[i].transforms(*above)))
                # p(xl | zl, x{l-1}): a Gaussian of the code, seen through steps that read the code and the block before
                loc, log_d, u = self.bases[i](z).chunk(3, -1)
                steps = self.flows[i].transforms(z, *drawn[-1:])
                base = RankOneNormal(loc, bounded_exp(log_d), u)
                drawn.append(pyro.sample(f"x{i + 1}", seen(base, steps), obs=observed[i]))
                above = [z]
        return self.join(drawn) if x is None else x

    def cut(self, x: Tensor) -> list[Tensor]:
        """The blocks of rows x (*batch, event): consecutive values, or bands of rows of an image."""
        return self.stretches.cut(x)

    def join(self, blocks: Sequence[Tensor]) -> Tensor:
        """The rows (*batch, event) of their blocks."""
        return self.stretches.join(blocks, torch.cat)
