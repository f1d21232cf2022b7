"""Captured steps: the numbers of the eager ones, on any program, or one line that says what stood in the way.

Most tests capture (make_fx) and replay the graph as it is, in milliseconds; a few compile it.
"""

import copy
import io
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributions import constraints

from guides import BottomUp, Faithful, Ladder, MeanField, SelfReflective
from ppl_models import DLGM, VAE, HierarchicalVAE, LinearGaussian, SeReVAE
from ppl_models.inference import Loss, elbo, fit, free_bits, importance_weighted
from ppl_models.inference.pyro.engine import compiled, compilers
from ppl_models.inference.pyro.engine.capture import capture
from ppl_models.inference.pyro.engine.python_state import Attributes
from ppl_models.inference.pyro.engine.recorder import NotCapturable
from ppl_models.inference.pyro.feeding.batches import Batches
from ppl_models.inference.pyro.training.training_step import training_step
from ppl_models.inference.schedules import Cyclic, Exponential
from tests.helpers.cases import few
from tests.helpers.uncompiled import as_it_is

WIDTH, IMAGE = 6, (1, 4, 4)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """The graphs that are captured, which run as they are."""
    graphs: list[torch.fx.GraphModule] = []
    monkeypatch.setattr(compiled, "compiled", as_it_is(graphs.append))
    return graphs


def rows(n: int = 40, width: int = WIDTH, seed: int = 3) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


class Guide(nn.Module):
    """q(z | x), and nothing of the library."""

    def __init__(self, width: int = WIDTH, latent: int = 2) -> None:
        super().__init__()
        self.loc, self.log_scale = nn.Linear(width, latent), nn.Parameter(torch.zeros(latent))

    def forward(self, x: Tensor, *rest: Any) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc(x), self.log_scale.exp()).to_event(1))


class Model(nn.Module):
    """p(z) p(x | z), whose mean goes through `body`."""

    def __init__(self, body: Callable | None = None, width: int = WIDTH, latent: int = 2) -> None:
        super().__init__()
        self.decoder, self.body, self.norm = nn.Linear(latent, width), body, nn.BatchNorm1d(width, affine=False)
        self.register_buffer("heat", torch.tensor(1.0))
        self.count = 0

    def forward(self, x: Tensor, *rest: Any) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2, dtype=x.dtype), 1.0).to_event(1))
            mean = self.decoder(z)
            mean = mean if self.body is None else self.body(self, x, mean, *rest)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


def plain(body: Callable | None = None, dtype: torch.dtype = torch.float32) -> tuple[Model, Guide]:
    return Model(body).to(dtype), Guide().to(dtype)


