"""Models, guides and what theory says of them: the cases of test_verdicts. Plain Pyro programs on purpose."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import torch
from pyro import poutine
from pyro.infer import autoguide, config_enumerate
from pyro.nn import DenseNN, PyroModule
from torch import nn
from torch.nn.functional import one_hot, softplus

from ppl_models.factorization import Factorization

ANY = "any"  # theory has no word on it, or none that a report must repeat
SURE = (True, True, True)
WRONG = (False, False, False)
LOOSE = (True, False, True)  # faithful, with an edge from the data too many
UNKNOWN = (None, None, None)


def parse(formula: str, observed: tuple[str, ...] = (), given: tuple[str, ...] = ()) -> Factorization:
    """The `Factorization` that prints as `formula`."""
    parents = {}
    for site, behind in re.findall(r"[pq]\((\w+)(?: \| ([^)]*))?\)", formula):
        parents[site] = tuple(re.findall(r"\w+", behind))
    return Factorization(parents, observed, given, letter=formula[0])


@dataclass(frozen=True)
class Pair:
    """A model and a guide with their verdict.

    `build` gives (model, guide, args). `model` and `guide` are the factorizations of sites, as formulas. `constant`
    maps a site whose factor has numbers of its own for these data to the data; `determined` is that of `judge`.
    `printed` is False where a report may name nodes in another way than the formulas do.
    """

    build: Callable[[], tuple]
    model: str
    guide: str
    verdict: tuple
    missing: Mapping[str, set[str]] = field(default_factory=dict)
    superfluous: Mapping[str, set[str]] = field(default_factory=dict)
    observed: tuple[str, ...] = ()
    constant: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    determined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    level: str = "site"
    printed: bool = True
    says: tuple[str, ...] = ()

    def factorizations(self) -> tuple[Factorization, Factorization]:
        """Both, hand-written."""
        names = re.findall(r"p\((\w+)", self.model)
        observed = self.observed or tuple(n for n in names if n[0] == "x")
        return parse(self.model, observed), parse(self.guide, given=observed)


PAIRS: dict[str, Pair] = {}


def pair(model: str, guide: str, verdict: tuple, **options: Any) -> Callable:
    """Register what a function builds under its name."""

    def register(build: Callable) -> Callable:
        add(build.__name__, build, model, guide, verdict, **options)
        return build

    return register


def add(name: str, build: Callable, model: str, guide: str, verdict: tuple, **options: Any) -> None:
    assert name not in PAIRS, name
    PAIRS[name] = Pair(build, model, guide, verdict, **options)


# What programs are made of


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


# A latent and its data


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


# A hierarchy


def hierarchy(skip: bool = False, layers: int = 3):
    """zL -> ... -> z1 -> x, and z2 -> x if `skip`; a PyroModule."""

    class Hierarchy(PyroModule):
        def __init__(self):
            super().__init__()
            self.priors = nn.ModuleList(Head(2) for _ in range(layers - 1))
            self.decoder = Pixels(4 if skip else 2)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                values = [pyro.sample(f"z{layers}", normal())]
                for i, prior in enumerate(self.priors):
                    values.append(pyro.sample(f"z{layers - 1 - i}", prior(values[-1])))
                pyro.sample("x", self.decoder(*(values[-1:-3:-1] if skip else values[-1:])), obs=x)

    return Hierarchy()


HVAE = "p(z3) p(z2 | z3) p(z1 | z2) p(x | z1)"
HVAE2 = "p(z2) p(z1 | z2) p(x | z1)"
SKIP = "p(z3) p(z2 | z3) p(z1 | z2) p(x | z1, z2)"
UP = "q(z1 | x) q(z2 | z1) q(z3 | z2)"
UP_READING = "q(z1 | x) q(z2 | z1, x) q(z3 | z2)"
FLAT = "q(z1 | x) q(z2 | x) q(z3 | x)"
DOWN = "q(z3 | x) q(z2 | z3, x) q(z1 | z2, x)"
DOWN2 = "q(z2 | x) q(z1 | z2, x)"


def skipping():
    return hierarchy(skip=True)


def two_layers():
    return hierarchy(layers=2)


add(
    *("hierarchy, mean field", from_formula(hierarchy, FLAT, binary), HVAE, FLAT, WRONG),
    missing={"z2": {"z1"}, "z3": {"z2"}},
    says=("z2 - z1", "z3 - z2"),
)
add("hierarchy, bottom-up", from_formula(hierarchy, UP, binary), HVAE, UP, SURE)
add(
    *("hierarchy, bottom-up reading x", from_formula(hierarchy, UP_READING, binary), HVAE, UP_READING, LOOSE),
    superfluous={"z2": {"x"}},
)
add("hierarchy, ladder", from_formula(hierarchy, DOWN, binary), HVAE, DOWN, SURE)
add("hierarchy, self-reflective", from_formula(hierarchy, DOWN, binary, ConditionalFlowHead), HVAE, DOWN, SURE)
add(
    *("two layers, ladder, elements", from_formula(two_layers, DOWN2, binary), HVAE2, DOWN2, WRONG),
    missing={"z2.1": {"z2.0"}, "z1.1": {"z1.0"}},
    level="element",
)
add(
    *("two layers, self-reflective, elements", from_formula(two_layers, DOWN2, binary, ConditionalFlowHead)),
    *(HVAE2, DOWN2, SURE),
    level="element",
)
add("skip, ladder", from_formula(skipping, DOWN, binary), SKIP, DOWN, SURE)
add("skip, bottom-up reading x", from_formula(skipping, UP_READING, binary), SKIP, UP_READING, SURE)
add("skip, bottom-up", from_formula(skipping, UP, binary), SKIP, UP, WRONG, missing={"z2": {"x"}})
PARTIAL = "q(z3 | x) q(z2 | z3) q(z1 | z2, x)"
add("hierarchy, x missing", from_formula(hierarchy, PARTIAL, binary), HVAE, PARTIAL, WRONG, missing={"z2": {"x"}})
CLIQUE = "q(z3 | x) q(z2 | z3, x) q(z1 | z2, z3, x)"
add(
    *("hierarchy, all above", from_formula(hierarchy, CLIQUE, binary), HVAE, CLIQUE, (True, False, False)),
    superfluous={"z1": {"z3"}},
)


def dlgm():
    """Independent noise at every layer of a deterministic decoder; closures over nn.Modules."""
    states = nn.ModuleList(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)) for _ in range(3))
    decoder = Pixels(2)

    def model(x):
        with pyro.plate("data", len(x)):
            h = 0.0
            for layer in (3, 2, 1):
                h = states[layer - 1](h + pyro.sample(f"z{layer}", normal()))
            pyro.sample("x", decoder(h), obs=x)

    return model


DLGM = "p(z3) p(z2) p(z1) p(x | z3, z2, z1)"
add(
    *("DLGM, mean field", from_formula(dlgm, FLAT, binary), DLGM, FLAT, WRONG),
    missing={"z2": {"z1"}, "z3": {"z1", "z2"}},
)
add(
    *("DLGM, bottom-up", from_formula(dlgm, UP, binary), DLGM, UP, WRONG),
    missing={"z2": {"x"}, "z3": {"x", "z1"}},
    superfluous={"z2": {"z1"}, "z3": {"z2"}},
)
UP_ALL = "q(z1 | x) q(z2 | z1, x) q(z3 | z1, z2, x)"
add("DLGM, clique", from_formula(dlgm, UP_ALL, binary), DLGM, UP_ALL, SURE)


# A state space, one sequence, no plate


def state_space():
    transition, emission = Head(2), Head(2, 3)

    def model(x):
        z = pyro.sample("z0", normal())
        for t in range(len(x)):
            z = z if t == 0 else pyro.sample(f"z{t}", transition(z))
            pyro.sample(f"x{t}", emission(z), obs=x[t])

    return model


def recurrent(way: str, mean_field: bool = False):
    gru = nn.GRU(3, 8, bidirectional=way == "both")
    head = Head((16 if way == "both" else 8) + (0 if mean_field else 2))
    start = nn.Parameter(torch.randn(2))

    def guide(x):
        pyro.module("gru", gru)
        pyro.module("head", head)
        h = gru(x.flip(0))[0].flip(0) if way == "backward" else gru(x)[0]
        z = pyro.param("start", lambda: start.detach().clone())
        for t in range(len(x)):
            z = pyro.sample(f"z{t}", head(h[t]) if mean_field else head(h[t], z))

    return guide


def in_time(way: str, mean_field: bool = False) -> tuple[Callable, str]:
    """A builder of the pair, and the guide's formula."""
    reads = {"forward": lambda t: range(t + 1), "backward": lambda t: range(t, 4), "both": lambda t: range(4)}[way]
    factors = []
    for t in range(4):
        behind = [f"z{t - 1}"] if t and not mean_field else []
        factors.append(f"q(z{t} | {', '.join(behind + [f'x{s}' for s in reads(t)])})")
    return lambda: (state_space(), recurrent(way, mean_field), (real(4),)), " ".join(factors)


