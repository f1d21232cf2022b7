"""Small graphs."""

from collections.abc import Callable, Mapping
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import nn

from .one_latent import ENCODER, VAE
from .pair import LOOSE, PAIRS, SURE, WRONG, add, parse
from .parts import Head, from_formula, normal, real

FORK = "p(a) p(b | a) p(c | a) p(xb | b) p(xc | c)"


def fork(reads: Mapping[str, tuple[str, ...]]) -> Callable:
    """a -> b -> xb, a -> c -> xc, and a guide that samples c, b, a."""

    def build():
        heads = nn.ModuleDict({"b": Head(2), "c": Head(2), "xb": Head(2, 3), "xc": Head(2, 3)})
        posteriors = nn.ModuleDict({z: Head(sum(3 if u[0] == "x" else 2 for u in reads[z])) for z in reads})

        def model(xb, xc):
            with pyro.plate("data", len(xb)):
                a = pyro.sample("a", normal())
                b, c = pyro.sample("b", heads["b"](a)), pyro.sample("c", heads["c"](a))
                pyro.sample("xb", heads["xb"](b), obs=xb)
                pyro.sample("xc", heads["xc"](c), obs=xc)

        def guide(xb, xc):
            values = {"xb": xb, "xc": xc}
            with pyro.plate("data", len(xb)):
                for z in reads:
                    values[z] = pyro.sample(z, posteriors[z](*(values[u] for u in reads[z])))

        return model, guide, (real(), real())

    return build


for name, formula, verdict, missing in (
    ("Pyro's posterior_dependencies", "q(c | xc) q(b | xb) q(a | b, c)", WRONG, {"c": {"xb"}, "b": {"c"}}),
    ("the same with all data", "q(c | xb, xc) q(b | xb, xc) q(a | b, c)", WRONG, {"b": {"c"}}),
    ("repaired", "q(c | xb, xc) q(b | c, xb) q(a | b, c)", (True, True, False), {}),
    ("top-down", "q(a | xb, xc) q(b | a, xb) q(c | a, xc)", SURE, {}),
):
    given = parse(formula, given=("xb", "xc")).parents
    add(f"fork, {name}", fork(given), FORK, formula, verdict, missing=missing)

COLLIDER = "p(a) p(b) p(x | a, b)"
COLLIDED, CROSSED = "q(a | x) q(b | x)", "q(a | x) q(b | a, x)"


def collider(mean: Callable, latent: Callable = normal):
    """Two roots a, b and x ~ N(mean(a, b), 1)."""

    def model(x):
        with pyro.plate("data", len(x)):
            a, b = pyro.sample("a", latent()), pyro.sample("b", latent())
            pyro.sample("x", dist.Normal(mean(a, b), 1.0).to_event(1), obs=x)

    return model


def added(a, b):
    return torch.cat([a + b, a[..., :1] * b[..., :1]], -1)


def written_in_place(a, b):
    mean = torch.zeros(*b.shape[:-1], 3)
    mean[..., :2] = a
    mean[..., 2].add_(a[..., 0])
    return mean + b.sum(-1, keepdim=True)


def mapped(a, b):
    return torch.vmap(lambda u, v: torch.cat([u + v, u[:1]]))(a, b)


def ignored(a, b):
    return torch.cat([b + 0 * a, b[..., :1]], -1)


def detached(a, b):
    return torch.cat([b, a.detach()[..., :1]], -1)


for name, mean in (
    ("collider", added),
    ("in-place writes", written_in_place),
    ("vmap", mapped),
    ("detached", detached),
):
    model = partial(collider, mean)
    missing = {"b": {"a"}}
    add(f"{name}, mean field", from_formula(model, COLLIDED, real), COLLIDER, COLLIDED, WRONG, missing=missing)
    add(f"{name}, one given the other", from_formula(model, CROSSED, real), COLLIDER, CROSSED, SURE)

add(
    *("a times zero", from_formula(lambda: collider(ignored), COLLIDED, real)),
    *("p(a) p(b) p(x | b)", COLLIDED, LOOSE),
    superfluous={"a": {"x"}},
)
add(
    *("a times zero, one given the other", from_formula(lambda: collider(ignored), CROSSED, real)),
    *("p(a) p(b) p(x | b)", CROSSED, (True, False, False)),
    superfluous={"a": {"x"}, "b": {"a"}},
)


def zero_weights():
    model, guide, args = PAIRS["vae"].build()
    head = nn.Linear(3, 2)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)

    def zero(x):
        pyro.module("zero", head)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(head(x), 1.0).to_event(1))

    return model, zero, args


add("weights that are zero", zero_weights, VAE, ENCODER, SURE)


def scalars(likelihood: Callable, given_first: bool) -> Callable:
    """Two scalar latents, no plate, and x as the likelihood makes of them; a guide with b given a or not."""

    def build():
        head, other = Head(1, 1), Head(2 if given_first else 1, 1)

        def model(x):
            a, b = pyro.sample("a", normal(1)), pyro.sample("b", normal(1))
            likelihood(a, b, x)

        def guide(x):
            a = pyro.sample("a", head(x))
            pyro.sample("b", other(x, a) if given_first else other(x))

        return model, guide, (torch.randn(1),)

    return build


def branch(a, b, x):
    pyro.sample("x", dist.Normal(b if a > 0 else -2 * b, 1.0).to_event(1), obs=x)


def item(a, b, x):
    pyro.sample("x", dist.Normal(b * a.item() + torch.tensor([a.tolist()[0]]), 1.0).to_event(1), obs=x)


def masked(a, b, x):
    with poutine.mask(mask=a[0] > 0):
        pyro.sample("x", dist.Normal(b, 1.0).to_event(1), obs=x)


def scaled(a, b, x):
    with poutine.scale(scale=1 + a[0].square()):
        pyro.sample("x", dist.Normal(b, 1.0).to_event(1), obs=x)


for name, likelihood in (("branch", branch), ("item", item), ("mask", masked), ("scale", scaled)):
    missing = {"b": {"a"}}
    add(f"{name}, mean field", scalars(likelihood, False), COLLIDER, COLLIDED, WRONG, missing=missing)
    add(f"{name}, one given the other", scalars(likelihood, True), COLLIDER, CROSSED, SURE)


def factored(repaired: bool) -> Callable:
    """a and b are coupled by a factor alone, x reads a."""

    def build():
        head, other = Head(3), Head(2 if repaired else 3)

        def model(x):
            with pyro.plate("data", len(x)):
                a, b = pyro.sample("a", normal()), pyro.sample("b", normal())
                pyro.factor("f", -(a - b).square().sum(-1))
                pyro.sample("x", dist.Normal(torch.cat([a, a[..., :1]], -1), 1.0).to_event(1), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                a = pyro.sample("a", head(x))
                pyro.sample("b", other(a if repaired else x))

        return model, guide, (real(),)

    return build


FACTOR = "p(a) p(b) p(f | a, b) p(x | a)"
NO_ARGUMENT = {"observed": ("f", "x"), "constant": {"a": ("f",), "b": ("f",)}, "printed": False}
add("factor, mean field", factored(False), FACTOR, COLLIDED, WRONG, missing={"b": {"a"}}, **NO_ARGUMENT)
add("factor, one given the other", factored(True), FACTOR, "q(a | x) q(b | a)", SURE, **NO_ARGUMENT)
