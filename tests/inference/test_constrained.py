"""GECO and REWO: their sequences against loops by hand, where the weight goes, and what they refuse."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import ppl_models.inference as torch_side
from ppl_models.inference import Terms, elbo, geco, rewo, training_step
from ppl_models.inference.objectives import constrained
from ppl_models.inference.objectives.stateful import begun

pytestmark = pytest.mark.usefixtures("double")


def terms_of(error: float, kl: float, as_array: Any = torch.tensor) -> Terms:
    """Two particles and two data, of this mean error and this mean divergence of two latents."""
    likelihood = as_array([[-error - 1.0, -error + 1.0], [-error - 0.5, -error + 0.5]])
    half = as_array([[kl / 2 - 0.1, kl / 2 + 0.1], [kl / 2, kl / 2]])
    return Terms({"x": likelihood}, {}, {}, {"a": half, "b": half}, frozenset())


def clamped(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)


class GecoByHand:
    def __init__(self, error: float, tolerance: float, rate: float) -> None:
        self.tolerance, self.rate = tolerance, rate
        self.multiplier, self.average = 1.0, error - tolerance

    def __call__(self, error: float, kl: float) -> float:
        value = -kl - self.multiplier * (error - self.tolerance)
        self.average = 0.99 * self.average + 0.01 * (error - self.tolerance)
        self.multiplier *= clamped(math.exp(self.rate * self.average), 0.9, 1.05)
        self.multiplier = clamped(self.multiplier, 1e-6, 1e8)
        return value

    @property
    def state(self) -> dict[str, float]:
        return {"lambda": self.multiplier, "constraint": self.average}


class RewoByHand:
    def __init__(self, error: float, tolerance: float, rate: float, weight: float) -> None:
        self.tolerance, self.rate = tolerance, rate
        self.multiplier, self.average, self.initial, self.batches = 1 / weight, error - tolerance, True, 0

    def __call__(self, error: float, kl: float) -> float:
        self.average = 0.99 * self.average + 0.01 * (error - self.tolerance)
        self.initial = self.initial and self.average >= 0
        value = -error if self.initial else -error - kl / self.multiplier
        self.batches += 1
        if self.batches % 100 == 0 and not self.initial:
            f = 1.0 if self.average >= 0 else -math.tanh(100 * (1 / self.multiplier - 1))
            self.multiplier *= clamped(math.exp(self.rate * f * self.average), 0.9, 1.05)
            self.multiplier = clamped(self.multiplier, 1e-6, 1e8)
        return value

    @property
    def state(self) -> dict[str, float]:
        phase, batches = float(not self.initial), float(self.batches % 100)
        return {"lambda": self.multiplier, "constraint": self.average, "phase": phase, "batches": batches}


WALK = 80.0 - 8 * np.sin(np.arange(1200) / 200) + np.random.default_rng(0).normal(size=1200)


@pytest.mark.parametrize("which", ["geco", "rewo"])
def test_the_sequence_is_that_of_a_loop_by_hand(which):
    """The error passes the tolerance there and back, in both languages."""
    objective = geco(tolerance=75.0, rate=0.01) if which == "geco" else rewo(tolerance=75.0, rate=0.02, weight=0.3)
    errors = WALK
    hand = GecoByHand(errors[0], 75.0, 0.01) if which == "geco" else RewoByHand(errors[0], 75.0, 0.02, 0.3)
    step = jax.jit(lambda error, kl, state: objective(terms_of(error, kl, jnp.asarray), 1.0, None, state))
    seen = []
    with jax.enable_x64(True):
        states = [begun(objective, terms_of(errors[0], 20.0, make), None) for make in (torch.tensor, jnp.asarray)]
        for i, error in enumerate(errors):
            kl = 20 + math.sin(i)
            values = [None, None]
            values[0], states[0] = objective(terms_of(error, kl), 1.0, None, states[0])
            values[1], states[1] = step(error, kl, states[1])
            bound = hand(error, kl)
            assert [float(v) for v in values] == pytest.approx([bound, bound], rel=1e-10)
            for state in states:
                assert {n: float(v) for n, v in state.items()} == pytest.approx(hand.state, rel=1e-10, abs=1e-12)
            seen.append(hand.state)
    averages, multipliers = ([state[name] for state in seen] for name in ("constraint", "lambda"))
    assert min(averages) < 0 < max(averages)  # on both sides
    assert np.diff(multipliers).min() < 0 < np.diff(multipliers).max()  # both ways
    if which == "rewo":
        assert 100 < sum(state["phase"] == 0 for state in seen) < 1000


def run(objective: Any, error: float, batches: int, state: dict[str, Tensor] | None = None) -> list[float]:
    """The multipliers of batches of a constant error."""
    terms, found = terms_of(error, 20.0), []
    state = {**begun(objective, terms, None), **(state or {})}
    for _ in range(batches):
        _, state = objective(terms, 1.0, None, state)
        found.append(state["lambda"].item())
    return found


@pytest.mark.parametrize("start", [0.01, 0.3, 1.0, 3.0, 100.0])
def test_rewo_ends_at_weight_one_from_both_sides_where_the_tolerance_is_kept(start, monkeypatch):
    monkeypatch.setattr(constrained, "EVERY", 1)
    found = 1 / np.array(run(rewo(tolerance=75.0, rate=0.0015, weight=start), 70.0, 900))
    assert found[-1] == pytest.approx(1.0, abs=1e-12)
    assert (np.diff(found) * np.sign(1 - start) >= -1e-12).all()  # 100 * rate * |C| is below 1: never past one


@pytest.mark.parametrize("objective", [geco(tolerance=75.0, rate=10.0), rewo(tolerance=75.0, rate=10.0)])
def test_a_violated_constraint_moves_lambda_by_at_most_a_twentieth(objective):
    found = [1.0, *run(objective, 90.0, 1000, {"phase": torch.ones(())} if isinstance(objective, rewo) else None)]
    ratios = {round(b / a, 12) for a, b in zip(found, found[1:], strict=False)}
    # GECO at every batch, up to the largest lambda there is; REWO at every hundredth
    assert max(ratios) == 1.05 and min(ratios) == 1.0
    assert found[-1] == pytest.approx(1e8 if isinstance(objective, geco) else 1.05**10)


def test_a_kept_constraint_lets_lambda_of_geco_fall_by_at_most_a_tenth():
    found = run(geco(tolerance=75.0, rate=10.0), 60.0, 200)
    assert found[:2] == pytest.approx([0.9, 0.81]) and found[-1] == 1e-6


def test_rewo_leaves_divergences_out_until_the_tolerance_is_reached_and_never_again():
    objective = rewo(tolerance=75.0, weight=0.5)
    state = begun(objective, terms_of(76.0, 20.0), None)
    value, state = objective(terms_of(76.0, 20.0), 1.0, None, state)
    assert value == -76.0 and state["phase"] == 0
    value, state = objective(terms_of(-100.0, 20.0), 1.0, None, state)  # the average is 0.99 * 1 - 0.01 * 175 now
    assert value == pytest.approx(100.0 - 10.0) and state["phase"] == 1
    value, state = objective(terms_of(500.0, 20.0), 1.0, None, state)
    assert state["constraint"] > 0
    assert value == pytest.approx(-500.0 - 10.0) and state["phase"] == 1
    # of several processes, of which one has begun, all go on with the mean
    value, state = objective(terms_of(500.0, 20.0), 1.0, None, state | {"phase": torch.tensor(0.5)})
    assert value == pytest.approx(-500.0 - 10.0) and state["phase"] == 1


def test_beta_weighs_the_divergences_and_moves_nothing():
    for objective, weight, rest in ((geco(tolerance=75.0), 1.0, 75.0), (rewo(tolerance=81.0, weight=0.5), 0.5, 0.0)):
        terms = terms_of(80.0, 20.0)
        state = begun(objective, terms, None)
        found = [objective(terms, beta, None, state) for beta in (0.0, 0.1, 1.0)]
        values = [float(value) for value, _ in found]
        assert values == pytest.approx([rest - 80.0 - beta * weight * 20.0 for beta in (0.0, 0.1, 1.0)])
        assert all(after == found[0][1] for _, after in found)


def test_one_bound_a_datum_whatever_the_batch():
    """A shared latent counts once for all data, here 10."""
    terms = Terms({"x": torch.tensor([[-3.0, -5.0]])}, {}, {}, {"g": torch.tensor([[8.0]])}, frozenset({"g"}))
    value, _ = geco(tolerance=1.0)(terms, 1.0, 10, begun(geco(tolerance=1.0), terms, 10))
    assert value == pytest.approx(-0.8 - (4.0 - 1.0))


@pytest.mark.parametrize("kind", [geco, rewo])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tolerance": "low"}, "found tolerance='low', want a number"),
        ({"tolerance": math.nan}, "found tolerance=nan, want a finite number"),
        ({"tolerance": 1.0, "rate": 0.0}, "found rate=0.0, want more than 0"),
        ({"tolerance": 1.0, "inner": 0}, "found inner=0, want an integer of at least 1"),
    ],
)
def test_options_that_there_are_not(kind, options, told):
    with pytest.raises(ValueError, match=f"{kind.__name__}: {told}") as error:
        kind(**options)
    assert "\n" not in str(error.value)


class Model(nn.Module):
    """z ~ N(0, 1), x ~ N(w z, 0.1^2) of four values: the error can be had at a price."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, -0.5, 0.3, 0.1]))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None] * self.w, 0.1).to_event(1), obs=x)


