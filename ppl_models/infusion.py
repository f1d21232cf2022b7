"""A chain of images that is trained to reach the data (Bordes, Honari & Vincent 2017, arXiv 1703.06975)."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn.functional import relu

from .parts import likelihoods
from .parts.arguments.kinds import Count, Event
from .parts.arguments.sizes import event_size
from .parts.checks import Criterion
from .parts.distributions import diagonal_normal
from .parts.program import Program

LEAST = 1e-3  # scale of z_1
VARIANCES = (1e-4, 0.1)  # of a transition: at least, and by how much more at most


class StepNet(nn.Module):
    """One hidden layer for all steps of a chain, normalized with numbers of each step's own.

    h = relu(norm_t(W z + b)),      output = V h + c
    """

    def __init__(self, size: int, hidden: int, steps: int) -> None:
        super().__init__()
        self.first = nn.Linear(size, hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(steps))
        self.last = nn.Linear(hidden, 2 * size)

    def forward(self, t: int, z: Tensor) -> Tensor:
        """(*batch, size) -> (*batch, 2 size), at step t."""
        return self.last(relu(self.norms[t](self.first(z))))


class Infusion(Program):
    """A Markov chain of noisy images, the last of which is the datum.

        p(x, z) = p(z_1) prod_{t=2..T} p(z_t | z_{t-1}) p(x | z_T)
        z_1 ~ N(m, diag s^2),      z_{t+1}, x ~ N(sigmoid(a_t(z_t)), 1e-4 + 0.1 sigmoid(b_t(z_t)))

    Every latent has the shape of the data, in [0, 1] or nearly.

    **Two criteria.** "elbo" is the model above. "per-step" is infusion training: in training mode (`model.train()`, as
    inside `fit`) every transition is also scored at the datum, with weight t / T, and gradients stay within a step,

        sum_{t=0..T}  w_t log p_t(x | z_t),      w_0 = 1 / T,  w_t = t / T,      z_t of the guide, held fixed

    (p_0 has no z to read.) With the guide `Infused` this, without any divergence, is what the paper maximizes:
    `fit(..., objective=unregularized)`. So infusion training is the criterion of Zhao et al. with R = 0 and an encoder
    without parameters. In evaluation mode the model is the one above with either, and the ELBO with `Infused` is the
    paper's lower bound.

    Shapes: x (n, event), z_t (n, event); sites z1..zT and x (x0..x{T-1} besides, while "per-step" trains).

    Args:
        event: number of values in a row of x, or its shape.
        steps: T.
        hidden: width of the one hidden layer, which all steps share.
        criterion: "elbo" or "per-step".

    Raises:
        ValueError: a size that is not a positive integer; an unknown criterion; x of the wrong width, not finite,
            empty.

    Source: sections 2 and 3, and the official code. There z_1 has the mean and variance of the training set; here they
    are learned, s = 1e-3 + exp(10 r) of a parameter r, so that its scales can fall by orders of magnitude in a training
    whose other weights move by a fraction; and layers are normalized instead of batches.

    >>> Infusion(event=64, steps=3, hidden=16)(n=3).shape
    torch.Size([3, 64])

    >>> from ppl_models.factorization import factorization
    >>> f = factorization(Infusion(event=4, steps=3, hidden=8), torch.rand(3, 4))
    >>> print(f)
    p(z1) p(z2 | z1) p(z3 | z2) p(x | z3)
    >>> print(f.faithful_inverse())
    q(z1 | x) q(z2 | z1, x) q(z3 | z2, x)
    """

    density = "p(x, z) = p(z_1) prod_{t=2..T} p(z_t | z_{t-1}) p(x | z_T)"
    source = "Bordes, Honari & Vincent 2017, arXiv 1703.06975"

    def __init__(
        self,
        event: Event = 784,
        steps: Count = 10,
        hidden: Count = 1200,
        criterion: Criterion = "elbo",
    ) -> None:
        super().__init__()
        self.event, _ = event_size("Infusion", event)
        self.steps = steps
        self.criterion = criterion
        self.likelihood = likelihoods.Gaussian()
        self.start = nn.Parameter(torch.cat([torch.full((self.event,), 0.5), torch.full((self.event,), -0.1)]))
        self.network = StepNet(self.event, hidden, self.steps)

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.start.dtype)
        every = self.criterion == "per-step" and self.training and x is not None
        with pyro.plate("data", n):
            z = None
            for t in range(self.steps):
                # p(z1), or p(zt | z{t-1})
                step = self.transition(t, z)
                if every:
                    with poutine.scale(scale=max(t, 1) / self.steps):
                        pyro.sample(f"x{t}", step, obs=x)
                z = pyro.sample(f"z{t + 1}", step)
                z = z.detach() if every else z
            # p(x | zT)
            return pyro.sample("x", self.transition(self.steps, z), obs=x)

    def transition(self, t: int, z: Tensor | None) -> dist.Independent:
        """p_t: of z_1 for t = 0, of z_{t+1} given z_t, and of x given z_T for t = T."""
        if t == 0:
            loc, raw = self.start.chunk(2)
            return diagonal_normal(loc, LEAST + (10 * raw).exp())
        loc, spread = self.network(t - 1, z).chunk(2, -1)
        least, more = VARIANCES
        return diagonal_normal(loc.sigmoid(), (least + more * spread.sigmoid()).sqrt())
