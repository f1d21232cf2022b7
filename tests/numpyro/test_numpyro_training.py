"""`fit` of NumPyro pairs: step by step the numbers of torch's `fit`, and a training that goes on as if never ended."""

import importlib
import inspect
import os
import random
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pyro
import pytest
import torch
from numpyro.infer import SVI, Predictive, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO

import ppl_models.inference as torch_side
from guides import MeanField as TorchMeanField, SelfReflective as TorchGuide
from guides.numpyro import MeanField, SelfReflective
from ppl_models import VAE as TorchVAE, SeReVAE as TorchModel
from ppl_models.inference import Cyclic, Linear
from ppl_models.inference.config import FitConfig
from ppl_models.inference.numpyro import evaluate, fit, load
from ppl_models.inference.numpyro.engine.parameters import find
from ppl_models.inference.numpyro.engine.step import Blocks, Step, begun
from ppl_models.inference.numpyro.passes.losses import estimate
from ppl_models.inference.numpyro.passes.terms import Terms, terms, traces
from ppl_models.inference.numpyro.training import checkpoint
from ppl_models.inference.numpyro.training.checkpoint import CHECKPOINT, PREVIOUS, read
from ppl_models.inference.numpyro.training.engine import NumPyroEngine
from ppl_models.inference.objectives import bounds as objectives
from ppl_models.inference.pyro.engine.step import Eager
from ppl_models.inference.pyro.passes.losses import estimate as torch_estimate
from ppl_models.inference.pyro.passes.terms import Terms as TorchTerms
from ppl_models.inference.resuming import history
from ppl_models.inference.resuming.history import LINES, SHOWN, History
from ppl_models.inference.training.loop import Loop
from ppl_models.numpyro import VAE, SeReVAE
from ppl_models.numpyro.parts.program import Program, named_constants, named_parameters, with_parameters
from ppl_models.numpyro.weights import from_torch
from tests.helpers.cases import few
from tests.helpers.processes import Killed, bomb, records_of, untimed

ROOT = Path(__file__).resolve().parents[2]
WIDTH, STEPS = 3, 20


def rows(n: int = 24, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, WIDTH)).astype(np.float32)


# a plain pair, in both languages: z ~ N(0, I), x ~ N(W z, s^2), and a linear guide


START = {
    "W": np.random.default_rng(2).normal(size=(2, WIDTH)),
    "V": 0.3 * np.random.default_rng(3).normal(size=(WIDTH, 2)),
    "s": np.array(0.8),
    "r": np.array([0.5, 0.7]),
}


def begin(name):
    # a copy: JAX remembers what it has made of an array of NumPy, the precision included
    return jnp.asarray(START[name].copy())


def model(x):
    w = numpyro.param("W", begin("W"))
    s = numpyro.param("s", begin("s"), constraint=dist.constraints.positive)
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        numpyro.sample("x", dist.Normal(z @ w, s).to_event(1), obs=x)


def guide(x):
    v = numpyro.param("V", begin("V"))
    r = numpyro.param("r", begin("r"), constraint=dist.constraints.positive)
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(x @ v, r).to_event(1))


