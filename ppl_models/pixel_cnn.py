"""Gated PixelCNN: images drawn pixel by pixel, without latents (van den Oord et al. 2016, arXiv 1606.05328)."""

from math import prod

import pyro
from torch import Tensor, nn

from .parts import likelihoods
from .parts.arguments.kinds import Count, Event
from .parts.arguments.sizes import image_size
from .parts.nets import PixelCNN as Network
from .parts.pixels import AutoregressiveImage, mixture_of
from .parts.program import Program


class PixelCNN(Program):
    """An image drawn pixel by pixel.

        p(x) = prod_i p(x_i | x_1, ..., x_{i-1})

    What `PixelVAE` decodes by, without its latent. The density takes one pass of the network, a draw a cached one pixel
    by pixel.

    Shapes: x (n, channels * height * width), rows in the order C, H, W; site x. There are no latents: the guide is
    None.

    Args:
        event: (channels, height, width).
        hidden: feature maps.
        depth: gated layers.
        likelihood: of a pixel given those before it: "bernoulli", "gaussian", "gaussian:SCALE", or "logistic:LEVELS",
            a mixture of discretized logistics, in which a channel also depends on those before it.
        components: of that mixture.
        radius: of the first convolution, which is (2 radius + 1) wide; the others have 3.
        window: None, or how many rows up, and columns to either side, a pixel sees at most.

    Raises:
        ValueError: a size that is not a positive integer; an event that is no image; an unknown likelihood; x of the
            wrong width, outside the support, not finite, empty.

    Source: van den Oord et al. 2016, section 2; Salimans et al. 2017 (arXiv 1701.05517) for the mixture.

    >>> PixelCNN(event=(1, 8, 8), hidden=8, depth=3)(n=3).shape
    torch.Size([3, 64])

    >>> import torch
    >>> from ppl_models.factorization import factorization
    >>> print(factorization(PixelCNN(event=(1, 2, 2), hidden=4, depth=2), torch.eye(4)[:3]))
    p(x)
    """

    density = "p(x) = prod_i p(x_i | x_1, ..., x_{i-1})"
    source = "van den Oord et al. 2016, arXiv 1606.05328"
    wants_image = True

    def __init__(
        self,
        event: Event = (1, 28, 28),
        hidden: Count = 32,
        depth: Count = 12,
        likelihood: str | nn.Module = "bernoulli",
        components: Count = 10,
        radius: Count = 3,
        window: Count | None = None,
    ) -> None:
        super().__init__()
        self.image = image_size("PixelCNN", event)
        self.event = prod(self.image)
        self.likelihood = likelihoods.likelihood(likelihood, "PixelCNN")
        self.mixture, output = mixture_of(self.likelihood, self.image[0], components)
        self.network = Network(self.image, output, 0, hidden, depth, radius, window)

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        weight = self.network.last.weight
        n = likelihoods.rows(x, n, self.event, self.likelihood, weight.dtype)
        with pyro.plate("data", n):
            # p(x) = prod_i p(x_i | x_1, ..., x_{i-1})
            pixel = self.likelihood if self.mixture is None else self.mixture
            return pyro.sample("x", AutoregressiveImage(self.network, weight.new_zeros(n, 0), pixel), obs=x)
