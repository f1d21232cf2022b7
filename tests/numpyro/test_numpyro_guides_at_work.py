"""The guides in JAX with NumPyro's own tools: what they are made of, SVI, jit, both traces of a run, subsamples."""

from functools import partial

import numpy as np
import pytest

pytest.importorskip("numpyro")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions
import optax
from numpyro import handlers
from numpyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO

import guides.numpyro as guides
import ppl_models.numpyro as models
from guides.numpyro.parts.guide import with_model
from ppl_models.inference.numpyro import fit, load
from ppl_models.inference.storage import checkpoint_file
from ppl_models.numpyro.parts.nets import Linear
from ppl_models.numpyro.parts.program import named_parameters, with_parameters
from tests.helpers.cases import few
from tests.helpers.numpyro_programs import JAX, X, masked, normal, two, weighted

pytestmark = pytest.mark.usefixtures("x64")

KEY = jax.random.key(0)


@pytest.mark.parametrize("names", [("a.b", "dotted_a~1b"), ("fn", "a")])
@pytest.mark.slow
def test_every_latent_has_a_network_of_its_own(names):
    guide = guides.SelfReflective(partial(two, names=names), X, hidden=4, key=KEY)
    assert len({name.split(".")[1] for name in named_parameters(guide)} - {"encoders"}) == 2
    assert set(handlers.seed(guide, KEY)(X)) == set(names)
    plain = guides.MeanField(two, X, hidden=4, key=KEY)
    assert {name.split(".")[1] for name in named_parameters(plain)} == {"encoders", "q_a", "q_b"}


@pytest.mark.parametrize("guide", ["Ladder", "BottomUp"])
def test_a_guide_knows_its_model_but_does_not_own_it(guide):
    model = models.VAE(2, 2, 4, 0, "gaussian", key=KEY)
    q = getattr(guides, guide)(model, jnp.asarray(X), hidden=8, key=KEY)
    assert q.model is model and not set(named_parameters(model)) & set(named_parameters(q))
    assert with_model(q, two).model is two and q.restored(q.own()).model is model
    with handlers.seed(rng_seed=0), handlers.trace() as trace:
        q(jnp.asarray(X))
    expected = {"z1", f"{guide}$params"} | ({"VAE$params"} if guide == "Ladder" else set())
    assert set(trace) - {"data"} == expected  # what is observed stays within


def test_a_guide_is_made_in_the_dtype_of_its_model():
    narrow = jax.tree.map(
        lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, models.VAE(2, 2, 4, 0, "gaussian", key=KEY)
    )
    dtypes = {
        jnp.float32: (narrow, X.astype(np.float32)),
        jnp.float64: (two, X),
    }
    for dtype, (model, x) in dtypes.items():
        q = guides.MeanField(model, x, hidden=4, key=KEY)
        assert {p.dtype for p in named_parameters(q).values()} == {jnp.dtype(dtype)}
    q = guides.MeanField(two, X.astype(jnp.float32), hidden=4, key=KEY)
    assert {p.dtype for p in named_parameters(q).values()} == {jnp.dtype(jnp.float32)}


class Half(eqx.Module):
    inner: Linear
    output: int = eqx.field(static=True)

    def __call__(self, x):
        return self.inner(x)


def test_an_encoder_of_the_users():
    q = guides.MeanField(two, X, encoder=Half(Linear(2, 3, key=KEY), 3), hidden=4, key=KEY)
    assert named_parameters(q)["factors.encoders.0.trunk.inner.weight"].shape == (3, 2)
    with pytest.raises(ValueError, match="encoder Linear lacks the attribute `output`"):
        guides.MeanField(two, X, encoder=Linear(2, 3, key=KEY), key=KEY)


# ---- NumPyro's own tools


@pytest.mark.parametrize("guide", few(["Ladder", "BottomUp"], lambda guide: guide == "BottomUp"))
def test_svi_improves(guide):
    model, x = models.VAE(2, 2, 4, 0, "gaussian", key=KEY), jnp.asarray(X)
    q = getattr(guides, guide)(model, x, hidden=4, depth=0, key=KEY)
    result = SVI(model, q, optax.adam(5e-2), Trace_ELBO(num_particles=2)).run(KEY, 100, x, progress_bar=False)
    assert result.losses[-10:].mean() < 0.8 * result.losses[:10].mean()
    assert set(result.params) == {q.param, model.param}
    draws = Predictive(q, params=result.params, num_samples=3)(KEY, x[:4])
    assert {name: value.shape for name, value in draws.items()} == {"z1": (3, 4, 2)}
    assert Predictive(model, guide=q, params=result.params, num_samples=3)(KEY, x)["x"].shape == (3, 5, 2)


