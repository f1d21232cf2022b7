"""Real-valued non-volume-preserving flow: couplings, of images in scales (Dinh et al. 2017, arXiv 1605.08803)."""

from math import prod

import pyro
from torch import Tensor

from .parts.arguments.kinds import Count, Event, Whole
from .parts.arguments.sizes import all_sizes
from .parts.flows.autoregressive import AutoregressiveFlow
from .parts.flows.densities import FlowDensity, real_rows
from .parts.flows.images import MultiScale
from .parts.flows.scales import levels_of_image
from .parts.program import Program


class RealNVP(Program):
    """A stack of couplings that takes data to Gaussian noise: half of the entries gives scale and shift of the others.

        p(x) = N(T(x); 0, I) |det dT/dx|,      T = T_K ... T_1,      T_k(x)_b = m(x_a) + exp(s(x_a)) x_b

    and T_k(x)_a = x_a. Density and draws take two calls of each network at most. The entries of an image are halved by
    checkerboards at first; then each square of 2 x 2 pixels becomes channels of one pixel, and channels are halved.
    Half of the numbers are then split off as noise, and the same is done with the rest at the next scale
    (`parts.flows.images.MultiScale`). Other events are vectors, cut in two halves that swap from step to step. It
    starts at N(0, I): T is the identity. Log scales are bounded, |s| < 3. There is no batch normalization.

    Shapes: x (n, event), rows of images in the order C, H, W; site x. There are no latents: the guide is None.

    Args:
        event: number of values in a row of x; or (channels, height, width) of an image, whose sides can be halved
            `levels` times.
        steps: K, of vectors; of images ten for each scale are fixed by the paper.
        hidden, depth: width and number of hidden layers; of an image channels and residual blocks.
        levels: how often an image is squeezed; None: until a side would be below 4, or odd.

    Raises:
        ValueError: a size that is not a positive integer, an image whose sides cannot be halved; x of the wrong width,
            not finite, empty; x of a few levels, which want to be dequantized.

    Source: Dinh, Sohl-Dickstein, Bengio 2017, sections 3.2 to 3.6.

    >>> RealNVP(event=(1, 8, 8), hidden=4)(n=3).shape
    torch.Size([3, 64])

    >>> import torch
    >>> from ppl_models.factorization import factorization
    >>> print(factorization(RealNVP(event=4, hidden=8), torch.randn(3, 4)))
    p(x)
    """

    density = "p(x) = N(T(x); 0, I) |det dT/dx|"
    source = "Dinh et al. 2017, arXiv 1605.08803"
    wants_image = True
    of_reals = True  # not of levels: `inspect` dequantizes grey levels

    def __init__(
        self,
        event: Event = 784,
        steps: Count = 6,
        hidden: Count = 64,
        depth: Count = 2,
        levels: Whole | None = None,
    ) -> None:
        super().__init__()
        shape = all_sizes("RealNVP", "event", event)
        self.event = prod(shape)
        if len(shape) == 3:
            flow = MultiScale(shape, "real-nvp", levels_of_image("RealNVP", shape, levels, 0), hidden, depth)
        else:
            flow = AutoregressiveFlow(self.event, steps, (), hidden, depth, passes=2, gain=0.0)
        self.data = FlowDensity(self.event, flow)

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = real_rows(x, n, self.event, self.data.loc.dtype)
        with pyro.plate("data", n):
            # p(x)
            return pyro.sample("x", self.data(), obs=x)
