"""Pairs that take one number of rows alone: a plate of a fixed size, a parameter for each datum."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from guides import BottomUp, MeanField
from ppl_models.inference import evaluate, fit, mutual_information, reversal
from ppl_models.views import to_arviz

try:
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpyro

    import guides.numpyro as ports
    import ppl_models.inference.numpyro as jax_tools
except ImportError:
    numpyro = None

LANGUAGES = ["pyro", pytest.param("numpyro", marks=pytest.mark.skipif(numpyro is None, reason="needs NumPyro"))]
N, WIDTH = 30, 3


def counts_of_rows(*counts: int) -> Any:
    """Each in Pyro; in NumPyro, which compiles for each, the last one every time."""
    cases = [*(("pyro", count) for count in counts)]
    for count in counts:
        marks = [pytest.mark.skipif(numpyro is None, reason="needs NumPyro")]
        cases.append(pytest.param("numpyro", count, marks=marks + [pytest.mark.slow] * (count != counts[-1])))
    return pytest.mark.parametrize(("language", "count"), cases)


# x_i = z_i + 0.5 noise: the posterior is N(mean_i, 1 / 13)
X = np.random.default_rng(0).normal(size=(N, 1)) + 0.5 * np.random.default_rng(1).normal(size=(N, WIDTH))
MEANS, SCALE = X.sum(1) * 4 / 13, 13**-0.5
COVARIANCE = 0.25 * np.eye(WIDTH) + 1
EVIDENCE = 0.5 * np.mean(
    np.einsum("ni,ij,nj->n", X, np.linalg.inv(COVARIANCE), X) + np.log(np.linalg.det(2 * np.pi * COVARIANCE))
)


class Programs:
    """Models and guides in one language or the other; the guides are exact on the rows that they were made for."""

    def __init__(self, language: str) -> None:
        pyro.clear_param_store()
        self.lib = pyro if language == "pyro" else numpyro
        self.array = torch.from_numpy if language == "pyro" else jnp.asarray
        tools = evaluate if language == "pyro" else jax_tools.evaluate
        self.evaluate = lambda *pair, **how: tools(*pair, progress=False, **{"particles": 4, **how})
        self.x = self.array(X)

    def draw(self, rows: int, name: str, loc: Any, scale: Any) -> Any:
        with self.lib.plate("data", rows):
            return self.lib.sample(name, self.lib.distributions.Normal(loc, scale))

    def likelihood(self, rows: int, x: Any) -> None:
        with self.lib.plate("data", rows):
            z = self.lib.sample("z", self.lib.distributions.Normal(self.array(np.zeros(())), 1.0))
            loc = z[..., None] + self.array(np.zeros(WIDTH))
            self.lib.sample("x", self.lib.distributions.Normal(loc, 0.5).to_event(1), obs=x)

    def any_size(self, x: Any) -> None:
        self.likelihood(len(x), x)

    def fixed(self, x: Any) -> None:
        self.likelihood(N, x)

    def table(self, x: Any) -> None:
        self.draw(N, "z", self.lib.param("loc", self.array(MEANS.copy())), SCALE)

    def cut(self, x: Any) -> None:
        self.draw(len(x), "z", self.lib.param("loc", self.array(MEANS.copy()))[: len(x)], SCALE)


@pytest.mark.parametrize("how", [{}, {"rows": 4}, {"rows": 1, "vectorize": False}, {"particles": 1000}])
@pytest.mark.parametrize("pair", ["any_size table", "any_size cut", "fixed table"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_pair_is_evaluated_on_the_rows_that_it_was_made_for(language, pair, how):
    programs = Programs(language)
    model, guide = (getattr(programs, name) for name in pair.split())
    found = programs.evaluate(model, guide, programs.x, **how)
    assert found.nll == pytest.approx(EVIDENCE, rel=1e-6)
    split = 1000 in how.values() or "rows" in how
    assert [note[:22] for note in found.notes] == (["all rows in every pass"] if split else [])


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_pair_that_takes_any_rows_is_evaluated_in_parts(language):
    programs = Programs(language)

    def guide(x: Any) -> None:
        programs.draw(len(x), "z", x.sum(1) * 4 / 13, SCALE)

    for how in ({"rows": 7}, {"particles": 1000, "rows": 5000}):
        found = programs.evaluate(programs.any_size, guide, programs.x, **how)
        assert found.nll == pytest.approx(EVIDENCE, rel=1e-6) and found.notes == []


@counts_of_rows(1, 9, 60)
def test_other_rows_are_refused_in_one_line_that_says_so(language, count):
    programs = Programs(language)
    x = programs.array(np.concatenate([X, X])[:count])
    for model, whose in ((programs.any_size, "guide"), (programs.fixed, "model")):
        told = f"found {count} rows?, want the {N} that the {whose} was made for"
        with pytest.raises(ValueError, match=f"^evaluate: {told}"):
            programs.evaluate(model, programs.table, x)
        with pytest.raises(ValueError, match=f"^to_arviz: {told}"):
            to_arviz(model, programs.table, x, draws=3)


@counts_of_rows(9, 45)  # 45: a batch, and a rest of other rows
def test_validation_data_of_other_rows_are_refused_likewise(language, count):
    programs = Programs(language)
    rows = programs.array(np.concatenate([X, X])[:count])
    fitted = fit if language == "pyro" else jax_tools.fit
    told = f"^fit: validation: found {count % N} rows, want the {N} that the guide was made for"
    with pytest.raises(ValueError, match=told):
        fitted(programs.any_size, programs.table, programs.x, steps=1, validation=rows, batch_size=N, progress=False)


@pytest.mark.parametrize("make", [AutoNormal, BottomUp, MeanField])
def test_guides_with_values_for_each_datum_are_evaluated_and_told_apart(make):
    programs = Programs("pyro")
    x = programs.x.float()
    model = programs.any_size if make is AutoNormal else programs.fixed
    guide = make(model) if make is AutoNormal else make(model, x, hidden=4)
    guide(x)
    for how in ({"rows": 4}, {"vectorize": True, "particles": 1000}):
        assert evaluate(model, guide, x, progress=False, **{"particles": 2, **how}).n == N
    whose = "guide" if make is AutoNormal else "model"
    for count in (9, 60):
        with pytest.raises(ValueError, match=f"found {count} rows, want the {N} that the {whose} was made for"):
            evaluate(model, guide, torch.cat([x, x])[:count], particles=2, progress=False)


def test_mutual_information_takes_all_rows_where_a_pair_takes_no_fewer():
    programs = Programs("pyro")

    def amortized(x: Any) -> None:
        programs.draw(len(x), "z", x.sum(1) * 4 / 13, SCALE)

    want = mutual_information(programs.any_size, amortized, programs.x)
    codes = torch.linspace(-1, 1, 4, dtype=torch.double)
    moments = reversal(programs.any_size, amortized, programs.x, codes)
    for model, guide in ((programs.any_size, programs.cut), (programs.fixed, programs.table)):
        found = mutual_information(model, guide, programs.x)
        assert found.rate == pytest.approx(want.rate, rel=1e-9)
        assert abs(found.lower - want.lower) < 3 * (found.lower_error + want.lower_error)  # of other draws
        other = reversal(model, guide, programs.x, codes)
        torch.testing.assert_close((other.mean, other.log_q), (moments.mean, moments.log_q))
    with pytest.raises(ValueError, match=f"^mutual_information: found 9 rows, want the {N} that the model"):
        mutual_information(programs.fixed, programs.table, programs.x, rows=9)


@pytest.mark.skipif(numpyro is None, reason="needs NumPyro")
def test_the_port_of_a_guide_takes_a_plate_of_a_fixed_size():
    programs = Programs("numpyro")
    guide = ports.MeanField(programs.fixed, programs.x, hidden=4, key=jax.random.key(0))
    assert programs.evaluate(programs.fixed, guide, programs.x, particles=1000).n == N
    with pytest.raises(ValueError, match=f"found 9 rows, want the {N} that the model"):
        programs.evaluate(programs.fixed, guide, programs.x[:9])


def test_a_wrong_value_in_a_row_is_no_matter_of_their_number():
    def model(x: Any) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
            pyro.sample("x", pyro.distributions.Bernoulli(logits=z), obs=x)

    x = torch.zeros(N, dtype=torch.double)
    x[N // 2] = 0.5
    with pytest.raises(ValueError, match="Bernoulli"):
        evaluate(model, MeanField(model, x[:3], hidden=N // 3), x, particles=2, progress=False)


def subsampling(lib: Any, size: int | None) -> Callable:
    """A model whose plate draws so many of its rows, all for None."""

    def model(x: Any) -> None:
        with lib.plate("data", len(x), subsample_size=size and min(size, len(x))) as index:
            z = lib.sample("z", lib.distributions.Normal(x[0, 0] * 0, 1.0))
            lib.sample("x", lib.distributions.Normal(z[..., None] + 0 * x[0], 1.0).to_event(1), obs=x[index])

    return model


@pytest.mark.parametrize("make", [MeanField, BottomUp, AutoNormal])
def test_what_subsamples_by_itself_is_told_so_and_the_cure_that_is_named_works(make):
    x, part, whole = torch.from_numpy(X).float(), subsampling(pyro, 9), subsampling(pyro, None)
    more, sizes = ((), {}) if make is AutoNormal else ((x,), {"hidden": 4})
    guide, new = make(part, *more, **sizes), make(whole, *more, **sizes)
    guide(x), new(x)
    told = r"draws 9 of 30 data, want every datum; .* new.load_state_dict\(guide.state_dict"
    with pytest.raises(ValueError, match=f"^evaluate: .*{told}"):
        evaluate(part, guide, x, particles=2, progress=False)
    with pytest.raises(ValueError, match=f"^to_arviz: .*{told}"):
        to_arviz(part, guide, x, draws=2)
    new.load_state_dict(guide.state_dict())
    assert evaluate(whole, new, x, particles=2, progress=False).n == N
    to_arviz(whole, new, x, draws=2)


@pytest.mark.skipif(numpyro is None, reason="needs NumPyro")
@pytest.mark.slow
def test_the_cure_that_is_named_for_ports_works():
    x, part, whole = jnp.asarray(X), subsampling(numpyro, 9), subsampling(numpyro, None)
    guide = ports.MeanField(part, x, hidden=4, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"draws 9 of 30 data, .*tree_at\(lambda q: q.model, guide, whole"):
        jax_tools.evaluate(part, guide, x, particles=2, progress=False)
    new = eqx.tree_at(lambda q: q.model, guide, whole)
    assert jax_tools.evaluate(whole, new, x, particles=2, progress=False).n == N
    to_arviz(whole, new, x, draws=2)


def test_a_wrong_value_is_not_taken_for_a_wrong_number_of_rows():
    """That a parameter has as many entries as there are rows before it says nothing."""
    programs = Programs("pyro")
    x = torch.tensor(X).clone()
    x[2] = float("nan")

    def guide(x: Any) -> None:
        programs.lib.param("two", programs.array(MEANS[:2].copy()))
        programs.draw(len(x), "z", x.sum(1), SCALE)

    with pytest.raises(ValueError) as caught:
        programs.evaluate(programs.any_size, guide, x)
    assert "was made for" not in str(caught.value)