def torch_model(x):
    w = pyro.param("W", torch.tensor(START["W"]))
    s = pyro.param("s", torch.tensor(START["s"]), constraint=torch.distributions.constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", pyro.distributions.Normal(z @ w, s).to_event(1), obs=x)


def torch_guide(x):
    v = pyro.param("V", torch.tensor(START["V"]))
    r = pyro.param("r", torch.tensor(START["r"]), constraint=torch.distributions.constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", pyro.distributions.Normal(x @ v, r).to_event(1))


def quiet(*pair_and_data, **arguments) -> Any:
    return fit(*pair_and_data, **{"steps": STEPS, "seed": 0, "progress": False, "lr": 1e-2, **arguments})


# the arguments


def test_arguments_are_those_of_torch():
    ours, theirs = (inspect.signature(f).parameters for f in (fit, torch_side.fit))
    assert list(ours) == list(theirs)
    for name in ours:
        assert (ours[name].kind, name) == (theirs[name].kind, name)
        if name != "objective":  # the same function of other Terms
            assert (ours[name].default, name) == (theirs[name].default, name)
    assert ours["objective"].default is objectives.elbo
    assert list(inspect.signature(evaluate).parameters) == list(inspect.signature(torch_side.evaluate).parameters)


def nothing_drawn(x):
    numpyro.sample("x", dist.Normal(0.0, 1.0).expand(x.shape).to_event(2), obs=x)


def discrete(x):
    with numpyro.plate("data", len(x)):
        k = numpyro.sample("k", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(k[:, None], 1.0).to_event(1), obs=x)


def discrete_guide(x):
    with numpyro.plate("data", len(x)):
        numpyro.sample("k", dist.Bernoulli(logits=numpyro.param("logit", 0.0)))


def stateful(x):
    numpyro.primitives.mutable("state", {"n": jnp.zeros(())})
    model(x)


def bits(x):
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Bernoulli(logits=numpyro.param("logits", jnp.zeros(WIDTH))).to_event(1), obs=x)


def late(x):
    guide(x)
    numpyro.sample("more", dist.Normal(0.0, 1.0))


def nothing(x):
    pass


@pytest.mark.parametrize(
    ("pair", "arguments", "words"),
    [
        ((model, guide), {"workers": 2}, "fit: found workers=2, want 0"),
        ((model, guide), {"epochs": 1}, "found steps=20 and epochs=1, want exactly one"),
        ((model, guide), {"patience": 2}, "found patience=2 without validation data"),
        ((model, guide), {"resume": True}, "found resume=True without a folder"),
        ((model, guide), {"lr": 0.0}, "found lr=0.0, want more than 0"),
        ((model, guide), {"warmup": 3, "beta": 0.5}, "found warmup=3 and beta=0.5, want one"),
        ((model, guide), {"precision": "float16"}, "found precision='float16', want 'float32' or 'bfloat16'"),
        ((model, guide), {"gradient": "doubly-reparametrized"}, "with the objective elbo, want importance_weighted"),
        (
            (model, guide),
            {"loss": Trace_ELBO(), "particles": 3},
            "with a loss of NumPyro's, objective, .* are not used",
        ),
        ((guide, model), {}, "the guide, model at .*, observes the site 'x'; are model and guide in this order"),
        ((guide, nothing), {}, "the guide has no factor for the site 'z' of the model"),
        ((model, late), {}, "the guide samples the site 'more', which the model does not draw"),
        ((nothing_drawn, nothing), {}, "no trainable parameter"),
        ((discrete, discrete_guide), {}, "'k' from a BernoulliLogits, not reparametrized.*TraceGraph_ELBO"),
        ((stateful, guide), {}, r"keep the state 'state' from run to run \(numpyro_mutable\)"),
        ((bits, nothing), {}, r"the site 'x' observes values outside the support .*\(first in row 0\)"),
    ],
)
def test_what_is_refused(pair, arguments, words):
    with pytest.raises(ValueError, match=words):
        quiet(*pair, rows(), **arguments)


def test_data_and_losses_that_are_refused():
    for data in ([1.0, 2.0], np.float32(3), "rows", object()):
        with pytest.raises(TypeError, match="fit: data: found .*, want an array of rows"):
            quiet(model, guide, data)
    with pytest.raises(ValueError, match="NaN or infinite values .first in row 7"):
        quiet(model, guide, np.where(np.arange(24)[:, None] == 7, np.nan, rows()))
    with pytest.raises(ValueError, match=r"found lengths \[24, 3\]"):
        quiet(model, guide, (rows(), rows(3)))
    with pytest.raises(TypeError, match="loss is the class Trace_ELBO, want an instance"):
        quiet(model, guide, rows(), loss=Trace_ELBO)
    with pytest.raises(TypeError, match="loss is a float, want an objective of NumPyro's"):
        quiet(model, guide, rows(), loss=1.0)


# objectives, on equal Terms


def pair_of_terms(seed: int, **changed) -> tuple[TorchTerms, Terms]:
    draw = np.random.default_rng(seed)
    units = {"z1": np.abs(draw.normal(size=(3, 4, 2))), "z2": np.abs(draw.normal(size=(3, 4, 1)))}
    tables = {
        "log_likelihood": {"x": draw.normal(size=(3, 4))},
        "log_p": {n: draw.normal(size=(3, 4)) for n in units},
        "log_q": {n: draw.normal(size=(3, 4)) for n in units},
        "kl": {n: u.sum(-1) for n, u in units.items()},
    }
    for name, value in changed.pop("also", {}).items():
        for table in ("log_p", "log_q", "kl"):
            tables[table][name] = value
    sides = []
    for kind, make in ((TorchTerms, torch.tensor), (Terms, jnp.asarray)):
        own = {table: {n: make(v) for n, v in each.items()} for table, each in tables.items()}
        units_of = {n: make(u) for n, u in units.items()}
        sides.append(kind(**own, units=lambda units_of=units_of: units_of, **{"shared": frozenset(), **changed}))
    return tuple(sides)


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("elbo", {}),
        ("importance_weighted", {}),
        *(("free_bits", {"nats": n, "per": per}) for n in (0.0, 0.7, 2.0) for per in ("layer", "unit", "sample")),
        *(("soft_free_bits", {"nats": 0.7, "width": 0.2, "per": per}) for per in ("layer", "unit")),
    ],
)
def test_objectives_are_those_of_torch(wide, name, options, beta):
    g = {"g": np.random.default_rng(5).normal(size=(3, 1))}
    f = {"f": np.random.default_rng(6).normal(size=(3, 4))}
    cases = [{}, {"full_size": 40}, {"also": f, "auxiliary": frozenset("f")}, {"also": g, "shared": frozenset("g")}]
    for changed in cases:
        if ("also" in changed) and options.get("per") == "unit":
            continue
        theirs, ours = pair_of_terms(0, **changed)
        sizes = (None, 4) if name == "importance_weighted" and changed.get("shared") else (None, 4, 9)
        for size in sizes:
            want = getattr(objectives, name)(theirs, beta, size, **options)
            found = getattr(objectives, name)(ours, beta, size, **options)
            assert float(found) == pytest.approx(want.item(), rel=1e-12), (changed, size)


