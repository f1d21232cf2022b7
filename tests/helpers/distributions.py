"""`MAKE`: a distribution of nine numbers for each name in the table of closed forms."""

from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor

from ppl_models.inference.pyro.sites.closed_forms import VECTOR
from ppl_models.parts.distributions import RankOneNormal


def tril(v: Tensor) -> Tensor:
    """Six numbers as a lower triangular matrix with a positive diagonal."""
    return torch.stack([torch.stack([v[0].exp(), v[3] * 0, v[3] * 0]), torch.cat([v[3:4], v[1:2].exp(), v[3:4] * 0]),
                        torch.cat([v[4:6], v[2:3].exp()])])  # fmt: skip


MAKE: dict[str, Callable[[Tensor], dist.TorchDistribution]] = {
    "Bernoulli": lambda v: dist.Bernoulli(logits=v[0]),
    "Beta": lambda v: dist.Beta(1 + v[0].exp(), 1 + v[1].exp()),
    "Categorical": lambda v: dist.Categorical(logits=v[:3]),
    "Cauchy": lambda v: dist.Cauchy(v[0], v[1].exp()),
    "Dirichlet": lambda v: dist.Dirichlet(1 + v[:3].exp()),
    "Exponential": lambda v: dist.Exponential(v[0].exp()),
    "Gamma": lambda v: dist.Gamma(1 + v[0].exp(), v[1].exp()),
    "Geometric": lambda v: dist.Geometric(logits=v[0]),
    "Gumbel": lambda v: dist.Gumbel(v[0], 1 + v[1].exp()),
    "HalfNormal": lambda v: dist.HalfNormal(v[0].exp()),
    "Laplace": lambda v: dist.Laplace(v[0], v[1].exp()),
    "LowRankMultivariateNormal": lambda v: dist.LowRankMultivariateNormal(v[:3], v[3:6, None], v[6:].exp()),
    "MultivariateNormal": lambda v: dist.MultivariateNormal(v[:3], scale_tril=tril(v[3:])),
    "Normal": lambda v: dist.Normal(v[0], v[1].exp()),
    "OneHotCategorical": lambda v: dist.OneHotCategorical(logits=v[:3]),
    "Pareto": lambda v: dist.Pareto(v[0].sigmoid(), 6 + v[1].exp()),
    "Poisson": lambda v: dist.Poisson(v[0].exp()),
    "RankOneNormal": lambda v: RankOneNormal(v[:3], v[3:6].exp(), v[6:]),
    "Uniform": lambda v: dist.Uniform(v[0].sigmoid() / 2, 0.5 + v[1].sigmoid() / 2),
    VECTOR: lambda v: dist.Normal(v[:3], v[3:6].exp()).to_event(1),
}
