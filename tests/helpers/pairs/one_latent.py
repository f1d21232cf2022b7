"""A latent and its data."""

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import torch
from pyro.nn import DenseNN
from torch import nn

from .pair import LOOSE, SURE, WRONG, add
from .parts import Head, chained, from_formula, normal, real


def vae(width: int = 3):
    decoder = Head(2, width)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal())
            pyro.sample("x", decoder(z), obs=x)

    return model


VAE, ENCODER = "p(z) p(x | z)", "q(z | x)"

add("vae", from_formula(vae, ENCODER, real), VAE, ENCODER, SURE)
add(
    *("vae, diagonal, elements", from_formula(vae, ENCODER, real), VAE, ENCODER, WRONG),
    missing={"z.1": {"z.0"}},
    level="element",
)


class FullHead(Head):
    """Full covariance."""

    def __init__(self, inputs: int, out: int = 2) -> None:
        super().__init__(inputs, out)
        self.below = nn.Linear(inputs, out * out)

    def forward(self, *inputs):
        loc, scale = self.numbers(*inputs)
        below = self.below(torch.cat(inputs, -1)).unflatten(-1, (loc.shape[-1],) * 2)
        return dist.MultivariateNormal(loc, scale_tril=below.tril(-1) + scale.diag_embed())


class FlowHead(Head):
    """An inverse autoregressive flow over a diagonal Gaussian."""

    def __init__(self, inputs: int, out: int = 2) -> None:
        super().__init__(inputs, out)
        self.flow = T.affine_autoregressive(out, [8])

    def forward(self, *inputs):
        return dist.TransformedDistribution(super().forward(*inputs), [self.flow])


class ConditionalFlowHead(nn.Module):
    """An inverse autoregressive flow whose network reads everything; its base reads nothing."""

    def __init__(self, inputs: int, out: int = 2) -> None:
        super().__init__()
        self.out, self.flow = out, T.conditional_affine_autoregressive(out, inputs, [8])

    def forward(self, *inputs):
        context = torch.cat(inputs, -1)
        base = dist.Normal(torch.zeros(*context.shape[:-1], self.out), 1.0).to_event(1)
        return dist.ConditionalTransformedDistribution(base, [self.flow]).condition(context)


class CouplingHead(Head):
    """One affine coupling layer over a diagonal Gaussian."""

    def __init__(self, inputs: int, out: int = 2) -> None:
        super().__init__(inputs, out)
        self.flow = T.AffineCoupling(out // 2, DenseNN(out // 2, [8], [out - out // 2] * 2))

    def forward(self, *inputs):
        return dist.TransformedDistribution(super().forward(*inputs), [self.flow])


for how in (FullHead, FlowHead, ConditionalFlowHead, CouplingHead):
    build = from_formula(vae, ENCODER, real, how)
    add(f"vae, {how.__name__}, elements", build, VAE, ENCODER, SURE, level="element")
    add(f"vae, {how.__name__}", build, VAE, ENCODER, SURE)


def separable():
    """Each latent has pixels of its own."""
    first, second = Head(1, 2), Head(1, 2)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal())
            loc, scale = (
                torch.cat(n, -1) for n in zip(first.numbers(z[..., :1]), second.numbers(z[..., 1:]), strict=True)
            )
            pyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=x)

    return model, chained(("z",), {"z": ("x",)}, width=4), (real(3, 4),)


add(
    *("vae, separable decoder, elements", separable, VAE, ENCODER, LOOSE),
    superfluous={"z.0": {"x.2", "x.3"}, "z.1": {"x.0", "x.1"}},
    level="element",
)