STEPS = " ".join(f"p(z{t} | z{t - 1}) p(x{t} | z{t})" if t else "p(z0) p(x0 | z0)" for t in range(4))
PAST = {f"z{t}": {f"x{s}" for s in range(t)} for t in range(1, 4)}
FUTURE = {f"z{t}": {f"x{s}" for s in range(t + 1, 4)} for t in range(3)}

build, formula = in_time("forward")
add(
    *("state space, filtering", build, STEPS, formula, WRONG),
    missing=FUTURE,
    superfluous=PAST,
    says=("z0 - z1 - x1",),
)
build, formula = in_time("backward")
add("state space, smoothing", build, STEPS, formula, SURE)
build, formula = in_time("both")
add("state space, bidirectional", build, STEPS, formula, LOOSE, superfluous=PAST)
build, formula = in_time("both", mean_field=True)
add(
    *("state space, mean field", build, STEPS, formula, WRONG),
    missing={f"z{t}": {f"z{t - 1}"} for t in range(1, 4)},
    superfluous={},
)


# Globals and locals

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


# Deterministic latents, G+


def reflective_model(skip: bool = False):
    """e_l, then z_l = f_l(e_l; z_{l-1}) and a block of the data that reads the block before."""
    maps = nn.ModuleList(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4)) for _ in range(3))
    heads = nn.ModuleList(Head(2 + (3 if i else 0) + (2 if skip and i == 2 else 0), 3) for i in range(3))

    def push(layer, e, above):
        loc, scale = maps[layer](torch.zeros_like(e) if above is None else above).chunk(2, -1)
        return pyro.deterministic(f"z{layer + 1}", loc + scale.tanh().exp() * e, event_dim=1)

    def model(x):
        pyro.module("maps", maps)
        pyro.module("heads", heads)
        blocks, values = x.split(3, -1), []
        with pyro.plate("data", len(x)):
            for i in range(3):
                e = pyro.sample(f"e{i + 1}", normal())
                values.append(push(i, e, values[-1] if i else None))
                before = [blocks[i - 1]] if i else []
                before += [values[0]] if skip and i == 2 else []
                pyro.sample(f"x{i + 1}", heads[i](values[-1], *before), obs=blocks[i])

    return model, push