class Guide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.zeros(4))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ self.v, self.log_scale.exp()))


@pytest.mark.slow
def test_trainings_end_where_they_say():
    """GECO at its tolerance, with less divergence than the ELBO has; REWO at the ELBO, with weight one."""
    torch.manual_seed(0)
    z = torch.randn(256)
    x = z[:, None] * torch.tensor([0.4, -0.6, 0.2, 0.2]) + 0.1 * torch.randn(256, 4)

    def trained(objective: Any) -> tuple[float, float, dict[str, float]]:
        """Error and divergence, means over the last thousand steps, and the state at last."""
        torch.manual_seed(0)
        model, guide = Model(), Guide()
        step, found = training_step(model, guide, (x,), objective=objective, lr=0.02), []
        for i in range(4000):
            step(x)
            if i >= 3000 and i % 20 == 0:
                with torch.no_grad():
                    found.append(torch_side.terms(model, guide, (x,)))
        error = sum(-elbo(terms, 0.0) for terms in found).item() / len(found)
        kl = sum(terms.kl["z"].mean() for terms in found).item() / len(found)
        return error, kl, {name: value.item() for name, value in step.slots.objective.items()}

    error, kl, _ = trained(elbo)
    found, less, state = trained(geco(tolerance=error + 2))
    assert found == pytest.approx(error + 2, abs=0.5)
    assert less < kl - 0.3 and state["lambda"] < 0.9  # a weight of the divergence above 1
    found, same, state = trained(rewo(tolerance=error + 0.5, rate=0.02, weight=0.9))
    assert state["lambda"] == pytest.approx(1.0, abs=0.02) and state["phase"] == 1
    assert found == pytest.approx(error, abs=0.1) and same == pytest.approx(kl, abs=0.1)
