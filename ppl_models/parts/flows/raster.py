"""`RasterFlow`: a bijection of images, given as flat rows, in which a pixel reads those before it, row by row."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.distributions import Transform

from ..nets import PixelCNN
from .autoregressive import Autoregressive, affine


class RasterFlow(nn.Module):
    """One affine step from images z to noise, whose numbers a gated `PixelCNN` gives.

        eps_i = m_i + exp(a_i) z_i,      (m_i, a_i) = net(z_1, ..., z_{i-1}, c),      z_i the channels of a pixel

    N(0, I) seen through it is an autoregressive Gaussian: z_i ~ N(-m_i exp(-a_i), diag exp(-2 a_i)) given the pixels
    before it. A density takes one call of the network, a draw one a pixel. It starts near the identity.

    Args:
        image: (channels, height, width) of a row.
        context: width of c.
        hidden, depth, radius: feature maps, layers and radius of the network, see `PixelCNN`.

    Source: Gulrajani et al. 2017 (arXiv 1611.05013), section 3.2.
    """

    def __init__(self, image: Sequence[int], context: int, hidden: int, depth: int, radius: int) -> None:
        super().__init__()
        self.net = PixelCNN(image, 2 * image[0], context, hidden, depth, radius)
        self.passes = prod(image[1:])
        with torch.no_grad():
            self.net.last.weight.mul_(0.1)
            self.net.last.bias.zero_()

    def forward(self, z: Tensor, context: Tensor) -> Tensor:
        """z (*batch, n) and c (*batch, context) -> (*batch, n, 2); batches broadcast."""
        batch = torch.broadcast_shapes(z.shape[:-1], context.shape[:-1])
        images = z.expand(*batch, z.shape[-1]).reshape(-1, *self.net.image)
        numbers = self.net(images, context.expand(*batch, context.shape[-1]).reshape(-1, context.shape[-1]))
        return numbers.unflatten(-1, (-1, 2)).permute(0, 3, 1, 2, 4).reshape(*batch, -1, 2)

    def transforms(self, context: Tensor) -> list[Transform]:
        """The step for c (*batch, context)."""
        return [Autoregressive(self, affine, [context])]
