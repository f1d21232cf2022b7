"""Globals and locals."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch

from .one_latent import VAE, vae
from .pair import SURE, WRONG, add
from .parts import Head, normal, real

SHARED = "p(theta) p(z | theta) p(x | z)"


def shared():
    prior, decoder = Head(2), Head(2, 3)

    def model(x):
        theta = pyro.sample("theta", normal())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(theta.expand(len(x), 2)))
            pyro.sample("x", decoder(z), obs=x)

    return model


def shared_guide(theta: str, local: str):
    """theta: "free" or "amortized"; local: "alone" or "given theta"; z first if local is "first"."""
    pooled, head, late = Head(3), Head(3 if local != "given theta" else 5), Head(2)

    def draw(x, z=None):
        if theta == "free":
            loc = pyro.param("loc", torch.randn(2))
            return pyro.sample("theta", dist.Normal(loc, pyro.param("scale", torch.ones(2))).to_event(1))
        return pyro.sample("theta", pooled(x.tanh().sum(0)) if z is None else late(z.tanh().sum(0)))

    def guide(x):
        pyro.module("head", head)
        t = None if local == "first" else draw(x)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", head(x, t.expand(len(x), 2)) if local == "given theta" else head(x))
        if local == "first":
            draw(x, z)

    return guide


def shared_pair(theta: str, local: str) -> Callable:
    return lambda: (shared(), shared_guide(theta, local), (real(),))


FREE = {"theta": ("x",)}
add(
    *("globals, mean field", shared_pair("free", "alone"), SHARED, "q(theta) q(z | x)", WRONG),
    missing={"z": {"theta"}},
    constant=FREE,
    says=("z - theta",),
)
add(
    *("globals, amortized mean field", shared_pair("amortized", "alone"), SHARED, "q(theta | x) q(z | x)", WRONG),
    missing={"z": {"theta"}},
)
add(
    *("globals, free, first", shared_pair("free", "given theta"), SHARED, "q(theta) q(z | theta, x)", SURE),
    constant=FREE,
)
add("globals, first", shared_pair("amortized", "given theta"), SHARED, "q(theta | x) q(z | theta, x)", SURE)
add(  # without theta the data are exchangeable, not independent; theta then needs nothing but z
    *("globals, last", shared_pair("amortized", "first"), SHARED, "q(z | x) q(theta | z)", WRONG),
    missing={"z": {"x[data']", "z[data']"}},
    printed=False,
    says=("data",),
)


def own_numbers(per_datum: bool):
    """Variational parameters, one set for all data or one for each."""

    def guide(x):
        shape = (len(x), 2) if per_datum else (2,)
        loc, scale = pyro.param("loc", lambda: torch.randn(shape)), pyro.param("scale", lambda: torch.ones(shape))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return lambda: (vae(), guide, (real(),))


add("locals without data", own_numbers(False), VAE, "q(z)", WRONG, missing={"z": {"x"}}, says=("z - x",))
add("a set of parameters per datum", own_numbers(True), VAE, "q(z)", SURE, constant={"z": ("x",)})
