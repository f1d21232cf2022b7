"""Masked autoregressive flow: a density of vectors without latents (Papamakarios et al. 2017, arXiv 1705.07057)."""

import pyro
from torch import Tensor

from .parts.flows.autoregressive import AutoregressiveFlow
from .parts.flows.densities import FlowDensity, real_rows
from .parts.kinds import Count, Event
from .parts.program import Program
from .parts.sizes import event_size


class MAF(Program):
    """Noise seen through masked networks, the order of the entries turned round from one to the next.

        p(x) = N(T(x); 0, I) |det dT/dx|,      T = T_K ... T_1,      T_k(x)_i = m_i + exp(a_i) x_i

    with (m_i, a_i) = net_k(x_<i). The density takes one call of each network, a draw as many as there are
    entries. It starts at N(0, I): T is the identity. Log scales are bounded, |a_i| < 3. There is no batch normalization
    between the networks, as the paper has: with it a row's density would depend on the other rows of its batch.

    Shapes: x (n, event); site x. There are no latents: the guide is None.

    Args:
        event: number of values in a row of x, or its shape.
        steps: K, the number of networks.
        hidden, depth: width and number of hidden layers of each.

    Raises:
        ValueError: a size that is not a positive integer; x of the wrong width, not finite, empty; x of a few levels,
            which want to be dequantized.

    Source: Papamakarios, Pavlakou, Murray 2017, section 3; hidden widths of 512 and 1024 are theirs for images.

    >>> MAF(event=4, hidden=8)(n=3).shape
    torch.Size([3, 4])

    >>> import torch
    >>> from ppl_models.factorization import factorization
    >>> print(factorization(MAF(event=4, hidden=8), torch.randn(3, 4)))
    p(x)
    """

    density = "p(x) = N(T(x); 0, I) |det dT/dx|"
    source = "Papamakarios et al. 2017, arXiv 1705.07057"

    def __init__(self, event: Event = 784, steps: Count = 5, hidden: Count = 512, depth: Count = 1) -> None:
        super().__init__()
        self.event, _ = event_size("MAF", event)
        self.data = FlowDensity(self.event, AutoregressiveFlow(self.event, steps, (), hidden, depth, gain=0.0))

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = real_rows(x, n, self.event, self.data.base.loc.dtype)
        with pyro.plate("data", n):
            # p(x)
            return pyro.sample("x", self.data(), obs=x)
