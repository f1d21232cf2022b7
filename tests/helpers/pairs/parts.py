"""What programs are made of."""

from collections.abc import Callable, Mapping

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.nn.functional import softplus

from .pair import parse


class Head(nn.Module):
    """A Gaussian by a network: one tanh layer of 8 units."""

    def __init__(self, inputs: int, out: int = 2) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, 2 * out))

    def numbers(self, *inputs):
        loc, scale = self.net(torch.cat(inputs, -1)).chunk(2, -1)
        return loc, softplus(scale) + 0.1

    def forward(self, *inputs):
        return dist.Normal(*self.numbers(*inputs)).to_event(1)


class Pixels(nn.Module):
    """Bernoulli data by a network."""

    def __init__(self, inputs: int, out: int = 3) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, out))

    def forward(self, *inputs):
        return dist.Bernoulli(logits=self.net(torch.cat(inputs, -1))).to_event(1)


def normal(size: int = 2):
    return dist.Normal(torch.zeros(size), 1.0).to_event(1)


def real(rows: int = 3, columns: int = 3):
    return torch.randn(rows, columns)


def binary(rows: int = 3, columns: int = 3):
    return (torch.rand(rows, columns) > 0.5).to(torch.get_default_dtype())


def chained(order: tuple[str, ...], reads: Mapping[str, tuple[str, ...]], width: int = 3, family: Callable = Head):
    """A guide that samples `order` in the plate of x, each from a network of the names it reads."""
    heads = nn.ModuleDict({z: family(sum(width if u == "x" else 2 for u in reads[z])) for z in order})

    def guide(x):
        pyro.module("guide", heads)
        values = {"x": x}
        with pyro.plate("data", len(x)):
            for z in order:
                values[z] = pyro.sample(z, heads[z](*(values[u] for u in reads[z])))

    return guide


def read(guide: str) -> dict[str, tuple[str, ...]]:
    return dict(parse(guide, given=("x",)).parents)


def from_formula(model: Callable, guide: str, data: Callable, family: Callable = Head) -> Callable:
    """A builder: a model, and a guide written as the formula says."""
    return lambda: (model(), chained(tuple(read(guide)), read(guide), family=family), (data(),))
