"""Regressions on groups: latents in plates of their own, which each datum meets by an index or a covariate."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import nn

from guides import BottomUp, Faithful, SelfReflective
from ppl_models.factorization import compare, factorization
from ppl_models.inference import evaluate, fit
from tests.helpers.cases import few

COUNTIES, ROWS = 8, 40


def radon(county, floor, y=None):
    """Gelman and Hill 2007, chapter 12: intercepts and slopes by county."""
    ma, mb = (pyro.sample(name, dist.Normal(0.0, 1.0)) for name in ("ma", "mb"))
    sa, sb = (pyro.sample(name, dist.HalfCauchy(1.0)) for name in ("sa", "sb"))
    with pyro.plate("counties", COUNTIES):
        a = pyro.sample("a", dist.Normal(ma, sa))
        b = pyro.sample("b", dist.Normal(mb, sb))
    s = pyro.sample("s", dist.HalfCauchy(1.0))
    with pyro.plate("data", len(county)):
        pyro.sample("y", dist.Normal(a[..., county] + b[..., county] * floor, s), obs=y)


def radon_data():
    generator = torch.Generator().manual_seed(0)
    county = torch.randint(COUNTIES, (ROWS,), generator=generator)
    floor = torch.rand(ROWS, generator=generator).round()
    floor[[0, ROWS // 2, -1]] = 0.0  # the rows that are looked at first show no slope
    return county, floor, torch.randn(ROWS, generator=generator)


def players(u, v, y):
    """Comparisons by differences of skills."""
    with pyro.plate("players", 8):
        skill = pyro.sample("skill", dist.Normal(0.0, 1.0))
    with pyro.plate("games", len(u)):
        pyro.sample("y", dist.Normal(skill[..., u] - skill[..., v], 1.0), obs=y)


def two_effects(x, y):
    """Two covariates, never at work in one row."""
    w, v = (pyro.sample(name, dist.Normal(0.0, 1.0)) for name in ("w", "v"))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x[:, 0] + v * x[:, 1], 1.0), obs=y)


def test_an_index_hides_no_dependence():
    data = radon_data()
    found = factorization(radon, *data)
    assert set(found.parents["y"]) == {"a", "b", "s", "county", "floor"}
    assert set(found.parents["a"]) == {"ma", "sa"} and set(found.parents["b"]) == {"mb", "sb"}


@pytest.mark.parametrize("order", few(["top-down", "bottom-up", "min-fill"], lambda order: order == "min-fill"))
def test_faithful_couples_what_the_data_couple(order):
    data = radon_data()
    guide = Faithful(radon, *data, order=order, family="full", hidden=8)
    report = compare(radon, guide, *data)
    assert report.faithful and report.minimal and not report.superfluous, report
    assert {"a", "b"} & {u for site in ("a", "b") for u in guide.factorization.parents[site]}


def test_mean_field_on_groups_is_found_out():
    data = radon_data()
    report = compare(radon, AutoNormal(radon), *data)
    assert report.faithful is False and "b" in {u for us in report.missing.values() for u in us} | {*report.missing}


def test_players_meet_in_games():
    generator = torch.Generator().manual_seed(1)
    u = torch.randint(8, (40,), generator=generator)
    args = u, (u + torch.randint(1, 8, (40,), generator=generator)) % 8, torch.randn(40)
    assert compare(players, AutoNormal(players), *args).faithful is not True
    assert compare(players, AutoMultivariateNormal(players), *args).faithful is not False


def test_effects_that_no_row_joins_are_independent():
    x = torch.zeros(30, 2)
    x[3:12, 0], x[17:25, 1] = 1.0, 1.0
    y = torch.randn(30)
    assert set(factorization(two_effects, x, y).parents["y"]) >= {"w", "v"}
    assert compare(two_effects, AutoNormal(two_effects), x, y).faithful


def test_minimal_is_as_told():
    def model(x, y):
        with pyro.plate("p", 2):
            width = pyro.sample("width", dist.HalfCauchy(1.0))
            b = pyro.sample("b", dist.Normal(0.0, width))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal((x * b.unsqueeze(-2)).sum(-1), 1.0), obs=y)

    args = torch.randn(3, 2), torch.randn(3)
    report = compare(model, Faithful(model, *args, family="full", hidden=8), *args)
    assert report.faithful and report.minimal == (not report.superfluous)


def test_models_without_rows_are_evaluated():
    """Pyro's eight schools have batch dims and no plate: no five rows of them make sense."""
    sigma = torch.full((8,), 10.0)

    def schools(y, sigma):
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        eta = pyro.sample("eta", dist.Normal(torch.zeros(8), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(mu.unsqueeze(-1) + eta, sigma).to_event(1), obs=y)

    args = 10 * torch.randn(8), sigma
    guide = Faithful(schools, *args, hidden=8)
    fit(schools, guide, args, steps=3, progress=False)
    assert torch.isfinite(torch.tensor(evaluate(schools, guide, args, particles=4, progress=False).elbo))


# What the inspector is not sure of


def test_doubts_are_warnings_where_no_report_is_given():
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        w = pyro.sample("w", dist.Normal(0.0, 1.0)) if z > 0 else z
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    with pytest.warns(UserWarning, match="factorization: not certain, as the model has the site 'w'"):
        factorization(model, torch.tensor(0.5))


def test_a_model_may_have_a_model():
    """An attribute of that name makes no guide of a module that observes something."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Linear(2, 3)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.model(z), 1.0).to_event(1), obs=x)

    assert str(factorization(Model(), torch.randn(3, 3))) == "p(z) p(x | z)"


@pytest.mark.parametrize(
    ("model", "error", "says"), [(3, TypeError, "want a Pyro program"), (None, ValueError, "proper")]
)
def test_faithful_refuses(model, error, says):
    def improper(x):
        z = pyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(error, match=says):
        Faithful(model or improper, torch.zeros(()))


@pytest.mark.parametrize("guide", [BottomUp, SelfReflective])
def test_factors_couple_what_all_guides_condition_on(guide):
    """`pyro.factor` is a child of both, so that one needs the other, in either order."""

    def model(x):
        with pyro.plate("data", len(x)):
            a, b = (pyro.sample(name, dist.Normal(0.0, 1.0)) for name in "ab")
            pyro.factor("together", -((a - b) ** 2))
            pyro.sample("x", dist.Normal(a, 1.0), obs=x)

    x = torch.randn(3)
    assert compare(model, guide(model, x, hidden=8), x).faithful
