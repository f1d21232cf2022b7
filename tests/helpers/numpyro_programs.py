"""Programs in both languages, each one function, for the tests that hold the guides of one against the other's."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions
import pyro
import pyro.distributions
import torch
from numpyro import handlers
from pyro import poutine
from torch import Tensor

TORCH = SimpleNamespace(
    sample=pyro.sample, plate=pyro.plate, dist=pyro.distributions, ones=torch.ones, mask=lambda m: poutine.mask(mask=m)
)
JAX = SimpleNamespace(
    sample=numpyro.sample,
    plate=numpyro.plate,
    dist=numpyro.distributions,
    ones=jnp.ones,
    mask=lambda m: handlers.mask(mask=m),
)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def schools(x, s, p):
    mu = p.sample("mu", p.dist.Normal(0 * p.ones(1), 10 * p.ones(1)))
    tau = p.sample("tau", p.dist.HalfCauchy(25 * p.ones(1)))
    eta = p.sample("eta", p.dist.Normal(0 * p.ones(8), p.ones(8)))
    p.sample("obs", p.dist.Normal(mu + tau * eta, s), obs=x)


def schools_in_a_plate(x, s, p):
    mu = p.sample("mu", p.dist.Normal(0.0, 5.0))
    tau = p.sample("tau", p.dist.HalfCauchy(5.0))
    with p.plate("schools", len(x)):
        eta = p.sample("eta", p.dist.Normal(0.0, 1.0))
        p.sample("y", p.dist.Normal(mu + tau * eta, s), obs=x)


def groups(x, y, p):
    center = p.sample("center", p.dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    spread = p.sample("spread", p.dist.HalfNormal(1.0).expand([2]).to_event(1))
    scale = p.sample("scale", p.dist.HalfNormal(1.0))
    with p.plate("groups", len(y)):
        b = p.sample("b", p.dist.Normal(center[..., None, :], spread[..., None, :]).to_event(1))
        p.sample("y", p.dist.Normal((x * b[..., None, :]).sum(-1), scale[..., None, None]).to_event(1), obs=y)


def chains(x, p):
    step, z = p.sample("step", p.dist.HalfNormal(1.0)), 0.0
    with p.plate("data", len(x)):
        for t in range(x.shape[1]):
            z = p.sample(f"z{t}", p.dist.Normal(z, step))
            p.sample(f"x{t}", p.dist.Normal(z, 1.0), obs=x[:, t])


def copies(x, p):
    chains(x + 1.0, p)


def one_chain(x, p):
    z = 0.0
    for t in range(len(x)):
        z = p.sample(f"z{t}", p.dist.Normal(z, 1.0))
        p.sample(f"x{t}", p.dist.Normal(z, 1.0), obs=x[t])


def topics(x, p):
    with p.plate("topics", 2):
        phi = p.sample("phi", p.dist.Dirichlet(p.ones(5)))
    with p.plate("documents", len(x)):
        theta = p.sample("theta", p.dist.Dirichlet(p.ones(2)))
        rate = (theta[..., None, :] @ phi)[..., 0, :]
        p.sample("x", p.dist.Normal(rate, 0.1).to_event(1), obs=x)


def bounded(x, p):
    a = p.sample("a", p.dist.Beta(2.0, 2.0))
    u = p.sample("u", p.dist.Uniform(-p.ones(2), 3 * p.ones(2)).to_event(1))
    with p.plate("data", len(x)):
        z = p.sample("z", p.dist.Uniform(0.0, 1.0))
        p.sample("x", p.dist.Normal((a + z)[..., None] * u[..., None, :], 1.0).to_event(1), obs=x)


def covariates(x, t, p):
    with p.plate("data", len(x)):
        a = p.sample("a", p.dist.Normal(t, 1.0))
        b = p.sample("b", p.dist.Normal(a, 1.0))
        p.sample("x", p.dist.Normal(b, 1.0), obs=x)


def partly(x, p):
    """The last column is a covariate."""
    with p.plate("data", len(x)):
        a = p.sample("a", p.dist.Normal(x[:, 2], 1.0))
        p.sample("x0", p.dist.Normal(a, 1.0), obs=x[:, 0])
        p.sample("x1", p.dist.Normal(a, 1.0), obs=x[:, 1])


def computed(x, p):
    """The last column is a covariate of what is observed in a computed form."""
    with p.plate("data", len(x)):
        a = p.sample("a", p.dist.Normal(x[:, 2], 1.0))
        p.sample("x0", p.dist.Normal(a, 1.0), obs=2 * x[:, 0] + 1)
        p.sample("x1", p.dist.Normal(a, 1.0), obs=x[:, 1])


def labelled(x, k, p):
    """By a label in the prior of one latent, and in the likelihood of the other."""
    with p.plate("data", len(x)):
        a = p.sample("a", p.dist.Normal(0.5 * k, 1.0))
        b = p.sample("b", p.dist.Normal(a, 1.0))
        p.sample("x", p.dist.Normal(b * (1 + k), 1.0), obs=x)


def with_vector(x, w, c, p):
    """A vector for all data; of the other covariate nothing is read."""
    with p.plate("data", len(x)):
        a = p.sample("a", p.dist.Normal(w.sum() + 0.0 * len(c), 1.0))
        p.sample("x", p.dist.Normal(a, 1.0), obs=x)


def in_time(x, c, u, p):
    """A covariate of each datum and time, and one of each time."""
    with p.plate("data", len(x), dim=-2):
        a = p.sample("a", p.dist.Normal(0.0, 1.0))
        with p.plate("time", x.shape[1], dim=-1):
            v = p.sample("v", p.dist.Normal(a + c, 1.0))
            p.sample("x", p.dist.Normal(v + u, 1.0), obs=x)


def with_mask(x, m, p):
    with p.plate("data", len(x)):
        z = p.sample("z", p.dist.Normal(0.0, 1.0))
        with p.mask(m):
            p.sample("x", p.dist.Normal(z, 1.0), obs=x)


def inner(x, p):
    with p.plate("data", len(x), dim=-2):
        u = p.sample("u", p.dist.LogNormal(0.0, 1.0))
        with p.plate("time", x.shape[1], dim=-1):
            v = p.sample("v", p.dist.Normal(u, 1.0))
            p.sample("x", p.dist.Normal(v, 1.0), obs=x)


def within(x, p):
    """A latent with copies of its own for each datum."""
    with p.plate("data", len(x), dim=-1):
        w = p.sample("w", p.dist.Normal(0.0, 1.0))
        with p.plate("copies", 3, dim=-2):
            v = p.sample("v", p.dist.LogNormal(w, 1.0))
        p.sample("x", p.dist.Normal(v.sum(-2), 1.0), obs=x)


def masked(x, p):
    with p.plate("data", len(x)):
        with p.mask(x > 0):
            z = p.sample("z", p.dist.Normal(0.0, 1.0))
        p.sample("x", p.dist.Normal(z, 1.0), obs=x)


LABELS = torch.tensor([0, 2, 1, 1])
ORDERED = ("BottomUp", "Bidirectional", "Faithful")
TOP_DOWN = ("MeanField", "SelfReflective")
PLAIN = {
    "schools": (schools, (noise(8), 1 + noise(8).abs()), ORDERED),
    "schools-plate": (schools_in_a_plate, (noise(8), 1 + noise(8).abs()), (*TOP_DOWN, *ORDERED)),
    "groups": (groups, (noise(6, 4, 2, seed=2), noise(6, 4)), (*TOP_DOWN, *ORDERED)),
    "chains": (chains, (noise(6, 3),), (*TOP_DOWN, *ORDERED)),
    "copies": (copies, (noise(6, 3),), (*TOP_DOWN, *ORDERED)),
    "one-chain": (one_chain, (noise(3),), (*TOP_DOWN, *ORDERED)),
    "topics": (topics, (noise(6, 5).abs(),), (*TOP_DOWN, *ORDERED)),
    "bounded": (bounded, (noise(6, 2),), (*TOP_DOWN, *ORDERED)),
    "covariates": (covariates, (noise(6), noise(6)), (*TOP_DOWN, *ORDERED)),
    "partly": (partly, (noise(6, 3),), (*TOP_DOWN, *ORDERED)),
    "inner": (inner, (noise(4, 3),), ("Ladder", *TOP_DOWN, *ORDERED)),
    "within": (within, (noise(4),), ("Ladder", *TOP_DOWN, *ORDERED)),
    "masked": (masked, (noise(6),), ("Ladder", *TOP_DOWN)),
    "computed": (computed, (noise(6, 3),), (*TOP_DOWN, *ORDERED)),
    "labelled": (labelled, (noise(4), LABELS), (*TOP_DOWN, "Ladder", *ORDERED)),
    "with-vector": (with_vector, (noise(4), noise(2), noise(4)), (*TOP_DOWN, *ORDERED)),
    "in-time": (in_time, (noise(4, 3), noise(4, 3), noise(3)), (*TOP_DOWN, "Faithful")),
    "with-mask": (with_mask, (noise(4), noise(4) > 0), (*ORDERED, *TOP_DOWN)),
}

# NumPyro alone

X = np.linspace(-1.0, 1.0, 10).reshape(5, 2)


def two(x, names=("a", "b")):
    with numpyro.plate("data", len(x)):
        first = numpyro.sample(names[0], numpyro.distributions.Normal(jnp.zeros(2), 1.0).to_event(1))
        second = numpyro.sample(names[1], numpyro.distributions.Normal(first, 1.0).to_event(1))
        numpyro.sample("x", numpyro.distributions.Normal(second, 1.0).to_event(1), obs=x)


def normal(name, *args, **options):
    return numpyro.sample(name, numpyro.distributions.Normal(*args), **options)


def weighted(x):
    with numpyro.plate("data", len(x)):
        with handlers.scale(scale=0.5):
            z = normal("z", 0.0, 1.0)
        normal("x", z, 1.0, obs=x[:, 0])
