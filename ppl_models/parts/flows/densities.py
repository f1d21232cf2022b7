"""`seen`, `FlowDensity`: a base, or N(0, I), seen through bijections; `real_rows`: its rows, checked."""

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import Transform

from ..arguments.sizes import check_count
from ..checks import check_inside, check_spread
from ..distributions import StandardNormal
from ..likelihoods import check_data


def real_rows(x: Tensor | None, n: int, event: int, dtype: torch.dtype, bound: float | None = None) -> int:
    """The number of data in a run of a density of real numbers: the rows of x, once they are checked, or `n`.

    Values are read only while Pyro's validation is on. With a `bound`, that of splines, there is a warning where most
    values lie beyond it.

    Raises:
        TypeError, ValueError: see `check_data`, `check_count` and `checks.check_spread`.
    """
    if x is None:
        return check_count(n)
    check_data(x, event, dtype=dtype)
    if torch.distributions.Distribution._validate_args:
        values = x.detach().reshape(-1)
        check_spread(values, torch.unique, "x")
        if bound is not None:
            check_inside(values, bound)
    return len(x)


def seen(base: TorchDistributionMixin, steps: Sequence[Transform]) -> dist.TransformedDistribution:
    """The distribution of x whose image T(x) is a draw of a base, T the steps, of which the first is called first."""
    return dist.TransformedDistribution(base, [step.inv for step in reversed(steps)])


class FlowDensity(nn.Module):
    """A density of vectors by bijections T that take data to N(0, I), given contexts or none.

        log p(x | c) = log N(T(x; c); 0, I) + log|det dT/dx|

    Args:
        size: n, the length of a row.
        flow: a module whose `transforms(*context)` are the bijections, of which the first is called on data.
    """

    def __init__(self, size: int, flow: nn.Module) -> None:
        super().__init__()
        self.base, self.flow = StandardNormal(size), flow

    @property
    def loc(self) -> Tensor:
        """The mean of the base, (n,)."""
        return self.base.loc

    def forward(self, *context: Tensor) -> dist.TransformedDistribution:
        """The distribution, event shape (n,)."""
        return seen(self.base(), self.flow.transforms(*context))
