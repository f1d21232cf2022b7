"""Discrete latents."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import config_enumerate
from torch import nn
from torch.nn.functional import one_hot

from .pair import SURE, WRONG, add, pair
from .parts import Head, normal, real


def mixture(reads_k_from: str) -> Callable:
    """k -> z -> x."""

    def build():
        prior, decoder, head = Head(3), Head(2, 3), Head(3)
        logits = nn.Linear(2 if reads_k_from == "z" else 3, 3)

        def model(x):
            with pyro.plate("data", len(x)):
                k = pyro.sample("k", dist.Categorical(torch.ones(3) / 3))
                z = pyro.sample("z", prior(one_hot(k, 3).to(x.dtype)))
                pyro.sample("x", decoder(z), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", head(x))
                pyro.sample("k", dist.Categorical(logits=logits(z if reads_k_from == "z" else x)))

        return model, guide, (real(),)

    return build


MIXTURE = "p(k) p(z | k) p(x | z)"
add("mixture", mixture("z"), MIXTURE, "q(z | x) q(k | z)", SURE)
add("mixture, mean field", mixture("x"), MIXTURE, "q(z | x) q(k | x)", WRONG, missing={"k": {"z"}})


def switch(reads: bool) -> Callable:
    """A Bernoulli site k first, in both programs."""

    def build():
        decoder, logit, head = Head(3, 3), nn.Linear(3, 1), Head(4 if reads else 3)

        def model(x):
            with pyro.plate("data", len(x)):
                k = pyro.sample("k", dist.Bernoulli(0.4))
                z = pyro.sample("z", normal())
                pyro.sample("x", decoder(z, k.unsqueeze(-1)), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                k = pyro.sample("k", dist.Bernoulli(logits=logit(x).squeeze(-1)))
                pyro.sample("z", head(x, k.unsqueeze(-1)) if reads else head(x))

        return model, guide, (real(),)

    return build


SWITCH = "p(k) p(z) p(x | k, z)"
add("switch", switch(True), SWITCH, "q(k | x) q(z | k, x)", SURE)
add("switch, mean field", switch(False), SWITCH, "q(k | x) q(z | x)", WRONG, missing={"z": {"k"}})


@pair(MIXTURE, "q(z | x)", SURE)
def enumerated():
    """k is summed out of the posterior."""
    prior, decoder, head = Head(3), Head(2, 3), Head(3)

    @config_enumerate
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(3) / 3), infer={"enumerate": "parallel"})
            z = pyro.sample("z", prior(one_hot(k, 3).to(x.dtype)))
            pyro.sample("x", decoder(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", head(x))

    return model, guide, (real(),)


@pair("p(k) p(a | k) p(b | k) p(xa | a) p(xb | b)", "q(a | xa) q(b | xb)", WRONG, missing={"a": {"xb"}, "b": {"a"}})
def enumerated_cause():
    """Summed out, k couples a and b."""
    priors, heads = nn.ModuleList([Head(3), Head(3)]), nn.ModuleList([Head(3), Head(3)])

    def model(xa, xb):
        with pyro.plate("data", len(xa)):
            k = pyro.sample("k", dist.Categorical(torch.ones(3) / 3), infer={"enumerate": "parallel"})
            code = one_hot(k, 3).to(xa.dtype)
            a, b = pyro.sample("a", priors[0](code)), pyro.sample("b", priors[1](code))
            pyro.sample("xa", dist.Normal(a[..., [0, 1, 0]], 1.0).to_event(1), obs=xa)
            pyro.sample("xb", dist.Normal(b[..., [0, 1, 0]], 1.0).to_event(1), obs=xb)

    def guide(xa, xb):
        with pyro.plate("data", len(xa)):
            pyro.sample("a", heads[0](xa)), pyro.sample("b", heads[1](xb))

    return model, guide, (real(), real())


def labelled(observed: bool, reads: bool) -> Callable:
    """x given a label y and z; y is data or a latent."""

    def build():
        decoder, head, logits = Head(5, 3), Head(6 if reads else 3), nn.Linear(3, 3)

        def model(x, y=None):
            with pyro.plate("data", len(x)):
                y = pyro.sample("y", dist.Categorical(torch.ones(3) / 3), obs=y)
                z = pyro.sample("z", normal())
                pyro.sample("x", decoder(z, one_hot(y, 3).to(x.dtype)), obs=x)

        def guide(x, y=None):
            with pyro.plate("data", len(x)):
                if y is None:
                    y = pyro.sample("y", dist.Categorical(logits=logits(x)))
                pyro.sample("z", head(x, one_hot(y, 3).to(x.dtype)) if reads else head(x))

        return model, guide, (real(), torch.tensor([0, 2, 1])) if observed else (real(),)

    return build


LABELLED, BOTH = "p(y) p(z) p(x | y, z)", {"observed": ("y", "x")}
add("label observed", labelled(True, True), LABELLED, "q(z | y, x)", SURE, **BOTH)
add("label observed, not read", labelled(True, False), LABELLED, "q(z | x)", WRONG, missing={"z": {"y"}}, **BOTH)
add("label latent", labelled(False, True), LABELLED, "q(y | x) q(z | y, x)", SURE)
add("label latent, not read", labelled(False, False), LABELLED, "q(y | x) q(z | x)", WRONG, missing={"z": {"y"}})
