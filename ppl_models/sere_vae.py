"""The self-reflective VAE's generative model (Apostolopoulou, Rosenfeld, Dubrawski 2020, arXiv 2007.05166)."""

from collections.abc import Sequence
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from .parts import likelihoods
from .parts.arguments.kinds import Count, Event
from .parts.arguments.sizes import Blocks, Network, event_size
from .parts.bijectors import bijection as bijection_of
from .parts.distributions import StandardNormal, diagonal_normal
from .parts.flows.words import Bijection
from .parts.nets import ConvNet, GatedNet, Net
from .parts.program import Program
from .parts.vamp import VampPrior


class SeReVAE(Program):
    """Hierarchy of layers that each draw a code and a block of the data, with amortized bijections between the codes.

        p(x, z) = p(z1) p(x1 | z1)  prod_{l=2..L}  p(zl | z{l-1}) p(xl | zl, x{l-1})

    The data are cut into L blocks. Layer l draws eps_l ~ N(mu_l, sigma_l^2) and pushes it through its bijection,
    z_l = c_l + (diag(d_l) + u_l u_l^T) eps_l; mu_l, sigma_l, c_l, d_l, u_l are networks of z_{l-1} (constants: l = 1).
    The sample site is z_l itself, a transformed distribution, so that a guide can share the bijection by taking the
    prior's own transform. Block l has parameters gamma_l(z_l) + dgamma_l(x_{l-1}, z_l): a first estimate from the code
    and a correction that has read the previous block (the observed one when x is given, else the sampled one).

    Shapes: x (n, event), z_l (n, latent); sites z1..zL, and x1..xL with event sizes `model.blocks`.

    Args:
        event: number of values in a row of x, or its shape: (channels, height, width) for `network="conv"`.
        layers: L. Blocks are equal but the last, which takes the rest: 9 x 78 + 82 for 784 in 10.
        latent: size of each z_l.
        hidden: width of the networks that give data; those between codes have a quarter of it. Of a "conv" hidden // 16
            (at least 4) are the channels of the last map.
        depth: residual blocks in each network, at least one; of a "conv" at each size of the map.
        likelihood: see `parts.likelihoods.likelihood`.
        network: "mlp", or "conv" (blocks are then bands of rows of the image, so that they stay two-dimensional).
        bijection: "rank-one"; "spline", two couplings of monotone splines (of latents of at least two values); or
            "identity", none.
        prior: "learned", mu_l and sigma_l as above; "standard", eps_l ~ N(0, I) in every layer, so that the bijections
            alone tie the codes (the SeRe-IAF, with `family="iaf"` in the guide); or "vamp", as "learned", but z_1,
            without a bijection, is from the mixture of an encoder's densities at 500 pseudo-inputs, `VampPrior`.
        feedback: whether later layers read z_{l-1}. Without it the prior and the bijection of every layer are constants
            as in layer 1, p(z) = prod_l p(z_l): the ablation that the paper's table 1 calls "DLGM".
        coupling: whether data layers read x_{l-1}; without it they have no dgamma_l.

    Raises:
        ValueError: a size that is not a positive integer; more layers than values (or rows); no depth; an unknown
            network, bijection or prior; x of the wrong width, outside the likelihood's support, not finite, empty.

    Source: sections 3 and 4, eq. 3; table 1 for 10 layers of 10 latents. Networks and initialization are ours: the
    paper leaves them open.

    >>> SeReVAE(784, layers=10, latent=10).blocks
    [78, 78, 78, 78, 78, 78, 78, 78, 78, 82]

    >>> from ppl_models.factorization import factorization
    >>> f = factorization(SeReVAE(event=6, layers=3, latent=2, hidden=8), torch.eye(6)[:3])
    >>> print(f)
    p(z1) p(x1 | z1) p(z2 | z1) p(x2 | x1, z2) p(z3 | z2) p(x3 | x2, z3)
    >>> print(f.faithful_inverse())
    q(z1 | x1, x2, x3) q(z2 | z1, x1, x2, x3) q(z3 | z2, x2, x3)

    Without feedback the posterior factorizes over layers, with coupling, too, since x_{l-1} is observed:

    >>> for coupling in (True, False):
    ...     model = SeReVAE(event=6, layers=3, latent=2, hidden=8, feedback=False, coupling=coupling)
    ...     f = factorization(model, torch.eye(6)[:3])
    ...     print(f)
    ...     print(f.faithful_inverse())
    p(z1) p(x1 | z1) p(z2) p(x2 | x1, z2) p(z3) p(x3 | x2, z3)
    q(z1 | x1) q(z2 | x1, x2) q(z3 | x2, x3)
    p(z1) p(x1 | z1) p(z2) p(x2 | z2) p(z3) p(x3 | z3)
    q(z1 | x1) q(z2 | x2) q(z3 | x3)
    """

    density = "p(x, z) = p(z1) p(x1 | z1)  prod_{l=2..L}  p(zl | z{l-1}) p(xl | zl, x{l-1})"
    source = "Apostolopoulou, Rosenfeld, Dubrawski 2020, arXiv 2007.05166"

    def __init__(
        self,
        event: Event = 784,
        layers: Count = 10,
        latent: Count = 10,
        hidden: Count = 256,
        depth: Count = 1,
        likelihood: str | nn.Module = "bernoulli",
        network: Network = "mlp",
        bijection: Bijection = "rank-one",
        prior: Literal["learned", "standard", "vamp"] = "learned",
        feedback: bool = True,
        coupling: bool = True,
    ) -> None:
        super().__init__()
        self.event, self.image = event_size("SeReVAE", event, network)
        self.layers = layers
        self.latent = latent
        self.feedback, self.coupling = feedback, coupling
        # at least one: the normalization inside bounds z_l, since u(z) enters squared and multiplies along the chain
        self.stretches = Blocks("SeReVAE", layers, self.event, self.image)
        self.likelihood = likelihoods.likelihood(likelihood, "SeReVAE")
        k = self.likelihood.count
        self.blocks, shapes = self.stretches.sizes, self.stretches.shapes
        small = max(hidden // 4, 1)
        self.priors, self.bijectors = nn.ModuleList(), nn.ModuleList()
        self.estimates, self.corrections = nn.ModuleList(), nn.ModuleList()
        self.standard = StandardNormal(latent) if prior == "standard" else None
        self.vamp = None
        if prior == "vamp":
            unit = likelihoods.in_unit(self.likelihood)
            self.vamp = VampPrior(GatedNet([self.event], 2 * latent, hidden), self.event, 500, unit)
        for i, shape in enumerate(shapes):
            above = [latent] if i and feedback else []
            if prior == "learned" or (prior == "vamp" and i):
                self.priors.append(Net(above, 2 * latent, small, depth, gain=0.1 if above else 0.0, norm=True))
            if prior != "vamp" or i:
                self.bijectors.append(bijection_of(bijection, latent, above, small, depth))
            if self.image is not None:
                channels, out = max(hidden // 16, 4), (k * shape[0], *shape[1:])
                self.estimates.append(ConvNet([latent], out, channels=channels, depth=depth))
                if i and coupling:
                    self.corrections.append(ConvNet([latent], out, shapes[i - 1], channels, depth))
            else:
                self.estimates.append(Net([latent], k * shape[0], hidden, depth, norm=True))
                if i and coupling:
                    self.corrections.append(Net([latent, self.blocks[i - 1]], k * shape[0], hidden, depth, norm=True))

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, next(self.estimates.parameters()).dtype)
        observed = [None] * self.layers if x is None else self.cut(x)
        drawn = []
        with pyro.plate("data", n):
            above = []
            for i in range(self.layers):
                # p(zl | z{l-1}): eps_l ~ N(mu, sigma^2) pushed through the bijection
                z = pyro.sample(f"z{i + 1}", self._prior(i, *above))
                # p(xl | zl, x{l-1})
                params = self.estimates[i](z)
                if i and self.coupling:
                    params = params + self.corrections[i - 1](z, drawn[-1])
                drawn.append(pyro.sample(f"x{i + 1}", self.likelihood(params), obs=observed[i]))
                above = [z] if self.feedback else []
        return self.join(drawn) if x is None else x

    def _prior(self, i: int, *above: Tensor) -> TorchDistributionMixin:
        """p(zl | z{l-1}) of layer l = i + 1, event shape (latent,)."""
        if self.vamp is not None and not i:
            return self.vamp()
        i -= self.layers  # networks are counted from the last: with "vamp" the first layer has none
        if self.standard is None:
            loc, log_scale = self.priors[i](*above).chunk(2, -1)
            eps = diagonal_normal(loc, likelihoods.bounded_exp(log_scale))
        else:
            eps = self.standard()
        return dist.TransformedDistribution(eps, self.bijectors[i].transforms(*above))

    def cut(self, x: Tensor) -> list[Tensor]:
        """The blocks of rows x (*batch, event): consecutive values, or bands of rows of an image."""
        return self.stretches.cut(x)

    def join(self, blocks: Sequence[Tensor]) -> Tensor:
        """The rows (*batch, event) of their blocks."""
        return self.stretches.join(blocks, torch.cat)