def trained(make: Callable, data: Any, compile: bool, **options: Any) -> SimpleNamespace:
    """A pair trained from one seed, and all that the training left."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    model, guide = make()
    arguments = {"steps": 7, "batch_size": 10, "lr": 1e-2, "every": 3, "seed": 0, "progress": False, **options}
    run = fit(model, guide, data, compile=compile, **arguments)
    modules = {"model": model, "guide": guide}
    tensors = {f"{k}.{n}": t for k, m in modules.items() if isinstance(m, nn.Module) for n, t in m.state_dict().items()}
    tensors |= {f"store.{n}": t for n, t in pyro.get_param_store().items()}
    tensors = {n: t.detach().clone() for n, t in tensors.items()}
    history = [{k: v for k, v in r.items() if k != "seconds"} for r in run.history]
    return SimpleNamespace(
        model=model, guide=guide, run=run, tensors=tensors, history=history, rng=torch.get_rng_state()
    )


def close(a: SimpleNamespace, b: SimpleNamespace, rough: float) -> None:
    """The same parameters, running statistics, records and state of the generator."""
    assert a.tensors.keys() == b.tensors.keys() and len(a.history) == len(b.history)
    for name, tensor in a.tensors.items():
        torch.testing.assert_close(b.tensors[name], tensor, rtol=rough, atol=rough, msg=lambda m, n=name: f"{n}: {m}")
    for one, other in zip(a.history, b.history, strict=True):
        assert one.keys() == other.keys() and list(one.values()) == pytest.approx(list(other.values()), rel=rough)
    assert torch.equal(a.rng, b.rng)


def agree(
    make: Callable,
    data: Any = None,
    rough: float = 1e-5,
    captured: bool = True,
    told: Sequence[str] = (),
    **options: Any,
) -> SimpleNamespace:
    """Train eagerly and captured, compare, and look for what a capture may leave behind; returns the latter.

    `told` is what the notes of both begin with.
    """
    data = rows() if data is None else data
    a, b = trained(make, data, False, **options), trained(make, data, True, **options)
    assert [note.partition(":")[0] for note in a.run.notes] == [*told]
    if captured:
        assert b.run.notes == a.run.notes
        close(a, b, rough)
    else:
        assert len(b.run.notes) == 1 and b.run.notes[0].startswith("steps run uncompiled: ")
        assert "\n" not in b.run.notes[0]
        close(a, b, 0.0)  # exactly the eager one
    whole(b.model, b.guide)
    return b


def tensors_within(found: Any, seen: set[int], deep: int = 9) -> Iterator[Tensor]:
    """Every tensor that can be reached through attributes, containers and closures."""
    if id(found) in seen or deep < 0 or isinstance(found, type):
        return
    seen.add(id(found))
    if isinstance(found, Tensor):
        yield found
    inner = list(found.values()) if isinstance(found, dict) else []
    inner += list(found) if isinstance(found, list | tuple | set) else []
    inner += list(vars(found).values()) if hasattr(found, "__dict__") and not isinstance(found, Tensor) else []
    inner += [c.cell_contents for c in getattr(found, "__closure__", None) or ()]
    for each in inner:
        yield from tensors_within(each, seen, deep - 1)


def whole(*programs: Any) -> None:
    """Parameters own their memory, nothing is a tensor without values, and copies and pickles work."""
    for program in [*programs, pyro.get_param_store()]:
        assert not [t for t in tensors_within(program, set()) if isinstance(t, FakeTensor)]
        for p in program.parameters() if isinstance(program, nn.Module) else ():
            assert type(p) is nn.Parameter and p.is_leaf and p.requires_grad
            assert p.untyped_storage().size() == p.numel() * p.element_size() and p.storage_offset() == 0


# The same numbers: arguments of `fit`.

OPTIONS = {
    "plain": {},
    "no average": {"ema": None},
    "average": {"ema": 0.5},
    "no bound": {"clip": None},
    "clip": {"clip": 0.5},
    "decay": {"weight_decay": 0.3},
    "warm-up": {"warmup": 5},
    "half": {"beta": 0.5},
    "cyclic": {"beta": Cyclic(4)},
    "constant": {"schedule": "constant"},
    "exponential": {"schedule": Exponential(3)},
    "particles": {"particles": 3},
    "sampled": {"analytic": False},
    "free bits": {"objective": partial(free_bits, nats=0.4), "beta": Cyclic(4)},
    "importance": {"objective": importance_weighted, "particles": 4},
    "doubly": {"objective": importance_weighted, "particles": 4, "gradient": "doubly-reparametrized"},
    "doubly warm": {
        "objective": importance_weighted,
        "particles": 3,
        "gradient": "doubly-reparametrized",
        "warmup": 4,
    },
    "accumulate": {"accumulate": 2, "clip": 1.0},
    "skip none": {"skip": 1e6},
    "skip the first": {"skip": 3.0, "steps": 20, "every": 20},
    "skip some": {"skip": 3.4, "steps": 20, "every": 20, "clip": None, "weight_decay": 0.1},
    "all at once": {"batch_size": 1000},
    "loss of ours": {"loss": Loss(elbo, particles=3)},
    "validation": {"validation": rows(20, seed=5).double(), "patience": 50},
    "everything": {"ema": 0.9, "clip": 1.0, "weight_decay": 0.1, "warmup": 5, "skip": 50.0, "particles": 2},
}
# what "everything" or another has too
ALONE = ("average", "clip", "decay", "particles", "doubly", "skip none", "skip the first")


@pytest.mark.parametrize("name", few(OPTIONS, lambda name: name not in ALONE))
def test_the_same_numbers_whatever_the_arguments(name, uncompiled):
    agree(partial(plain, dtype=torch.float64), rows().double(), 1e-6, **OPTIONS[name])
    assert len(uncompiled) == (2 if name == "accumulate" else 1)


def test_double_precision_is_kept(uncompiled):
    """Parameters within 1e-9, which a single-precision schedule or sum would not give."""
    options = {"clip": 1.0, "weight_decay": 0.1, "warmup": 5, "ema": 0.9}
    data = rows().double()
    a, b = (trained(partial(plain, dtype=torch.float64), data, c, **options) for c in (False, True))
    for name, tensor in a.tensors.items():
        torch.testing.assert_close(b.tensors[name], tensor, rtol=1e-9, atol=1e-9)


def one_by_one() -> tuple[Model, Guide]:
    """A program that is wrong with a particle dimension: its mean over data reduces dim 0."""
    return plain(lambda self, x, mean: mean + mean.mean(0))


@pytest.mark.parametrize("objective", [elbo, importance_weighted])
def test_particles_one_by_one(objective, uncompiled):
    agree(one_by_one, particles=3, objective=objective)


def test_parameters_without_a_gradient_stay(uncompiled):
    """The eager optimizer leaves them alone, weight decay included."""

    def make() -> tuple[Model, Guide]:
        model, guide = plain()
        model.unused = nn.Linear(3, 3)
        return model, guide

    agree(make, weight_decay=0.5)


# Every model with every guide.

MODELS: dict[str, Callable] = {
    "vae": lambda: VAE(16, 4, 8, likelihood="gaussian"),
    "vae-bernoulli": lambda: VAE(16, 4, 8),
    "vae-conv": lambda: VAE(IMAGE, 3, 16, likelihood="gaussian", network="conv"),
    "vae-logistic": lambda: VAE(16, 4, 8, likelihood="logistic:8"),
    "dlgm": lambda: DLGM(16, (3, 4), 8, likelihood="gaussian"),
    "hierarchical": lambda: HierarchicalVAE(16, (2, 3, 4), 8, likelihood="gaussian"),
    "hierarchical-skip": lambda: HierarchicalVAE(16, (2, 3, 4), 8, likelihood="gaussian", skip=True),
    "sere": lambda: SeReVAE(16, 3, 3, 8, likelihood="gaussian"),
    "sere-conv": lambda: SeReVAE(IMAGE, 2, 3, 16, likelihood="gaussian", network="conv"),
    "linear": lambda: LinearGaussian(16, (2, 3, 2), {"x": ("z3", "z1"), "z3": ("z2", "z1")}),
}
GUIDES = (MeanField, BottomUp, Ladder, SelfReflective, Faithful)
PAIRS = [("vae", MeanField), ("sere", SelfReflective), ("hierarchical-skip", Ladder), ("dlgm", Faithful)]


def collection(name: str, guide: Callable, family: str, double: bool = True) -> tuple[nn.Module, nn.Module]:
    model, x = MODELS[name](), images(name)
    q = guide(model, x, family=family, hidden=8)
    return (model.double(), q.double()) if double else (model, q)


def images(name: str, n: int = 20) -> Tensor:
    u = torch.rand(n, 16, generator=torch.Generator().manual_seed(1))
    if "bernoulli" in name:
        return (u > 0.5).float()
    return (u * 7).round() / 7 if "logistic" in name else 2 * u - 1


def matches(name: str, guide: Callable, family: str, particles: int) -> None:
    make = partial(collection, name, guide, family)
    agree(make, images(name).double(), 1e-6, steps=4, particles=particles)


@pytest.mark.parametrize(("name", "guide"), few(PAIRS, lambda name, guide: name in ("vae", "sere")))
def test_pairs_of_the_collection(name, guide, uncompiled):
    matches(name, guide, "full", 1)
    assert uncompiled


@pytest.mark.slow
@pytest.mark.parametrize("family", ["diagonal", "rank-one", "full", "flow"])
@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("name", MODELS)
def test_every_pair_of_the_collection(name, guide, family, uncompiled):
    if family == "flow" and guide is Ladder:  # a flow has no product with a prior
        return
    matches(name, guide, family, 1)
    if family == "diagonal":
        matches(name, guide, family, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "guide"), [*PAIRS, ("vae-conv", MeanField), ("sere-conv", BottomUp)])
@pytest.mark.parametrize("family", ["rank-one", "flow"])
def test_pairs_compiled(name, guide, family):
    if family == "flow" and guide is Ladder:
        return
    agree(partial(collection, name, guide, family, double=False), images(name), 1e-3, steps=6)


# Programs that the library has never seen.


def own_functions() -> tuple[Callable, Callable]:
    """Plain functions: constrained parameters, a module and constants closed over, global and local latents, a plate
    that subsamples, a factor, a mask, a scale, and draws that are not Gaussian."""
    encoder, weights = nn.Linear(WIDTH, 2), torch.linspace(0.5, 1.5, WIDTH)
    mask = torch.arange(10) % 3 > 0

    def model(x: Tensor, y: Tensor) -> None:
        noise = pyro.param("noise", torch.tensor(1.0), constraint=constraints.positive)
        w = pyro.param("w", lambda: torch.full((2, WIDTH), 0.1))
        tilt = pyro.sample("tilt", dist.StudentT(5.0, 0.0, 1.0))
        rate = pyro.sample("rate", dist.Gamma(2.0, 2.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            mix = pyro.sample("mix", dist.Dirichlet(torch.ones(3)))
            share = pyro.sample("share", dist.Beta(2.0, 2.0))
            with poutine.mask(mask=mask[: len(x)]), poutine.scale(scale=0.7):
                pyro.sample("x", dist.Normal((z @ w + tilt) * weights, noise).to_event(1), obs=x)
            pyro.sample("y", dist.Categorical(logits=torch.log(mix) * rate + share[:, None]), obs=y)
            pyro.factor("pull", -0.01 * z.square().sum(-1))

    def guide(x: Tensor, y: Tensor) -> None:
        pyro.module("encoder", encoder)
        scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.interval(0.1, 2.0))
        tilt = pyro.param("tilt_loc", torch.tensor(0.0))
        pyro.sample("tilt", dist.StudentT(6.0, tilt, scale))
        pyro.sample("rate", dist.Gamma(pyro.param("shape", torch.tensor(2.0), constraint=constraints.positive), 2.0))
        concentration = pyro.param("concentration", torch.full((3,), 2.0), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), scale).to_event(1))
            pyro.sample("mix", dist.Dirichlet(concentration))
            pyro.sample("share", dist.Beta(scale + 1, 2.0))

    return model, guide


def labelled(n: int = 40) -> tuple[Tensor, Tensor]:
    return rows(n), torch.arange(n) % 3


class Regression(PyroModule):
    """Bayesian regression with PyroSample, PyroParam, and global latents on a simplex and, perhaps, correlations."""

    def __init__(self, correlated: bool = False) -> None:
        super().__init__()
        self.correlated = correlated
        self.linear = PyroModule[nn.Linear](WIDTH, 2)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([2, WIDTH]).to_event(2))
        self.noise = PyroParam(torch.tensor(1.0), constraints.positive)

    def forward(self, x: Tensor, y: Tensor) -> None:
        mean = self.linear(x)
        share = pyro.sample("share", dist.Dirichlet(torch.ones(2)))
        factor = pyro.sample("factor", dist.LKJCholesky(2, 2.0)) if self.correlated else torch.diag_embed(share)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.MultivariateNormal(mean, scale_tril=self.noise * factor), obs=y)


def regression(auto: Callable, correlated: bool = False) -> tuple[nn.Module, nn.Module]:
    model = Regression(correlated)
    return model, auto(model)


def subsampled() -> tuple[Callable, Callable]:
    data = rows(50)

    def model(x: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(WIDTH))
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("part", 50, subsample_size=8) as index:
            pyro.sample("part_x", dist.Normal(loc + shift, 1.0).to_event(1), obs=data[index])
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc + shift, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("shift", dist.Normal(pyro.param("m", torch.zeros(())), 0.3))
        with pyro.plate("part", 50, subsample_size=8):
            pass

    return model, guide


def transformed() -> tuple[nn.Module, nn.Module]:
    """A guide that holds a flow with a cache, and a base that never changes."""
    model, guide = plain()
    flow = dist.transforms.affine_coupling(2, hidden_dims=[4])
    guide.flow, guide.base = flow, dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)

    def forward(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            shift = dist.transforms.AffineTransform(guide.loc(x), guide.log_scale.exp(), event_dim=1)
            pyro.sample("z", dist.TransformedDistribution(guide.base, [flow, shift]))

    guide.forward = forward
    return model, guide


def normalized() -> tuple[Model, Guide]:
    return plain(lambda self, x, mean: self.norm(mean.tanh()))


def dropped() -> tuple[Model, Guide]:
    return plain(lambda self, x, mean: nn.functional.dropout(mean, 0.4, self.training))


PROGRAMS: dict[str, tuple[Callable, Any]] = {
    "functions": (own_functions, labelled()),
    "batch norm": (normalized, rows()),
    "dropout": (dropped, rows()),
    "two arguments": (partial(plain, lambda self, x, mean, y: mean + y[:, None]), labelled()),
    "constants": (partial(plain, lambda self, x, mean: mean * torch.tensor(0.5) + torch.ones(WIDTH)), rows()),
    "running buffer": (partial(plain, lambda self, x, mean: mean * self.heat.mul_(0.95)), rows()),
    "subsample": (subsampled, rows()),
    "transformed": (transformed, rows()),
    "AutoNormal": (partial(regression, AutoNormal), (rows(), rows(40, 2, seed=4))),
    "AutoMultivariateNormal": (partial(regression, AutoMultivariateNormal), (rows(), rows(40, 2, seed=4))),
    "AutoLowRank": (partial(regression, AutoLowRankMultivariateNormal), (rows(), rows(40, 2, seed=4))),
}


@pytest.mark.parametrize("name", few(PROGRAMS, lambda name: name not in ("AutoMultivariateNormal", "AutoLowRank")))
def test_programs_of_users(name, uncompiled):
    make, data = PROGRAMS[name]
    # of two plates that observe data none is the plate of the data
    result = agree(make, data, 1e-4, told=["no plate around the data"] if name == "subsample" else [])
    assert len(uncompiled) == 1
    if name == "batch norm":
        assert int(result.model.norm.num_batches_tracked) == 7


def in_units(family: str) -> tuple[Callable, nn.Module]:
    """A regression whose globals begin at their mode."""

    def model(x: Tensor, y: Tensor) -> None:
        beta = pyro.sample("beta", dist.Normal(0.0, 10.0).expand([WIDTH]).to_event(1))
        sigma = pyro.sample("sigma", dist.HalfNormal(5.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal((x * beta).sum(-1), sigma), obs=y)

    return model, Faithful(model, rows(), rows(40, 1, seed=4)[:, 0], family=family, hidden=8)


@pytest.mark.parametrize("family", few(["full", "flow"], lambda family: family == "full"))
def test_units_of_globals_are_buffers_of_a_captured_step(family, uncompiled):
    agree(partial(in_units, family), (rows(), rows(40, 1, seed=4)[:, 0]), 1e-4, told=["start of beta, sigma"])
    assert len(uncompiled) == 1


@pytest.mark.slow
def test_a_program_of_a_user_compiled():
    """Inductor itself, and all kinds of draws."""
    agree(own_functions, labelled(), 1e-4, clip=1.0, weight_decay=0.1, warmup=5)


def test_tied_and_frozen_parameters(uncompiled):
    def make() -> tuple[Model, Guide]:
        model, guide = plain(lambda self, x, mean: mean + self.still(x) + nn.functional.linear(x, self.still.weight.T))
        model.still = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        guide.loc.weight = nn.Parameter(guide.loc.weight.detach().clone())
        guide.tied = guide.loc
        return model, guide

    a, b = (trained(make, rows(), c) for c in (False, True))
    close(a, b, 1e-5)
    assert torch.equal(a.tensors["model.still.weight"], b.tensors["model.still.weight"])


def test_what_programs_only_write_is_left_as_it_was(uncompiled):
    """A list of what was seen, a latent kept for a look: no tensor without values is left behind."""

    def body(self: Model, x: Tensor, mean: Tensor) -> Tensor:
        self.seen.append(mean)
        self.last = mean
        return mean

    def make() -> tuple[Model, Guide]:
        model, guide = plain(body)
        model.seen = []
        return model, guide

    agree(make)


# What cannot be captured.


def read(self: Model, x: Tensor, mean: Tensor) -> Tensor:
    return mean * (1 + mean.mean().item())


def read_buffer(self: Model, x: Tensor, mean: Tensor) -> Tensor:
    return mean * float(self.heat.mul_(0.9))


def branch(self: Model, x: Tensor, mean: Tensor) -> Tensor:
    return 2 * mean if mean.sum() > 0 else mean


def chosen(self: Model, x: Tensor, mean: Tensor) -> Tensor:
    return mean + mean[mean > 0].sum()


def places(self: Model, x: Tensor, mean: Tensor) -> Tensor:
    return mean + torch.nonzero(x > 0).shape[0]


def to_numpy(self: Model, x: Tensor, mean: Tensor) -> Tensor:
    return mean + float(x.numpy().mean())


def to_list(self: Model, x: Tensor, mean: Tensor) -> Tensor:
    return mean * self.heat.mul_(0.9).tolist()


def pythons(self: Model, x: Tensor, mean: Tensor) -> Tensor:
    return mean * random.random()


def numpys(self: Model, x: Tensor, mean: Tensor) -> Tensor:
    return mean * np.random.rand()


def counted(self: Model, x: Tensor, mean: Tensor) -> Tensor:
    self.count += 1  # so slow that no comparison of one loss would find it
    return mean * (1 + 1e-6 * self.count)


def replaced(self: Model, x: Tensor, mean: Tensor) -> Tensor:
    self.heat = self.heat * 0.9
    return mean * self.heat


def averaged(self: Model, x: Tensor, mean: Tensor) -> Tensor:
    return nn.BatchNorm1d.forward(self.norm, mean)


def cumulative() -> tuple[Model, Guide]:
    """BatchNorm that averages over all batches reads its own counter."""
    model, guide = plain(averaged)
    model.norm.momentum = None
    return model, guide


def alternating() -> tuple[Callable, Callable]:
    model, guide = plain()
    turn = 0

    def alternates(x: Tensor) -> None:
        nonlocal turn
        turn += 1
        with poutine.scale(scale=1.0 + turn % 2):
            model(x)

    return alternates, guide


def hidden() -> tuple[Model, Guide]:
    """State where nobody looks: only another loss gives it away."""
    turns = iter(range(10**6))
    return plain(lambda self, x, mean: mean + next(turns) % 3)


def own_generator(make: Callable) -> tuple[Model, Guide]:
    generator = make()
    if isinstance(generator, torch.Generator):
        return plain(lambda self, x, mean: mean + torch.rand((), generator=generator))
    return plain(lambda self, x, mean: mean + generator.random())


VALUE, HERE = "the value of a tensor is read in Python", "test_compiled.py:"
REFUSED: dict[str, tuple[Callable, tuple[str, ...]]] = {
    "item": (partial(plain, read), (VALUE, "_local_scalar_dense", HERE, "mean.mean().item()")),
    "float of a buffer": (partial(plain, read_buffer), (VALUE, HERE, "float(self.heat")),
    "if": (partial(plain, branch), (VALUE, HERE, "if mean.sum() > 0")),
    "mask": (partial(plain, chosen), ("aten.index.Tensor", HERE, "mean[mean > 0]")),
    "nonzero": (partial(plain, places), ("aten.nonzero", HERE, "torch.nonzero")),
    "numpy": (partial(plain, to_numpy), ("numpy()", HERE)),
    "tolist": (partial(plain, to_list), ("tolist()", HERE)),
    "Python's generator": (partial(plain, pythons), ("draw from Python's or NumPy's generator",)),
    "NumPy's generator": (partial(plain, numpys), ("draw from Python's or NumPy's generator",)),
    "a generator of NumPy's": (partial(own_generator, np.random.default_rng), ("a generator of their own",)),
    "a generator of Python's": (partial(own_generator, partial(random.Random, 0)), ("a generator of their own",)),
    "a generator of torch's": (partial(own_generator, torch.Generator), ("a generator of their own",)),
    "counter": (partial(plain, counted), ("Model.count changes in Python at every run",)),
    "buffer": (partial(plain, replaced), ("'heat' of a program changes",)),
    "batch norm": (cumulative, (VALUE, HERE)),
    "alternating": (alternating, ("variable 'turn' of a program changes",)),
    "hidden": (hidden, ("something else at every run",)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_captured_runs_eagerly_and_says_why(name, uncompiled):
    make, words = REFUSED[name]
    if name == "a generator of torch's":
        make = partial(own_generator, lambda: torch.Generator().manual_seed(0))
    if name == "a generator of NumPy's":
        make = partial(own_generator, lambda: np.random.default_rng(0))
    note = agree(make, captured=False).run.notes[0]
    assert all(word in note for word in words), note


def test_correlations_in_an_autoguide_run_eagerly(uncompiled):
    """The inverse of torch's map to Cholesky factors selects by a mask, whose count of elements is a value."""
    note = agree(partial(regression, AutoNormal, True), (rows(), rows(40, 2)), captured=False).run.notes[0]
    assert "aten.index.Tensor has no static graph, at autoguide/guides.py" in note


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO])
def test_losses_of_pyro_that_read_values(loss, uncompiled):
    note = agree(plain, captured=False, loss=loss()).run.notes[0]
    assert VALUE in note and ".py:" in note and "test_compiled" not in note  # in Pyro, not in the program


