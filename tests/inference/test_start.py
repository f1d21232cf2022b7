"""The start of global latents: their priors in the constructor; in `fit` the mode and the curvature there."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import init_to_value

import ppl_models.inference.pyro.training.start as start
from guides import BottomUp, Faithful, MeanField
from guides.parts.families.starts import Block, split
from ppl_models.inference import fit
from ppl_models.inference.pyro.passes.messengers import Substitute
from ppl_models.inference.pyro.training.checkpoint import load, save
from ppl_models.inference.training.start import climb

YEARS = torch.linspace(1900, 2020, 25, dtype=torch.double)
Y = 20 + 0.03 * (YEARS - 1960) + torch.randn(25, generator=torch.Generator().manual_seed(0), dtype=torch.double)


def apart(year, y):
    """A line through raw years; its two coefficients are sites of their own."""
    one = torch.ones((), dtype=y.dtype)
    a = pyro.sample("a", dist.Normal(0 * one, 1000 * one))
    b = pyro.sample("b", dist.Normal(0 * one, 10 * one))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(a + b * year, one), obs=y)


def together(year, y):
    """The same with both in one site."""
    scale = torch.tensor([1000.0, 10.0], dtype=y.dtype)
    c = pyro.sample("c", dist.Normal(torch.zeros_like(scale), scale).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(c[..., 0] + c[..., 1] * year, torch.ones((), dtype=y.dtype)), obs=y)


def exact(year=YEARS, y=Y, up=1.0):
    """The posterior of the line's coefficients, a Gaussian."""
    x = torch.stack([torch.ones_like(year), year], -1)
    precision = up * x.T @ x + torch.diag(torch.tensor([1e-6, 1e-2], dtype=torch.double))
    loc = torch.linalg.solve(precision, up * x.T @ y)
    return dist.MultivariateNormal(loc, precision_matrix=precision)


def put(guide, model=None, steps=1, **options):
    """A guide that `fit` has put at its start, its own numbers 0 after that; and the notes of the run."""
    run = fit(model or guide.model, guide, (YEARS, Y), steps=steps, progress=False, seed=0, **options)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.zero_()
    return run.notes


def density(guide, values, *args):
    with torch.no_grad(), poutine.trace() as capture, Substitute(values):
        guide(*(args or (YEARS, Y)))
    nodes = (capture.trace.nodes[name] for name in values)
    return sum(node["fn"].log_prob(node["value"]) for node in nodes)


@pytest.mark.parametrize("family", ["diagonal", "full", "flow"])
@pytest.mark.parametrize("structure", [Faithful, BottomUp])
def test_the_start_is_the_posterior_where_that_is_gaussian_and_a_guide_faithful(structure, family):
    """Sites apart, by the linear part of parents; densities to 1e-6 within five standard deviations."""
    guide = structure(apart, YEARS, Y, family=family)
    (note,) = put(guide)
    assert note.startswith("start of a, b: the mode, log density -")
    for z in exact().sample((5,)):
        found = density(guide, {"a": z[0], "b": z[1]})
        assert abs(found - exact().log_prob(z)) < 1e-6


@pytest.mark.parametrize("family", ["full", "flow"])
def test_correlated_families_take_the_whole_curvature(family):
    guide = Faithful(together, YEARS, Y, family=family)
    put(guide)
    for z in exact().sample((5,)):
        assert abs(density(guide, {"c": z}) - exact().log_prob(z)) < 1e-6


@pytest.mark.parametrize("model", [apart, together])
@pytest.mark.parametrize("family", ["diagonal", "rank-one"])
def test_independent_factors_take_its_diagonal(model, family):
    """The best of them in KL(q || p) has the precisions of the conditionals."""
    guide = MeanField(model, YEARS, Y, family=family)
    put(guide)
    want = dist.Normal(exact().loc, exact().precision_matrix.diagonal().rsqrt())
    z = exact().loc + 0.01
    values = {"a": z[0], "b": z[1]} if model is apart else {"c": z}
    torch.testing.assert_close(density(guide, values), want.log_prob(z).sum(), rtol=1e-9, atol=1e-6)


def test_a_few_steps_stay_within_a_twentieth_of_a_standard_deviation():
    """From whatever numbers the networks begin with, in single precision."""
    pyro.set_rng_seed(0)
    data = YEARS.float(), Y.float()
    guide = Faithful(together, *data, family="full")
    fit(together, guide, data, steps=20, lr=2e-3, particles=16, progress=False, seed=0)
    with torch.no_grad(), poutine.trace() as capture:
        guide(*data)
    q, p = capture.trace.nodes["c"]["fn"], exact()
    assert ((q.mean - p.mean).abs() / p.stddev).max() < 0.05
    torch.testing.assert_close(q.stddev / p.stddev.float(), torch.ones(2), rtol=0.05, atol=0)


