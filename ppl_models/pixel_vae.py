"""A latent vector with an autoregressive decoder of images (PixelVAE: Gulrajani et al. 2017, arXiv 1611.05013)."""

from math import prod

import pyro
from torch import Tensor, nn

from .parts import likelihoods
from .parts.arguments.kinds import Count, Event
from .parts.arguments.sizes import image_size
from .parts.flows.priors import prior as prior_of
from .parts.nets import PixelCNN
from .parts.pixels import AutoregressiveImage, mixture_of
from .parts.program import Program


class PixelVAE(Program):
    """One latent vector, and an image drawn pixel by pixel given it.

        p(x, z) = p(z) prod_i p(x_i | x_1, ..., x_{i-1}, z),      z ~ N(0, I)

    The decoder is a gated PixelCNN in which z is a bias of every convolution. So flexible a likelihood can do without
    the latent: whether it does is the criterion's choice (Zhao et al. 2017; `inference.unregularized`), or that of
    `window`, which leaves what is further away to the latent (Chen et al. 2017).

    Shapes: x (n, channels * height * width), rows in the order C, H, W; z (n, latent); sites z1 and x.

    Args:
        event: (channels, height, width).
        latent: size of z1.
        hidden: feature maps of the decoder.
        depth: gated layers of it.
        likelihood: of a pixel given those before it: "bernoulli", "gaussian", "gaussian:SCALE", or "logistic:LEVELS",
            a mixture of discretized logistics, in which a channel also depends on those before it.
        components: of that mixture.
        radius: of the first convolution, which is (2 radius + 1) wide; the others have 3.
        window: None, or how many rows up, and columns to either side, a pixel sees at most.
        prior: "standard", or a flow, "maf", "maf-mean" or "nsf", with sizes or without; see `parts.flows.priors.prior`.
            With a flow and a `window` it is the VLAE of Chen et al.

    Raises:
        ValueError: a size that is not a positive integer; an event that is no image; an unknown likelihood or prior; x
            of the wrong width, outside the support, not finite, empty.

    Source: Gulrajani et al. 2017 for the model; van den Oord et al. 2016 (arXiv 1606.05328) for the decoder, here with
    the sizes of Zhao, Song, Ermon 2017 (arXiv 1702.08658), section 5; Salimans et al. 2017 (arXiv 1701.05517) for the
    mixture.

    >>> PixelVAE(event=(1, 8, 8), latent=5, hidden=8, depth=3)(n=3).shape
    torch.Size([3, 64])

    >>> import torch
    >>> from ppl_models.factorization import factorization
    >>> print(factorization(PixelVAE(event=(1, 2, 2), latent=2, hidden=4, depth=2), torch.eye(4)[:3]))
    p(z1) p(x | z1)
    """

    density = "p(x, z) = p(z) prod_i p(x_i | x_1, ..., x_{i-1}, z)"
    source = "PixelVAE: Gulrajani et al. 2017, arXiv 1611.05013"
    wants_image = True

    def __init__(
        self,
        event: Event = (1, 28, 28),
        latent: Count = 10,
        hidden: Count = 32,
        depth: Count = 12,
        likelihood: str | nn.Module = "bernoulli",
        components: Count = 10,
        radius: Count = 3,
        window: Count | None = None,
        prior: str = "standard",
    ) -> None:
        super().__init__()
        self.image = image_size("PixelVAE", event)
        self.event = prod(self.image)
        self.latent = latent
        self.likelihood = likelihoods.likelihood(likelihood, "PixelVAE")
        self.mixture, output = mixture_of(self.likelihood, self.image[0], components)
        self.decoder = PixelCNN(self.image, output, self.latent, hidden, depth, radius, window)
        self.prior = prior_of("PixelVAE", prior, self.latent)

    @property
    def pixel(self) -> nn.Module:
        """From the numbers of a pixel to its distribution."""
        return self.likelihood if self.mixture is None else self.mixture

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.prior.loc.dtype)
        with pyro.plate("data", n):
            # p(z)
            z = pyro.sample("z1", self.prior())
            # p(x | z) = prod_i p(x_i | x_1, ..., x_{i-1}, z)
            return pyro.sample("x", AutoregressiveImage(self.decoder, z, self.pixel), obs=x)