def test_arguments_that_are_no_tensors(uncompiled):
    model, guide = plain(lambda self, x, mean, factor: mean * factor)
    step = training_step(model, guide, (rows(), 2.0), compile=True)
    step(rows(), 2.0)
    assert step.notes == ["steps run uncompiled: argument 2 of the programs is no tensor but float"]


def test_without_a_compiler(monkeypatch):
    from torch._inductor import exc

    def missing(*args: Any, **kwargs: Any) -> None:
        raise exc.InvalidCxxCompiler()

    monkeypatch.setattr(compilers, "has_xla", lambda: False)
    monkeypatch.setattr("torch._inductor.compile", missing)
    note = agree(plain, captured=False).run.notes[0]
    assert "Inductor could not compile" in note and "compiler" in note


def test_false_captures_nothing_and_auto_what_is_worth_it(uncompiled, monkeypatch):
    trained(plain, rows(), False)
    trained(plain, rows(), "auto")
    assert not uncompiled
    monkeypatch.setattr("ppl_models.inference.config.WORTHWHILE", {"cpu": 7, "xla": 7})
    close(trained(plain, rows(), "auto"), trained(plain, rows(), False), 1e-5)
    assert len(uncompiled) == 1


def test_a_capture_leaves_no_trace():
    """Neither values nor generators move, and what is read from outside becomes an input."""
    counter, weight = torch.zeros(3), nn.Parameter(torch.ones(3))

    def function(x: Tensor) -> tuple[Tensor]:
        counter.add_(1)
        return (torch.rand(3) + weight + x + counter,)

    before = torch.get_rng_state()
    found, held = capture(function, [torch.zeros(3)])
    assert torch.equal(before, torch.get_rng_state()) and not counter.any()
    assert {id(t) for t in held} == {id(counter), id(weight)}
    given = [torch.full((3,), 2.0), *held]
    torch.manual_seed(3)
    (result,) = found(*given)
    torch.manual_seed(3)
    torch.testing.assert_close(result, torch.rand(3) + 1 + 2 + 1)
    assert counter.tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(NotCapturable, match="RuntimeError: no"):
        capture(lambda x: (_ for _ in ()).throw(RuntimeError("no")), [torch.zeros(3)])


