"""Neural spline flow: a density of vectors without latents (Durkan et al. 2019, arXiv 1906.04032)."""

import pyro
from torch import Tensor

from .parts.arguments.kinds import Count, Event, Positive
from .parts.arguments.sizes import event_size
from .parts.flows.autoregressive import AutoregressiveFlow
from .parts.flows.densities import FlowDensity, real_rows
from .parts.flows.orders import BOUND
from .parts.program import Program


class NSF(Program):
    """Monotone rational-quadratic splines that take data to Gaussian noise; masked networks give their knots.

        p(x) = N(T(x); 0, I) |det dT/dx|,      T = T_K ... T_1,      T_k(x)_i = spline(x_i; net_k(x_<i))

    A spline is the identity outside of [-bound, bound]: standardize the data, or set `bound` to their scale. There is a
    warning where most values lie outside. By default each entry reads all entries before it, and the order is reversed
    from one step to the next: the density takes one call of each network, a draw as many as there are entries. With
    `passes=2` the steps are couplings: density and draw take two calls of each network at most. It starts at N(0, I): T
    is the identity. The linear layers that the paper puts between its steps are left out.

    Shapes: x (n, event); site x. There are no latents: the guide is None.

    Args:
        event: number of values in a row of x, or its shape.
        steps: K, the number of networks.
        hidden, depth: width and number of hidden layers of each.
        bins: number of bins of a spline.
        passes: number of parts that the entries are divided into, each of which reads the parts before it; None: each
            entry is a part.
        bound: half the width of the interval of the splines; 14 for `--transform logit` on grey levels.

    Raises:
        ValueError: a size that is not a positive integer; x of the wrong width, not finite, empty; x of a few levels,
            which want to be dequantized.

    Source: Durkan, Bekasov, Murray, Papamakarios 2019, sections 3.1 and 3.2.

    >>> NSF(event=4, hidden=8, passes=2)(n=3).shape
    torch.Size([3, 4])

    >>> import torch
    >>> from ppl_models.factorization import factorization
    >>> print(factorization(NSF(event=4, hidden=8, bins=3), torch.randn(3, 4)))
    p(x)
    """

    density = "p(x) = N(T(x); 0, I) |det dT/dx|"
    source = "Durkan et al. 2019, arXiv 1906.04032"
    of_reals = True  # not of levels: `inspect` dequantizes grey levels

    def __init__(
        self,
        event: Event = 784,
        steps: Count = 5,
        hidden: Count = 128,
        depth: Count = 1,
        bins: Count = 8,
        passes: Count | None = None,
        bound: Positive = BOUND,
    ) -> None:
        super().__init__()
        self.event, _ = event_size("NSF", event)
        self.bound = bound
        sizes = {"kind": "spline", "passes": passes, "bins": bins, "gain": 0.0, "bound": bound}
        self.data = FlowDensity(self.event, AutoregressiveFlow(self.event, steps, (), hidden, depth, **sizes))

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = real_rows(x, n, self.event, self.data.loc.dtype, self.bound)
        with pyro.plate("data", n):
            # p(x)
            return pyro.sample("x", self.data(), obs=x)
