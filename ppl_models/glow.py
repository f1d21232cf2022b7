"""Glow: couplings of images with invertible 1 x 1 convolutions (Kingma & Dhariwal 2018, arXiv 1807.03039)."""

from math import prod

import pyro
from torch import Tensor

from .parts.arguments.kinds import Count, Event
from .parts.arguments.sizes import image_size
from .parts.flows.densities import FlowDensity, real_rows
from .parts.flows.images import MultiScale
from .parts.flows.scales import levels_of_image
from .parts.program import Program


class Glow(Program):
    """Noise seen through steps of normalization, mixing of channels and coupling, in scales.

        p(x) = N(T(x); 0, I) |det dT/dx|,      T = T_K ... T_1,      T_k = coupling after W (exp(s) h + b)

    At each scale each square of 2 x 2 pixels is taken for channels; then come `steps` such steps, W a matrix of the
    channels of every pixel; then half of the channels is left as noise, scaled and shifted given the other half, which
    goes on (`parts.flows.images.MultiScale`). It starts at N(0, I): s, b and the couplings at zero, every W at a random
    orthogonal matrix; s and b are trained from there, not set by a first batch as in the paper. Log scales of couplings
    are bounded to 3.

    Shapes: x (n, channels * height * width), rows in the order C, H, W; site x. There are no latents: the guide is
    None.

    Args:
        event: (channels, height, width), whose sides can be halved `levels` times.
        steps: of each scale.
        hidden, depth: channels and residual blocks of the networks.
        levels: number of scales; None: as many as leave sides of 4 at least, and one in any case.

    Raises:
        ValueError: a size that is not a positive integer, an event that is no image, or whose sides cannot be halved; x
            of the wrong width, not finite, empty; x of a few levels, which want to be dequantized.

    Source: Kingma & Dhariwal 2018, section 3.

    >>> Glow(event=(1, 8, 8), steps=2, hidden=4)(n=3).shape
    torch.Size([3, 64])

    >>> import torch
    >>> from ppl_models.factorization import factorization
    >>> print(factorization(Glow(event=(1, 2, 2), steps=1, hidden=4), torch.randn(3, 4)))
    p(x)
    """

    density = "p(x) = N(T(x); 0, I) |det dT/dx|"
    source = "Kingma & Dhariwal 2018, arXiv 1807.03039"
    wants_image = True
    of_reals = True  # not of levels: `inspect` dequantizes grey levels

    def __init__(
        self,
        event: Event = (1, 28, 28),
        steps: Count = 8,
        hidden: Count = 64,
        depth: Count = 1,
        levels: Count | None = None,
    ) -> None:
        super().__init__()
        image = image_size("Glow", event)
        self.event = prod(image)
        levels = levels_of_image("Glow", image, levels, 1)
        self.data = FlowDensity(self.event, MultiScale(image, "glow", levels, hidden, depth, steps))

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = real_rows(x, n, self.event, self.data.loc.dtype)
        with pyro.plate("data", n):
            # p(x)
            return pyro.sample("x", self.data(), obs=x)
