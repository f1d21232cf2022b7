"""DRAW, an image drawn in strokes by a recurrent network (Gregor et al. 2015, arXiv 1502.04623)."""

from typing import Annotated

import pyro
import torch
from torch import Tensor, nn

from .parts import likelihoods
from .parts.arguments.kinds import Count, Event, Number
from .parts.arguments.sizes import event_size, image_size
from .parts.distributions import StandardNormal
from .parts.nets import LSTM, Window
from .parts.program import Program


class DRAW(Program):
    """Latents drawn one at a time: each updates a recurrent state, which adds a stroke to a canvas.

        p(x, z) = prod_t p(z_t) p(x | z_1, ..., z_T),      z_t ~ N(0, I)
        h_t = LSTM(z_t, h_{t-1}),      c_t = c_{t-1} + write(h_t),      x ~ likelihood(c_T)

    A stroke is a linear map of the state, or with a `window` a patch of N x N numbers, painted by a grid of Gaussian
    filters that the state places (`parts.nets.Window`). c_0 and h_0 are learned. The same weights serve all steps.

    Before it draws z_t the model records two deterministic sites: mean{t}, the mean of x if it were drawn from the
    canvas c_{t-1}, and state{t}, which is h_{t-1}. The guide `Recurrent` reads them. With that guide, and with a window
    in it, this is the network of the paper.

    Shapes: x (n, event), z_t (n, latent); sites z1..zT and x, besides mean1..meanT and state1..stateT.

    Args:
        event: number of values in a row of x, or its shape: (channels, height, width) for a window.
        steps: T, called glimpses in the paper.
        latent: size of each z_t.
        hidden: size of the state.
        window: N, or None for strokes that are a linear map of the state.
        likelihood: see `parts.likelihoods.likelihood`.

    Raises:
        ValueError: a size that is not a positive integer; a window without the shape of an image; x of the wrong width,
            outside the support, not finite, empty.

    Source: Gregor et al. 2015, sections 2 and 3.1; with a window, 3.2 and 3.3.

    >>> DRAW(event=(1, 8, 8), steps=3, latent=2, hidden=8, window=3)(n=3).shape
    torch.Size([3, 64])

    >>> from ppl_models.factorization import factorization
    >>> f = factorization(DRAW(event=4, steps=3, latent=2, hidden=8), torch.eye(4)[:3])
    >>> print(f)
    p(z1) p(z2) p(z3) p(x | z1, z2, z3)
    >>> print(f.faithful_inverse())
    q(z1 | x) q(z2 | z1, x) q(z3 | z1, z2, x)
    """

    density = "p(x, z) = prod_t p(z_t) p(x | z_1, ..., z_T)"
    source = "Gregor et al. 2015, arXiv 1502.04623"
    wants_image = True  # the shape of a row of images, which a window reads

    def __init__(
        self,
        event: Event = 784,
        steps: Count = 10,
        latent: Count = 10,
        hidden: Count = 256,
        window: Annotated[int, Number(whole=True, least=2)] | None = None,
        likelihood: str | nn.Module = "bernoulli",
    ) -> None:
        super().__init__()
        self.event, _ = event_size("DRAW", event)
        self.steps, self.latent = steps, latent
        self.likelihood = likelihoods.likelihood(likelihood, "DRAW")
        values = self.likelihood.count
        self.canvas = nn.Parameter(torch.zeros(values * self.event))
        self.decoder = LSTM([latent], hidden)
        if window is None:
            self.window, self.stroke = None, nn.Linear(hidden, values * self.event)
        else:
            channels, *size = image_size("DRAW", event, "a window wants")
            self.window = Window(hidden, (values * channels, *size), window)
            self.stroke = nn.Linear(hidden, values * channels * window**2)
        self.prior = StandardNormal(latent)

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.prior.loc.dtype)
        canvas, (h, memory) = self.canvas.expand(n, -1), self.decoder.start(n)
        with pyro.plate("data", n):
            for t in range(1, self.steps + 1):
                pyro.deterministic(f"mean{t}", self.likelihood.mean(canvas), event_dim=1)
                pyro.deterministic(f"state{t}", h, event_dim=1)
                # p(zt)
                z = pyro.sample(f"z{t}", self.prior())
                # ht = LSTM(zt, h{t-1}),  ct = c{t-1} + write(ht)
                h, memory = self.decoder((h, memory), z)
                canvas = canvas + self.write(h)
            # p(x | z1, ..., zT)
            return pyro.sample("x", self.likelihood(canvas), obs=x)

    def write(self, h: Tensor) -> Tensor:
        """The stroke of a state: (*batch, hidden) -> (*batch, numbers of the likelihood)."""
        stroke = self.stroke(h)
        return stroke if self.window is None else self.window.write(h, stroke)
