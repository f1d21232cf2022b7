"""A deep Markov model of sequences and its structured guide: programs that repeat themselves in time.

    p(x, z) = prod_t p(z_t | z_{t-1}) p(x_t | z_t),      q(z | x) = prod_t q(z_t | z_{t-1}, x_t, ..., x_T)

Source: Krishnan, Shalit, Sontag 2017 (arXiv 1609.09869).
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

LATENT, WIDTH, KEYS = 16, 64, 88
ROWS = 16


class DeepMarkov(nn.Module):
    """A chain of codes, each of which emits the keys that are struck then."""

    def __init__(self) -> None:
        super().__init__()
        self.transition = nn.Sequential(nn.Linear(LATENT, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 2 * LATENT))
        self.emission = nn.Sequential(nn.Linear(LATENT, WIDTH), nn.SiLU(), nn.Linear(WIDTH, KEYS))

    def forward(self, x: Tensor) -> None:
        """Observe sequences x (n, time, keys)."""
        with pyro.plate("data", len(x)):
            z = x.new_zeros(len(x), LATENT)
            for t in range(x.shape[1]):
                loc, raw = self.transition(z).chunk(2, -1)
                z = pyro.sample(f"z{t}", dist.Normal(z + loc, softplus(raw)).to_event(1))
                pyro.sample(f"x{t}", dist.Bernoulli(logits=self.emission(z)).to_event(1), obs=x[:, t])


class Smoother(nn.Module):
    """A recurrent network reads the future of each code."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = nn.GRU(KEYS, WIDTH, batch_first=True)
        self.head = nn.Sequential(nn.Linear(WIDTH + LATENT, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 2 * LATENT))

    def forward(self, x: Tensor) -> None:
        """Draw the codes of sequences x (n, time, keys)."""
        future = self.reader(x.flip(1))[0].flip(1)
        with pyro.plate("data", len(x)):
            z = x.new_zeros(len(x), LATENT)
            for t in range(x.shape[1]):
                loc, raw = self.head(torch.cat([future[:, t], z], -1)).chunk(2, -1)
                z = pyro.sample(f"z{t}", dist.Normal(loc, softplus(raw)).to_event(1))


def sequences(steps: int, seed: int = 0) -> tuple[nn.Module, nn.Module, Tensor]:
    """(model, guide, x): sequences of so many steps."""
    torch.manual_seed(seed)
    return DeepMarkov(), Smoother(), torch.bernoulli(torch.full((ROWS, steps, KEYS), 0.1))
