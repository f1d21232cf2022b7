"""`Window`: a small grid of Gaussian filters over an image, placed by a state: it reads patches, and writes them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..arguments.windows import first_window


class Window(nn.Module):
    """An N x N grid of Gaussian filters, whose place, stride, width and intensity are a linear map of a state.

        (g~x, g~y, log s^2, log d~, log i) = W h + b
        gx = (A + 1) / 2 (g~x + 1),    gy = (B + 1) / 2 (g~y + 1),    d = (max(A, B) - 1) / (N - 1) d~
        F_X[i, a] proportional to exp(-(a - gx - (i - N / 2 - 1/2) d)^2 / (2 s^2)),    rows of sum 1;    F_Y likewise

        read(x) = i F_Y x F_X^T,        write(w) = F_Y^T w F_X / i

    for images of B rows and A columns, counted from 1, as i is from 1 to N. All channels have the same filters. At the
    start the grid lies over the middle half of the image, each filter half a stride wide: log d~ is about log(1/2), s
    about d / 2. (From b = 0 those of N = 2 begin in the corners, where digits have nothing that could move them.)

    Args:
        state: length of h.
        image: (channels, B, A).
        size: N, at least 2.

    Source: Gregor et al. 2015 (arXiv 1502.04623), sections 3.2 and 3.3.
    """

    def __init__(self, state: int, image: Sequence[int], size: int) -> None:
        super().__init__()
        self.image, self.size = tuple(image), size
        self.numbers = nn.Linear(state, 5)
        with torch.no_grad():
            self.numbers.bias[2:4] += torch.tensor(first_window(image, size))
        self.register_buffer("grid", torch.arange(size) - (size - 1) / 2, persistent=False)
        for name, length in zip(("rows", "columns"), self.image[1:], strict=True):
            self.register_buffer(name, torch.arange(1.0, length + 1), persistent=False)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F_Y (*batch, 1, N, B), F_X (*batch, 1, N, A) and the intensity (*batch, 1, 1, 1) of h (*batch, state)."""
        height, width = self.image[1:]
        numbers = self.numbers(h)[..., None, None]  # (*batch, 5, 1, 1)
        x, y, spread, stride, intensity = numbers.unbind(-3)
        stride = (max(height, width) - 1) / (self.size - 1) * stride.exp()

        def filters(center: Tensor, places: Tensor) -> Tensor:
            middles = (len(places) + 1) / 2 * (center + 1) + self.grid[:, None] * stride  # (*batch, N, 1)
            return torch.softmax(-0.5 * (places - middles).square() * (-spread).exp(), -1).unsqueeze(-3)

        return filters(y, self.rows), filters(x, self.columns), intensity.exp().unsqueeze(-3)

    def read(self, h: Tensor, *images: Tensor) -> Tensor:
        """The patches of flat images (*batch, channels B A) each, side by side: (*batch, images channels N N); batches
        broadcast."""
        rows, columns, intensity = self(h)
        patches = [(intensity * (rows @ x.unflatten(-1, self.image) @ columns.mT)).flatten(-3) for x in images]
        batch = torch.broadcast_shapes(*(patch.shape[:-1] for patch in patches))
        return torch.cat([patch.expand(*batch, -1) for patch in patches], -1)

    def write(self, h: Tensor, patch: Tensor) -> Tensor:
        """The flat image (*batch, channels B A) of a patch (*batch, channels N N)."""
        rows, columns, intensity = self(h)
        w = patch.unflatten(-1, (self.image[0], self.size, self.size))
        return (rows.mT @ w @ columns / intensity).flatten(-3)
