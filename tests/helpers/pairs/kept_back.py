"""Discrete pairs that were kept back: their verdicts were worked out by hand before the inspector saw any of them.

They are no cases of `PAIRS`, by which the inspector was made, but those of `test_discrete_pairs`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from .pair import parse

WIDTHS = {"k": 3, "o": 3, "b": 1, "v": 2, "n": 2, "x": 3}
# the kind of a site by its first letter
KINDS = {"k": "Categorical", "o": "one-hot", "b": "Bernoulli", "v": "vector of bits", "n": "Gaussian", "x": "data"}


class Kept(NamedTuple):
    """A pair, and what its guide lacks; it is faithful where that is nothing."""

    build: Callable[[], tuple]
    missing: Mapping[str, set[str]]


KEPT: dict[str, Kept] = {}


def code(site: str, value: torch.Tensor) -> torch.Tensor:
    """A value as a vector."""
    if site[0] == "k":
        return (value.unsqueeze(-1) == torch.arange(3)).to(torch.get_default_dtype())
    return value.unsqueeze(-1) if site[0] == "b" else value


def drawn(site: str, numbers: torch.Tensor) -> Any:
    """The distribution of a site, by the first letter of its name."""
    kind = site[0]
    if kind == "k":
        return dist.Categorical(logits=numbers)
    if kind == "o":
        return dist.OneHotCategorical(logits=numbers)
    if kind == "b":
        return dist.Bernoulli(logits=numbers.squeeze(-1))
    if kind == "v":
        return dist.Bernoulli(logits=numbers).to_event(1)
    return dist.Normal(numbers, 1.0).to_event(1)


class Formula(nn.Module):
    """The program that a formula says, each factor by a network; sites whose names begin with x are data."""

    def __init__(self, formula: str) -> None:
        super().__init__()
        data = tuple(re.findall(r"\bx\w*", formula)) if formula[0] == "q" else ()
        self.reads = dict(parse(formula, given=data).parents)
        self.nets = nn.ModuleDict()
        for site, parents in self.reads.items():
            width, size = sum(WIDTHS[u[0]] for u in parents), WIDTHS[site[0]]
            inner = [nn.Linear(max(width, 1), 8), nn.Tanh(), nn.Linear(8, size)]
            self.nets[site] = nn.Sequential(*inner)

    def forward(self, *data: torch.Tensor) -> None:
        """Run it on the data, in the order of their names."""
        n, names = len(data[0]), sorted({u for us in self.reads.values() for u in us} | set(self.reads))
        values = dict(zip([u for u in names if u[0] == "x"], data, strict=True))
        with pyro.plate("data", n):
            for site, parents in self.reads.items():
                read = [code(u, values[u]) for u in parents] or [torch.ones(n, 1)]
                fn = drawn(site, self.nets[site](torch.cat(read, -1)))
                values[site] = pyro.sample(site, fn, obs=values.get(site))


def keep(name: str, model: str, guide: str, missing: Mapping[str, set[str]] | None = None) -> None:
    """Keep the pair of two formulas; the guide takes all the data, whatever it reads of them."""

    def build() -> tuple:
        count = len(set(re.findall(r"\bx\w*", model)))
        p, q = Formula(model), Formula(guide)
        data = sorted({u for u in p.reads if u[0] == "x"})

        def of_guide(*args: torch.Tensor) -> None:
            values, n = dict(zip(data, args, strict=True)), len(args[0])
            with pyro.plate("data", n):
                for site, parents in q.reads.items():
                    read = [code(u, values[u]) for u in parents] or [torch.ones(n, 1)]
                    values[site] = pyro.sample(site, drawn(site, q.nets[site](torch.cat(read, -1))))

        return p, of_guide, tuple(torch.randn(4, 3) for _ in range(count))

    KEPT[name] = Kept(build, missing or {})


keep("one category", "p(k) p(x | k)", "q(k | x)")

CHAIN = "p(k1) p(x1 | k1) p(k2 | k1) p(x2 | k2) p(k3 | k2) p(x3 | k3)"
keep("chain, smoothed", CHAIN, "q(k1 | x1, x2, x3) q(k2 | k1, x2, x3) q(k3 | k2, x3)")
missing = {"k1": {"x2", "x3"}, "k2": {"x3"}}
keep("chain, filtered", CHAIN, "q(k1 | x1) q(k2 | k1, x2) q(k3 | k2, x3)", missing)
keep("chain, backwards", CHAIN, "q(k3 | x1, x2, x3) q(k2 | k3, x1, x2) q(k1 | k2, x1)")
# k2 needs k1, x2, x3; k3 needs k2, x3
apart = "q(k1 | x1, x2, x3) q(k2 | x1, x2, x3) q(k3 | x1, x2, x3)"
keep("chain, states apart", CHAIN, apart, {"k2": {"k1"}, "k3": {"k2"}})

# z2 has the datum x2 beneath it: given that, the second switch is tied to the first position, and so to x1
SWITCHING = "p(k1) p(n1 | k1) p(x1 | n1) p(k2 | k1) p(n2 | n1, k2) p(x2 | n2)"
whole = "q(k1 | x1, x2) q(k2 | k1, x1, x2) q(n1 | k1, k2, x1, x2) q(n2 | n1, k2, x2)"
keep("switching", SWITCHING, whole)
blind = "q(k1 | x1, x2) q(k2 | k1, x1, x2) q(n1 | x1, x2) q(n2 | n1, x2)"
keep("switching, positions blind to the switches", SWITCHING, blind, {"n1": {"k1", "k2"}, "n2": {"k2"}})

CAUSES = "p(b1) p(b2) p(x | b1, b2)"
keep("two causes apart", CAUSES, "q(b1 | x) q(b2 | x)", {"b2": {"b1"}})
keep("two causes, one given the other", CAUSES, "q(b1 | x) q(b2 | b1, x)")

TREE = "p(k) p(b1 | k) p(b2 | k) p(x1 | b1) p(x2 | b2)"
keep("tree, from its root", TREE, "q(k | x1, x2) q(b1 | k, x1) q(b2 | k, x2)")
keep("tree, from its leaves", TREE, "q(b1 | x1, x2) q(b2 | b1, x2) q(k | b1, b2)")
keep("tree, leaves apart", TREE, "q(b1 | x1) q(b2 | x2) q(k | b1, b2)", {"b1": {"x2"}, "b2": {"b1"}})

keep("label after the code", "p(k) p(n) p(x | k, n)", "q(n | x) q(k | n, x)")
CLUSTERED = "p(k) p(n | k) p(x | n)"
keep("cluster given its code", CLUSTERED, "q(n | x) q(k | n)")
keep("cluster, code without it", CLUSTERED, "q(k | x) q(n | x)", {"n": {"k"}})

MIXED = "p(v) p(o | v) p(x | o, v)"
keep("bits and a one-hot, apart", MIXED, "q(v | x) q(o | x)", {"o": {"v"}})
keep("bits after a one-hot", MIXED, "q(o | x) q(v | o, x)")


def parity() -> tuple:
    """Of the parity of two fair coins the data tell; of one coin alone the numbers tell nothing, but the graph does."""
    net = nn.Linear(4, 1)

    def model(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            b1, b2 = pyro.sample("b1", dist.Bernoulli(0.5)), pyro.sample("b2", dist.Bernoulli(0.5))
            odd = b1 + b2 - 2 * b1 * b2
            pyro.sample("x", dist.Normal(3 * odd.unsqueeze(-1).expand(*odd.shape, 3), 1.0).to_event(1), obs=x)

    def guide(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            b1 = pyro.sample("b1", dist.Bernoulli(0.5))
            read = torch.cat([b1.unsqueeze(-1), x], -1)
            pyro.sample("b2", dist.Bernoulli(logits=net(read).squeeze(-1)))

    return model, guide, (torch.randn(4, 3),)


KEPT["parity of two coins"] = Kept(parity, {"b1": {"x"}})


def topics(reads: bool) -> Callable[[], tuple]:
    """Words of documents by topics; the topic of a word is read off the word, and of its document's mixture if so."""

    def build() -> tuple:
        of_topics, mixture, topic = torch.randn(3, 5), nn.Linear(5, 3), nn.Linear(8, 3)

        def model(x: torch.Tensor) -> None:
            with pyro.plate("documents", x.shape[0], dim=-2):
                theta = pyro.sample("theta", dist.Dirichlet(torch.ones(3)))
                with pyro.plate("words", x.shape[1], dim=-1):
                    z = pyro.sample("z", dist.Categorical(theta))
                    pyro.sample("x", dist.Categorical(logits=of_topics[z]), obs=x)

        def guide(x: torch.Tensor) -> None:
            words = (x.unsqueeze(-1) == torch.arange(5)).to(torch.get_default_dtype())
            with pyro.plate("documents", x.shape[0], dim=-2):
                counts = words.sum(-2, keepdim=True)
                theta = pyro.sample("theta", dist.Dirichlet(mixture(counts).exp() + 0.1))
                with pyro.plate("words", x.shape[1], dim=-1):
                    others = theta if reads else torch.ones_like(theta)
                    read = torch.cat([words, others.expand(*words.shape[:-1], 3)], -1)
                    pyro.sample("z", dist.Categorical(logits=topic(read)))

        return model, guide, (torch.randint(0, 5, (4, 6)),)

    return build


KEPT["topics"] = Kept(topics(True), {})
KEPT["topics, words apart"] = Kept(topics(False), {"z": {"theta"}})