def test_the_constructor_starts_at_the_location_and_scale_of_the_priors():
    """Of a prior that is no Gaussian at its median, of one with parents at theirs; in unconstrained coordinates."""

    def model(x):
        mu = pyro.sample("mu", dist.Normal(100.0, 5.0))
        tau = pyro.sample("tau", dist.LogNormal(2.0, 0.5))
        pyro.sample("nu", dist.Normal(mu, tau))
        rate = pyro.sample("rate", dist.Gamma(25.0, 4.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, rate), obs=x)

    x = torch.zeros(3)
    state = torch.random.get_rng_state()
    guide = MeanField(model, x)
    assert {"mu", "tau", "nu", "rate"} == set(guide.layout.latents) and state is not None
    want = {"mu": (100.0, 5.0), "tau": (2.0, 0.5), "nu": (100.0, np.exp(2.0)), "rate": (np.log(6.167), 0.2)}
    for name, (loc, scale) in want.items():
        units = guide.factors.units(name)
        sampled = name == "rate"  # 1000 draws: errors of 0.8 % and 3 % of a standard deviation
        assert units.loc.item() == pytest.approx(loc, abs=0.03 if sampled else 1e-5)
        assert (units.root * units.width).item() == pytest.approx(scale, rel=0.1 if sampled else 1e-5)


def test_a_start_of_the_users_own_is_kept():
    """`init_loc_fn` and `init_scale` as Pyro's AutoNormal has them; `fit` looks for no other."""
    at = init_to_value(values={"a": torch.tensor(7.0).double(), "b": torch.tensor(-2.0).double()})
    guide = MeanField(apart, YEARS, Y, init_loc_fn=at, init_scale=0.3)
    assert put(guide) == []
    want = dist.Normal(torch.tensor([7.0, -2.0]).double(), 0.3)
    z = torch.tensor([7.1, -1.5]).double()
    torch.testing.assert_close(density(guide, {"a": z[0], "b": z[1]}), want.log_prob(z).sum())
    alone = MeanField(apart, YEARS, Y, init_loc_fn=at).factors.units("b")
    assert (alone.root * alone.width).item() == pytest.approx(0.1) and alone.loc.item() == -2.0
    alone = MeanField(apart, YEARS, Y, init_scale=0.2).factors.units("b")
    assert (alone.root * alone.width).item() == pytest.approx(0.2) and alone.loc.item() == 0.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"init_scale": 0.0}, "guide Faithful: found init_scale=0.0, want a number, more than 0 or None"),
        ({"init_loc_fn": 3}, "found init_loc_fn=3, want a function of a site"),
        ({"init_loc_fn": lambda site: torch.zeros(2)}, r"shape \(2,\) from init_loc_fn for the site 'a', want \(\)"),
    ],
)
def test_a_start_that_is_none_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Faithful(apart, YEARS, Y, **options)


def local(year, y):
    tau = pyro.sample("tau", dist.HalfNormal(torch.ones((), dtype=y.dtype)))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0 * y, tau))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def funnel(year, y):
    """Its density has no mode: it grows for ever as the scale falls and the effects with it."""
    tau = pyro.sample("tau", dist.HalfCauchy(torch.ones((), dtype=y.dtype)))[..., None]
    theta = pyro.sample("theta", dist.Normal(0 * y[:3], tau).to_event(1))
    pyro.sample("y", dist.Normal(theta, 1.0).to_event(1), obs=y[:3] * 0.01)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (local, "start of tau: the location of their priors, as their density has z in it, which are latent, too"),
        (funnel, "start of tau, theta: the location of their priors, as their density has no mode that"),
    ],
)
def test_where_there_is_no_density_to_climb_a_line_says_so(model, words):
    guide = MeanField(model, YEARS, Y) if model is local else Faithful(model, YEARS, Y)
    before = guide.factors.units("tau").loc.clone()
    assert any(words in note for note in put(guide))
    units = guide.factors.units("tau")
    assert torch.equal(units.loc, before)
    assert (units.root * units.width).item() == pytest.approx(0.1)
    assert not any(note.startswith("start") for note in put(guide))


def test_of_many_rows_a_fixed_sample_is_scaled_up(monkeypatch):
    """The mode of 10 of 25 rows, with the curvature of 25."""
    monkeypatch.setattr(start, "MOST_ROWS", 10)
    guide = Faithful(together, YEARS, Y, family="full")
    (note,) = put(guide, batch_size=5)
    assert "the mode of 10 of 25 rows" in note
    index = torch.randperm(25, generator=torch.Generator().manual_seed(0))[:10]
    want = exact(YEARS[index], Y[index], 2.5)
    assert abs(density(guide, {"c": want.loc}) - want.log_prob(want.loc)) < 1e-6