def test_objectives_refuse_what_torch_refuses(wide):
    ours = pair_of_terms(0, also={"g": np.zeros((3, 1))}, shared=frozenset("g"))[1]
    with pytest.raises(ValueError, match="found the sites g outside the data plate and 4 of 9 data"):
        objectives.importance_weighted(ours, data_size=9)
    for objective, words in (
        (partial(objectives.free_bits, per="site"), "free_bits: found per='site'"),
        (partial(objectives.free_bits, nats=-1.0), "found nats=-1.0"),
        (partial(objectives.soft_free_bits, width=0.0), "found width=0.0"),
    ):
        with pytest.raises(ValueError, match=words):
            objective(ours)


# step by step the numbers of torch


class Noise:
    """One table of standard normal draws for both languages: that of a step and of the how-manieth draw in it."""

    def __init__(self, monkeypatch) -> None:
        self.step, self.count, self.tables = 0, 0, {}
        step, eager = Step.__call__, Eager.__call__

        def stepping(this, state, now, stored):
            self.step, self.count = now["step"], 0
            return step(this, state, now, stored)

        def stepping_torch(this, batches, now):
            self.step, self.count = now.step, 0
            return eager(this, batches, now)

        monkeypatch.setattr(Step, "__call__", stepping)
        monkeypatch.setattr(Eager, "__call__", stepping_torch)
        monkeypatch.setattr(
            jax.random, "normal", lambda key, shape=(), dtype=float: jnp.asarray(self(shape))[self.step]
        )
        for place in ("torch.distributions.normal", "torch.distributions.multivariate_normal"):
            monkeypatch.setattr(
                importlib.import_module(place), "_standard_normal", lambda shape, dtype, device: self.of_torch(shape)
            )

    def __call__(self, shape) -> np.ndarray:
        self.count += 1
        table = np.random.default_rng([self.count, *shape]).normal(size=(STEPS, *shape))
        return self.tables.setdefault((self.count, tuple(shape)), table)

    def of_torch(self, shape) -> torch.Tensor:
        return torch.tensor(self(shape)[self.step])


