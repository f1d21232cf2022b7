"""`to_arviz` of NumPyro pairs: the names and numbers that Pyro pairs have, and what is NumPyro's own."""

import warnings
from functools import cache, partial

import numpy as np
import pytest

pytest.importorskip("numpyro")

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer import SVI, Trace_ELBO, autoguide
from numpyro.infer.util import log_density

import guides.numpyro as guides
import ppl_models.numpyro as models
from guides.numpyro.parts.guide import with_model
from ppl_models.inference.diagnostics import khat
from ppl_models.views import to_arviz
from ppl_models.views.draws import SAMPLED
from tests.helpers.cases import few

with warnings.catch_warnings():  # what a release announces at import
    warnings.simplefilter("ignore")
    import arviz as az

OLD = int(az.__version__.partition(".")[0]) < 1
KEY = jax.random.key(0)
ROWS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
BITS = (np.random.default_rng(0).normal(size=(5, 6)) > 0).astype(np.float32)
EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def sizes(found, group, name):
    return dict(found[group][name].sizes)


def local(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(z[:, None] * jnp.ones(3), 1.0).to_event(1), obs=x)


def exact(x, narrow=1.0):
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(x.sum(-1) / 4, narrow * 0.5))


def schools(effects, errors):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("schools", len(effects)):
        eta = numpyro.sample("eta", dist.Normal(0, 1))
        theta = numpyro.deterministic("theta", mu + tau * eta)
        numpyro.sample("y", dist.Normal(theta, errors), obs=effects)


def test_khat_is_per_datum_and_in_the_right_direction():
    values = {}
    for narrow in (0.5, 1.0, 2.0):
        found = to_arviz(local, partial(exact, narrow=narrow), ROWS, draws=4000, groups=())
        values[narrow] = found["sample_stats"]["pareto_k"]
        assert values[narrow].dims == ("data",)
    assert (values[0.5] > 0.5).all() and (values[2.0] < 0).all() and (abs(values[1.0]) < 0.5).all()


def test_an_exact_posterior_is_found():
    with jax.enable_x64(True):
        x = ROWS.astype(np.float64)
        found = to_arviz(local, exact, x, draws=4000, chains=1)
        z = found["posterior"]["z"].values[0]
        assert z.dtype == np.float64 and len(np.unique(z)) == z.size
        np.testing.assert_allclose(z.mean(0), x.sum(-1) / 4, atol=0.04)
        covariance = np.ones((3, 3)) + np.eye(3)
        evidence = dist.MultivariateNormal(jnp.zeros(3), covariance).log_prob(x)
        np.testing.assert_allclose(found["sample_stats"]["log_w"][0, 7], evidence, rtol=1e-10)
        new = found["posterior_predictive"]["x"].values[0]
        np.testing.assert_allclose(new.mean((0, 2)), x.sum(-1) / 4, atol=0.06)
        np.testing.assert_allclose(found["prior"]["z"].values.std(), 1, atol=0.03)
        np.testing.assert_allclose(found["prior_predictive"]["x"].values.var(), 2, atol=0.1)


# what each takes to compile adds up
PAIRS = [
    (partial(models.HierarchicalVAE, event=6, latent=(3, 2), hidden=8), guides.Ladder),
    (partial(models.SeReVAE, event=6, latent=2, layers=2, hidden=8), guides.SelfReflective),
    (partial(models.LinearGaussian, event=6, latent=(3, 2)), guides.Faithful),
]