def test_attributes_are_seen_and_put_back():
    model = Model()
    model.notes, turn = [], 0

    def program() -> None:
        nonlocal turn
        turn += 1
        model.notes.append(turn)

    before = Attributes(program)
    assert before.restore() is None
    program()
    model.extra, model.heat = 1, torch.tensor(2.0)
    assert "changes in Python at every run" in before.restore()
    assert turn == 0 and model.notes == [] and not hasattr(model, "extra") and model.heat == 1


# Shapes.


class Counted:
    """Batches through a captured step beside an eager one."""

    def __init__(self, **options: Any) -> None:
        self.pairs = []
        for compile in (False, True):
            torch.manual_seed(0)
            model, guide = plain()
            self.pairs.append((training_step(model, guide, (rows(),), lr=1e-2, compile=compile, **options), model))

    def __call__(self, *batches: Tensor) -> None:
        losses = []
        for step, _ in self.pairs:
            torch.manual_seed(1)
            losses.append(torch.stack([step(batch) for batch in batches]))
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
        for a, b in zip(*[model.parameters() for _, model in self.pairs], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_other_shapes_wait_and_are_few(uncompiled, monkeypatch):
    monkeypatch.setattr(compiled, "PATIENCE", 3)
    both = Counted()
    both(*[rows(8)] * 2)
    assert len(uncompiled) == 1
    both(*[rows(5)] * 3, rows(8), rows(8))
    assert len(uncompiled) == 1  # three times eagerly
    both(*[rows(5)] * 3, rows(8))
    assert len(uncompiled) == 2
    for n in range(9, 20):  # a storm: many shapes, again and again
        both(*[rows(n)] * 5, rows(8), rows(5))
    assert len(uncompiled) == compiled.GRAPHS
    assert not both.pairs[1][0].notes


def test_ever_new_shapes_compile_once(uncompiled):
    both = Counted()
    both(*[rows(n) for n in range(2, 60)])
    assert len(uncompiled) == 1


def test_a_last_smaller_batch(uncompiled, monkeypatch):
    """`Batches` drops it, so a data set of two shapes is made by hand; accumulated ones of two shapes run eagerly."""
    sizes = iter([10, 10, 4] * 40)
    monkeypatch.setattr(Batches, "__next__", lambda self: [rows(next(sizes))])
    b = trained(plain, rows(), True, steps=70, every=70)
    assert len(uncompiled) == 2 and not b.run.notes
    sizes = iter([10, 10, 4] * 40)
    close(trained(plain, rows(), False, steps=70, every=70), b, 1e-4)
    sizes = iter([10, 4, 10, 10, 4, 10] * 20)
    a = trained(plain, rows(), False, steps=9, accumulate=2)
    sizes = iter([10, 4, 10, 10, 4, 10] * 20)
    close(a, trained(plain, rows(), True, steps=9, accumulate=2), 1e-4)


def test_strides_and_aliases_are_told_apart(uncompiled):
    both = Counted()
    both(rows(WIDTH), rows(WIDTH).T, rows(WIDTH), rows(WIDTH, 2 * WIDTH)[:, ::2])
    model, guide = plain(lambda self, x, mean, y: mean + y.mean(0))
    other, q = copy.deepcopy((model, guide))
    x, y = rows(), rows(seed=9)
    step, plainly = (training_step(*p, (x, x), compile=c) for p, c in (((model, guide), True), ((other, q), False)))
    for pair in ((x, x), (x, y), (y, x)):  # captured with one tensor as both arguments
        torch.manual_seed(2)
        found = step(*pair)
        torch.manual_seed(2)
        torch.testing.assert_close(found, plainly(*pair))


def test_a_further_shape_that_cannot_be_captured_ends_all_captures(tmp_path, uncompiled, monkeypatch):
    """Then parameters and moments are in memory of their own, and the checkpoint has the moments of the last step."""
    monkeypatch.setattr(compiled, "PATIENCE", 2)
    sizes = [10, 10, 10, 4, 4, 4, 4, 4, 10]  # the first is only looked at
    results = []

    def body(self: Model, x: Tensor, mean: Tensor) -> Tensor:
        return mean + (mean.mean().item() if len(x) == 4 else 0)

    for compile in (False, True):
        order = iter(sizes)
        monkeypatch.setattr(Batches, "__next__", lambda self, order=order: [rows(next(order))])
        results.append(trained(partial(plain, body), rows(), compile, steps=8, folder=tmp_path / str(compile)))
    assert len(results[1].run.notes) == 1
    close(*results, 1e-5)
    from ppl_models.inference.pyro.training.checkpoint import load_training

    one, other = (load_training(tmp_path / str(c) / "checkpoint.safetensors")[0] for c in (False, True))
    for name, tensor in one.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


# Noise.


def test_noise_differs_from_step_to_step_and_from_seed_to_seed(uncompiled):
    model, guide = plain()
    step = training_step(model, guide, (rows(),), lr=1e-12, compile=True)
    torch.manual_seed(0)
    first = [step(rows()).item() for _ in range(5)]
    torch.manual_seed(0)
    again = [step(rows()).item() for _ in range(5)]
    other = [step(rows()).item() for _ in range(5)]
    assert len({*first, *other}) == 10 and first == pytest.approx(again, rel=1e-6)
    a, b, c = (trained(plain, rows(), True, seed=s) for s in (0, 0, 1))
    assert all(torch.equal(t, b.tensors[n]) for n, t in a.tensors.items())
    assert not all(torch.equal(t, c.tensors[n]) for n, t in a.tensors.items())


@pytest.mark.parametrize("way", [(True, False), (False, True), (True, True)])
def test_resume_across_kinds_of_steps(way, tmp_path, uncompiled):
    """A run captured to the middle and then eager, or the other way round, is the run in one go."""
    options = {"schedule": "constant", "every": 4, "weight_decay": 0.1, "skip": 6.0}
    straight = trained(plain, rows(), False, steps=12, **options)
    trained(plain, rows(), way[0], steps=8, folder=tmp_path, **options)
    resumed = trained(plain, rows(), way[1], steps=12, folder=tmp_path, resume=True, **options)
    close(straight, resumed, 1e-5)


# What is left behind.


def test_everything_works_afterwards(uncompiled):
    model, guide = plain()
    before = list(model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fit(model, guide, rows(), steps=5, batch_size=10, compile=True, progress=False)
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True)) and not pyro.get_param_store().keys()
    whole(model, guide)
    saved = io.BytesIO()
    torch.save(model.state_dict(), saved)
    twin = copy.deepcopy(model)
    for copied in (twin, pickle.loads(pickle.dumps(guide))):
        whole(copied)
    old = [p.detach().clone() for p in model.parameters()]
    Loss(elbo)(model, guide)(rows()).backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(old, model.parameters(), strict=True))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    assert svi.step(rows()) != svi.step(rows())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_an_error_or_an_interrupt(error, uncompiled):
    model, guide = plain()
    before = copy.deepcopy(model.state_dict())

    def stop(run: Any) -> None:
        assert model.decoder.bias.untyped_storage().size() > model.decoder.bias.numel() * 4  # side by side, inside
        raise error("stop")

    with pytest.raises(error):
        fit(model, guide, rows(), steps=20, every=5, batch_size=10, compile=True, progress=False, callbacks=stop)
    whole(model, guide)
    assert any(not torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_an_interrupt_inside_a_capture(monkeypatch):
    def broken(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compiled, "compiled", broken)
    model, guide = plain()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyboardInterrupt):
        fit(model, guide, rows(), steps=5, batch_size=10, compile=True, progress=False)
    whole(model, guide)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


