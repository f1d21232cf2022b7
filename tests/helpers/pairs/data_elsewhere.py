"""Data of other kinds and in other places."""

from collections.abc import Callable
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.nn.functional import one_hot, softplus

from .hierarchies import HVAE, PARTIAL, hierarchy
from .one_latent import ENCODER, VAE
from .pair import ANY, SURE, WRONG, add, pair
from .parts import Head, binary, from_formula, normal, real


def batch_of_sequences(way: str) -> Callable:
    """The state space for three sequences in a plate, a site for each step."""

    def build():
        transition, emission, gru, head = Head(2), Head(2, 3), nn.GRU(3, 8, batch_first=True), Head(10)

        def model(x):
            with pyro.plate("data", len(x)):
                z = None
                for t in range(x.shape[1]):
                    z = pyro.sample(f"z{t}", normal() if z is None else transition(z))
                    pyro.sample(f"x{t}", emission(z), obs=x[:, t])

        def guide(x):
            h = gru(x.flip(1))[0].flip(1) if way == "backward" else gru(x)[0]
            with pyro.plate("data", len(x)):
                z = torch.zeros(len(x), 2)
                for t in range(x.shape[1]):
                    z = pyro.sample(f"z{t}", head(h[:, t], z))

        return model, guide, (torch.randn(3, 3, 3),)

    return build


SHORT = "p(z0) p(x0 | z0) p(z1 | z0) p(x1 | z1) p(z2 | z1) p(x2 | z2)"
add(
    *("sequences, filtering", batch_of_sequences("forward"), SHORT),
    *("q(z0 | x0) q(z1 | z0, x0, x1) q(z2 | z1, x0, x1, x2)", WRONG),
    missing={"z0": {"x1", "x2"}, "z1": {"x2"}},
    superfluous={"z1": {"x0"}, "z2": {"x0", "x1"}},
)
add(
    *("sequences, smoothing", batch_of_sequences("backward"), SHORT),
    *("q(z0 | x0, x1, x2) q(z1 | z0, x1, x2) q(z2 | z1, x2)", SURE),
)


@pair("p(z_0) p(x_0 | z_0) p(z_1) p(x_1 | z_1)", "q(z_0 | x_0) q(z_1 | x_1)", SURE)
def sequential_plate():
    decoder, head = Head(2, 3), Head(3)

    def model(x):
        for i in pyro.plate("data", len(x)):
            z = pyro.sample(f"z_{i}", normal())
            pyro.sample(f"x_{i}", decoder(z), obs=x[i])

    def guide(x):
        for i in pyro.plate("data", len(x)):
            pyro.sample(f"z_{i}", head(x[i]))

    return model, guide, (real(2),)


def other_data(likelihood: Callable, encode: Callable, data: Callable, width: int = 3) -> Callable:
    """A VAE with data of another kind."""

    def build():
        decoder, head = nn.Linear(2, width), Head(3)

        def model(x):
            with pyro.plate("data", 3):
                z = pyro.sample("z", normal())
                likelihood(decoder(z), x)

        def guide(x):
            with pyro.plate("data", 3):
                pyro.sample("z", head(encode(x)))

        return model, guide, (data(),)

    return build


for name, *how in (
    (
        "counts",
        lambda p, x: pyro.sample("x", dist.Poisson(softplus(p) + 0.1).to_event(1), obs=x),
        lambda x: x.log1p(),
        lambda: torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [1.0, 1.0, 5.0]]),
    ),
    (
        "categories",
        lambda p, x: pyro.sample("x", dist.Categorical(logits=p), obs=x),
        lambda x: one_hot(x, 3).to(torch.get_default_dtype()),
        lambda: torch.tensor([0, 2, 1]),
    ),
    (
        "data in a dict",
        lambda p, x: pyro.sample("x", dist.Normal(p, 1.0).to_event(1), obs=x["x"]),
        lambda x: x["x"],
        lambda: {"x": real()},
    ),
    (
        "standardized data",
        lambda p, x: pyro.sample("x", dist.Normal(p, 1.0).to_event(1), obs=(x - 0.3) / 1.7),
        lambda x: x,
        real,
    ),
    (
        "transposed data",
        lambda p, x: pyro.sample("x", dist.Normal(p, 1.0).to_event(1), obs=x.mT),
        lambda x: x.mT,
        real,
    ),
):
    add(name, other_data(*how), VAE, ENCODER, SURE)


@pair(VAE, "q(z)", (True, ANY, ANY), constant={"z": ("x",)}, superfluous=ANY, printed=False)
def looked_up():
    """Numbers of its own for each of 10 data, looked up by the index of the data in the batch."""
    decoder = Head(2, 3)

    def model(x, index):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal())
            pyro.sample("x", decoder(z), obs=x)

    def guide(x, index):
        loc = pyro.param("loc", lambda: torch.randn(10, 2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc[index], 1.0).to_event(1))

    return model, guide, (real(), torch.tensor([4, 7, 1]))


def scale_latent(reads: bool) -> Callable:
    """A positive latent tau, the precision of x."""

    def build():
        head, other = Head(3, 1), Head(4 if reads else 3, 3)

        def model(x):
            with pyro.plate("data", len(x)):
                tau = pyro.sample("tau", dist.Gamma(2.0, 2.0))
                z = pyro.sample("z", normal(3))
                pyro.sample("x", dist.Normal(z, tau.rsqrt().unsqueeze(-1)).to_event(1), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                loc, scale = (n.squeeze(-1) for n in head.numbers(x))
                tau = pyro.sample("tau", dist.LogNormal(loc, scale))
                pyro.sample("z", other(x, tau.unsqueeze(-1)) if reads else other(x))

        return model, guide, (real(),)

    return build


SCALED = "p(tau) p(z) p(x | tau, z)"
add("a scale", scale_latent(True), SCALED, "q(tau | x) q(z | tau, x)", SURE)
add("a scale, mean field", scale_latent(False), SCALED, "q(tau | x) q(z | x)", WRONG, missing={"z": {"tau"}})


@pair(VAE, ENCODER, WRONG, level="element", missing={f"z.{i}": {f"z.{j}" for j in range(i)} for i in (1, 2, 3)})
def matrix():
    """A latent of shape (2, 2), elements by flat index."""
    decoder, head = Head(4, 3), Head(3, 4)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, 2), 1.0).to_event(2))
            pyro.sample("x", decoder(z.flatten(-2)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc, scale = (n.unflatten(-1, (2, 2)) for n in head.numbers(x))
            pyro.sample("z", dist.Normal(loc, scale).to_event(2))

    return model, guide, (real(),)


for rows in (1, 2, 8):
    build = from_formula(hierarchy, PARTIAL, partial(binary, rows))
    add(f"hierarchy, x missing, {rows} rows", build, HVAE, PARTIAL, WRONG, missing={"z2": {"x"}})