OPTIONS = {
    "as it is": {},
    "weight decay, clip, warm-up": {"weight_decay": 0.1, "clip": 0.5, "warmup": 9, "ema": None},
    "cyclic, schedule": {"beta": Cyclic(7), "schedule": Linear(STEPS, 1.0, 0.1), "analytic": False},
    "free bits": {"objective": ("free_bits", {"nats": 0.3, "per": "unit"}), "clip": None, "beta": 0.7},
    "importance weighted": {"objective": ("importance_weighted", {}), "schedule": "constant"},
    "doubly": {"objective": ("importance_weighted", {}), "gradient": "doubly-reparametrized", "beta": 0.5},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_twenty_steps_are_those_of_torch(wide, monkeypatch, name):
    """The same weights and the same noise: losses, bounds and parameters of every step, in double precision."""
    options, x = dict(OPTIONS[name]), rows().astype(float)
    options |= {"steps": STEPS, "lr": 0.05, "every": 1, "seed": 0, "progress": False, "batch_size": 100}
    kind, more = options.pop("objective", ("elbo", {}))
    objective = partial(getattr(objectives, kind), **more) if more else getattr(objectives, kind)
    Noise(monkeypatch)
    want = torch_side.fit(torch_model, torch_guide, torch.tensor(x), objective=objective, compile=False, **options)
    found = fit(model, guide, x, objective=objective, **options)
    for key in ("loss", "negative_elbo"):
        np.testing.assert_allclose([r[key] for r in found.history], [r[key] for r in want.history], rtol=1e-9)
    for param, value in found.params.items():
        np.testing.assert_allclose(value, pyro.param(param).detach().numpy(), rtol=1e-9, err_msg=param)


@pytest.mark.parametrize("name", few(("VAE", "SeReVAE"), lambda name: name == "VAE"))
def test_twenty_steps_of_the_collection_are_those_of_torch(wide, monkeypatch, name):
    x = (np.random.default_rng(0).random((16, WIDTH)) < 0.5).astype(float)
    sizes = {"event": WIDTH, "latent": 2, "hidden": 16} | ({"layers": 2} if name == "SeReVAE" else {})
    kinds = (TorchVAE, TorchMeanField, VAE, MeanField)
    if name == "SeReVAE":
        kinds = (TorchModel, TorchGuide, SeReVAE, SelfReflective)
    theirs, ours = kinds[0](**sizes), kinds[2](**sizes, key=jax.random.key(0))
    their_guide = kinds[1](theirs, torch.tensor(x[:3]), hidden=16)
    our_guide = kinds[3](ours, jnp.asarray(x[:3]), hidden=16, key=jax.random.key(0))
    ours, our_guide = with_parameters(ours, from_torch(theirs)), with_parameters(our_guide, from_torch(their_guide))
    options = {"steps": STEPS, "lr": 0.02, "every": 1, "seed": 0, "progress": False, "batch_size": 100}
    Noise(monkeypatch)
    want = torch_side.fit(theirs, their_guide, torch.tensor(x), compile=False, **options)
    found = fit(ours, our_guide, x, **options)
    np.testing.assert_allclose([r["loss"] for r in found.history], [r["loss"] for r in want.history], rtol=1e-9)
    for trained, like in ((found.model, theirs), (found.guide, their_guide)):
        held = {**named_parameters(trained), **named_constants(trained)}
        for name, value in from_torch(like).items():  # Adam makes something of a gradient of 1e-17
            np.testing.assert_allclose(held[name], value, rtol=1e-7, atol=1e-8, err_msg=name)
    if name == "SeReVAE":  # whose guide holds the model
        np.testing.assert_array_equal(*(jax.tree.leaves(m)[0] for m in (found.model, found.guide.model)))


def test_the_doubly_reparametrized_gradient_is_that_of_torch(wide, monkeypatch):
    """Of five particles, whose noise is taken from JAX's."""
    x, key, count = rows(4).astype(float), jax.random.key(0), 5
    options = {"beta": 0.4, "particles": count, "gradient": "doubly-reparametrized"}
    free, parameters, _ = find(model, guide, (x,), key)

    def loss(free):
        at = parameters.constrained(free)
        return estimate(objectives.importance_weighted, model, guide, (x,), key=key, params=at, **options)[0]

    value, slopes = jax.jit(jax.value_and_grad(loss))(free)
    noise = []
    for each in jax.random.split(key, count):
        site = traces(model, guide, (x,), key=each, params=parameters.constrained(free))[1]["z"]
        base = site["fn"].base_dist
        noise.append((site["value"] - base.loc) / base.scale)
    monkeypatch.setattr(torch.distributions.normal, "_standard_normal", lambda *_, **__: torch.tensor(np.stack(noise)))
    torch_model(torch.tensor(x)), torch_guide(torch.tensor(x))
    data = (torch.tensor(x),)
    want, _ = torch_estimate(objectives.importance_weighted, torch_model, torch_guide, data, nesting=1, **options)
    want.backward()
    assert float(value) == pytest.approx(want.item(), rel=1e-10)
    for name, slope in slopes.items():
        np.testing.assert_allclose(slope, pyro.param(name).unconstrained().grad.numpy(), rtol=1e-8, err_msg=name)


def test_at_the_exact_posterior_the_doubly_reparametrized_gradient_has_no_noise(wide):
    x = rows(6).astype(float)[:, :1]

    def known(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Normal(z[:, None], 1.0).to_event(1), obs=x)

    def exact(x):
        with numpyro.plate("data", len(x)):
            scale = numpyro.param("scale", 0.5**0.5)
            numpyro.sample("z", dist.Normal(numpyro.param("weight", 0.5) * x[:, 0], scale))

    def slope(kind):
        def loss(params):
            options = {"key": jax.random.key(1), "params": params, "particles": 4, "gradient": kind}
            return estimate(objectives.importance_weighted, known, exact, (x,), **options)[0]

        return jax.jit(jax.grad(loss))({"weight": jnp.asarray(0.5), "scale": jnp.asarray(0.5**0.5)})

    assert max(abs(v) for v in slope("doubly-reparametrized").values()) < 1e-12
    assert max(abs(v) for v in slope("reparametrized").values()) > 1e-3


def test_an_update_is_that_of_optax(wide):
    free, parameters, _ = find(model, guide, (jnp.asarray(rows()),), jax.random.key(0))
    slopes = jax.tree.map(lambda p: jnp.cos(7 * p), free)
    step = Step(
        model, guide, parameters, (), FitConfig(objective=objectives.elbo, steps=9, weight_decay=0.1), jax.random.key(0)
    )
    optimizer = optax.adamw(0.01, weight_decay=0.1)
    ours, theirs, state = begun(free, False), free, optimizer.init(free)
    for t in range(3):
        now = {"lr": 0.01, "first": 1 - 0.9 ** (t + 1), "second": 1 - 0.999 ** (t + 1)}
        params, first, second, _ = step._moved(ours, slopes, {n: jnp.asarray(v) for n, v in now.items()})
        ours = ours._replace(params=params, exp_avg=first, exp_avg_sq=second)
        updates, state = optimizer.update(slopes, state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10), ours.params, theirs)