@pytest.mark.parametrize(
    ("build", "family"),
    few(PAIRS, lambda build, family: family is guides.Faithful),
    ids=lambda item: getattr(item, "__name__", item.__class__),
)
@pytest.mark.slow
def test_ports_give_every_group_with_the_densities_of_its_draws(build, family):
    with jax.enable_x64(True):
        x = jnp.asarray(BITS, jnp.float64)
        model = build(key=KEY)
        guide = family(model, x, key=KEY)
        groups = SAMPLED if family is guides.SelfReflective else ("posterior", "log_likelihood")
        found = to_arviz(model, guide, x, draws=20, chains=2, groups=groups)
        assert found.attrs["notes"] == "" and found.attrs["inference_library"] == "numpyro"
        assert (found.attrs["model"], found.attrs["guide"]) == (type(model).__name__, family.__name__)
        sample = {"chain": 2, "draw": 20, "data": 5}
        for name in found["posterior"].data_vars:
            width = found["posterior"][name].shape[-1]
            assert sizes(found, "posterior", name) == {**sample, f"{name}_dim_0": width}
        observed = found["observed_data"].data_vars
        if groups == SAMPLED:
            assert all(v.dims == found["prior"][n].dims for n, v in found["posterior"].data_vars.items())
            assert set(observed) == set(found["posterior_predictive"].data_vars)
            assert set(observed) == set(found["prior_predictive"].data_vars)
        for name in observed:
            assert sizes(found, "log_likelihood", name) == sample
        stats = found["sample_stats"]
        np.testing.assert_allclose(stats["pareto_k"], khat(stats["log_w"].values.reshape(40, 5)))
        latent = {name: jnp.asarray(v.values[1, 3]) for name, v in found["posterior"].data_vars.items()}
        seeded = handlers.seed(model, KEY)
        total, trace = log_density(seeded, (x,), {}, latent)
        np.testing.assert_allclose(stats["lp"][1, 3].sum(), total, rtol=1e-9)
        for name in observed:
            term = trace[name]["fn"].log_prob(trace[name]["value"])
            np.testing.assert_allclose(found["log_likelihood"][name][1, 3], term, rtol=1e-9)


def test_both_languages_give_one_shape_of_object():
    import torch

    from guides import MeanField
    from ppl_models import VAE

    model = models.VAE(event=6, latent=3, hidden=8, key=KEY)
    guide = guides.MeanField(model, jnp.asarray(BITS), key=KEY)
    ours = to_arviz(model, guide, jnp.asarray(BITS), draws=4, groups=["posterior", "log_likelihood"])
    other = VAE(event=6, latent=3, hidden=8)
    theirs = to_arviz(other, MeanField(other, torch.from_numpy(BITS)), torch.from_numpy(BITS), draws=4)
    for group in ("posterior", "log_likelihood", "sample_stats", "observed_data"):
        for name, values in theirs[group].data_vars.items():
            assert ours[group][name].dims == values.dims and ours[group][name].shape == values.shape


@cache
def trained():
    guide = autoguide.AutoNormal(schools)
    found = SVI(schools, guide, numpyro.optim.Adam(0.05), Trace_ELBO()).run(
        KEY, 300, jnp.asarray(EFFECTS), jnp.asarray(ERRORS), progress_bar=False
    )
    return guide, found.params


@pytest.mark.slow
def test_eight_schools_with_an_autoguide_and_its_params(recwarn: pytest.WarningsRecorder):
    guide, params = trained()
    x = (jnp.asarray(EFFECTS), jnp.asarray(ERRORS))
    found = to_arviz(schools, guide, x, draws=500, chains=2, params=params, groups=["posterior"])
    for name in ("eta", "theta"):
        assert sizes(found, "posterior", name) == {"chain": 2, "draw": 500, "schools": 8}
    posterior = found["posterior"]
    np.testing.assert_allclose(posterior["theta"], posterior["mu"] + posterior["tau"] * posterior["eta"], rtol=1e-4)
    assert posterior["mu"].values.mean() == pytest.approx(float(params["mu_auto_loc"]), abs=0.5)
    assert sizes(found, "sample_stats", "lp") == {"chain": 2, "draw": 500}
    assert found["sample_stats"]["pareto_k"].dims == ()
    assert sizes(found, "constant_data", "errors") == {"schools": 8}
    latent = {name: jnp.asarray(posterior[name].values[0, 9]) for name in ("mu", "tau", "eta")}
    np.testing.assert_allclose(found["sample_stats"]["lp"][0, 9], log_density(schools, x, {}, latent)[0], rtol=1e-5)
    again = to_arviz(schools, guide, x, draws=500, chains=2, params=params, importance="psis", groups=["posterior"])
    assert 100 < len(np.unique(again["posterior"]["mu"])) < 1000
    assert not recwarn.list