def reflective(skip: bool, reads: str) -> Callable:
    """reads: "z" above, "nothing" above, every "e" above."""

    def build():
        model, push = reflective_model(skip)
        heads = nn.ModuleList(Head(9 + {"z": 2 * bool(i), "nothing": 0, "e": 2 * i}[reads]) for i in range(3))

        def guide(x):
            pyro.module("posteriors", heads)
            es, z = [], None
            with pyro.plate("data", len(x)):
                for i in range(3):
                    above = {"z": [z] if i else [], "nothing": [], "e": es}[reads]
                    es.append(pyro.sample(f"e{i + 1}", heads[i](x, *above)))
                    z = push(i, es[-1], z)

        return model, guide, (real(3, 9),)

    return build


SERE = (
    "p(e1) p(z1 | e1) p(x1 | z1) p(e2) p(z2 | e2, z1) p(x2 | z2, x1) p(e3) p(z3 | e3, z2) p(x3 | z3, x2)",
    "p(e1) p(z1 | e1) p(x1 | z1) p(e2) p(z2 | e2, z1) p(x2 | z2, x1) p(e3) p(z3 | e3, z2) p(x3 | z3, x2, z1)",
)


def reflective_formula(reads: str) -> str:
    x, text = "x1, x2, x3", []
    for i in (1, 2, 3):
        above = {"z": [f"z{i - 1}"] if i > 1 else [], "nothing": [], "e": [f"e{j}" for j in range(1, i)]}[reads]
        text.append(f"q(e{i} | {', '.join([*above, x])}) q(z{i} | {', '.join([f'e{i}', *[f'z{i - 1}'][: i - 1]])})")
    return " ".join(text)


G_PLUS = {"determined": {"z1": ("e1",), "z2": ("e2",), "z3": ("e3",)}, "printed": False}
add(
    *("self-reflective, G+", reflective(False, "z"), SERE[0], reflective_formula("z"), (True, False, ANY)),
    superfluous={"e3": {"x1"}},
    **G_PLUS,
)
add(
    *("self-reflective, skip, G+", reflective(True, "z"), SERE[1], reflective_formula("z"), WRONG),
    missing={"e3": {"z1"}},
    superfluous=ANY,
    says=("e3 - z3 - z1",),
    **G_PLUS,
)
add(
    *("self-reflective, mean field, G+", reflective(False, "nothing"), SERE[0], reflective_formula("nothing"), WRONG),
    missing={"e2": {"z1"}, "e3": {"z2"}},
    superfluous=ANY,
    **G_PLUS,
)
add(
    *("self-reflective, by noise, G+", reflective(False, "e"), SERE[0], reflective_formula("e"), (True, ANY, ANY)),
    superfluous=ANY,
    **G_PLUS,
)


