"""The variational autoencoder's generative model (Kingma & Welling 2014, arXiv 1312.6114)."""

from collections.abc import Sequence
from math import prod

import pyro
from torch import Tensor, nn

from .parts import likelihoods
from .parts.distributions import StandardNormal
from .parts.nets import ConvNet, Net
from .parts.program import Program


class VAE(Program):
    """One latent vector with a standard normal prior, decoded by a network.

        p(x, z) = p(z) p(x | z),      z ~ N(0, I),      x ~ likelihood(net(z))

    Shapes: x (n, event), z (n, latent); sites z1 and x.

    Args:
        event: number of values in a row of x, or (channels, height, width) for `network="conv"`.
        latent: size of z1.
        hidden: width of the network.
        depth: residual blocks in it.
        likelihood: "bernoulli", "gaussian", "gaussian:SCALE" or "logistic:LEVELS"; see `parts.likelihoods.likelihood`.
        network: "mlp" or "conv".

    Raises:
        ValueError: an unknown network or likelihood; x of the wrong width, outside the support, not finite, empty.

    Source: Kingma & Welling 2014, section 3 and appendix C.

    >>> VAE(event=(1, 8, 8), latent=5, network="conv")(n=3).shape
    torch.Size([3, 64])
    """

    def __init__(
        self,
        event: int | Sequence[int] = 784,
        latent: int = 50,
        hidden: int = 256,
        depth: int = 1,
        likelihood: str | nn.Module = "bernoulli",
        network: str = "mlp",
    ) -> None:
        super().__init__()
        image = None if isinstance(event, int) else tuple(event)
        self.event, self.latent = event if image is None else prod(image), latent
        self.likelihood = likelihoods.likelihood(likelihood)
        if network == "mlp":
            self.decoder = Net([latent], self.likelihood.count * self.event, hidden, depth, norm=True)
        elif network == "conv" and image is not None and len(image) == 3:
            channels = (self.likelihood.count * image[0], *image[1:])
            self.decoder = ConvNet([latent], channels, channels=max(hidden // 16, 4))
        else:
            raise ValueError(
                f"VAE: found network {network!r} and event {event}, want 'mlp', or 'conv' with event "
                "(channels, height, width)"
            )
        self.prior = StandardNormal(latent)

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        if x is not None:
            likelihoods.check_data(x, self.event, dtype=self.prior.loc.dtype)
            self.likelihood.check(x)
        n = likelihoods.check_count(n) if x is None else len(x)
        with pyro.plate("data", n):
            # p(z)
            z = pyro.sample("z1", self.prior())
            # p(x | z)
            return pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)