# trainings


def test_a_linear_gaussian_pair_comes_to_its_evidence():
    """A guide that holds the exact posterior, by the mean of the log evidence of the trained model."""
    x = rows(400, 5) @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.5], [0.0, 0.0, 0.3]], np.float32)

    def factor(x):
        w = numpyro.param("w", jnp.array([0.5, 0.1, 0.1]))
        s = numpyro.param("s", jnp.ones(WIDTH), constraint=dist.constraints.positive)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Normal(z[:, None] * w, s).to_event(1), obs=x)

    def linear(x):
        v = numpyro.param("v", jnp.zeros(WIDTH))
        r = numpyro.param("r", 1.0, constraint=dist.constraints.positive)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(x @ v, r))

    run = quiet(factor, linear, x, steps=1000, batch_size=400, lr=0.08)
    w, s = np.asarray(run.params["w"], float), np.asarray(run.params["s"], float)
    law = torch.distributions.MultivariateNormal(
        torch.zeros(WIDTH).double(), torch.tensor(np.outer(w, w) + np.diag(s**2))
    )
    evidence = law.log_prob(torch.tensor(x).double()).mean().item()
    found = evaluate(run.model, run.guide, x, particles=50, progress=False)
    assert -found.nll == pytest.approx(evidence, abs=2e-4)
    assert found.elbo == pytest.approx(evidence, abs=0.05)  # of 20 000 draws, five standard errors
    assert run.history[-1]["loss"] == pytest.approx(-evidence, abs=0.1)
    predicted = Predictive(run.model, num_samples=2)(jax.random.key(0), jnp.asarray(x))
    assert predicted["z"].shape == (2, 400)


def collection(seed: int = 0) -> tuple[VAE, MeanField]:
    one = VAE(event=WIDTH, latent=2, hidden=4, depth=0, likelihood="gaussian:0.5", key=jax.random.key(seed))
    return one, MeanField(one, rows(3), hidden=4, depth=0, key=jax.random.key(seed + 1))


def log_w(one, two, params=None):
    """Of the same draws for the same programs."""
    run = jax.jit(lambda params: terms(one, two, (rows(3),), key=jax.random.key(5), params=params).log_w)
    return np.asarray(run({} if params is None else params))


def test_a_run_holds_the_pair_and_the_programs_that_it_was_given_are_as_before():
    one, two = collection()
    before = jax.tree.map(np.array, (named_parameters(one), named_parameters(two)))
    run = quiet(one, two, rows(16), steps=3)
    jax.tree.map(np.testing.assert_array_equal, before, (named_parameters(one), named_parameters(two)))
    assert type(run.model) is type(one) and type(run.guide) is type(two)
    assert set(run.params) == {one.param, two.param}
    for program, was in zip((run.model, run.guide), before, strict=True):
        for name, value in named_parameters(program).items():
            assert not np.array_equal(value, was[name]), name
    # params under the names of NumPyro say the same as the programs do
    free, known, _ = find(run.model, run.guide, (rows(3),), jax.random.key(0))
    np.testing.assert_allclose(log_w(one, two, run.params), log_w(one, two, known.constrained(free)), rtol=1e-6)
    # a guide with another copy of the model takes the weights of the one that it is paired with
    other = eqx.tree_at(lambda guide: guide.model, run.guide, one)
    np.testing.assert_allclose(log_w(run.model, other), log_w(run.model, run.guide), rtol=1e-6)
    svi = SVI(run.model, run.guide, numpyro.optim.Adam(1e-3), TraceMeanField_ELBO())
    state = svi.init(jax.random.key(0), rows(16))
    jax.tree.map(np.testing.assert_array_equal, svi.get_params(state), run.params)


def test_programs_of_one_class_are_refused():
    one, _ = collection()
    with pytest.raises(ValueError, match="model and guide are both of a class VAE"):
        quiet(one, one, rows())