# Numbers that are not finite.


@pytest.mark.parametrize("skip", [None, 100.0])
def test_a_batch_that_is_not_finite(skip, uncompiled, monkeypatch):
    results = []
    for compile in (False, True):
        order = iter(range(100))
        monkeypatch.setattr(
            Batches,
            "__next__",
            lambda self, order=order: [rows(10) * (float("nan") if next(order) == 4 else 1.0)],
        )
        torch.manual_seed(0)
        model, guide = plain()
        fitted = partial(fit, model, guide, rows(), steps=9, every=9, seed=0, progress=False, batch_size=10)
        if skip is None:
            with pytest.raises(ValueError, match="step 4: the batch has NaN") as caught:
                fitted(compile=compile)
            results.append((str(caught.value), model.state_dict()))
        else:
            run = fitted(compile=compile, skip=skip)
            assert not run.notes, run.notes
            results.append((run.history[-1]["skipped"], model.state_dict()))
    assert results[0][0] == results[1][0] and (skip is None or results[0][0] == 1)
    for name, tensor in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], tensor, rtol=1e-4, atol=1e-6)


def test_a_density_that_is_not_finite_is_named_alike(uncompiled):
    def make() -> tuple[Model, Guide]:
        return plain(lambda self, x, mean: mean + torch.log(19.5 - self.heat.add_(1.0)))

    told = []
    for compile in (False, True):
        with pytest.raises(ValueError, match=r"fit: the loss is nan at step \d+; .*observed site 'x'") as caught:
            trained(make, rows(), compile, steps=30, every=30)
        told.append(str(caught.value))
    assert told[0] == told[1]