def test_a_parameter_drawn_by_the_guide_is_one_for_all_draws():
    def guide(x):
        loc = numpyro.param("loc", lambda key: jax.random.normal(key, (len(x),)))
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(loc, 1e-4))

    found = to_arviz(local, guide, ROWS, draws=20, groups=["posterior"])
    assert found["posterior"]["z"].values.std(1).max() < 1e-3
    given = to_arviz(local, guide, ROWS, draws=20, params={"loc": jnp.arange(4.0)}, groups=["posterior"])
    np.testing.assert_allclose(given["posterior"]["z"][0, 0], range(4), atol=1e-2)


def test_no_khat_where_there_are_no_weights():
    guide = autoguide.AutoDelta(local)
    found = to_arviz(local, guide, ROWS, draws=30, groups=["posterior"])
    assert np.isnan(found["sample_stats"]["pareto_k"]).all()
    assert "the guide draws 'z' from a point mass" in found.attrs["notes"]
    with pytest.raises(ValueError, match="to_arviz: importance='psis' wants weights of draws, found none"):
        to_arviz(local, guide, ROWS, draws=30, importance="psis")


def test_programs_that_do_not_vectorize_run_draw_by_draw():
    def branching(x):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(z if z > 0 else -2 * z, 1.0).expand([3]).to_event(1), obs=x)

    def guide(x):
        numpyro.sample("z", dist.Normal(0.0, 1.0))

    found = to_arviz(branching, guide, ROWS[0], draws=9)
    assert found.attrs["notes"].startswith("draws made one by one: the programs do not run under jax.vmap (")
    z = found["posterior"]["z"].values[0]
    assert len(np.unique(z)) == 9
    expected = dist.Normal(np.where(z > 0, z, -2 * z)[:, None], 1.0).log_prob(ROWS[0]).sum(-1)
    np.testing.assert_allclose(found["log_likelihood"]["x"][0], expected, rtol=1e-5)


def test_plates_scales_and_factors():
    def model(x):
        rows, columns = numpyro.plate("rows", 4, dim=-2), numpyro.plate("columns", 3, dim=-1)
        with rows:
            a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        with columns:
            b = numpyro.sample("b", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        with rows, columns, handlers.scale(scale=2.0):
            numpyro.sample("x", dist.Normal(a + b.sum(-1), 1.0), obs=x)
        numpyro.factor("f", jnp.array(3.0))
        numpyro.deterministic("level", a.mean())

    def guide(x):
        with numpyro.plate("rows", 4, dim=-2):
            numpyro.sample("a", dist.Normal(0.0, 1.0))
        with numpyro.plate("columns", 3, dim=-1):
            numpyro.sample("b", dist.Normal(jnp.zeros(2), 1.0).to_event(1))

    found = to_arviz(model, guide, ROWS, draws=7)
    sample = {"chain": 1, "draw": 7}
    assert sizes(found, "posterior", "a") == {**sample, "rows": 4}
    assert sizes(found, "posterior", "b") == {**sample, "columns": 3, "b_dim_0": 2}
    assert sizes(found, "posterior", "level") == sample
    np.testing.assert_allclose(found["posterior"]["level"], found["posterior"]["a"].mean("rows"), atol=1e-6)
    assert sizes(found, "posterior_predictive", "x") == {**sample, "rows": 4, "columns": 3}
    assert sizes(found, "log_likelihood", "x") == {**sample, "rows": 4}
    assert set(found["observed_data"].data_vars) == {"x"}
    # prior and guide are one: what is left are likelihood, twice, and factor
    rest = found["log_likelihood"]["x"].sum("rows") + 3
    np.testing.assert_allclose(found["sample_stats"]["log_w"], rest, rtol=1e-4)


def test_chunks_and_seeds():
    groups = ["posterior", "posterior_predictive"]
    whole = to_arviz(local, exact, ROWS, draws=100, groups=groups)
    parts = to_arviz(local, exact, ROWS, draws=100, rows=28, groups=groups)  # 7 draws at once, the last ones are 2
    for group in groups:
        for name in whole[group].data_vars:
            np.testing.assert_allclose(whole[group][name], parts[group][name], rtol=1e-5, atol=1e-6)
    other = to_arviz(local, exact, ROWS, draws=100, seed=1, groups=groups)
    assert (whole["posterior"]["z"] != other["posterior"]["z"]).all()
    state = np.random.get_state()[1].copy()
    to_arviz(local, exact, ROWS, draws=2, groups=groups)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.slow
def test_plots_take_the_object():
    from matplotlib import pyplot

    guide, params = trained()
    groups = ["posterior", "posterior_predictive"]
    found = to_arviz(schools, guide, (EFFECTS, ERRORS), draws=50, chains=2, params=params, groups=groups)
    az.plot_rank(found, var_names=["mu"])
    az.plot_forest(found, var_names=["theta"])
    az.plot_pair(found, var_names=["mu", "tau"])
    az.plot_ppc(found) if OLD else az.plot_ppc_dist(found)
    pyplot.close("all")


def looped(x):
    def step(z, value):
        z = numpyro.sample("z", dist.Normal(z, 1.0))
        return z, numpyro.sample("x", dist.Normal(z, 1.0), obs=value)

    scan(step, 0.0, x)


def loop_guide(x):
    numpyro.sample("z", dist.Normal(jnp.zeros(len(x)), 1.0).to_event(1))


def subsampled(x):
    with numpyro.plate("data", len(x), subsample_size=2) as index:
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(z[:, None], jnp.ones(3)).to_event(1), obs=x[index])