@pytest.mark.parametrize("loss", [Trace_ELBO(num_particles=2), TraceMeanField_ELBO()])
@pytest.mark.slow
def test_losses_of_numpyro(loss):
    run = quiet(model, guide, rows(), loss=loss, steps=200, validation=rows(8, 2))
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert run.history[-1]["valid"] < run.history[0]["valid"]


def test_discrete_latents_train_with_a_loss_that_takes_them():
    x = np.where(np.arange(40)[:, None] % 4 == 0, 0.0, 1.0) + 0 * rows(40)
    run = quiet(discrete, discrete_guide, x, loss=TraceGraph_ELBO(), steps=300, lr=0.05)
    assert 0.3 < float(run.params["logit"])


def test_steps_do_not_depend_on_how_they_are_divided(monkeypatch):
    x = rows(50)
    want = quiet(model, guide, x, steps=33, batch_size=8, every=7)
    monkeypatch.setattr("ppl_models.inference.numpyro.engine.step.LONGEST", 5)
    found = quiet(model, guide, x, steps=33, batch_size=8, every=7)
    assert untimed(found.history) == untimed(want.history)
    jax.tree.map(np.testing.assert_array_equal, found.params, want.params)
    single = quiet(model, guide, x, steps=33, batch_size=8, every=7, compile=False)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4), single.params, want.params)


def test_batches_that_are_accumulated_are_one_of_them_all(wide):
    def alone(x):
        with numpyro.plate("data", len(x)):
            loc = numpyro.param("loc", jnp.zeros(WIDTH))
            numpyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    x = rows(24).astype(float)
    want = quiet(alone, nothing, x, batch_size=24)
    found = quiet(alone, nothing, x, batch_size=8, accumulate=3)
    np.testing.assert_allclose(found.params["loc"], want.params["loc"], rtol=1e-10)
    assert found.history[-1]["loss"] == pytest.approx(want.history[-1]["loss"], rel=1e-10)


def test_global_latents_count_once(wide):
    """The loss of batches is, on average, that of all data: one divergence of the global latent for all of them."""

    def shared(x):
        theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", dist.Normal(theta, 1.0), obs=x[:, 0])

    def free(x):
        r = numpyro.param("scale", 0.2, constraint=dist.constraints.positive)
        numpyro.sample("theta", dist.Normal(numpyro.param("loc", 0.0), r))

    x = 1 + rows(200).astype(float)
    run = quiet(shared, free, x, steps=4000, batch_size=20, lr=0.02)
    scale = 201**-0.5
    assert float(run.params["loc"]) == pytest.approx(x[:, 0].sum() / 201, abs=0.02)
    assert float(run.params["scale"]) == pytest.approx(scale, rel=0.1)
    found = evaluate(run.model, run.guide, x, particles=200, progress=False)
    assert found.notes == [
        "latents or data outside the data plate: all data count as one datum, numbers are divided by n"
    ]


# what ends a training


def exploding(x):
    """Data of zeros want a variance of 0, which an optimizer steps over."""
    w = numpyro.param("w", 0.5)
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=x[:, 1])
        numpyro.sample("x", dist.Normal(0.0, jnp.sqrt(w)), obs=0 * x[:, 0])


def one_latent(x):
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(numpyro.param("loc", 0.0), 1.0))


def test_a_step_that_is_not_finite_names_the_site_and_is_not_taken():
    words = (
        "fit: the loss is nan at step [0-9]+; the first term that is not finite is the log p of the observed site 'x'"
    )
    with pytest.raises(ValueError, match=words) as caught:
        quiet(exploding, one_latent, rows(), steps=400, lr=0.2, schedule="constant", ema=None)
    params = caught.value.run.params
    assert params["w"] < 0 and np.isfinite(list(params.values())).all()


def test_steps_are_left_out(tmp_path):
    run = quiet(model, guide, rows(), skip=20.0, every=5, batch_size=4)
    assert 0 < sum(record["skipped"] for record in run.history) < STEPS, run.history
    with pytest.raises(ValueError, match="none of the last 5 steps was taken"):
        quiet(model, guide, rows(), skip=1e-6, every=5)


def test_validation_patience_and_callbacks():
    options = {"validation": rows(20, 2), "every": 2}
    run = quiet(model, guide, rows(), lr=0.8, patience=2, steps=200, **options)
    assert run.history[-1]["step"] < 200 and "the pair is left as it was then" in run.notes[0]
    assert len(run.history) - 1 - int(np.argmin([r["valid"] for r in run.history])) == 2
    seen = []

    def stop(run):
        seen.append(float(run.params["s"]))
        run.history[-1]["s"] = seen[-1]
        return len(seen) == 3

    run = quiet(model, guide, rows(), callbacks=[stop], **options)
    assert run.history[-1]["step"] == 6 and "by the callback stop" in run.notes[0]
    assert [r["s"] for r in run.history] == seen and float(run.params["s"]) == seen[-1]


