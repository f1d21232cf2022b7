"""Changes that share runs: what is found is what each change moves alone, with expectations right and wrong."""

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
from ppl_models.programs.laboratory import experiments

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
    assert skip or runs < 120  # of 120 changes, looks at what saturates, and what else there is to an inspection
    assert report.faithful is not skip and not report.reasons, str(report)
