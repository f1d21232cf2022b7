"""The start of global latents in NumPyro: that of Pyro, in files that either language reads."""

import numpy as np
import pytest

pytest.importorskip("numpyro")

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pyro
import torch
from numpyro import handlers
from numpyro.infer import init_to_value

import guides
import ppl_models.inference as torch_side
from guides.numpyro import Faithful, MeanField
from ppl_models.inference.numpyro import fit, load
from ppl_models.inference.numpyro.training import start
from ppl_models.numpyro import from_torch
from ppl_models.numpyro.parts.program import named_constants, named_parameters, with_parameters
from tests.helpers.cases import few

KEY = jax.random.key(0)
YEARS = np.linspace(1900, 2020, 25)
Y = 20 + 0.03 * (YEARS - 1960) + np.random.default_rng(0).normal(size=25)


def written(lib):
    """A line through raw years and the scale around it, in a language."""

    def model(year, y):
        d = lib.distributions
        a = lib.sample("a", d.Normal(0.0, 1000.0))
        b = lib.sample("b", d.Normal(0.0, 10.0))
        s = lib.sample("s", d.LogNormal(0.0, 1.0))
        with lib.plate("data", len(y)):
            lib.sample("y", d.Normal(a + b * year, s), obs=y)

    return model


@pytest.fixture
def wide():
    with jax.enable_x64(True):
        yield


def in_torch(structure, family, **options):
    data = torch.tensor(YEARS), torch.tensor(Y)
    model = written(pyro)
    guide = getattr(guides, structure)(model, *data, family=family)
    run = torch_side.fit(model, guide, data, steps=1, every=1, progress=False, seed=0, **options)
    return guide, run.notes


PAIRS = ("Faithful", "flow"), ("Faithful", "full"), ("MeanField", "diagonal")


@pytest.mark.parametrize(("structure", "family"), few(PAIRS, lambda structure, _: structure == "MeanField"))
def test_location_and_units_are_those_of_pyro(wide, structure, family):
    """To a thousandth: either comes to the mode up to 1e-9 nats."""
    theirs, notes = in_torch(structure, family)
    model, data = written(numpyro), (jnp.asarray(YEARS), jnp.asarray(Y))
    guide = getattr(guides.numpyro, structure)(model, *data, family=family, key=KEY)
    before = named_constants(guide)
    run = fit(model, guide, data, steps=1, progress=False, seed=0)
    assert run.notes[0].split(",")[:3] == notes[0].split(",")[:3] and "the mode, log density" in run.notes[0]
    found = named_constants(run.guide)
    for name, tensor in theirs.state_dict().items():
        if "units_" in name:
            np.testing.assert_allclose(found[name], tensor.numpy(), rtol=1e-3, atol=1e-6, err_msg=name)
    assert found.keys() == before.keys() and not np.array_equal(
        found["factors.units_q_a.loc"], before["factors.units_q_a.loc"]
    )
    assert fit(model, run.guide, data, steps=1, progress=False).notes == []  # a trained guide keeps its units


def test_the_constructor_starts_at_location_and_scale_of_the_priors():
    guide = MeanField(written(numpyro), YEARS, Y, key=KEY)
    found = {name: guide.factors.units(name) for name in ("a", "b", "s")}
    want = {"a": (0.0, 1000.0), "b": (0.0, 10.0), "s": (0.0, 1.0)}
    for name, units in found.items():
        got = float(units.loc.value), float(units.root.value[0] * units.width.value[0])
        assert got == pytest.approx(want[name], rel=1e-5, abs=1e-5)
    at = init_to_value(values={"a": 7.0, "b": -2.0, "s": 1.0})
    guide = MeanField(written(numpyro), YEARS, Y, init_loc_fn=at, init_scale=0.3, key=KEY)
    units = guide.factors.units("b")
    assert float(units.loc.value) == -2.0 and float(units.root.value[0] * units.width.value[0]) == pytest.approx(0.3)
    assert fit(written(numpyro), guide, (YEARS, Y), steps=1, progress=False).notes == []
    with pytest.raises(ValueError, match="found init_scale=-1, want a number, more than 0 or None"):
        MeanField(written(numpyro), YEARS, Y, init_scale=-1, key=KEY)


@jax.enable_x64(True)
def test_files_of_either_language_and_of_before_are_read(tmp_path):
    """A file of torch's brings its units along; one without any means those of its time."""
    theirs, _ = in_torch("Faithful", "diagonal", folder=tmp_path)
    model, data = written(numpyro), (jnp.asarray(YEARS), jnp.asarray(Y))
    guide = Faithful(model, *data, key=KEY)
    _, loaded = load(tmp_path / "checkpoint.safetensors", model, guide)
    state = {name: tensor.numpy() for name, tensor in theirs.state_dict().items() if "units_" in name}
    assert {name: value for name, value in named_constants(loaded).items()}.keys() == state.keys()
    for name, value in named_constants(loaded).items():
        np.testing.assert_allclose(value, state[name], rtol=1e-6)
    old = tmp_path / "old.safetensors"
    torch_side.save(old, {"guide": {name: torch.zeros_like(p) for name, p in theirs.named_parameters()}})
    _, loaded = load(old, model, guide)
    with handlers.seed(rng_seed=0), handlers.trace() as trace:
        loaded(*data)
    for name in ("a", "b"):
        fn = trace[name]["fn"]
        np.testing.assert_allclose([fn.log_prob(0.2)], [dist.Normal(0.0, 0.1).log_prob(0.2)], rtol=1e-5)


def test_a_resumed_run_goes_on_in_the_same_units(tmp_path):
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    options = {"every": 2, "schedule": "constant", "progress": False, "seed": 0}
    guide = MeanField(model, Y, key=KEY)
    whole = fit(model, guide, Y, steps=4, **options).guide
    fit(model, guide, Y, steps=2, folder=tmp_path, **options)
    parts = fit(model, guide, Y, steps=4, folder=tmp_path, resume=True, **options).guide
    assert float(parts.factors.units("mu").loc.value) == pytest.approx(Y.sum() / 25.01)
    one, other = ({**named_parameters(g), **named_constants(g)} for g in (whole, parts))
    assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_of_many_rows_a_fixed_sample_is_scaled_up(monkeypatch):
    monkeypatch.setattr(start, "MOST_ROWS", 10)
    model = written(numpyro)
    run = fit(model, MeanField(model, YEARS, Y, key=KEY), (YEARS, Y), steps=1, batch_size=5, progress=False, seed=0)
    assert "the mode of 10 of 25 rows" in run.notes[0]


def test_where_there_is_no_density_to_climb_a_line_says_so():
    def model(y):
        tau = numpyro.sample("tau", dist.HalfNormal(1.0))
        with numpyro.plate("data", len(y)):
            z = numpyro.sample("z", dist.Normal(0.0 * y, tau))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y)

    run = fit(model, MeanField(model, Y, hidden=4, key=KEY), Y, steps=1, progress=False)
    assert run.notes == [
        "start of tau: the location of their priors, as their density has z in it, which are latent, too"
    ]


def test_weights_of_torch_bring_units_along():
    theirs, _ = in_torch("MeanField", "diagonal")
    guide = MeanField(written(numpyro), YEARS, Y, key=KEY)
    values = from_torch(theirs.float())
    assert with_parameters(guide, values).factors.units("a").loc.value == values["factors.units_q_a.loc"]
