"""Objectives with state: their arrays in steps of every kind and in files; the controller of free bits."""

import re
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as jax_dist
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import ppl_models.inference as torch_side
import ppl_models.inference.numpyro as jax_side
from ppl_models.inference import Loss, Terms, adaptive_free_bits, elbo, geco, rewo, training_step
from ppl_models.inference.config import FitConfig
from ppl_models.inference.objectives import constrained
from ppl_models.inference.objectives.stateful import Carried, begun
from ppl_models.inference.pyro.engine import compiled
from ppl_models.inference.pyro.engine.compiled import Compiled
from ppl_models.inference.pyro.engine.optimizer_state import OptimizerState, trainable
from ppl_models.inference.pyro.engine.step import Eager, StepConfig, StepInputs
from ppl_models.inference.pyro.training.checkpoint import CHECKPOINT, read
from ppl_models.runs.naming.objectives import objective_of
from tests.helpers.cases import few
from tests.helpers.uncompiled import as_it_is

pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The graphs that are captured, which run as they are."""
    graphs: list[Any] = []
    monkeypatch.setattr(compiled, "compiled", as_it_is(graphs.append))
    return graphs


# The controller, against a loop by hand.


def by_hand(gamma: float, kl: float, nats: float, rate: float, slack: float) -> float:
    if kl > (1 + slack) * nats:
        return min(gamma * (1 + rate), 1.0)
    return max(gamma / (1 + rate), 1e-6) if kl < nats else gamma


def test_the_trajectory_of_the_weights_is_that_of_a_loop_by_hand():
    kls = 1.0 + np.random.default_rng(0).normal(size=(300, 2)) * np.linspace(0.1, 1.0, 300)[:, None]
    objective, gammas = adaptive_free_bits(nats=1.0, rate=0.2, slack=0.1), [1.0, 1.0]

    def terms(row: np.ndarray, as_array: Any) -> Terms:
        kl = {n: as_array([[v, v + 0.2], [v, v - 0.2]]) for n, v in zip("ab", row, strict=True)}  # means over all four
        return Terms({"x": as_array([[-3.0, -5.0], [-4.0, -4.0]])}, {}, {}, kl, frozenset())

    with jax.enable_x64(True):
        states = [begun(objective, terms(kls[0], make), None) for make in (torch.tensor, jnp.asarray)]
        for row in kls:
            bound = -4 - 0.5 * sum(g * v for g, v in zip(gammas, row, strict=True))
            for i, make in enumerate((torch.tensor, jnp.asarray)):
                value, states[i] = objective(terms(row, make), 0.5, None, states[i])
                assert float(value) == pytest.approx(bound, rel=1e-12)
            gammas = [by_hand(g, v, 1.0, 0.2, 0.1) for g, v in zip(gammas, row, strict=True)]
            for state in states:
                assert [float(state[f"gamma.{n}"][0]) for n in "ab"] == pytest.approx(gammas, rel=1e-12)
    assert 0 < min(gammas) < 1  # they moved


def test_auxiliary_and_shared_sites_and_units():
    units = {"z": torch.tensor([[[0.1, 2.0], [0.3, 4.0]]]), "g": torch.tensor([[[5.0]]])}
    kl = {n: u.sum(-1) for n, u in units.items()} | {"aux": torch.ones(1, 2)}
    terms = Terms(
        {"x": torch.zeros(1, 2)}, {}, {}, kl, frozenset("g"), auxiliary=frozenset({"aux"}), units=lambda: units
    )
    objective = adaptive_free_bits(nats=1.0, per="unit")
    state = begun(objective, terms, 10)
    assert {n: tuple(v.shape) for n, v in state.items()} == {"gamma.z": (2,), "gamma.g": (1,)}
    state = {"gamma.z": torch.tensor([0.5, 0.25]), "gamma.g": torch.tensor([0.5])}
    value, after = objective(terms, 1.0, 10, state)
    torch.testing.assert_close(value, torch.tensor(-(0.5 * 0.2 + 0.25 * 3.0) - 0.5 * 5.0 / 10 - 1.0))
    torch.testing.assert_close(after["gamma.z"], torch.tensor([0.5 / 1.1, 0.25 * 1.1]))


def test_beta_weighs_the_divergences_and_moves_no_weight():
    terms = Terms({"x": torch.zeros(1, 2)}, {}, {}, {"z": torch.full((1, 2), 3.0)}, frozenset())
    state = {"gamma.z": torch.tensor([0.5])}
    found = [adaptive_free_bits(nats=1.0)(terms, beta, None, state) for beta in (0.0, 0.1, 1.0)]
    assert [float(v) for v, _ in found] == pytest.approx([0.0, -0.15, -1.5])
    assert {float(after["gamma.z"]) for _, after in found} == {0.55}


@pytest.mark.parametrize("options", [{"nats": -1.0}, {"rate": 0.0}, {"slack": -0.1}, {"least": 0.0}, {"least": 2.0}])
def test_options_that_there_are_not(options):
    with pytest.raises(ValueError, match=f"adaptive_free_bits: found {next(iter(options))}="):
        adaptive_free_bits(**options)


# A pair in both languages: z ~ N(0, I), x ~ N(W z, I), and a guide whose factor needs no draw to give its divergence.

START = {"W": np.random.default_rng(2).normal(size=(2, 3)), "V": 0.3 * np.random.default_rng(3).normal(size=(3, 2))}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.tensor(START["W"]))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.W, 1.0).to_event(1), obs=x)


class Guide(nn.Module):
    """Its scale is so small that the draws of other generators move no loss."""

    def __init__(self) -> None:
        super().__init__()
        self.V = nn.Parameter(torch.tensor(START["V"]))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ self.V, 1e-9).to_event(1))


def jax_model(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", jax_dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        w = numpyro.param("W", jnp.asarray(START["W"].copy()))
        numpyro.sample("x", jax_dist.Normal(z @ w, 1.0).to_event(1), obs=x)


def jax_guide(x):
    with numpyro.plate("data", len(x)):
        v = numpyro.param("V", jnp.asarray(START["V"].copy()))
        numpyro.sample("z", jax_dist.Normal(x @ v, jnp.asarray(1e-9)).to_event(1))


def rows(n: int = 16) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n, 3))


# KL falls from 41.1 nats: it passes the band of the controller
QUIET = {"lr": 0.02, "every": 5, "seed": 0, "progress": False, "schedule": "constant"}
OBJECTIVE = adaptive_free_bits(nats=40.8, slack=0.002)
CASES = {
    "as it is": {},
    "particles": {"particles": 2},
    "accumulate": {"accumulate": 2, "batch_size": 8},
    "warm-up": {"warmup": 10},
    "per unit": {"objective": adaptive_free_bits(nats=20.45, slack=0.001, per="unit")},
    "geco": {"objective": geco(tolerance=4.0, rate=0.01)},
    "rewo": {"objective": rewo(tolerance=7.5, rate=0.02, weight=0.5)},
}


def trained(folder: Any, compile: bool, **options: Any) -> tuple[Any, dict[str, np.ndarray], list[np.ndarray]]:
    model, guide = Model(), Guide()
    options = {"steps": 25, "objective": OBJECTIVE, "batch_size": 100, "folder": folder, **QUIET, **options}
    run = torch_side.fit(model, guide, torch.tensor(rows()), compile=compile, **options)
    state = {n: v.numpy() for n, v in read(folder / CHECKPOINT).training.items() if n.startswith("objective.")}
    return run, state, [model.W.detach().numpy(), guide.V.detach().numpy()]


def check_moved(name: str, state: dict[str, np.ndarray]) -> None:
    """The state is neither that of the beginning nor at an end of its range."""
    if name not in ("geco", "rewo"):
        assert ((0 < state["objective.gamma.z"]) & (state["objective.gamma.z"] < 1)).all()
        return
    began = 1.0 if name == "geco" else 2.0
    assert 0.1 < state["objective.lambda"] < 10 and abs(state["objective.lambda"] - began) > 0.01
    assert state.get("objective.phase", 1) == 1


@pytest.mark.parametrize("name", CASES)
def test_eager_captured_and_numpyros_steps_are_the_same(name, tmp_path, uncompiled, monkeypatch):
    monkeypatch.setattr(constrained, "EVERY", 3)
    options = CASES[name]
    eager, state, weights = trained(tmp_path / "eager", False, **options)
    captured, state_too, weights_too = trained(tmp_path / "captured", True, **options)
    assert uncompiled and not captured.notes
    assert state.keys() == state_too.keys()
    pairs = [(state[key], state_too[key]) for key in state]
    for a, b in [*pairs, *zip(weights, weights_too, strict=True)]:
        np.testing.assert_allclose(a, b, rtol=1e-6)
    check_moved(name, state)
    if name == "accumulate":  # whose batches have other rows
        return
    with jax.enable_x64(True):
        options = {
            "steps": 25,
            "objective": OBJECTIVE,
            "batch_size": 100,
            "folder": tmp_path / "jax",
            **QUIET,
            **options,
        }
        run = jax_side.fit(jax_model, jax_guide, rows(), **options)
    kept = read(tmp_path / "jax" / CHECKPOINT).training
    for key, value in state.items():
        np.testing.assert_allclose(kept[key], value, rtol=1e-6, err_msg=key)
    np.testing.assert_allclose(np.asarray(run.params["W"]), weights[0], rtol=1e-5)
    assert [r["loss"] for r in run.history] == pytest.approx([r["loss"] for r in eager.history], rel=1e-5)


def stop_at(step: int) -> Any:
    def stop(run: Any) -> None:
        if run.history[-1]["step"] == step:
            raise KeyboardInterrupt

    return stop


ENDED = [(kind, name) for kind in (False, "xla", "inductor", "numpyro") for name in ("as it is", "geco", "rewo")]
# REWO moves whatever GECO does, and more
OFTEN = [(False, "geco"), *((kind, name) for kind in (False, "xla", "numpyro") for name in ("as it is", "rewo"))]


@pytest.mark.parametrize(("kind", "name"), few(ENDED, lambda *case: case in OFTEN))
def test_a_run_that_was_ended_goes_on_exactly(kind, name, tmp_path, monkeypatch):
    monkeypatch.setattr(constrained, "EVERY", 3)
    options = {"steps": 25, "objective": OBJECTIVE, "batch_size": 6, **CASES[name], **QUIET}
    if name != "as it is":  # the first batch is reconstructed worse than all data
        options["objective"] = replace(options["objective"], tolerance=12.0 if name == "geco" else 14.0)
    found = []
    for folder in ("whole", "parts"):
        options["folder"] = tmp_path / folder
        for part in range(1 if folder == "whole" else 2):
            options["resume"], options["callbacks"] = part == 1, stop_at(20) if folder == "parts" and not part else None
            try:
                if kind == "numpyro":
                    with jax.enable_x64(True):
                        jax_side.fit(jax_model, jax_guide, rows(), **options)
                else:
                    torch_side.fit(Model(), Guide(), torch.tensor(rows()), compile=kind, **options)
            except KeyboardInterrupt:
                assert folder == "parts"
        kept = read(tmp_path / folder / CHECKPOINT)
        found.append({**kept.weights, **kept.training})
    whole, parts = found
    assert whole.keys() == parts.keys()
    check_moved(name, whole)
    for name, value in whole.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(parts[name]), err_msg=name)


def test_another_objective_cannot_go_on(tmp_path):
    trained(tmp_path, False)
    with pytest.raises(ValueError, match="found objective=.adaptive_free_bits.nats=1.0, per"):
        trained(tmp_path, False, objective=adaptive_free_bits(nats=1.0), resume=True)


# What is left alone.


class Counting:
    """The state counts batches; the bound is the ELBO."""

    def init(self, terms: Terms, data_size: int | None = None) -> dict[str, Any]:
        return {"count": 0 * next(iter(terms.kl.values())).sum()}

    def __call__(self, terms: Terms, beta: Any, data_size: int | None, state: Any) -> tuple[Any, dict[str, Any]]:
        return elbo(terms, beta, data_size), {"count": state["count"] + 1}


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize(("accumulate", "count"), [(1, 25), (2, 50)])
def test_batches_are_counted_and_validation_is_not(compile, accumulate, count, tmp_path, uncompiled):
    options = {"objective": Counting(), "accumulate": accumulate, "batch_size": 8}
    _, state, _ = trained(tmp_path, compile, **options, validation=torch.tensor(rows(8)))
    assert state["objective.count"] == count


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("batches", [1, 2])
def test_a_step_that_is_not_taken_leaves_the_state(compile, batches, uncompiled):
    x, model, guide = torch.tensor(rows()), Model(), Guide()
    slots = OptimizerState(trainable({"model": model, "guide": guide}), average=False)
    eager = Eager(model, guide, slots, StepConfig(FitConfig(objective=Counting(), skip=1e6)))
    eager.begin((x,))
    step = Compiled(eager) if compile else eager
    for i, (data, count) in enumerate([(x, 1), (x * 1e9, 1), (x * float("nan"), 1), (x, 2)]):
        step([(data,)] * batches, StepInputs(i, 0.01))
        assert slots.objective["count"] == count * batches
    assert bool(uncompiled) == compile


def test_batches_are_counted_in_jax(tmp_path):
    options = {"objective": Counting(), "accumulate": 2, "batch_size": 8, "validation": rows(8), "steps": 10, **QUIET}
    with jax.enable_x64(True):
        jax_side.fit(jax_model, jax_guide, rows(), folder=tmp_path, **options)
    assert read(tmp_path / CHECKPOINT).training["objective.count"] == 20


def test_a_step_of_ones_own_and_a_loss_carry_it(uncompiled):
    x, model, guide = torch.tensor(rows()), Model(), Guide()
    for compile in (False, True):
        step = training_step(model, guide, (x,), objective=Counting(), compile=compile)
        for _ in range(3):
            step(x)
        assert step.slots.objective["count"] == 3
    loss = Loss(Counting())
    for _ in range(2):
        loss.differentiable_loss(model, guide, x).backward()
    loss.loss(model, guide, x)
    assert loss.state["count"] == 2
    with pytest.raises(ValueError, match="a Loss of an objective with state, which no checkpoint would keep"):
        torch_side.fit(model, guide, x, steps=1, loss=loss, progress=False)


def test_what_is_no_state_is_refused():
    x, model, guide = torch.tensor(rows()), Model(), Guide()

    class Whole(Counting):
        def init(self, terms: Terms, data_size: int | None = None) -> dict[str, Any]:
            return {"count": torch.zeros((), dtype=torch.int64)}

    with pytest.raises(ValueError, match="objective=adaptive_free_bits, a class, want an objective; try adaptive_free"):
        training_step(model, guide, (x,), objective=adaptive_free_bits)
    with pytest.raises(ValueError, match="found the state 'count' of torch.int64, want floating numbers"):
        training_step(model, guide, (x,), objective=Whole())
    with pytest.raises(ValueError, match="the objective Counting: found a state of {'count': .2,.}, want that of its"):
        Carried(Counting(), {"count": torch.zeros(2), "more": torch.zeros(())})(
            Terms({"x": torch.zeros(1, 2)}, {}, {}, {"z": torch.zeros(1, 2)}, frozenset())
        )
    options = {"objective": adaptive_free_bits(), "gradient": "doubly-reparametrized", "steps": 1, "progress": False}
    for fit, pair, data in ((torch_side.fit, (model, guide), x), (jax_side.fit, (jax_model, jax_guide), rows())):
        with jax.enable_x64(True), pytest.raises(ValueError, match="want importance_weighted: of the others"):
            fit(*pair, data, **options)


def test_by_the_words_of_a_command_line():
    assert objective_of("adaptive-free-bits:nats=2.0,per=unit") == adaptive_free_bits(nats=2.0, per="unit")
    assert objective_of("adaptive-free-bits") == adaptive_free_bits()
    assert objective_of("geco:tolerance=80,inner=4") == geco(tolerance=80, inner=4)
    assert objective_of("rewo:tolerance=-3.5,rate=0.01,weight=0.5") == rewo(tolerance=-3.5, rate=0.01, weight=0.5)
    for text, told in (
        ("geco", "found no tolerance, try geco:tolerance=1"),
        ("rewo:tolerance=80,nu=1", "found the option 'nu', want some of tolerance, rate, weight, inner"),
        ("rewo:tolerance=80,rate=0", "found rate=0, want more than 0"),
        ("geco:tolerance=many", "found tolerance='many', want a number"),
    ):
        with pytest.raises(ValueError, match=re.escape(told)) as error:
            objective_of(text)
        assert "\n" not in str(error.value)


@pytest.mark.slow
def test_it_holds_a_divergence_at_its_target():
    """Where the ELBO leaves a code out (data of less than the variance of the noise), the controller lets it tell."""

    class Learned(Guide):
        def __init__(self) -> None:
            super().__init__()
            self.log_scale = nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x @ self.V, self.log_scale.exp()).to_event(1))

    def kl_at_last(objective: Any) -> float:
        """The mean of many, as the controller swings about its target."""
        torch.manual_seed(0)
        model, guide, x = Model(), Learned(), torch.tensor(0.5 * rows(64))
        step, found = training_step(model, guide, (x,), objective=objective, lr=0.02), []
        for i in range(1200):
            step(x)
            if i >= 400 and i % 10 == 0:
                found.append(torch_side.terms(model, guide, (x,)).kl["z"].mean().item())
        return sum(found) / len(found)

    assert kl_at_last(elbo) < 0.05
    assert 0.4 < kl_at_last(adaptive_free_bits(nats=0.5, rate=0.03)) < 0.7
