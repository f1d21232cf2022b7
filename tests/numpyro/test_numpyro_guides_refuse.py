"""The guides in JAX refuse what they cannot do, in the words of torch's."""

from functools import partial

import numpy as np
import pytest

pytest.importorskip("numpyro")

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions
from numpyro import handlers
from numpyro.contrib.control_flow import scan

import guides.numpyro as guides
from guides.numpyro.parts.guide import with_model
from tests.helpers.numpyro_programs import JAX, X, masked, normal, two, weighted

pytestmark = pytest.mark.usefixtures("x64")

KEY = jax.random.key(0)


@pytest.mark.parametrize("guide", ["MeanField", "BottomUp"])
@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"family": {"z9": "full"}}, "family names the site 'z9', want one of the latents a, b"),
        (
            {"family": None},
            "found family None, want one of 'diagonal', .*'nsf', 'bits', 'autoregressive-bits', an object",
        ),
        ({"parents": {"a": "b", "b": "a"}}, r"found parents\['a'\] = 'b', want a tuple of names; try \('b',\)"),
        ({"parents": None}, "found parents=None, want one of"),
        ({"hidden": 0}, "found hidden=0, want an integer of at least 1"),
        ({"depth": -1}, "found depth=-1, want an integer of at least 0"),
        ({"encoder": "cnn"}, "found encoder 'cnn', want 'separate'"),
        ({"encoder": "conv", "image": (1, 3, 3)}, "encoder 'conv' reads rows of 2 values as images"),
        ({"encoder": "pyramid", "image": None}, "encoder 'pyramid' reads rows of 2 values as images, found image=None"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(guide, sizes, text):
    if "parents" in sizes and guide == "MeanField":
        return  # which has none to choose
    with pytest.raises(ValueError, match=f"guide {guide}: {text}"):
        getattr(guides, guide)(two, X, **sizes, key=KEY)


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


@pytest.mark.parametrize(
    ("model", "guide", "text"),
    [
        (unobserved, "MeanField", "the model observed nothing on the example .it drew 'z'.; pass the data"),
        (without_latents, "MeanField", "the model has no latent site to infer .observed: .'x'.."),
        (discrete, "Ladder", r"site 'k' is discrete \(BernoulliProbs\), want continuous latents; try SelfReflective"),
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


def laplace(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", numpyro.distributions.Laplace(jnp.zeros(2), 1.0).to_event(1))
        numpyro.sample("x", numpyro.distributions.Normal(z, 1.0).to_event(1), obs=x)


@pytest.mark.parametrize(
    ("model", "sizes", "text"),
    [
        (two, {"rate": 0.6}, "found rate=0.6, want 0 <= rate <= 0.5"),
        (two, {"width": 0}, "found width=0, want"),
        (two, {"image": (3, 1, 1)}, r"found image=\(3, 1, 1\), want one of the 2 values of site 'a'"),
        (half_normal, {}, r"site 'z' has the event shape \(\), with 2 values a datum, want latents of the shape"),
        (laplace, {}, "site 'z' has a Laplace prior, want a diagonal Gaussian; try SelfReflective"),
    ],
)
def test_what_cannot_be_infused_is_refused(model, sizes, text):
    with pytest.raises(ValueError, match=f"guide Infused: {text}"):
        guides.Infused(model, X, **sizes, key=KEY)


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
