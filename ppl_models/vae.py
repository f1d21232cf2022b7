"""The variational autoencoder's generative model (Kingma & Welling 2014, arXiv 1312.6114)."""

import pyro
from torch import Tensor, nn

from .parts import likelihoods
from .parts.arguments.kinds import Count, Event, Whole
from .parts.arguments.sizes import Network, event_size
from .parts.flows.priors import prior as prior_of
from .parts.nets import ConvNet, Net
from .parts.program import Program


class VAE(Program):
    """One latent vector with a standard normal prior or a flow prior, decoded by a network.

        p(x, z) = p(z) p(x | z),      z ~ N(0, I),      x ~ likelihood(net(z))

    Shapes: x (n, event), z (n, latent); sites z1 and x.

    Args:
        event: number of values in a row of x, or its shape: (channels, height, width) for `network="conv"`.
        latent: size of z1.
        hidden: width of the network; of a "conv" hidden // 16 (at least 4) are the channels of the last map.
        depth: residual blocks in it; of a "conv" at each size of the map.
        likelihood: "bernoulli", "gaussian", "gaussian:SCALE", "shared-gaussian" or "logistic:LEVELS"; see
            `parts.likelihoods.likelihood`.
        network: "mlp" or "conv".
        prior: "standard", or a flow, "maf", "maf-mean" or "nsf", with sizes or without; see `parts.flows.priors.prior`.

    Raises:
        ValueError: a size that is not a positive integer; an unknown network, likelihood or prior; x of the wrong
            width, outside the support, not finite, empty.

    Source: Kingma & Welling 2014, section 3 and appendix C; priors that are flows: Chen et al. 2017 (arXiv 1611.02731),
    Durkan et al. 2019 (arXiv 1906.04032), section 5.3.

    >>> VAE(event=(1, 8, 8), latent=5, network="conv")(n=3).shape
    torch.Size([3, 64])

    >>> import torch
    >>> from ppl_models.factorization import factorization
    >>> print(factorization(VAE(event=4, latent=2, hidden=8), torch.eye(4)[:3]))
    p(z1) p(x | z1)
    """

    density = "p(x, z) = p(z) p(x | z)"
    source = "Kingma & Welling 2014, arXiv 1312.6114"

    def __init__(
        self,
        event: Event = 784,
        latent: Count = 50,
        hidden: Count = 256,
        depth: Whole = 1,
        likelihood: str | nn.Module = "bernoulli",
        network: Network = "mlp",
        prior: str = "standard",
    ) -> None:
        super().__init__()
        self.event, image = event_size("VAE", event, network)
        self.latent = latent
        self.likelihood = likelihoods.likelihood(likelihood, "VAE")
        if image is None:
            self.decoder = Net([self.latent], self.likelihood.count * self.event, hidden, depth, norm=True)
        else:
            channels = (self.likelihood.count * image[0], *image[1:])
            self.decoder = ConvNet([self.latent], channels, channels=max(hidden // 16, 4), depth=depth)
        self.prior = prior_of("VAE", prior, self.latent)

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.prior.loc.dtype)
        with pyro.plate("data", n):
            # p(z)
            z = pyro.sample("z1", self.prior())
            # p(x | z)
            return pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)