# Small graphs

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


# Discrete latents


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


# Data: closed over, subsampled, in several plates, read by the prior


def closed_over(layers: int) -> Callable:
    """No arguments: the data are constants of both programs."""

    def build():
        x, decoder = real(), Head(2 * layers, 3)
        heads = nn.ModuleList(Head(3) for _ in range(layers))

        def model():
            with pyro.plate("data", 3):
                z = [pyro.sample(f"z{i + 1}", normal()) for i in range(layers)]
                pyro.sample("x", decoder(*z), obs=x)

        def guide():
            with pyro.plate("data", 3):
                for i, head in enumerate(heads):
                    pyro.sample(f"z{i + 1}", head(x))

        return model, guide, ()

    return build


add("closed over", closed_over(1), "p(z1) p(x | z1)", "q(z1)", SURE, constant={"z1": ("x",)}, printed=False)
add(
    *("closed over, mean field", closed_over(2), "p(z1) p(z2) p(x | z1, z2)", "q(z1) q(z2)", WRONG),
    missing={"z2": {"z1"}},
    constant={"z1": ("x",), "z2": ("x",)},
    printed=False,
)


@pair(VAE, ENCODER, SURE)
def subsampled():
    """A plate of 6 data, 3 at a time."""
    decoder, head = Head(2, 3), Head(3)

    def model(x):
        with pyro.plate("data", len(x), subsample_size=3) as i:
            z = pyro.sample("z", normal())
            pyro.sample("x", decoder(z), obs=x[i])

    def guide(x):
        with pyro.plate("data", len(x), subsample_size=3) as i:
            pyro.sample("z", head(x[i]))

    return model, guide, (real(6),)


def nested(reads: bool) -> Callable:
    """u in an outer plate, z and x in an inner one, too."""

    def build():
        prior, decoder, top, head = Head(2), Head(2, 3), Head(3), Head(5 if reads else 3)

        def model(x):
            with pyro.plate("groups", x.shape[0], dim=-2):
                u = pyro.sample("u", normal())
                with pyro.plate("data", x.shape[1], dim=-1):
                    z = pyro.sample("z", prior(u.expand(*x.shape[:2], 2)))
                    pyro.sample("x", decoder(z), obs=x)

        def guide(x):
            with pyro.plate("groups", x.shape[0], dim=-2):
                u = pyro.sample("u", top(x.tanh().sum(1, keepdim=True)))
                with pyro.plate("data", x.shape[1], dim=-1):
                    pyro.sample("z", head(x, u.expand(*x.shape[:2], 2)) if reads else head(x))

        return model, guide, (torch.randn(2, 3, 3),)

    return build


NESTED = "p(u) p(z | u) p(x | z)"
add("nested plates", nested(True), NESTED, "q(u | x) q(z | u, x)", SURE)
add("nested plates, mean field", nested(False), NESTED, "q(u | x) q(z | x)", WRONG, missing={"z": {"u"}})


def crossed(reads: bool) -> Callable:
    """x_ij ~ N(a_i + b_j, 1), with variational parameters for every copy."""

    def build():
        def model(x):
            rows, columns = pyro.plate("rows", x.shape[0], dim=-2), pyro.plate("columns", x.shape[1], dim=-1)
            with rows:
                a = pyro.sample("a", dist.Normal(0.0, 1.0))
            with columns:
                b = pyro.sample("b", dist.Normal(0.0, 1.0))
            with rows, columns:
                pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)

        def guide(x):
            n, m = x.shape
            with pyro.plate("rows", n, dim=-2):
                a = pyro.sample("a", dist.Normal(pyro.param("a_loc", torch.randn(n, 1)), 0.5))
            with pyro.plate("columns", m, dim=-1):
                shift = -a.mean(-2, keepdim=True) if reads else 0.0
                pyro.sample("b", dist.Normal(pyro.param("b_loc", torch.randn(m)) + shift, 0.5))

        return model, guide, (real(2, 3),)

    return build


