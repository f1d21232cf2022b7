"""`LSTM`: a step of a long short-term memory of several inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LSTM(nn.Module):
    """A step of a long short-term memory of several inputs.

        i, f, o = sigmoid(.),   g = tanh(.)   of   sum_k W_k x_k + U h + b;      c' = f c + i g,      h' = o tanh(c')

    Args:
        inputs: width of each input.
        hidden: size of h and c, which start at learned numbers.
    """

    def __init__(self, inputs: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Linear(n, 4 * hidden, bias=i == 0) for i, n in enumerate(inputs))
        self.recurrent = nn.Linear(hidden, 4 * hidden, bias=False)
        self.beginning = nn.Parameter(torch.zeros(2 * hidden))

    def start(self, *batch: int) -> tuple[Tensor, Tensor]:
        """(h, c) before the first step, (*batch, hidden) each."""
        h, c = self.beginning.chunk(2)
        return h.expand(*batch, -1), c.expand(*batch, -1)

    def forward(self, state: tuple[Tensor, Tensor], *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(h, c) after a step, from (h, c) before it and (*batch, n_i) each; batches broadcast."""
        h, c = state
        gates = self.recurrent(h)
        for layer, x in zip(self.first, inputs, strict=True):
            gates = gates + layer(x)
        i, f, g, o = gates.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