def subsampled_guide(x):
    with numpyro.plate("data", len(x), subsample_size=2):
        numpyro.sample("z", dist.Normal(0.0, 1.0))


def two(x):
    exact(x)
    numpyro.sample("u", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"draws": 0}, "found draws=0, want an integer of at least 1"),
        ({"dims": {"y": ["a"]}}, "found dims of 'y', want some of z, x"),
        ({"coords": {"data": [1, 2]}}, "found 2 coords of the dim 'data', want 4"),
        ({"model": exact, "guide": local}, "the guide, local at .*, observes the site 'x'"),
        ({"model": exact}, "the model exact observes nothing \\(it draws 'z'\\)"),
        ({"guide": two}, "the guide samples the site 'u', which the model does not draw"),
        (
            {"guide": lambda x: numpyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})},
            "no factor for",
        ),
        ({"model": subsampled, "guide": subsampled_guide}, "the plate 'data' draws 2 of 4 data, want every datum"),
        ({"model": looped, "guide": loop_guide, "x": ROWS[0]}, "inside of a numpyro scan or cond are not drawn anew"),
    ],
)
def test_what_is_refused(change, says):
    arguments = {"model": local, "guide": exact, "x": ROWS, "draws": 10, **change}
    with pytest.raises(ValueError, match=says):
        to_arviz(**arguments)


@pytest.mark.slow
def test_the_guide_takes_the_weights_of_the_model_it_is_drawn_with():
    """A top-down guide holds a copy of the model: with another of its make, its draws follow that one's priors."""
    sizes, x = {"event": 4, "latent": (2, 2), "hidden": 4}, np.eye(4, dtype=np.float32)[:3]
    one, other = (models.HierarchicalVAE(**sizes, key=jax.random.key(i)) for i in (0, 1))
    guide = guides.Ladder(one, x, hidden=4, key=jax.random.key(2))
    same, changed = (to_arviz(m, guide, x, draws=8, groups="posterior").posterior.z2.values for m in (one, other))
    again = to_arviz(other, with_model(guide, other), x, draws=8, groups="posterior").posterior.z2.values
    assert (same != changed).any()
    np.testing.assert_allclose(changed, again, rtol=1e-6)


def test_data_that_are_wider_than_their_distribution_are_drawn_one_by_one():
    """`log_prob` takes each entry for one of its own, and so do predictions."""

    def model(x):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])
        with numpyro.plate("data", len(x)):
            numpyro.sample("y", dist.Normal(jnp.full((len(x), 1), z), 1.0).to_event(1), obs=x)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    found = to_arviz(model, lambda x: numpyro.sample("z", dist.Normal(0.0, 0.6)), x, draws=3)
    for group in ("posterior_predictive", "prior_predictive"):
        assert found[group]["x"].shape == (1, 3, 4) and found[group]["y"].shape == (1, 3, 4, 3)
        assert len(np.unique(found[group]["y"])) == 36
