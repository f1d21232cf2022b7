"""Networks: residual perceptrons and convolutions that broadcast over leading dimensions.

Every network takes several inputs and adds their first linear images instead of concatenating them: an input
that lacks the particle dimension (the evidence) is then read once, not once a particle.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from ppl_models.parts.checked import checked

from .checks import check_network
from .sizes import halvings


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

    Source: the networks of Tomczak & Welling 2018 (arXiv 1705.07120), after Dauphin et al. 2016 (arXiv 1612.08083).
    """

    def __init__(self, inputs: Sequence[int], output: int, hidden: int = 300) -> None:
        super().__init__()
        check_network(inputs, output, hidden, 1)
        self.first = nn.ModuleList(Gated([n], hidden) for n in inputs)
        self.second = Gated([hidden] * len(inputs), hidden)
        self.last = nn.Linear(hidden, output)
        nn.init.normal_(self.last.weight, 0, (2 / hidden) ** 0.5)

    def forward(self, *inputs: Tensor) -> Tensor:
        """(*batch, n_i) each -> (*batch, output); batches broadcast."""
        return self.last(self.second(*(gated(x) for gated, x in zip(self.first, inputs, strict=True))))


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


class ConvBlock(nn.Module):
    """Residual block h + conv(silu(conv(silu(h)))), 3 x 3, the second convolution starting at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
        self.outer = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, h: Tensor) -> Tensor:
        """(n, channels, height, width) -> the same."""
        return h + self.outer(silu(self.inner(silu(h))))


class ConvEncoder(nn.Module):
    """Images, given as flat rows, to feature vectors: strided convolutions with residual blocks, then a linear layer.

    Args:
        image: (channels, height, width) of a row.
        output: number of features.
        channels: of the first convolution; doubled at each halving of the image.
        depth: residual blocks at each resolution.
    """

    def __init__(self, image: Sequence[int], output: int, channels: int = 16, depth: int = 1) -> None:
        super().__init__()
        self.image = tuple(image)
        layers: list[nn.Module] = [nn.Conv2d(image[0], channels, 3, padding=1)]
        height, width = image[1:]
        while max(height, width) > 7:
            layers += [*(ConvBlock(channels) for _ in range(depth)), nn.SiLU()]
            layers += [nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)]
            channels, height, width = 2 * channels, (height + 1) // 2, (width + 1) // 2
        layers += [*(ConvBlock(channels) for _ in range(depth)), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(channels * height * width, output)

    def forward(self, x: Tensor) -> Tensor:
        """(*batch, channels * height * width) -> (*batch, output)."""
        batch = x.shape[:-1]
        h = self.layers(x.reshape(-1, *self.image))
        return self.last(h.flatten(1)).reshape(*batch, -1)


class ConvNet(nn.Module):
    """Vectors, and optionally an image, to an image: the residual-convolutional counterpart of `Net`.

    The vectors give a small map by a linear layer, which is enlarged (nearest neighbour) with residual blocks at each
    size; an image input, resized to the output, joins by a 3 x 3 convolution before the blocks of the last size.

    Args:
        inputs: width of each vector.
        image: (channels, height, width) of the output.
        context: (channels, height, width) of an image input, given as flat rows, or None.
        channels: of the last map; doubled at each halving.
        depth: residual blocks at each size.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        image: Sequence[int],
        context: Sequence[int] | None = None,
        channels: int = 16,
        depth: int = 1,
    ) -> None:
        super().__init__()
        self.depth = depth
        self.image, self.context = tuple(image), None if context is None else tuple(context)
        self.sizes = halvings(image[1:])[::-1]
        widths = [min(channels * 2**i, 128) for i in range(len(self.sizes))][::-1]
        self.start = (widths[0], *self.sizes[0])
        self.first = nn.ModuleList(nn.Linear(n, prod(self.start), bias=i == 0) for i, n in enumerate(inputs))
        self.blocks = nn.ModuleList(ConvBlock(w) for w in widths for _ in range(depth))
        self.narrow = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, widths[1:], strict=False))
        self.join = None if context is None else nn.Conv2d(context[0], widths[-1], 3, padding=1)
        self.last = nn.Conv2d(widths[-1], image[0], 3, padding=1)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Vectors (*batch, n_i), then the flat context (*batch, c h w) if there is one -> (*batch, C * H * W)."""
        vectors = inputs if self.join is None else inputs[:-1]
        h = sum(layer(v) for layer, v in zip(self.first, vectors, strict=True))
        batch = h.shape[:-1] if self.join is None else torch.broadcast_shapes(h.shape[:-1], inputs[-1].shape[:-1])
        h = h.expand(*batch, h.shape[-1]).reshape(-1, *self.start)
        for i in range(len(self.sizes)):
            if i:
                h = interpolate(self.narrow[i - 1](h), size=self.sizes[i])
            if self.join is not None and i == len(self.sizes) - 1:
                c = inputs[-1].expand(*batch, inputs[-1].shape[-1]).reshape(-1, *self.context)
                h = h + self.join(interpolate(c, size=self.sizes[-1]))
            for j in range(self.depth):
                h = self.blocks[i * self.depth + j](h)
        return self.last(silu(h)).reshape(*batch, -1)


class MapNet(nn.Module):
    """A map to a larger one of features: a 3 x 3 convolution, then residual blocks at each size on the way.

    Args:
        map: (channels, height, width) of the input, given as flat rows.
        output: channels.
        sizes: (height, width) of the maps on the way (nearest neighbour), the output's last.
        channels: of them.
        depth: residual blocks at each size.
    """

    def __init__(
        self,
        map: Sequence[int],  # noqa: A002
        output: int,
        sizes: Sequence[tuple[int, ...]],
        channels: int = 16,
        depth: int = 1,
    ) -> None:
        super().__init__()
        self.map, self.sizes, self.depth = tuple(map), list(sizes), depth
        self.first = nn.Conv2d(map[0], channels, 3, padding=1)
        self.blocks = nn.ModuleList(ConvBlock(channels) for _ in sizes for _ in range(depth))
        self.last = nn.Conv2d(channels, output, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(*batch, channels * height * width) -> (*batch, output * height' * width')."""
        h = self.first(z.reshape(-1, *self.map))
        for i, size in enumerate(self.sizes):
            h = interpolate(h, size=size)
            for block in self.blocks[i * self.depth : (i + 1) * self.depth]:
                h = block(h)
        return self.last(silu(h)).reshape(*z.shape[:-1], -1)


def between(shape: Sequence[int], output: Sequence[int], hidden: int, depth: int) -> Net | MapNet:
    """A network from one state of a hierarchy to the next, or to data: `Net` for vectors, `MapNet` for maps."""
    if len(shape) == 1:
        return Net(shape, prod(output), hidden, depth, norm=True)
    return MapNet(shape, output[0], [tuple(output[1:])], shape[0], depth)
