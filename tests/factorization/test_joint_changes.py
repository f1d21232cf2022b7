"""Changes that share runs: what is found is what each change moves alone, with expectations right and wrong."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, strategies as st

from ppl_models.factorization import joint_changes
from ppl_models.factorization.comparison import by_site
from ppl_models.factorization.joint_changes import separated, together
from ppl_models.factorization.probing.inspect_guide import inspect_pair
from ppl_models.factorization.probing.side_by_side import side_by_side
from ppl_models.factorization.probing.values.baselines import Baseline
from ppl_models.programs.laboratory import experiments
from ppl_models.programs.laboratory.pyro import PyroLaboratory

LAYERS = 10


@st.composite
def tables(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """What changes are expected to move, and what they move: some of it, and here and there something else."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape, wide = (draw(st.integers(1, 25)), draw(st.integers(0, 15))), draw(st.floats(0, 0.5))
    expected = rng.random(shape) < wide
    moves = expected & (rng.random(shape) < 0.9)
    return expected, moves | (rng.random(shape) < draw(st.sampled_from([0, 0.01, 0.2])))


@given(tables(), st.sampled_from([0, 0.3, 2]))
def test_what_is_found_together_is_what_each_moves_alone(found, saving):
    expected, moves = found
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint_changes, "SAVING", saving or 0.05)
        moved, alone = together(expected, lambda chosen: moves[chosen].any(0))
    rest = [s for s in range(len(moves)) if s not in alone]
    assert (moved[rest] == moves[rest]).all() and not moved[alone].any()


@given(tables())
def test_groups_in_which_a_column_tells_who_moved_it(found):
    expected, _ = found
    groups = separated(expected)
    assert sorted(s for group in groups for s in group) == [*range(len(expected))]
    assert all(expected[group].sum(0).max(initial=0) <= 1 for group in groups)


def test_changes_that_cannot_be_told_apart_are_made_alone():
    runs = []

    def look(chosen):
        runs.append(chosen)

    moved, alone = together(np.ones((20, 20), bool), look)
    assert alone == [*range(20)] and not moved.any() and not runs
    chain = np.eye(60, dtype=bool) | np.eye(60, k=1, dtype=bool)
    moved, alone = together(chain, look)  # a run that tells nothing
    assert alone == [*range(60)] and not moved.any() and len(runs) <= 3


def chain(skip: bool) -> Any:
    """z1 -> ... -> z10, each with data of its own; provenance does not see the edge z2 -> z8."""

    def model(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            above, second = torch.zeros(len(x), dtype=x.dtype), None
            for i in range(LAYERS):
                z = pyro.sample(f"z{i + 1}", dist.Normal(above, 1.0 + 0.1 * i))
                second = z if i == 1 else second
                pyro.sample(f"x{i + 1}", dist.Normal(z, 1.0), obs=x[:, i])
                above = torch.tanh(z)
                if skip and i == 6:
                    above = above + torch.tensor(second.tolist())

    return model


def smoothing(x: torch.Tensor) -> None:
    """q(z1 | x) ... q(zl | z{l-1}, xl ... x10), which lacks z2 for z8 where the model has that edge."""
    with pyro.plate("data", len(x)):
        above = torch.zeros(len(x), dtype=x.dtype)
        for i in range(LAYERS):
            above = pyro.sample(f"z{i + 1}", dist.Normal(above + x[:, i:].tanh().sum(-1), 1.0))


@pytest.mark.parametrize("skip", [False, True])
def test_large_pairs_take_fewer_runs_than_changes(skip):
    x = torch.linspace(-1, 1, 3 * LAYERS).reshape(3, LAYERS)
    with experiments([chain(skip), smoothing], (x,), {}) as (model, guide):
        found = inspect_pair(model, guide)
        runs, report = model.laboratory.runs, by_site(found)
    expected = {f"z{i}": (f"z{i - 1}",) if i > 1 else () for i in range(1, LAYERS + 1)}
    expected |= {"z8": ("z2", "z7")} if skip else {}
    parents = found.model.sites().parents
    assert {z: parents[z] for z in expected} == expected
    assert all(parents[f"x{i}"] == (f"z{i}",) for i in range(1, LAYERS + 1))
    assert found.sites().parents["z4"] == ("z3", *(f"x{i}" for i in range(4, LAYERS + 1)))
    assert skip or runs < 100  # of 120 changes, looks at what saturates, and what else there is to an inspection
    assert report.faithful is not skip and not report.reasons, str(report)


def counting(x: torch.Tensor) -> None:
    """The same, whose numbers hang on how many rows there are."""
    smoothing(x + 0.1 * len(x))


@pytest.mark.parametrize("guide", [smoothing, counting])
def test_changes_in_rows_of_their_own_tell_what_runs_of_their_own_do(guide, monkeypatch):
    x, found, runs = torch.linspace(-1, 1, 3 * LAYERS).reshape(3, LAYERS), [], []
    for resizes in (False, True):
        monkeypatch.setattr(PyroLaboratory, "resizes", resizes)
        with experiments([chain(skip=False), guide], (x,), {}) as (model, q):
            inspection = inspect_pair(model, q)
        found.append((inspection.model.probed.edges(), inspection.guide.edges()))
        runs.append(model.laboratory.runs)
    assert found[0] == found[1] and len(found[0][1]) == 3 * (LAYERS - 1 + LAYERS * (LAYERS + 1) // 2)
    assert runs[1] < runs[0] - 10 if guide is smoothing else runs[1] <= runs[0] + 2


def test_what_has_no_rows_is_not_changed_in_some_of_them():
    def model(x):
        a = pyro.sample("a", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(a, 1.0), obs=x)

    with experiments([model], (torch.zeros(3),), {}) as (experiment,):
        run = experiment.run()
        baseline = Baseline({"a": run["a"].value}, {}, 0, None)
        rows = replace(baseline, leaves=[np.array([0.0, 1.0, 0.0])])
        pairs = side_by_side(experiment, baseline, [rows, baseline] * 3, ["x"])
        assert [run["x"].moved(before["x"], after["x"], 1e-10) for before, after in pairs] == [[(1,)], []] * 3
        assert side_by_side(experiment, baseline, [baseline.holding("a", np.array(2.0)), baseline] * 3, ["x"]) is None
        assert side_by_side(experiment, baseline, [rows] * 6, ["a", "x"]) is None
