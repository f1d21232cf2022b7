"""Autoguides: global latents, x a constant."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import autoguide

from .pair import ANY, SURE, WRONG, add, parse

CHAIN = "p(a) p(b | a) p(c | b) p(x | c)"
SQUARE = "p(a) p(b) p(c) p(d) p(xab | a, b) p(xbc | b, c) p(xcd | c, d) p(xda | d, a)"


def chain(x):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(a.tanh(), 0.5 + a.square()))
    c = pyro.sample("c", dist.Normal(b.tanh(), 0.5 + b.square()))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(c, 1.0), obs=x)


def square(xab, xbc, xcd, xda):
    a, b, c, d = (pyro.sample(name, dist.Normal(0.0, 1.0)) for name in "abcd")
    for name, u, v, x in (("xab", a, b, xab), ("xbc", b, c, xbc), ("xcd", c, d, xcd), ("xda", d, a, xda)):
        pyro.sample(name, dist.Normal(u * v + u, 1.0), obs=x)


def automatic(model: Callable, make: Callable, called: bool = True) -> Callable:
    def build():
        args = (torch.randn(3),) if model is chain else tuple(torch.randn(4))
        guide = make(model)
        if called:
            guide(*args)
        return model, guide, args

    return build


def structured(model: Callable):
    """AutoStructured with the parents that the exact posterior needs."""
    latents, observed = ("a", "b", "c", "d"), ("xab", "xbc", "xcd", "xda")
    inverse = parse(SQUARE, observed).faithful_inverse("top-down")
    edges = {z: {u: "linear" for u in inverse.parents[z] if u in latents} for z in latents}
    return autoguide.AutoStructured(model, conditionals=dict.fromkeys(latents, "normal"), dependencies=edges)


CHAIN_CLIQUE = "q(a) q(b | a) q(c | a, b)"
SQUARE_CLIQUE = "q(a) q(b | a) q(c | a, b) q(d | a, b, c)"
AUTO = {
    "chain": (chain, CHAIN, ("x",), "abc"),
    "square": (square, SQUARE, ("xab", "xbc", "xcd", "xda"), "abcd"),
}
FULL = (True, False, False)
for kind, name, make, guide, verdict, options in (
    ("chain", "AutoNormal", autoguide.AutoNormal, "q(a) q(b) q(c)", WRONG, {"missing": {"b": {"a"}, "c": {"b"}}}),
    *(
        ("chain", cls.__name__, cls, "q(a) q(b) q(c)", WRONG, {"missing": {"b": {"a"}, "c": {"b"}}})
        for cls in (autoguide.AutoDiagonalNormal,)
    ),
    *(
        ("chain", cls.__name__, cls, CHAIN_CLIQUE, FULL, {"superfluous": {"c": {"a"}}})
        for cls in (autoguide.AutoMultivariateNormal, autoguide.AutoLowRankMultivariateNormal)
    ),
    ("chain", "AutoStructured", autoguide.AutoStructured, "q(a) q(b | a) q(c | b)", SURE, {}),
    ("chain", "AutoGaussian", autoguide.AutoGaussian, "q(a) q(b | a) q(c | b)", SURE, {}),
    ("square", "AutoMultivariateNormal", autoguide.AutoMultivariateNormal, SQUARE_CLIQUE, FULL, {"superfluous": ANY}),
    (
        *("square", "AutoStructured", autoguide.AutoStructured, "q(a) q(b | a) q(c | b) q(d | a, c)", WRONG),
        {"missing": {"c": {"a"}}},
    ),
    (
        *("square", "AutoStructured as needed", structured, "q(a) q(b | a) q(c | a, b) q(d | a, c)"),
        *((True, True, False), {}),
    ),
    ("square", "AutoGaussian", autoguide.AutoGaussian, SQUARE_CLIQUE, (True, ANY, ANY), {"superfluous": ANY}),
):
    model, formula, data, latents = AUTO[kind]
    add(
        *(f"{kind}, {name}", automatic(model, make, called=name != "AutoDiagonalNormal"), formula, guide, verdict),
        constant=dict.fromkeys(latents, data),
        printed=False,
        **options,
    )
