"""Rows are looked at before the work, or, of many, as they come: the same message, the same numbers."""

import numpy as np
import pytest
import torch

from guides import MeanField
from ppl_models import VAE
from ppl_models.inference import evaluate, fit
from ppl_models.inference.pyro.feeding.columns import Columns
from ppl_models.inference.pyro.passes import checks
from ppl_models.programs.rows import starts

N, INSIDE, BETWEEN = 100, 7, 57  # rows, and a row that is looked at before, and one that is not


def rows(bad: int | None = None) -> torch.Tensor:
    x = torch.bernoulli(torch.full((N, 4), 0.4), generator=torch.Generator().manual_seed(1))
    if bad is not None:
        x[bad, 0] = 2.0
    return x


def pair() -> tuple[VAE, MeanField]:
    torch.manual_seed(3)
    model = VAE(4, 1, hidden=2)
    return model, MeanField(model, rows()[:3], hidden=2)


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred rows are many."""
    monkeypatch.setattr(checks, "CHUNK", 10)
    monkeypatch.setattr(checks, "MOST", 20)


def test_the_rows_that_are_looked_at_before():
    assert starts(N, 10, 20) == [0, 90] and starts(20, 10, 20) == [0, 10]


HOW = {"steps": 10, "batch_size": 10, "seed": 0, "progress": False}


def test_a_wrong_value_speaks_up_when_it_comes(many):
    model, guide = pair()
    checks.check_values(model, guide, Columns(rows(BETWEEN), "data", model), 10, None)
    for bad in (INSIDE, BETWEEN):
        with pytest.raises(ValueError, match="found the value 2, a Bernoulli"):
            fit(model, guide, rows(bad), **HOW)
        with pytest.raises(ValueError, match="found the value 2, a Bernoulli"):
            fit(model, guide, rows(), validation=rows(bad), **HOW)
        with pytest.raises(ValueError, match="found the value 2, a Bernoulli"):
            evaluate(model, guide, rows(bad), particles=1, rows=10, progress=False)


def test_the_look_changes_no_number(monkeypatch):
    left = []
    for most in (1000, 20):
        monkeypatch.setattr(checks, "CHUNK", 10)
        monkeypatch.setattr(checks, "MOST", most)
        model, guide = pair()
        fit(model, guide, rows(), validation=rows(), accumulate=2, **{**HOW, "steps": 7})
        left.append([p.detach().clone() for p in (*model.parameters(), *guide.parameters())])
    assert all(map(torch.equal, *left))


def test_in_numpyro(monkeypatch):
    numpyro = pytest.importorskip("numpyro")
    import jax.numpy as jnp

    from ppl_models.inference.numpyro import evaluate, fit
    from ppl_models.inference.numpyro.passes import checks

    monkeypatch.setattr(checks, "CHUNK", 10)
    monkeypatch.setattr(checks, "MOST", 20)
    dist = numpyro.distributions

    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Bernoulli(logits=z), obs=x)

    def guide(x):
        loc = numpyro.param("loc", jnp.zeros(()))
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(loc, 1.0))

    for bad in (INSIDE, BETWEEN):
        x = np.asarray(rows(bad)[:, 0])
        for work in (
            lambda x=x: fit(model, guide, x, **HOW),
            lambda x=x: evaluate(model, guide, x, particles=1, rows=10, progress=False),
        ):
            with pytest.raises(ValueError, match=rf"'x' observes values outside .* \(first in row {bad}\)"):
                work()
    fit(model, guide, np.asarray(rows()[:, 0]), validation=np.asarray(rows()[:, 0]), **HOW)