# exact resume


PLACES = {
    "before a block": (Blocks, "__call__", False),
    "after a block": (Blocks, "__call__", True),
    "validation": (NumPyroEngine, "bound", True),
    "before saving": (Loop, "_save", False),
    "writing": (os, "fsync", False),
    "keeping the previous one": (os, "link", True),
    "before renaming": (os, "replace", False),
    "after renaming": (os, "replace", True),
    "between the files": (history, "write_json", False),
    "after the lines": (History, "append", True),
    "after a record": (Loop, "_record", True),
}


CASES = {
    "plain": (lambda: (model, guide), {"validation": rows(9, 2)}),
    "many options": (
        lambda: (model, guide),
        {
            "warmup": 9,
            "weight_decay": 0.1,
            "particles": 2,
            "accumulate": 2,
            "skip": 50.0,
            "precision": "bfloat16",
            "ema": None,
            "compile": False,
        },
    ),
    "patience": (lambda: (model, guide), {"validation": rows(20, 2), "patience": 2, "lr": 0.8, "every": 2}),
    "programs": (collection, {}),
}


def train(name: str, folder: Path | None, **more) -> Any:
    make, options = CASES[name]
    options = {"steps": 23, "batch_size": 8, "every": 5, "lr": 1e-2, "resume": folder is not None, **options, **more}
    return quiet(*make(), rows(50), **{**options, "folder": folder})


def assert_same(one, other):
    """Two folders hold the same, but for the time that it took."""
    a, b = (read(folder / CHECKPOINT) for folder in (one, other))
    for mine, its in ((a.weights, b.weights), (a.training, b.training)):
        assert mine.keys() == its.keys()
        for name in mine:
            np.testing.assert_array_equal(mine[name], its[name], err_msg=name)
    assert records_of(one, a.about) == records_of(other, b.about)
    assert {**a.about, "seconds": 0} == {**b.about, "seconds": 0}


