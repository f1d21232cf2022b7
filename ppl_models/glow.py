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
    """A flow of images in several scales: steps of normalization, mixing of channels and coupling take data to noise.

        p(x) = N(T(x); 0, I) |det dT/dx|,      T = T_K ... T_1,      T_k = coupling after W (exp(s) h + b)

    At each scale each square of 2 x 2 pixels becomes channels of one pixel. Then come `steps` such steps, in which W is
    one matrix for the channels of every pixel. Then half of the channels are split off as noise, after a shift and a
    scale that the other half gives; the other half goes on to the next scale (`parts.flows.images.MultiScale`). It
    starts at N(0, I): s, b and the couplings are zero, every W is a random orthogonal matrix. The paper sets s and b by
    the first batch; here they are trained from zero. Log scales of couplings are bounded by 3.

    Shapes: x (n, channels * height * width), rows in the order C, H, W; site x. There are no latents: the guide is
    None.

    Args:
        event: (channels, height, width), whose sides can be halved `levels` times.
        steps: number of steps of each scale.
        hidden, depth: channels and residual blocks of the networks of the couplings.
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
