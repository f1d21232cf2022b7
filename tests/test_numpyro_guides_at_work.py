"""The guides in JAX with NumPyro's own tools: what they are made of, what they refuse, SVI, jit, one pass, subsamples."""

from collections.abc import Iterator
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
from numpyro.contrib.control_flow import scan
from numpyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from numpyro_programs import JAX, masked

import guides.numpyro as guides
import ppl_models.numpyro as models
from guides.numpyro.guide import with_model
from ppl_models.numpyro.parts.nets import Linear
from ppl_models.numpyro.parts.program import named_parameters, with_parameters

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def in_double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def two(x, names=("a", "b")):
    with numpyro.plate("data", len(x)):
        first = numpyro.sample(names[0], numpyro.distributions.Normal(jnp.zeros(2), 1.0).to_event(1))
        second = numpyro.sample(names[1], numpyro.distributions.Normal(first, 1.0).to_event(1))
        numpyro.sample("x", numpyro.distributions.Normal(second, 1.0).to_event(1), obs=x)


X = np.linspace(-1.0, 1.0, 10).reshape(5, 2)


@pytest.mark.parametrize("names", [("a.b", "dotted_a~1b"), ("fn", "a")])
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


# ---- what is refused


@pytest.mark.parametrize("guide", ["MeanField", "BottomUp"])
@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"family": {"z9": "full"}}, "family names the site 'z9', want one of the latents a, b"),
        ({"family": None}, "found family None, want one of 'diagonal', 'rank-one', 'full', 'flow', an object"),
        ({"parents": {"a": "b", "b": "a"}}, r"found parents\['a'\] = 'b', want a tuple of names; try \('b',\)"),
        ({"parents": None}, "found parents=None, want one of"),
        ({"hidden": 0}, "found hidden=0, want an integer of at least 1"),
        ({"depth": -1}, "found depth=-1, want an integer of at least 0"),
        ({"encoder": "cnn"}, "found encoder 'cnn', want 'separate'"),
        ({"encoder": "conv", "image": (1, 3, 3)}, "encoder 'conv' reads rows of 2 values as images"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(guide, sizes, text):
    if "parents" in sizes and guide == "MeanField":
        return  # which has none to choose
    with pytest.raises(ValueError, match=f"guide {guide}: {text}"):
        getattr(guides, guide)(two, X, **sizes, key=KEY)


def normal(name, *args, **options):
    return numpyro.sample(name, numpyro.distributions.Normal(*args), **options)


def unobserved(x):
    normal("z", 0.0, 1.0)


def without_latents(x):
    normal("x", 0.0, 1.0, obs=x)


def discrete(x, **options):
    with numpyro.plate("data", len(x)):
        k = numpyro.sample("k", numpyro.distributions.Bernoulli(0.5), **options)
        normal("x", normal("z", k, 1.0), 1.0, obs=x[:, 0])


def no_plate_for_all(x):
    with numpyro.plate("data", len(x)):
        normal("x", normal("z", jnp.zeros((3, 1)), 1.0).sum(0), 1.0, obs=x[:, 0])


def moving(x):
    with numpyro.plate("data", len(x)):
        low = normal("low", 0.0, 1.0)
        z = numpyro.sample("z", numpyro.distributions.Uniform(low, low + 1))
        normal("x", z, 1.0, obs=x[:, 0])


def improper(x):
    real = numpyro.distributions.constraints.real
    normal("x", numpyro.sample("z", numpyro.distributions.ImproperUniform(real, (), ())), 1.0, obs=x)


def in_a_scan(x):
    def step(z, x):
        z = normal("z", z, 1.0)
        normal("x", z, 1.0, obs=x)
        return z, None

    scan(step, 0.0, x[:, 0])


def half_normal(x):
    with numpyro.plate("data", len(x)):
        normal("x", numpyro.sample("z", numpyro.distributions.HalfNormal(1.0)), 1.0, obs=x[:, 0])


def weighted(x):
    with numpyro.plate("data", len(x)):
        with handlers.scale(scale=0.5):
            z = normal("z", 0.0, 1.0)
        normal("x", z, 1.0, obs=x[:, 0])


@pytest.mark.parametrize(
    ("model", "guide", "text"),
    [
        (unobserved, "MeanField", "the model observed nothing on the example .it drew 'z'.; pass the data"),
        (without_latents, "MeanField", "the model has no latent site to infer .observed: .'x'.."),
        (discrete, "MeanField", r"site 'k' is discrete \(Bernoulli.*TraceEnum_ELBO"),
        (partial(discrete, infer={"enumerate": "parallel"}), "Ladder", "found the enumerated site 'k', want none"),
        (no_plate_for_all, "Ladder", r"site 'z' has batch shape \(3, 5\), of which dim -2 is in no plate"),
        (moving, "BottomUp", r"site 'z' \(Uniform\) has a support whose lower bound differs between data or runs"),
        (improper, "MeanField", "the model cannot be run.*give the site a proper prior"),
        (half_normal, "Ladder", "site 'z' has a HalfNormal prior, precision weighting wants a diagonal Gaussian"),
        (weighted, "Faithful", "site 'z' has a scale in the model, which a guide with an order of its own cannot"),
        (partial(masked, p=JAX), "BottomUp", "site 'z' has a mask in the model, which a guide with an order of its"),
    ],
)
def test_models_that_have_no_such_guide_are_refused(model, guide, text):
    x = X[:, 0] if isinstance(model, partial) and model.func is masked else X
    with pytest.raises(ValueError, match=text):
        getattr(guides, guide)(model, x, key=KEY)


def test_a_scan_is_refused_by_guides_that_run_the_model():
    with pytest.raises(ValueError, match="found the site 'z' in a scan"):
        guides.MeanField(in_a_scan, X[:1], key=KEY)
    with pytest.raises(ValueError, match="take a guide with an order of its own"):
        guides.MeanField(in_a_scan, X, key=KEY)
    q = guides.BottomUp(in_a_scan, X, hidden=4, key=KEY)
    trace = handlers.trace(handlers.seed(q, KEY)).get_trace(X)
    scored = handlers.trace(handlers.replay(handlers.seed(in_a_scan, KEY), {"z": trace["z"]})).get_trace(X)
    np.testing.assert_array_equal(scored["z"]["value"], trace["z"]["value"])


def test_a_model_has_to_be_a_program():
    with pytest.raises(TypeError, match="guide MeanField: found the model 3, want a NumPyro program"):
        guides.MeanField(3, X, key=KEY)


@pytest.mark.parametrize("guide", ["SelfReflective", "BottomUp"])
def test_data_that_a_guide_was_not_built_for_are_refused(guide):
    q = getattr(guides, guide)(two, X, hidden=4, key=KEY)
    with pytest.raises(ValueError, match=r"found 3 observed values a datum \(sites x\), built for 2; build it on"):
        handlers.seed(q, KEY)(jnp.zeros((4, 3)))

    def either(x=None):
        with numpyro.plate("data", 5):
            normal("x", normal("z", 0.0, 1.0), 1.0, obs=x)

    q = getattr(guides, guide)(either, X[:, 0], hidden=4, key=KEY)
    with pytest.raises(ValueError, match="site 'x' was not observed in this run; a guide needs the data"):
        handlers.seed(q, KEY)()
    extra = guides.SelfReflective(two, X, hidden=4, key=KEY)
    with pytest.raises(ValueError, match="the model drew the site 'c', which it did not draw on the example"):
        handlers.seed(with_model(extra, lambda x: (two(x), normal("c", 0.0, 1.0))), KEY)(X)


# ---- NumPyro's own tools


@pytest.mark.parametrize("guide", ["Ladder", "BottomUp"])
def test_svi_improves(guide):
    model, x = models.VAE(2, 2, 4, 0, "gaussian", key=KEY), jnp.asarray(X)
    q = getattr(guides, guide)(model, x, hidden=4, depth=0, key=KEY)
    result = SVI(model, q, optax.adam(5e-2), Trace_ELBO(num_particles=2)).run(KEY, 100, x, progress_bar=False)
    assert result.losses[-10:].mean() < 0.8 * result.losses[:10].mean()
    assert set(result.params) == {q.param, model.param}
    draws = Predictive(q, params=result.params, num_samples=3)(KEY, x[:4])
    assert {name: value.shape for name, value in draws.items()} == {"z1": (3, 4, 2)}
    assert Predictive(model, guide=q, params=result.params, num_samples=3)(KEY, x)["x"].shape == (3, 5, 2)


def test_the_analytic_elbo_agrees_in_mean():
    q = guides.Ladder(two, X, hidden=4, depth=0, key=KEY)
    losses = [loss(num_particles=4000).loss(KEY, {}, two, q, X) for loss in (Trace_ELBO, TraceMeanField_ELBO)]
    np.testing.assert_allclose(*losses, rtol=2e-2)


@pytest.mark.parametrize("guide", ["SelfReflective", "Faithful"])
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


def drawn_values(trace: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {name: node["value"] for name, node in trace.items()}


def of_site(node: Mapping[str, Any]) -> tuple:
    return (node["value"], node["intermediates"]) if node["intermediates"] else (node["value"],)


@pytest.mark.parametrize("guide", ["SelfReflective", "BottomUp"])
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


def test_masks_and_scales_of_the_model_are_those_of_the_guide():
    x = X[:, 0]
    program = partial(masked, p=JAX)
    q = guides.SelfReflective(program, x, hidden=4, key=KEY)
    site = handlers.trace(handlers.seed(q, KEY)).get_trace(x)["z"]
    assert ((site["fn"].log_prob(site["value"]) == 0) == (x <= 0)).all()
    site = handlers.trace(handlers.seed(guides.MeanField(weighted, X, key=KEY), KEY)).get_trace(X)["z"]
    assert site["scale"] == 0.5 and site["infer"]["prior"].batch_shape == site["fn"].batch_shape == (5,)
