"""Perceptrons: residual ones, and gated ones, that broadcast over leading dimensions.

Every network takes several inputs and adds their first linear images instead of concatenating them: an input
that lacks the particle dimension (the evidence) is then read once, not once a particle.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ppl_models.parts.arguments.checked import checked

from ..checks import check_network


class Block(nn.Module):
    """Pre-normalized residual block h + W2 silu(W1 LayerNorm(h)); W2 starts at zero, so it starts as identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, h: Tensor) -> Tensor:
        """(*batch, width) -> (*batch, width)."""
        return h + self.outer(silu(self.inner(self.norm(h))))


@checked
class Net(nn.Module):
    """Residual perceptron of several inputs.

        h = sum_i W_i x_i + b;   h <- Block(h), depth times;   output = W h + c        (W LayerNorm(h) + c with norm)

    Without `norm` the path of the linear layers is never squashed, so linear maps are learned exactly; with it the
    output stays bounded however large the inputs, which a chain of many such networks needs. `depth=0` is one linear
    map, with nothing to normalize; without inputs the output is a free parameter.

    Args:
        inputs: width of each input; none of them for a free parameter.
        output: width of the output.
        hidden: width of the blocks.
        depth: number of blocks.
        gain: factor on the initial weights of the last layer; small ones start the output near its bias.
        norm: normalize the last hidden layer.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        output: int,
        hidden: int = 256,
        depth: int = 1,
        gain: float = 1.0,
        norm: bool = False,
    ) -> None:
        super().__init__()
        check_network(inputs, output, hidden, depth)
        width = hidden if depth else output
        self.first = nn.ModuleList(nn.Linear(n, width, bias=i == 0) for i, n in enumerate(inputs))
        self.blocks = nn.Sequential(*(Block(hidden) for _ in range(depth))) if inputs else nn.Sequential()
        if norm and inputs and depth:
            self.blocks.append(nn.LayerNorm(hidden))
        self.last = nn.Linear(hidden, output) if inputs and depth else None
        self.constant = None if inputs else nn.Parameter(gain * 0.1 * torch.randn(output))
        with torch.no_grad():
            for layer in [self.last] if self.last is not None else self.first:
                layer.weight.mul_(gain)

    @property
    def bias(self) -> nn.Parameter:
        """The bias of the output, (output,): where an initial value is put."""
        if self.constant is not None:
            return self.constant
        return self.last.bias if self.last is not None else self.first[0].bias

    def forward(self, *inputs: Tensor) -> Tensor:
        """(*batch, n_i) each -> (*batch, output); batches broadcast. Without inputs: (output,)."""
        if self.constant is not None:
            return self.constant
        h = None
        for layer, x in zip(self.first, inputs, strict=True):
            h = layer(x) if h is None else h + layer(x)
        last = self.last
        return h if last is None else last(self.blocks(h))


class Gated(nn.Module):
    """(sum_i A_i x_i + a) * sigmoid(sum_i B_i x_i + b): linear images, each entry behind a gate of its own.

    Weights start as N(0, 2 / n), n the width of all inputs together (He et al. 2015).
    """

    def __init__(self, inputs: Sequence[int], output: int) -> None:
        super().__init__()
        self.images = nn.ModuleList(nn.Linear(n, 2 * output, bias=i == 0) for i, n in enumerate(inputs))
        for layer in self.images:
            nn.init.normal_(layer.weight, 0, (2 / sum(inputs)) ** 0.5)

    def forward(self, *inputs: Tensor) -> Tensor:
        """(*batch, n_i) each -> (*batch, output); batches broadcast."""
        h = None
        for layer, x in zip(self.images, inputs, strict=True):
            h = layer(x) if h is None else h + layer(x)
        value, gate = h.chunk(2, -1)
        return value * gate.sigmoid()


@checked
class GatedNet(nn.Module):
    """Perceptron of several inputs with gates for activations.

        h_i = Gated(x_i);   h = Gated(h_1, h_2, ...);   output = W h + c

    Args:
        inputs: width of each input, one at least.
        output: width of the output.
        hidden: width of the gated layers.
        gain: factor on the initial weights of the last layer.

    Source: the networks of Tomczak & Welling 2018 (arXiv 1705.07120), after Dauphin et al. 2016 (arXiv 1612.08083).
    """

    def __init__(self, inputs: Sequence[int], output: int, hidden: int = 300, gain: float = 1.0) -> None:
        super().__init__()
        check_network(inputs, output, hidden, 1)
        self.first = nn.ModuleList(Gated([n], hidden) for n in inputs)
        self.second = Gated([hidden] * len(inputs), hidden)
        self.last = nn.Linear(hidden, output)
        nn.init.normal_(self.last.weight, 0, gain * (2 / hidden) ** 0.5)

    def forward(self, *inputs: Tensor) -> Tensor:
        """(*batch, n_i) each -> (*batch, output); batches broadcast."""
        return self.last(self.second(*(gated(x) for gated, x in zip(self.first, inputs, strict=True))))
