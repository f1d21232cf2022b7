"""Globals and locals."""

from collections.abc import Callable
from contextlib import nullcontext

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


def group_effects(effects: str) -> Callable:
    """Effects of two groups, which the data name by an index; all else is free. `effects`: what they read."""

    def build():
        head, group = Head(3, 1), torch.tensor([0, 1, 0])

        def model(y, group):
            mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
            with pyro.plate("groups", 2):
                a = pyro.sample("a", dist.Normal(mu, 1.0))
            with pyro.plate("data", len(y)):
                pyro.sample("y", dist.Normal(a[group], 1.0), obs=y)

        def guide(y, group):
            mu = pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0))
            total = torch.zeros(2, dtype=y.dtype).index_add(0, group, y.tanh())
            count = torch.zeros(2, dtype=y.dtype).index_add(0, group, torch.ones_like(y))
            own = pyro.param("own", torch.randn(2)) if effects == "numbers of their own" else 0.1
            known = mu.expand(2) if effects != "data alone" else torch.zeros(2, dtype=y.dtype)
            with pyro.plate("groups", 2):
                if effects.startswith("data"):
                    loc, scale = (n.squeeze(-1) for n in head.numbers(torch.stack([total, count, known], -1)))
                    pyro.sample("a", dist.Normal(loc, scale))
                else:
                    pyro.sample("a", dist.Normal(own + 0.5 * known, 1.0))

        return model, guide, (torch.randn(3), group)

    return build


GROUPS = "p(mu) p(group) p(a | mu) p(y | a, group)"
IN_GROUPS = {"observed": ("group", "y"), "printed": False}
for effects, formula, verdict, options in (
    ("data and mu", "q(mu) q(a | mu, group, y)", SURE, {"constant": {"mu": ("group", "y")}}),
    ("data alone", "q(mu) q(a | group, y)", WRONG, {"constant": {"mu": ("group", "y")}, "missing": {"a": {"mu"}}}),
    ("numbers of their own", "q(mu) q(a | mu)", SURE, {"constant": dict.fromkeys(("mu", "a"), ("group", "y"))}),
    (
        *("the same numbers", "q(mu) q(a | mu)", WRONG),
        {"constant": {"mu": ("group", "y"), "a": ("group",)}, "missing": {"a": {"y"}}},
    ),
):
    add(f"effects of groups by {effects}", group_effects(effects), GROUPS, formula, verdict, **IN_GROUPS, **options)


def regression(where: str, reads: bool) -> Callable:
    """Covariates c of data y, needed by weights for all of them, or by a latent of each."""

    def build():
        head = Head(2, 1)

        def model(y, c):
            with pyro.plate("data", len(y)) if where == "inside" else nullcontext():
                w = pyro.sample("w", dist.Normal(0.0, 1.0))
            with pyro.plate("data", len(y)):
                pyro.sample("y", dist.Normal((w * c).tanh(), 1.0), obs=y)

        def guide(y, c):
            both = torch.stack([y.tanh(), c if reads else torch.ones_like(c)], -1)
            with pyro.plate("data", len(y)) if where == "inside" else nullcontext():
                loc, scale = (n.squeeze(-1) for n in head.numbers(both if where == "inside" else both.sum(0)))
                pyro.sample("w", dist.Normal(loc, scale))

        return model, guide, (torch.randn(3), torch.randn(3))

    return build


WEIGHTED, WITH_DATA = "p(w) p(c) p(y | w, c)", {"observed": ("c", "y"), "printed": False}
add("covariate inside, read", regression("inside", True), WEIGHTED, "q(w | c, y)", SURE, **WITH_DATA)
add(
    *("covariate inside, not read", regression("inside", False), WEIGHTED, "q(w | y)", WRONG),
    missing={"w": {"c"}},
    **WITH_DATA,
)
add("covariate outside, read", regression("outside", True), WEIGHTED, "q(w | c, y)", SURE, **WITH_DATA)
add(
    *("covariate outside, not read", regression("outside", False), WEIGHTED, "q(w | y)", SURE),
    constant={"w": ("c",)},
    says=("it may take c for fixed numbers",),
    **WITH_DATA,
)
