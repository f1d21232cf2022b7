"""VAEs of one and two layers whose prior is a mixture of their encoder (Tomczak & Welling 2018, arXiv 1705.07120)."""

from typing import Literal

import pyro
from torch import Tensor, nn

from .parts import likelihoods
from .parts.arguments.kinds import Count, Event
from .parts.arguments.sizes import event_size
from .parts.distributions import diagonal_normal
from .parts.nets import GatedNet
from .parts.program import Program
from .parts.vamp import VampPrior


class VampVAE(Program):
    """One or two latent vectors, the top one with a prior that is the encoder's posterior averaged over pseudo-inputs.

        p(x, z) = p(z1) p(x | z1)                   layers=1
        p(x, z) = p(z1) p(z2 | z1) p(x | z1, z2)    layers=2

        p(z1) = (1/K) sum_k q(z1 | u_k),      q(z1 | x) = N(m(x), diag s(x)^2),      z2 ~ N(mu(z1), diag sigma(z1)^2)

    The model owns the encoder q(z1 | x) and the pseudo-inputs u_k, in its module `prior`. The guides `MeanField` and
    `SelfReflective` use this encoder as their factor of z1, so that it is trained through prior and posterior;
    `SelfReflective` with two layers is the published pair. Guides with an order of their own (`BottomUp`, `Faithful`),
    and families other than "diagonal" at z1, have a network of their own for z1: the prior is then no more than a
    mixture of Gaussians. `Ladder` needs a Gaussian prior and refuses this model.

    Shapes: x (n, event), z_l (n, latent); sites z1, z2 and x. The paper calls the top, our z1, z2.

    Args:
        event: number of values in a row of x, or its shape.
        latent: size of each latent.
        layers: 1 or 2.
        hidden: width of the networks, two gated layers each.
        components: K, the number of pseudo-inputs. With 1 the prior is a Gaussian: the same VAE without its mixture.
        likelihood: see `parts.likelihoods.likelihood`. Pseudo-inputs are kept in [0, 1] but for a "gaussian"
            or "shared-gaussian" one.

    Raises:
        ValueError: a size that is not a positive integer; other layers; x of the wrong width, outside the support, not
            finite, empty.

    Source: Tomczak & Welling 2018, eq. 11 to 16. Scales are bounded smoothly, in [e^-5, e^5]; there the log variance is
    clipped to [-6, 2].

    >>> VampVAE(event=64, latent=5, layers=2, hidden=8, components=10)(n=3).shape
    torch.Size([3, 64])

    >>> import torch
    >>> from ppl_models.factorization import factorization
    >>> for layers in (1, 2):
    ...     print(factorization(VampVAE(event=4, latent=2, layers=layers, hidden=8, components=3), torch.eye(4)[:3]))
    p(z1) p(x | z1)
    p(z1) p(z2 | z1) p(x | z1, z2)
    """

    density = "p(x, z) = p(z1) p(x | z1)"
    source = "Tomczak & Welling 2018, arXiv 1705.07120"

    def __init__(
        self,
        event: Event = 784,
        latent: Count = 40,
        layers: Literal[1, 2] = 1,
        hidden: Count = 300,
        components: Count = 500,
        likelihood: str | nn.Module = "bernoulli",
    ) -> None:
        super().__init__()
        self.event, _ = event_size("VampVAE", event)
        self.latent, self.layers = latent, layers
        self.likelihood = likelihoods.likelihood(likelihood, "VampVAE")
        unit = likelihoods.in_unit(self.likelihood)
        self.prior = VampPrior(GatedNet([self.event], 2 * latent, hidden), self.event, components, unit)
        self.conditional = GatedNet([latent], 2 * latent, hidden, gain=0.1) if layers == 2 else None
        self.decoder = GatedNet([latent] * layers, self.likelihood.count * self.event, hidden)

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.prior.rows.dtype)
        with pyro.plate("data", n):
            # p(z1) = (1/K) sum_k q(z1 | u_k)
            z = [pyro.sample("z1", self.prior())]
            if self.conditional is not None:
                # p(z2 | z1)
                loc, log_scale = self.conditional(*z).chunk(2, -1)
                z.append(pyro.sample("z2", diagonal_normal(loc, likelihoods.bounded_exp(log_scale))))
            # p(x | z1), or p(x | z1, z2)
            return pyro.sample("x", self.likelihood(self.decoder(*z)), obs=x)