CROSSED_PLATES = "p(a) p(b) p(x | a, b)"
for reads, missing in ((False, {"a": {"a[rows']"}, "b": {"a"}}), (True, {"a": {"a[rows']"}})):
    add(
        *("crossed plates" + ", mean field" * (not reads), crossed(reads), CROSSED_PLATES),
        *("q(a) q(b | a)" if reads else "q(a) q(b)", WRONG),
        missing=missing,
        constant={"a": ("x",), "b": ("x",)},
        printed=False,
    )


def leaking(leak: Callable, where: str = "model") -> Callable:
    """A VAE whose decoder, or encoder, mixes the data of a batch."""

    def build():
        decoder, head, mix = Head(2, 3), Head(3), leak()

        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", normal())
                pyro.sample("x", decoder(mix(z) if where == "model" else z), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", head(mix(x) if where == "guide" else x))

        return model, guide, (real(),)

    return build


MIXED = {"printed": False, "says": ("data", "leak")}
for name, leak in (
    ("mean", lambda: lambda z: z - z.mean(0)),
    ("roll", lambda: lambda z: z + z.roll(1, 0)),
    ("BatchNorm", lambda: nn.BatchNorm1d(2, track_running_stats=False)),
):
    missing = {"z": {"x[data']", "z[data']"}}
    add(f"leak, {name}", leaking(leak), VAE, ENCODER, WRONG, missing=missing, **MIXED)
add(
    *("leak, in the guide", leaking(lambda: lambda x: x - 0.5 * x.mean(0), "guide"), VAE, ENCODER, LOOSE),
    superfluous={"z": {"x[data']"}},
    **MIXED,
)
add(
    *("BatchNorm by its running statistics", leaking(lambda: nn.BatchNorm1d(2).eval())),
    *(VAE, ENCODER, SURE),
)


def covariate(reads: bool) -> Callable:
    """z and x are drawn given c, an argument that is never observed."""

    def build():
        prior, decoder, head = Head(2), Head(4, 3), Head(5 if reads else 3)

        def model(x, c):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", prior(c))
                pyro.sample("x", decoder(z, c), obs=x)

        def guide(x, c):
            with pyro.plate("data", len(x)):
                pyro.sample("z", head(x, c) if reads else head(x))

        return model, guide, (real(), real(3, 2))

    return build


# c is a root of both graphs; written as data, which comes to the same
COVARIATE, AS_DATA = "p(c) p(z | c) p(x | z, c)", {"observed": ("c", "x"), "printed": False}
add("covariate", covariate(True), COVARIATE, "q(z | c, x)", SURE, **AS_DATA)
add("covariate, not read", covariate(False), COVARIATE, "q(z | x)", WRONG, missing={"z": {"c"}}, **AS_DATA)


def conditional(reads: bool) -> Callable:
    """The prior of z reads x1, the first observed site."""

    def build():
        prior, decoder, head = Head(1), Head(2, 2), Head(3 if reads else 2)

        def model(x):
            with pyro.plate("data", len(x)):
                first = pyro.sample("x1", normal(1), obs=x[:, :1])
                z = pyro.sample("z", prior(first))
                pyro.sample("x2", decoder(z), obs=x[:, 1:])

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", head(x if reads else x[:, 1:]))

        return model, guide, (real(),)

    return build


CONDITIONAL = "p(x1) p(z | x1) p(x2 | z)"
add("prior given data", conditional(True), CONDITIONAL, "q(z | x1, x2)", SURE)
add("prior given data, not read", conditional(False), CONDITIONAL, "q(z | x2)", WRONG, missing={"z": {"x1"}})


def prior_of_x() -> tuple:
    """The prior reads the very x that is observed after it: no density of x, but p(z | x) needs x all the same."""
    prior, decoder, head = Head(3), Head(2, 3), Head(3)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.sample("x", decoder(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", head(x))

    return model, guide, (real(),)


# Data of other kinds and in other places


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


# Autoguides: global latents, x a constant

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


# What cannot be certified


def uncertain_delta():
    return automatic(chain, autoguide.AutoDelta)()


def uncertain_noise():
    """A guide with noise that is no site."""
    model, _, args = PAIRS["hierarchy, ladder"].build()
    heads = nn.ModuleList(Head(5) for _ in range(3))

    def guide(x):
        noise = torch.randn(len(x), 2)  # shared by all three: they are coupled, and nothing shows it
        with pyro.plate("data", len(x)):
            for i, head in enumerate(heads):
                pyro.sample(f"z{3 - i}", head(x, noise))

    return model, guide, args


UNCERTAIN = {"AutoDelta": uncertain_delta, "hidden noise": uncertain_noise}