@pytest.mark.parametrize("name", few(CASES, lambda name: name == "plain"))
def test_ended_at_many_places_it_comes_to_the_same_end(name, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    want, moments, ended = train(name, whole), random.Random(name), []
    places = sorted(PLACES) if name == "plain" else sorted(PLACES)[:: 3 if name == "programs" else 2]
    for place in moments.sample(places, len(places)):
        with monkeypatch.context() as patch:
            bomb(patch, *PLACES[place], count=moments.randint(1, 3))
            try:
                train(name, broken)
            except Killed:
                ended.append(place)
    assert len(ended) >= 2, ended
    found = train(name, broken)
    for mine, its in zip(jax.tree.leaves(want.params), jax.tree.leaves(found.params), strict=True):
        np.testing.assert_array_equal(mine, its)
    assert untimed(want.history) == untimed(found.history) and want.notes == found.notes
    assert_same(whole, broken)
    assert {path.name for path in broken.iterdir()} == {CHECKPOINT, PREVIOUS, SHOWN, LINES}
    # what is loaded from the folder is what the pair was left with
    pair = CASES[name][0]()
    one, two = load(broken / CHECKPOINT, *pair)
    np.testing.assert_allclose(log_w(one, two), log_w(found.model, found.guide), rtol=1e-6)


@pytest.mark.slow
def test_a_process_that_is_killed(tmp_path):
    """SIGKILL in the middle of writing; another process goes on."""
    code = """
        import os, signal, sys
        from tests.numpyro.test_numpyro_training import *
        real, calls = os.fsync, []
        def deadly(file):
            calls.append(1)
            if len(calls) == 6:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(file)
        os.fsync = deadly
        train("plain", Path(sys.argv[1]))
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path / "broken"], env=environment, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    train("plain", tmp_path / "whole"), train("plain", tmp_path / "broken")
    assert_same(tmp_path / "whole", tmp_path / "broken")


def test_ctrl_c_saves_and_carries_the_run(tmp_path):
    def press(run):
        if run.history[-1]["step"] == 10:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        train("plain", tmp_path / "broken", callbacks=press)
    run = caught.value.run
    assert run.history[-1]["step"] == 10 and "interrupted after step 10, saved" in run.notes[0]
    np.testing.assert_array_equal(run.params["W"], read(tmp_path / "broken" / CHECKPOINT).weights["params.W"])
    train("plain", tmp_path / "broken"), train("plain", tmp_path / "whole")
    assert_same(tmp_path / "whole", tmp_path / "broken")


def test_what_cannot_be_resumed(tmp_path):
    train("plain", tmp_path, steps=10)
    for other, words in (
        ({"lr": 0.02}, "found lr=0.02, but the run in this folder was started with 0.01"),
        ({"ema": None}, "found ema=None, but"),
        ({"steps": 30}, "found steps=30, but"),
        ({"validation": rows(9, 3)}, "the validation data are not those"),
        ({"resume": False}, f"holds a {CHECKPOINT} already"),
    ):
        with pytest.raises(ValueError, match=words):
            train("plain", tmp_path, **{"steps": 10, **other})
    with pytest.raises(ValueError, match="the data are not those that the run in"):
        quiet(
            model, guide, rows(50, 9), **{"steps": 10, "batch_size": 8, "every": 5, "folder": tmp_path, "resume": True}
        )
    content = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="is damaged: .* the previous checkpoint, .* .step 5., is whole"):
        train("plain", tmp_path, steps=10)


def test_checkpoints_go_from_one_library_to_the_other(tmp_path):
    sizes = {"event": WIDTH, "latent": 2, "hidden": 4, "depth": 0}
    theirs = TorchVAE(**sizes, likelihood="gaussian:0.7")
    their_guide = TorchMeanField(theirs, torch.tensor(rows(3)), hidden=4, depth=0)
    torch_side.save(tmp_path / "torch", {"model": theirs, "guide": their_guide})
    ours, our_guide = collection()  # whose likelihood has the scale 0.5: that of the file counts
    one, two = load(tmp_path / "torch", ours, our_guide)
    for program, like in ((one, theirs), (two, their_guide), (two.model, theirs)):
        for name, value in {**named_parameters(program), **named_constants(program)}.items():
            np.testing.assert_array_equal(value, like.state_dict()[name].numpy())
    run = quiet(one, two, rows(16), steps=3, folder=tmp_path / "run")
    torch_side.load(tmp_path / "run" / CHECKPOINT, {"model": theirs, "guide": their_guide})
    for program, like in ((run.model, theirs), (run.guide, their_guide)):
        for name, value in named_parameters(program).items():
            np.testing.assert_array_equal(value, like.state_dict()[name].numpy())
    large = VAE(**{**sizes, "hidden": 8, "depth": 1}, key=jax.random.key(0))
    with pytest.raises(ValueError, match="torch: VAE: found no parameter"):
        load(tmp_path / "torch", large, our_guide)
    pyro.param("slope", torch.zeros(()))
    torch_side.save(tmp_path / "functions", {"params": {"slope": pyro.param("slope")}})
    with pytest.raises(ValueError, match="holds the params of Pyro functions"):
        load(tmp_path / "functions", model, guide)


def test_saving_keeps_scalars_and_says_what_json_does_not_know(tmp_path):
    checkpoint.save(tmp_path / "c", {"params.s": jnp.asarray(2.0)}, {"step": np.arange(3)}, {"step": 1})
    found = read(tmp_path / "c")
    assert found.weights["params.s"].shape == () and found.about == {"step": 1}
    with pytest.raises(TypeError, match="save: about is not JSON"):
        checkpoint.save(tmp_path / "c", {}, {}, {"step": object()})


# what a review found


def tree_model(x):
    loc = numpyro.param("tree", {"a": jnp.zeros(()), "b": jnp.zeros(2)})
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(loc["a"] + loc["b"].sum(), 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def tree_guide(x):
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(x / 2 + numpyro.param("shift", 0.0), 0.7))


def test_params_that_are_trees_are_loaded(tmp_path):
    x = np.linspace(1.0, 3.0, 20)
    run = fit(tree_model, tree_guide, x, steps=20, lr=0.1, folder=tmp_path / "run", progress=False, seed=0)
    loaded, _ = load(tmp_path / "run" / CHECKPOINT, tree_model, tree_guide)
    trace = numpyro.handlers.trace(numpyro.handlers.seed(loaded, 0)).get_trace(x)
    found, want = trace["tree"]["value"], run.params["tree"]
    assert float(want["a"]) > 0.1
    jax.tree.map(np.testing.assert_array_equal, found, want)


class Odd(Program):
    weight: jax.Array

    def forward(self, x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(self.weight + numpyro.param("more", 0.0), 1.0))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def whole_number(x):
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(x + numpyro.param("count", 0), 1.0))


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (
            (Odd(jnp.zeros(())), tree_guide),
            "found the param 'more' in a run of the Program Odd, want its",
        ),
        ((tree_model, whole_number), "found the param 'count' of int32, want floating numbers"),
    ],
)
def test_params_that_would_be_lost_or_have_no_gradient_are_refused(pair, words):
    with pytest.raises(ValueError, match=words):
        fit(*pair, np.linspace(1.0, 3.0, 20), steps=2, progress=False)


def test_frames_are_arrays():
    frame = pytest.importorskip("pandas").Series(np.linspace(1.0, 3.0, 20))
    assert fit(tree_model, tree_guide, frame, steps=2, progress=False).history
