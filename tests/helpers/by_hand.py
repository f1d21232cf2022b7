"""`close`, and a pair of which all is known: what tests by hand-computed numbers share."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor


def close(found: Tensor | float, expected: object, rtol: float = 1e-10) -> None:
    """Equal in double precision."""
    found = torch.as_tensor(found, dtype=torch.double)
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.double), rtol=rtol, atol=1e-10)


def model(x: Tensor) -> None:
    """x ~ N(z, 1), z ~ N(0, 1): x ~ N(0, 2)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def posterior(x: Tensor) -> None:
    """q(z | x), exact."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