@pytest.mark.slow
def test_the_analytic_elbo_agrees_in_mean():
    q = guides.Ladder(two, X, hidden=4, depth=0, key=KEY)
    losses = [loss(num_particles=4000).loss(KEY, {}, two, q, X) for loss in (Trace_ELBO, TraceMeanField_ELBO)]
    np.testing.assert_allclose(*losses, rtol=2e-2)


@pytest.mark.parametrize("guide", few(["SelfReflective", "Faithful"], lambda guide: guide == "Faithful"))
def test_guides_are_compiled_once(guide):
    runs = 0

    @eqx.filter_jit
    def draw(q, x, key):
        nonlocal runs
        runs += 1
        return handlers.seed(q, key)(x)

    q = getattr(guides, guide)(two, X, hidden=4, key=KEY)
    first = draw(q, X, KEY)
    second = draw(like_numbers(q), X, KEY)
    assert runs == 1 and first["a"].shape == (5, 2) and not np.array_equal(first["a"], second["a"])
    many = jax.vmap(lambda key: handlers.seed(q, key)(X)["b"])(jax.random.split(KEY, 7))
    assert many.shape == (7, 5, 2) and len(np.unique(many[:, 0, 0])) == 7


def like_numbers(q: eqx.Module) -> eqx.Module:
    """The guide with other parameters."""
    return jax.tree.map(lambda leaf: 1.1 * leaf if eqx.is_inexact_array(leaf) else leaf, q)


@pytest.mark.slow
def test_both_traces_of_one_run():
    model, x = models.SeReVAE(2, 2, 2, 4, likelihood="gaussian", key=KEY), jnp.asarray(X)
    q = guides.SelfReflective(model, x, family="full", hidden=4, depth=0, key=KEY)
    with handlers.seed(rng_seed=0):
        found, drawn = q.traces(x)
    expected = handlers.trace(handlers.substitute(handlers.seed(model, KEY), drawn_values(drawn))).get_trace(x)
    assert set(drawn) == set(q.layout.latents) and set(found) == set(expected)
    for site, node in expected.items():
        if node["type"] == "sample":
            log_p = node["fn"].log_prob(node["value"])
            with_inverse, without = (found[site]["fn"].log_prob(*v) for v in ((node["value"],), of_site(found[site])))
            np.testing.assert_allclose(with_inverse, log_p, rtol=1e-10)
            np.testing.assert_allclose(without, log_p, rtol=1e-10)
    assert found["z2"]["intermediates"] and not found["x2"]["intermediates"]  # the bijection is shared


def drawn_values(trace):
    return {name: node["value"] for name, node in trace.items()}


def of_site(node):
    return (node["value"], node["intermediates"]) if node["intermediates"] else (node["value"],)


@pytest.mark.parametrize("guide", few(["SelfReflective", "BottomUp"], lambda guide: guide == "SelfReflective"))
@pytest.mark.slow
def test_a_guide_reads_the_subsample_that_is_scored(guide):
    """z is known from x, and x is the number of its row: what is drawn tells the rows that the evidence is read at."""

    def model(x):
        with numpyro.plate("data", len(x), subsample_size=3) as rows:
            normal("x", normal("z", 0.0, 100.0), 1e-3, obs=x[rows])

    x = jnp.arange(8.0)
    q = getattr(guides, guide)(model, x, encoder="linear", depth=0, key=KEY)
    assert q.layout.draws_subsamples
    weight, bias = (
        jnp.array([[1.0], [0.0]]),
        jnp.array([0.0, -100.0]),
    )  # the mean is x, and the scale e^-5 of the family's
    q = with_parameters(q, {"factors.q_z.first.0.weight": weight, "factors.q_z.first.0.bias": bias})
    seen = set()
    for seed in range(3):
        trace = handlers.trace(handlers.seed(q, seed)).get_trace(x)
        rows = trace["data"]["value"]
        seen |= {tuple(rows.tolist())}
        scale = (100 if guide == "SelfReflective" else 1) * np.exp(-5)
        np.testing.assert_allclose(trace["z"]["value"], rows, atol=5 * scale)
        assert trace["z"]["scale"] == 8 / 3
        replayed = handlers.trace(handlers.replay(handlers.seed(model, 9), trace)).get_trace(x)
        np.testing.assert_array_equal(replayed["x"]["value"], rows)
    assert len(seen) == 3
    loss = Trace_ELBO(num_particles=2)
    assert jnp.isfinite(loss.loss(KEY, {}, model, q, x))


