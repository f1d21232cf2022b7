"""Masked autoregressive flow: a density of vectors without latents (Papamakarios et al. 2017, arXiv 1705.07057)."""

from math import prod

import pyro
import torch
from torch import Tensor, nn

from .parts.arguments.kinds import Count, Event
from .parts.arguments.sizes import Blocks, all_sizes
from .parts.flows.autoregressive import AutoregressiveFlow
from .parts.flows.densities import FlowDensity, real_rows
from .parts.program import Program


class MAF(Program):
    """A stack of masked networks (MADE) that takes data to noise, the order of the entries reversed in between.

        p(x) = N(T(x); 0, I) |det dT/dx|,      T = T_K ... T_1,      T_k(x)_i = m_i + exp(a_i) x_i

    with (m_i, a_i) = net_k(x_<i). The density takes one call of each network, a draw as many as there are
    entries. It starts at N(0, I): T is the identity. Log scales are bounded, |a_i| < 3. The paper's batch normalization
    between the networks is left out: with it the density of a row would depend on the other rows of its batch.

    With several blocks, cut as by `SeReMAF`, each block has its own networks, which also read the block before it:

        p(x) = p(x1) prod_{l=2..L} p(xl | x{l-1})

    Shapes: x (n, event); site x, or x1..xL. There are no latents: the guide is None.

    Args:
        event: number of values in a row of x, or its shape.
        steps: K, the number of networks of each block.
        hidden, depth: width and number of hidden layers of each network.
        blocks: L. The blocks of an image (channels, height, width) are bands of rows; those of a vector are equal
            stretches.

    Raises:
        ValueError: a size that is not a positive integer; x of the wrong width, not finite, empty; x of a few levels,
            which want to be dequantized.

    Source: Papamakarios, Pavlakou, Murray 2017, section 3; hidden widths of 512 and 1024 are theirs for images.

    >>> MAF(event=4, hidden=8)(n=3).shape
    torch.Size([3, 4])

    >>> import torch
    >>> from ppl_models.factorization import factorization
    >>> for blocks in (1, 2):
    ...     print(factorization(MAF(event=4, hidden=8, blocks=blocks), torch.randn(3, 4)))
    p(x)
    p(x1) p(x2 | x1)
    """

    density = "p(x) = N(T(x); 0, I) |det dT/dx|"
    source = "Papamakarios et al. 2017, arXiv 1705.07057"
    of_reals = True  # not of levels: `inspect` dequantizes grey levels

    def __init__(
        self, event: Event = 784, steps: Count = 5, hidden: Count = 512, depth: Count = 1, blocks: Count = 1
    ) -> None:
        super().__init__()
        shape = all_sizes("MAF", "event", event)
        self.event = prod(shape)
        self.stretches = Blocks("MAF", blocks, self.event, shape if blocks > 1 and len(shape) == 3 else None)
        sizes, found = self.stretches.sizes, []
        for i, size in enumerate(sizes):
            flow = AutoregressiveFlow(size, steps, sizes[i - 1 : i] if i else (), hidden, depth, gain=0.0)
            found.append(FlowDensity(size, flow))
        self.data, self.rest = found[0], nn.ModuleList(found[1:])

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n, densities = real_rows(x, n, self.event, self.data.loc.dtype), [self.data, *self.rest]
        names = [f"x{i + 1}" for i in range(len(densities))] if self.rest else ["x"]
        observed = [None] * len(densities) if x is None else self.stretches.cut(x)
        drawn: list[Tensor] = []
        with pyro.plate("data", n):
            for name, density, block in zip(names, densities, observed, strict=True):
                # p(xl | x{l-1})
                drawn.append(pyro.sample(name, density(*drawn[-1:]), obs=block))
        return self.stretches.join(drawn, torch.cat) if x is None else x