def test_a_guide_behind_a_function_begins_there_too():
    guide = Faithful(together, YEARS, Y, family="full")
    (note,) = fit(together, lambda year, y: guide(year, y), (YEARS, Y), steps=1, progress=False, seed=0).notes
    assert note.startswith("start of c: the mode, log density -")


def test_a_trained_guide_keeps_its_units():
    guide = Faithful(together, YEARS, Y)
    for _ in range(2):
        run = fit(together, guide, (YEARS, Y), steps=1, progress=False)
    assert run.notes == []
    other = Faithful(together, YEARS, Y)
    with torch.no_grad():
        other.factors.q_c.bias.add_(1.0)  # as an optimizer of the user's own does
    notes = fit(together, other, (YEARS, Y), steps=1, progress=False).notes
    assert not any(note.startswith("start of") for note in notes)


def test_a_resumed_run_goes_on_in_the_same_units(tmp_path):
    def guide():
        pyro.set_rng_seed(1)
        return Faithful(apart, YEARS, Y, family="flow")

    whole, parts = guide(), guide()
    options = {"every": 2, "schedule": "constant", "progress": False, "seed": 0}
    fit(apart, whole, (YEARS, Y), steps=4, **options)
    fit(apart, parts, (YEARS, Y), steps=2, folder=tmp_path, **options)
    parts = guide()
    fit(apart, parts, (YEARS, Y), steps=4, folder=tmp_path, resume=True, **options)
    for (name, one), other in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_a_file_without_units_means_those_of_its_time(tmp_path):
    """N(0, 0.1^2) for `Faithful`, N(0, 1) for others, around which the numbers of the file shift and scale."""
    for structure, scale in ((Faithful, 0.1), (MeanField, 1.0)):
        guide, path = structure(together, YEARS, Y), tmp_path / f"{structure.__name__}.safetensors"
        state = {name: torch.zeros_like(p) for name, p in guide.named_parameters()}
        save(path, {"guide": state})
        load(path, {"guide": guide})
        z = torch.tensor([0.03, -0.2]).double()
        torch.testing.assert_close(
            density(guide, {"c": z}), dist.Normal(0.0, scale).log_prob(z).sum(), rtol=1e-5, atol=0
        )
        other = structure(together, YEARS, Y)
        other.load_state_dict(state)
        assert torch.equal(other.factors.units("c").loc, torch.zeros(2).double())


def test_split_gives_the_conditionals_of_a_gaussian():
    """q(a | b) q(b) of a random one over blocks of 2 and 3, in the order b, a, however the entries are scaled."""
    rng = np.random.default_rng(0)
    units = 10.0 ** rng.integers(-4, 5, 5)
    root = rng.normal(size=(5, 5)) + 3 * np.eye(5)
    precision = root @ root.T / units / units[:, None]
    covariance = np.linalg.inv(precision)
    blocks = {"b": Block(np.arange(3), (), (), "full"), "a": Block(np.arange(3, 5), ("b",), range(3), "full")}
    found = split(blocks, precision)
    b, a = slice(0, 3), slice(3, 5)
    np.testing.assert_allclose(found["b"].root @ found["b"].root.T, covariance[b, b], rtol=1e-8)
    slope = covariance[a, b] @ np.linalg.inv(covariance[b, b])
    np.testing.assert_allclose(found["a"].root @ found["a"].slope / found["b"].spread, slope, rtol=1e-8)
    np.testing.assert_allclose(
        found["a"].root @ found["a"].root.T, covariance[a, a] - slope @ covariance[b, a], rtol=1e-7
    )
    np.testing.assert_allclose(found["b"].spread, np.sqrt(np.diag(covariance)[b]), rtol=1e-8)


class Quartic:
    """log p = - sum (v / scale - 1)^2 - (v / scale - 1)^4."""

    def __init__(self, scale):
        self.scale = scale

    def value_and_gradient(self, v):
        u = v / self.scale - 1
        return float(-(u**2 + u**4).sum()), -(2 * u + 4 * u**3) / self.scale

    def hessian(self, v):
        u = v / self.scale - 1
        return np.diag(-(2 + 12 * u**2) / self.scale**2)


def test_climb_finds_a_mode_in_any_units():
    scale = np.array([1e-6, 1.0, 1e6])
    found = climb(Quartic(scale), np.zeros(3), np.ones(3))
    np.testing.assert_allclose(found.place, scale, rtol=1e-2)
    np.testing.assert_allclose(found.precision, np.diag(2 / scale**2), rtol=2e-2)