# `training_step`.


def test_training_step_checks_and_closes(uncompiled):
    model, guide = plain()
    step = training_step(model, guide, (rows(),), compile=True, ema=0.9, clip=1.0, lr=1e-2)
    losses = torch.stack([step(rows()) for _ in range(3)])
    assert len(set(losses.tolist())) == 3 and step.steps == 3 and not step.notes
    step.check()
    step.close()
    whole(model, guide)
    step(rows())  # again, captured anew
    assert len(uncompiled) == 2 and step.steps == 4
    before = [p.detach().clone() for p in model.parameters()]
    assert step(rows() * float("nan")) == 0
    assert step(rows()) == 0  # none after it
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    with pytest.raises(ValueError, match="not finite|loss is"):
        step.check()
    step.close()
    whole(model, guide)


def test_the_learning_rate_is_no_constant(uncompiled):
    model, guide = plain()
    step = training_step(model, guide, (rows(),), compile=True, lr=1e-2)
    step(rows())
    before = [p.detach().clone() for p in model.parameters()]
    step.lr = 0.0
    step(rows())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


# The compilers themselves: XLA where there is JAX, else Inductor.


@pytest.fixture(scope="module")
def steps() -> dict[bool, tuple[Any, nn.Module, nn.Module]]:
    """An eager and a compiled step of one pair with dropout and batch normalization."""
    made = {}
    for compile in (False, True):
        torch.manual_seed(0)
        model, guide = plain(lambda self, x, mean: nn.functional.dropout(self.norm(mean), 0.3, self.training) + mean)
        options = {"ema": 0.9, "clip": 1.0, "weight_decay": 0.1, "particles": 1, "lr": 1e-2}
        made[compile] = training_step(model, guide, (rows(),), compile=compile, **options), model, guide
    return made


