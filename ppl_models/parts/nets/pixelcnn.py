"""The gated PixelCNN: a network of an image whose output at a pixel has seen the pixels before it alone.

Pixels are ordered row by row, and within a row from left to right; the channels of a pixel are one. Two stacks of
convolutions, a vertical one for all that is above and a horizontal one for what is to the left, leave no blind spot.
Their kernels hold nothing but what may be seen: there are no masks, and nothing is multiplied by zero.

Source: van den Oord et al. 2016 (arXiv 1606.05328), section 2.2 and figure 2.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from ..arguments.checked import checked
from ..arguments.kinds import Count, Several, Whole

SMALL = 256  # images that are drawn by one thread


def gate(h: Tensor, dim: int) -> Tensor:
    """tanh(f) * sigmoid(g) of the two halves of a dim."""
    f, g = h.chunk(2, dim)
    return torch.tanh(f) * torch.sigmoid(g)


class GatedLayer(nn.Module):
    """One layer of both stacks, with the context as a bias of every convolution.

        v' = gate(a),              a = conv(v) + U c                  over rows r-w..r and columns j-w..j+w
        h' = h + W gate(b),        b = conv(h) + V a + U' c           over columns j-w..j of the row

    The `first` layer reads the image: rows r-w..r-1, columns j-w..j-1, and h is not added. So v' at row r has seen
    rows above r, and h' at a pixel has seen pixels before it, in every layer.

    Args:
        inputs: channels of v and h.
        channels: of v' and h'.
        context: width of c; 0 for none.
        radius: w.
        first: whether it reads the image.
        maps: whether each pixel has a c of its own.
    """

    def __init__(
        self, inputs: int, channels: int, context: int, radius: int, first: bool = False, maps: bool = False
    ) -> None:
        super().__init__()
        self.radius, self.first = radius, first
        seen = radius if first else radius + 1
        self.vertical = nn.Conv2d(inputs, 2 * channels, (seen, 2 * radius + 1))
        self.horizontal = nn.Conv2d(inputs, 2 * channels, (1, seen), bias=False)
        self.down = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        self.channels, self.bias = channels, None
        if context:
            wide = 4 * channels
            self.bias = nn.Conv2d(context, wide, 1, bias=False) if maps else nn.Linear(context, wide, bias=False)

    def biases(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the vertical and of the horizontal stack, (n, 2 channels, 1, 1) each, or of every pixel its own."""
        both = context.new_zeros(len(context), 4 * self.channels) if self.bias is None else self.bias(context)
        return (both if both.dim() == 4 else both[..., None, None]).chunk(2, 1)

    def forward(self, v: Tensor, h: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """v, h (n, inputs, height, width), c (n, context) or a map of it -> v', h' (n, channels, height, width)."""
        w = self.radius
        above, left = self.biases(context)
        if self.first:  # neither its own row nor its own pixel
            v, h = v[..., :-1, :], h[..., :-1]
        a = self.vertical(pad(v, (w, w, w, 0))) + above
        b = self.horizontal(pad(h, (w, 0))) + self.down(a) + left
        moved = self.out(gate(b, 1))
        return gate(a, 1), moved if self.first else h + moved


@checked
class PixelCNN(nn.Module):
    """Gated layers, then two 1 x 1 convolutions: for each pixel the numbers of its distribution given those before it.

    Args:
        image: (channels, height, width).
        output: numbers a pixel.
        context: width of a vector that every layer reads; 0 for none.
        channels: feature maps.
        layers: gated layers, at least one.
        radius: w of the first layer; the others have 1, so that a pixel sees up to radius + layers - 1 rows and columns
            away.
        window: an integer r in place of radius: a pixel sees those of the r rows above it and the r columns on either
            side, and no others, however many layers there are (the others are 1 x 1).
        maps: whether each pixel has a context vector of its own: a map (context, height, width), given as a flat row.

    Raises:
        ValueError: a size that is not a positive integer.

    Source: van den Oord et al. 2016 (arXiv 1606.05328), eq. 2, 4, and 5 for maps; the window after Chen et al. 2017
    (arXiv 1611.02731), section 3.1, where the receptive field of the decoder is kept small.
    """

    def __init__(
        self,
        image: Several,
        output: Count,
        context: Whole,
        channels: Count = 32,
        layers: Count = 12,
        radius: Count = 3,
        window: Count | None = None,
        maps: bool = False,
    ) -> None:
        super().__init__()
        self.image = tuple(image)
        self.context = (context, *self.image[1:]) if maps else (context,)
        first = window or radius
        later = 1 if window is None else 0
        self.layers = nn.ModuleList([GatedLayer(self.image[0], channels, context, first, True, maps)])
        self.layers.extend(GatedLayer(channels, channels, context, later, maps=maps) for _ in range(layers - 1))
        self.inner = nn.Conv2d(channels, channels, 1)
        self.last = nn.Conv2d(channels, output, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Images (n, channels, height, width), context (n, values of it) -> (n, height, width, output)."""
        v = h = x
        context = context.reshape(len(context), *self.context)
        for layer in self.layers:
            v, h = layer(v, h, context)
        return self.last(relu(self.inner(relu(h)))).permute(0, 2, 3, 1)

    @torch.no_grad()
    def generate(self, context: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
        """Images drawn pixel by pixel, what each layer has computed kept: a full pass a pixel would be O(pixels^2).

        A row costs a convolution over a few rows in each layer of the vertical stack, a pixel two small products in
        each of the horizontal one. Of up to 256 images on a CPU, one thread computes them: others would spend their
        time waiting for each other, twenty thousand times.

        Args:
            context: (n, values of it).
            draw: from the numbers of a pixel, (n, output), to its values, (n, channels).

        Returns:
            (n, channels, height, width).
        """
        threads = torch.get_num_threads()
        alone = context.device.type == "cpu" and len(context) <= SMALL and threads > 1
        try:
            torch.set_num_threads(1 if alone else threads)
            return self._generate(context, draw)
        finally:
            torch.set_num_threads(threads)

    def _generate(self, context: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
        (depth, height, width), n = self.image, len(context)
        sizes = [depth, *(layer.out.out_channels for layer in self.layers)]
        first = self.layers[0].radius
        # what each layer reads, with the zeros above and on both sides
        pads = [layer.radius for layer in self.layers]
        rows = [context.new_zeros(n, c, height + w, width + 2 * w) for c, w in zip(sizes, pads, strict=False)]
        context = context.reshape(len(context), *self.context)
        # one that all pixels share has one row, and one column, which are those of every pixel
        biases = [[bias.expand(-1, -1, height, -1) for bias in layer.biases(context)] for layer in self.layers]
        weights = [layer.horizontal.weight.squeeze(2).transpose(1, 2).flatten(1).T for layer in self.layers]
        outs = [(layer.out.weight.flatten(1).T, layer.out.bias) for layer in self.layers]
        inner, last = ((layer.weight.flatten(1).T, layer.bias) for layer in (self.inner, self.last))
        for r in range(height):
            above = []  # of each layer, what its horizontal stack takes from the vertical one, (width, n, 2 channels)
            for i, layer in enumerate(self.layers):
                bias, left = (each[:, :, r : r + 1] for each in biases[i])
                seen = rows[i][:, :, r : r + layer.vertical.kernel_size[0]]
                a = layer.vertical(seen) + bias
                above.append((layer.down(a) + left)[:, :, 0].permute(2, 0, 1).contiguous())
                if i + 1 < len(pads):
                    w = pads[i + 1]
                    rows[i + 1][:, :, r + w, w : w + width] = gate(a, 1)[:, :, 0]
            # of each layer, what its horizontal stack reads of this row, pixels side by side: (n, (w + width) channels)
            line = [context.new_zeros(n, (w + width) * c) for c, w in zip(sizes, pads, strict=False)]
            for j in range(width):
                h = None
                for i, layer in enumerate(self.layers):
                    size = sizes[i]
                    seen = layer.horizontal.kernel_size[1]
                    b = torch.addmm(above[i][j], line[i][:, j * size : (j + seen) * size], weights[i])
                    moved = torch.addmm(outs[i][1], gate(b, 1), outs[i][0])
                    h = moved if h is None else h + moved
                    if i + 1 < len(pads):
                        at = (j + pads[i + 1]) * sizes[i + 1]
                        line[i + 1][:, at : at + sizes[i + 1]] = h
                pixel = draw(torch.addmm(last[1], relu(torch.addmm(inner[1], relu(h), inner[0])), last[0]))
                line[0][:, (j + first) * depth : (j + first + 1) * depth] = pixel
                rows[0][:, :, r + first, j + first] = pixel
        return rows[0][:, :, first:, first : first + width]