@pytest.mark.parametrize("guide", few(["MeanField", "BottomUp"], lambda guide: guide == "MeanField"))
def test_covariates_are_read_at_the_subsample_that_is_scored(guide):
    def model(x, c):
        with numpyro.plate("data", len(x), subsample_size=3) as rows:
            normal("x", normal("z", c[rows], 1.0), 1.0, obs=x[rows])

    x, c = jnp.arange(8.0), jnp.arange(8.0) ** 2
    q = getattr(guides, guide)(model, x, c, encoder="linear", depth=0, key=KEY)
    weight = jnp.array([[0.0, 1.0], [0.0, 0.0]])  # the mean is c
    q = with_parameters(q, {"factors.q_z.first.0.weight": weight, "factors.q_z.first.0.bias": jnp.zeros(2)})
    trace = handlers.trace(handlers.seed(q, 1)).get_trace(x, c)
    np.testing.assert_allclose(trace["z"]["fn"].mean, c[trace["data"]["value"]])
    by_name = handlers.trace(handlers.seed(q, 1)).get_trace(c=c, x=x)
    np.testing.assert_array_equal(by_name["z"]["value"], trace["z"]["value"])


def test_a_covariate_that_no_tracer_stands_in_for_is_read():
    """It says how long a loop is, so that nothing can be told of it."""

    def model(x, n, c):
        with numpyro.plate("data", len(x)):
            z = normal("z", c, 1.0)
            for _ in range(int(n)):
                z = 2 * z
            normal("x", z, 1.0, obs=x)

    x = jnp.arange(3.0)
    q = guides.MeanField(model, x, jnp.asarray(2), x + 1, hidden=4, key=KEY)
    assert q.layout.reads == {"z": ("x", "n", "c")}
    q = guides.MeanField(model, x, jnp.asarray(2), x + 1, hidden=4, evidence=("c",), key=KEY)
    assert q.layout.reads == {"z": ("x", "c")}


def test_a_file_of_a_guide_that_read_no_covariates_is_refused(tmp_path, monkeypatch):
    def model(x, c):
        with numpyro.plate("data", len(x)):
            normal("x", normal("z", c, 1.0), 1.0, obs=x)

    args = jnp.arange(3.0), jnp.arange(3.0)
    then, now = (guides.MeanField(model, *args, hidden=4, evidence=e, key=KEY) for e in ("observed", "needed"))
    with monkeypatch.context() as before:
        before.setattr(checkpoint_file, "FORMAT", checkpoint_file.OTHER_COVARIATES)
        fit(model, then, args, steps=1, batch_size=3, folder=tmp_path / "run", progress=False)
    path = tmp_path / "run" / "checkpoint.safetensors"
    load(path, model, then)
    with pytest.raises(ValueError, match="before format 4 .*MeanField did not read c; .*evidence='observed'"):
        load(path, model, now)
    with pytest.raises(ValueError, match="before format 4 .*MeanField did not read c"):
        fit(model, now, args, steps=1, batch_size=3, folder=tmp_path / "run", resume=True, progress=False)


def test_masks_and_scales_of_the_model_are_those_of_the_guide():
    x = X[:, 0]
    program = partial(masked, p=JAX)
    q = guides.SelfReflective(program, x, hidden=4, key=KEY)
    site = handlers.trace(handlers.seed(q, KEY)).get_trace(x)["z"]
    assert ((site["fn"].log_prob(site["value"]) == 0) == (x <= 0)).all()
    site = handlers.trace(handlers.seed(guides.MeanField(weighted, X, key=KEY), KEY)).get_trace(X)["z"]
    assert site["scale"] == 0.5 and site["infer"]["prior"].batch_shape == site["fn"].batch_shape == (5,)


@pytest.mark.parametrize("guide", ["MeanField", "SelfReflective"])
def test_a_guide_is_replayed(guide):
    """Its densities at draws of another run: NumPyro's own way to ask for them."""
    model, x = models.HierarchicalVAE(2, (2, 2), 4, likelihood="gaussian", key=KEY), jnp.asarray(X)
    q = getattr(guides, guide)(model, x, hidden=4, key=KEY)
    drawn = handlers.trace(handlers.seed(q, 1)).get_trace(x)
    again = handlers.trace(handlers.seed(handlers.replay(q, drawn), 2)).get_trace(x)
    for name in ("z1", "z2"):
        np.testing.assert_array_equal(again[name]["value"], drawn[name]["value"])
        densities = [site["fn"].log_prob(site["value"]) for site in (again[name], drawn[name])]
        np.testing.assert_allclose(*densities, rtol=1e-12)
        assert again[name]["infer"]["prior"].batch_shape == drawn[name]["infer"]["prior"].batch_shape


def test_a_pair_in_the_wrong_order_is_told():
    model = models.VAE(2, 2, 4, likelihood="gaussian", key=KEY)
    q = guides.MeanField(model, jnp.asarray(X), hidden=4, key=KEY)
    with pytest.raises(ValueError, match="the guide, VAE at .*, observes the site 'x'; are model and guide in this"):
        models.fit(q, model, X, steps=2, progress=False)