def test_compiled_steps_are_the_eager_ones(steps):
    found = {}
    for compile, (step, model, guide) in steps.items():
        torch.manual_seed(5)
        losses = [step(rows(seed=i)).item() for i in range(6)]
        found[compile] = losses, torch.get_rng_state(), [*model.state_dict().values(), *guide.state_dict().values()]
        assert not step.notes
    assert len(set(found[True][0])) == 6 and found[True][0] == pytest.approx(found[False][0], rel=1e-4)
    assert torch.equal(found[True][1], found[False][1])
    for a, b in zip(found[False][2], found[True][2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_other_strides_in_a_compiled_step(steps):
    square = rows(40, 2 * WIDTH)[:, ::2]
    found = []
    for step, _, _ in steps.values():
        torch.manual_seed(6)
        found.append(step(square).item())
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_close_of_a_compiled_step(steps):
    step, model, guide = steps[True]
    step.close()
    whole(model, guide)


def test_fit_compiled():
    agree(lambda: (lambda m: (m, MeanField(m, rows(), hidden=8)))(VAE(WIDTH, 2, 8, likelihood="gaussian")), rough=1e-4)


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_half_precision(real, monkeypatch):
    """Products in bfloat16 (8 bits: 4e-3 each), densities in single precision."""
    if not real:
        monkeypatch.setattr(compiled, "compiled", as_it_is())
    make = partial(collection, "vae", MeanField, "diagonal", double=False)
    options = {"steps": 20, "batch_size": 10}
    eager, captured = (trained(make, images("vae"), c, precision="bfloat16", **options) for c in (False, True))
    single = trained(make, images("vae"), False, **options)
    assert not captured.run.notes
    close(eager, captured, 2e-2)
    assert captured.history[-1]["loss"] == pytest.approx(single.history[-1]["loss"], rel=1e-2)
    assert captured.history[-1]["loss"] != single.history[-1]["loss"]
    assert all(t.dtype == torch.float32 for t in captured.tensors.values() if t.is_floating_point())


def test_half_precision_reaches_products_alone(uncompiled):
    model, guide = plain(lambda self, x, mean: mean + torch.exp(mean))
    step = training_step(model, guide, (rows(),), compile=True, precision="bfloat16")
    step(rows())
    (captured,) = uncompiled
    half = {
        node.target
        for node in captured.graph.nodes
        if node.op == "call_function" and getattr(node.meta.get("tensor_meta"), "dtype", None) == torch.bfloat16
    }
    names = [str(target) for target in half]
    assert not [n for n in names if "exp" in n or "pow" in n or "sum" in n and "dim" not in n], names


# CUDA graphs.


def cuda_body(self: Model, x: Tensor, mean: Tensor) -> Tensor:
    return nn.functional.dropout(self.norm(mean), 0.3, self.training) + mean


class CudaModel(Model):
    def forward(self, x: Tensor, *rest: Any) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(cuda_body(self, x, self.decoder(z)), 1.0).to_event(1), obs=x)


def cuda_step(compile: bool, **options: Any) -> tuple[Any, nn.Module]:
    torch.manual_seed(0)
    model, guide = CudaModel().cuda(), Guide().cuda()
    return training_step(model, guide, (rows().cuda(),), compile=compile, lr=1e-2, **options), model


@pytest.mark.cuda
@pytest.mark.parametrize("options", [{}, {"ema": 0.9, "clip": 1.0, "weight_decay": 0.1}, {"particles": 4}])
def test_replay_is_the_eager_step(options):
    found = []
    for compile in (False, True):
        step, model = cuda_step(compile, **options)
        torch.manual_seed(5)
        losses = [step(rows(seed=i).cuda()) for i in range(6)]  # kept: a replay must not overwrite them
        state = torch.cuda.get_rng_state()
        found.append((torch.stack(losses), state, [p.detach().clone() for p in model.parameters()], step))
    assert not found[1][3].notes and found[1][3]._step.graphs
    for captured in found[1][3]._step.graphs.values():
        assert all(function.replayed is not None for function in captured.functions)
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-4, atol=1e-4)
    assert len(set(found[1][0].tolist())) == 6
    assert torch.equal(found[0][1], found[1][1])
    for a, b in zip(found[0][2], found[1][2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.cuda
def test_replays_wait_for_nothing_and_need_no_memory():
    step, _ = cuda_step(True, clip=1.0, ema=0.9)
    batch = rows().cuda()
    for _ in range(3):
        step(batch)
    torch.cuda.synchronize()
    static = [t.data_ptr() for g in step._step.graphs.values() for f in g.functions for t in (*f.static, *f.outputs)]
    before = torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(1000):
            step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before
    now = [t.data_ptr() for g in step._step.graphs.values() for f in g.functions for t in (*f.static, *f.outputs)]
    assert static == now
    step.check()


@pytest.mark.cuda
@pytest.mark.parametrize("skip", [1e3, 5.0])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fit_on_cuda(precision, skip):
    found = []
    for compile in (False, True):
        torch.manual_seed(0)
        model, guide = CudaModel().cuda(), Guide().cuda()
        run = fit(
            *(model, guide, rows(200)),
            **{"steps": 40, "batch_size": 20, "every": 20, "seed": 0, "progress": False, "accumulate": 2},
            **{"precision": precision, "skip": skip, "compile": compile},
        )
        assert not run.notes
        whole(model, guide)
        found.append([r["loss"] for r in run.history])
    assert found[0] == pytest.approx(found[1], rel=1e-4 if precision == "float32" else 2e-2)


@pytest.mark.cuda
def test_a_cuda_constant_made_in_a_program_does_not_end_the_training():
    """It would be copied from the host at every run, which no recording may do: it is copied once."""
    torch.manual_seed(0)
    model, guide = CudaModel().cuda(), Guide().cuda()

    def program(x: Tensor) -> None:
        with poutine.scale(scale=torch.tensor(0.5, device=x.device)):
            model(x)

    step = training_step(program, guide, (rows().cuda(),), compile=True)
    assert torch.isfinite(torch.stack([step(rows().cuda()) for _ in range(3)])).all()
    step.check()
    (captured,) = step._step.graphs.values()
    assert captured.functions[0].replayed is not None


@pytest.mark.cuda
@pytest.mark.parametrize("waits", ["copy", "cholesky"])
def test_what_waits_for_the_device_runs_compiled_but_unrecorded(waits):
    torch.manual_seed(0)
    model, guide = CudaModel().cuda(), Guide().cuda()
    on_host = torch.full((WIDTH,), 0.5)

    def program(x: Tensor) -> None:
        factor = (
            torch.linalg.cholesky(torch.eye(2, device=x.device) * x.square().sum()) if waits == "cholesky" else None
        )
        scale = on_host.to(x.device).sum() if factor is None else factor.sum()
        with poutine.scale(scale=scale):
            model(x)

    step = training_step(program, guide, (rows().cuda(),), compile=True)
    losses = torch.stack([step(rows().cuda()) for _ in range(3)])
    assert torch.isfinite(losses).all() and len(set(losses.tolist())) == 3 and not step.notes
    (captured,) = step._step.graphs.values()
    assert captured.functions[0].replayed is None
    torch.rand(3, device="cuda")  # no generator was left in the middle of a recording


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_the_second_device_is_recorded_too():
    torch.manual_seed(0)
    model, guide = CudaModel().to("cuda:1"), Guide().to("cuda:1")
    batch = rows().to("cuda:1")
    step = training_step(model, guide, (batch,), compile=True)
    assert len({step(batch).item() for _ in range(5)}) == 5
