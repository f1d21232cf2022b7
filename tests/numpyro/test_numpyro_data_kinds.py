"""Data as users have them, for NumPyro programs: each kind gives what an array of the same numbers gives."""

from functools import partial
from typing import Any

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from guides.numpyro import Faithful, MeanField
from ppl_models.inference.numpyro.feeding.batches import columns_of
from ppl_models.numpyro import evaluate, fit

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = np.arange(12) % 5


def line(x: Any) -> None:
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(z[..., None] * np.ones(3), 1.0).to_event(1), obs=x)


def regression(x: Any, y: Any) -> None:
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(x.sum(-1), 1.0))
        numpyro.sample("y", dist.Poisson(jax.numpy.exp(z)), obs=y)


class Rows(Dataset):
    """A map-style data set of pairs."""

    def __init__(self, named: bool) -> None:
        self.named = named

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        x, y = X[int(index)], int(Y[int(index)])
        return {"y": y, "x": torch.from_numpy(x)} if self.named else (x, y)


def frame(x: np.ndarray) -> Any:
    return pytest.importorskip("pandas").DataFrame(x, columns=list("abc"))


KINDS = {
    "frame": lambda: frame(X),
    "dict": lambda: {"x": X},
    "TensorDataset": lambda: TensorDataset(torch.from_numpy(X)),
    "tensor": lambda: torch.from_numpy(X).requires_grad_(),
}


@pytest.mark.parametrize("data", [{"y": Y, "x": X}, TensorDataset(*map(torch.tensor, (X, Y))), Rows(True), Rows(False)])
def test_columns_of_two_arguments(data):
    for found, wanted in zip(columns_of(data, "data", regression), (X, Y), strict=True):
        assert np.array_equal(found.values, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_one_argument(kind: str):
    (found,) = columns_of(KINDS[kind](), "data", line)
    assert np.array_equal(found.values, X)


@pytest.mark.slow
def test_a_training_and_an_evaluation_are_those_of_arrays():
    found = []
    for data in (X, frame(X)):
        guide = MeanField(line, data, hidden=4, key=jax.random.key(0))
        run = fit(line, guide, data, steps=2, batch_size=5, seed=0, progress=False)
        found.append((run.params, evaluate(run.model, run.guide, {"x": data}, particles=2, progress=False)))
    (one, bounds), (other, again) = found
    assert bounds == again
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True))


@pytest.mark.parametrize("kind", ["frame", "tensor"])
def test_a_faithful_guide_is_built_on_such_an_example(kind: str):
    assert Faithful(line, KINDS[kind](), hidden=4, key=jax.random.key(0)).order == ("z",)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (TensorDataset(torch.from_numpy(X), torch.from_numpy(X)), ValueError, "found 2 columns, .* model line: x"),
        (Rows(False), ValueError, "found 2 columns"),
        ({"rows": X}, ValueError, "found columns rows, want those of the arguments of the model line: x"),
        (np.array(["a"]), TypeError, "found an array of <U1, want an array of rows of numbers"),
        (["a"], TypeError, "found list, want an array of rows, .*; try np.stack"),
        (torch.utils.data.DataLoader(Rows(True)), TypeError, "found DataLoader, .*; try its dataset"),
    ],
)
def test_what_has_no_natural_reading_is_refused_in_one_line(data, kind, words):
    guide = MeanField(line, X, hidden=4, key=jax.random.key(0))
    for what, act in (("fit", partial(fit, steps=1)), ("evaluate", evaluate)):
        with pytest.raises(kind, match=f"^{what}: data: .*{words}"):
            act(line, guide, data, progress=False)
