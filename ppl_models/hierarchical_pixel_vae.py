"""A vector, a map of latents decoded by a PixelCNN (two-level PixelVAE: Gulrajani et al. 2017, arXiv 1611.05013)."""

from math import prod

import pyro
from torch import Tensor, nn

from .parts import likelihoods
from .parts.arguments.kinds import Count, Event, Several
from .parts.arguments.sizes import image_size, map_sizes
from .parts.distributions import StandardNormal
from .parts.flows.densities import FlowDensity
from .parts.flows.raster import RasterFlow
from .parts.nets import MapNet, PixelCNN
from .parts.pixels import AutoregressiveImage, mixture_of
from .parts.program import Program


class HierarchicalPixelVAE(Program):
    """A vector, a map drawn position by position given it, and an image drawn pixel by pixel given the map.

        p(x, z) = p(z1)  prod_i p(z2_i | z2_1, ..., z2_{i-1}, z1)  prod_j p(x_j | x_1, ..., x_{j-1}, z2)

    z_1 ~ N(0, I). A position of the map has a diagonal Gaussian over its channels, whose mean and scale a masked
    convolutional network gives from the positions before it, row by row, and from z_1. The decoder is a gated PixelCNN
    in which features of z_2, enlarged to the size of the image, are biases of every convolution. Latents are numbered
    in generation order: the paper calls the vector z_2 and the map z_1.

    Shapes: x (n, channels * height * width), z1 (n, latent[0]), z2 (n, latent[1] * height' * width') where sides are
    a quarter of the image's, rounded up; rows of x and z2 in the order C, H, W; sites z1, z2 and x.

    Args:
        event: (channels, height, width).
        latent: size of z1, channels of z2.
        hidden: feature maps of all networks.
        depth: gated layers of the prior of z2, and of the decoder.
        likelihood, components: as for `PixelVAE`.
        radius: of the first convolution of both, which is (2 radius + 1) wide; the others have 3.

    Raises:
        ValueError: a size that is not a positive integer, other than two latents; an event that is no image; an unknown
            likelihood; x of the wrong width, outside the support, not finite, empty.

    Source: Gulrajani et al. 2017 (arXiv 1611.05013), section 3.2. A vector of 512, a map of 64 channels (8 x 8 of them
    for images of 32 x 32) and first convolutions 5 wide are the authors' (`igul222/PixelVAE`); the masked layers are of
    van den Oord et al. 2016 (arXiv 1606.05328), and the networks between the scales are ours. The published posterior
    network, q(z1 | x) q(z2 | x) over deterministic features of x, is `MeanField` with a shared encoder, "conv" for
    images, and lacks an edge:

    >>> import torch
    >>> from guides import BottomUp, MeanField
    >>> from ppl_models.factorization import compare
    >>> model, x = HierarchicalPixelVAE(event=(1, 4, 4), latent=(2, 1), hidden=4, depth=2), torch.eye(16)[:3]
    >>> published = compare(model, MeanField(model, x, encoder="shared", hidden=8), x)
    >>> print(published.model)
    p(z1) p(z2 | z1) p(x | z2)
    >>> print(published.guide, published.verdict, published.missing)
    q(z1 | x) q(z2 | x) unfaithful {'z2': ('z1',)}
    >>> faithful = compare(model, BottomUp(model, x, encoder="shared", hidden=8), x)
    >>> print(faithful.guide, faithful.verdict)
    q(z2 | x) q(z1 | z2, x) faithful, not minimal, perfect

    That is between the sites: of positions of the map, tied in the posterior, a diagonal factor makes independent ones.

    >>> HierarchicalPixelVAE(event=(1, 8, 8), latent=(5, 2), hidden=8, depth=2)(n=3).shape
    torch.Size([3, 64])
    """

    density = "p(x, z) = p(z1)  prod_i p(z2_i | z2_1, ..., z2_{i-1}, z1)  prod_j p(x_j | x_1, ..., x_{j-1}, z2)"
    source = "two-level PixelVAE: Gulrajani et al. 2017, arXiv 1611.05013"
    wants_image = True

    def __init__(
        self,
        event: Event = (1, 28, 28),
        latent: Several = (512, 64),
        hidden: Count = 32,
        depth: Count = 4,
        likelihood: str | nn.Module = "bernoulli",
        components: Count = 10,
        radius: Count = 2,
    ) -> None:
        super().__init__()
        self.image = image_size("HierarchicalPixelVAE", event)
        self.event = prod(self.image)
        self.latent = latent
        sizes = map_sizes("HierarchicalPixelVAE", latent, self.image)
        self.map = (latent[1], *sizes[0])
        self.likelihood = likelihoods.likelihood(likelihood, "HierarchicalPixelVAE")
        self.mixture, output = mixture_of(self.likelihood, self.image[0], components)
        self.top = StandardNormal(latent[0])
        self.prior = FlowDensity(prod(self.map), RasterFlow(self.map, latent[0], hidden, depth, radius))
        self.features = MapNet(self.map, hidden, sizes, hidden)
        self.decoder = PixelCNN(self.image, output, hidden, hidden, depth, radius, maps=True)

    @property
    def pixel(self) -> nn.Module:
        """From the numbers of a pixel to its distribution."""
        return self.likelihood if self.mixture is None else self.mixture

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.top.loc.dtype)
        with pyro.plate("data", n):
            # p(z1)
            z1 = pyro.sample("z1", self.top())
            # p(z2 | z1) = prod_i p(z2_i | z2_1, ..., z2_{i-1}, z1)
            z2 = pyro.sample("z2", self.prior(z1))
            # p(x | z2) = prod_j p(x_j | x_1, ..., x_{j-1}, z2)
            return pyro.sample("x", AutoregressiveImage(self.decoder, self.features(z2), self.pixel), obs=x)
