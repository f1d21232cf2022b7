"""Programs that keep what their first run shows, and Programs behind functions: left whole, trained, kept."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.core import Tracer
from numpyro import handlers
from numpyro.infer import SVI, Trace_ELBO, autoguide

from guides.numpyro import MeanField
from ppl_models.factorization import compare
from ppl_models.inference.numpyro.training.checkpoint import load
from ppl_models.numpyro import VAE, evaluate, fit, nuts
from ppl_models.programs.state.jax import reachable
from ppl_models.views import to_arviz
from tests.helpers.cases import few

Y = np.random.default_rng(0).normal(1, 1, 12).astype(np.float32)


def model(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(mu, sigma), obs=y)


def listed(program):
    guide = autoguide.AutoGuideList(program)
    guide.append(autoguide.AutoNormal(handlers.block(program, expose=["mu", "y"])))
    guide.append(autoguide.AutoDelta(handlers.block(program, expose=["sigma", "y"])))
    return guide


class Hidden:
    """An autoguide behind a class of the user's."""

    def __init__(self, program):
        self.guide = autoguide.AutoNormal(program)

    def __call__(self, *args):
        return self.guide(*args)


class Remembers:
    """A guide of the user's that keeps numbers of its first batch, and the last draw of every run."""

    def __init__(self, program):
        self.loc = self.last = None

    def __call__(self, y):
        self.loc = jnp.mean(y) if self.loc is None else self.loc
        self.last = numpyro.sample("mu", dist.Normal(self.loc + numpyro.param("shift", 0.0), 0.3))
        numpyro.sample("sigma", dist.LogNormal(numpyro.param("s", 0.0), 0.1))


MAKERS = {
    **{
        name: getattr(autoguide, name)
        for name in ("AutoNormal", "AutoMultivariateNormal", "AutoDelta", "AutoIAFNormal")
    },
    "list": listed,
    "hidden": Hidden,
    "remembers": Remembers,
}
WORK = {
    "fit": lambda guide: fit(model, guide, Y, steps=2, batch_size=12, seed=0, progress=False),
    "evaluate": lambda guide: evaluate(model, guide, Y, particles=2, progress=False),
    "compare": lambda guide: compare(model, guide, Y[:3]),
    "svi": lambda guide: SVI(model, guide, numpyro.optim.Adam(1e-2), Trace_ELBO()).run(
        jax.random.key(0), 2, Y, progress_bar=False
    ),
    "to_arviz": lambda guide: to_arviz(model, guide, Y, draws=2, seed=0),
}


@pytest.mark.parametrize("make", few(MAKERS, often=lambda name: name == "AutoNormal"))
@pytest.mark.slow
def test_a_guide_serves_everything_after_fit_and_evaluate(make):
    for first in ("fit", "evaluate"):
        guide = MAKERS[make](model)
        WORK[first](guide)
        assert not any(isinstance(item, Tracer) for item in reachable([guide]))
        for then in ("compare", "svi") if first == "fit" else ("svi",):
            if (make, then) != ("remembers", "compare"):  # what is remembered of data is no guide to inspect
                WORK[then](guide)


@pytest.mark.slow
def test_an_autoguide_that_fit_has_set_up_answers():
    guide = autoguide.AutoNormal(model)
    run = fit(model, guide, Y, steps=3, seed=0, progress=False)
    low, high = guide.quantiles(run.params, [0.25, 0.75])["mu"]
    assert np.isfinite(low) and low < high
    assert guide.sample_posterior(jax.random.key(0), run.params, sample_shape=(3,))["sigma"].shape == (3,)


def test_the_sampler_leaves_a_model_whole():
    class Kept:
        last = None

        def __call__(self, y):
            self.last = numpyro.sample("mu", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(self.last, 1.0).expand(y.shape).to_event(1), obs=y)

    kept = Kept()
    nuts(kept, Y, warmup=4, draws=4, chains=1)
    assert kept.last is None


# Programs behind functions

X = (np.random.default_rng(0).random((12, 4)) < 0.5).astype(np.float32)
WRAPPERS = {
    "lambda": lambda m: lambda x: m(x),
    "by name": lambda m: lambda x: m.forward(x),
    "partial": partial,
    "method": lambda m: m.forward,
    "scale": lambda m: handlers.scale(m, scale=1.0),
    "mask": lambda m: handlers.mask(m, mask=True),
}


def wrapped(wrap, **how):
    program = wrap(VAE(4, 2, hidden=3, key=jax.random.key(0)))
    guide = MeanField(program, X, hidden=3, key=jax.random.key(1))
    return program, guide, fit(program, guide, X, steps=3, batch_size=6, lr=0.1, seed=0, progress=False, **how)


def numbers(pair):
    return evaluate(*pair, X, particles=3, progress=False).to_dict()


@pytest.mark.parametrize("name", few(WRAPPERS, often=lambda name: name == "by name"))
@pytest.mark.slow
def test_a_wrapped_program_is_trained_evaluated_and_kept_as_the_program_itself(name, tmp_path):
    _, _, want = wrapped(lambda m: m)
    program, guide, run = wrapped(WRAPPERS[name], folder=tmp_path)
    assert run.history[-1]["loss"] == want.history[-1]["loss"] and run.params.keys() == want.params.keys()
    assert numbers((run.model, run.guide)) == numbers((want.model, want.guide))
    for loaded in load(tmp_path / "checkpoint.safetensors", program, guide):
        with handlers.trace() as trace, handlers.seed(rng_seed=0):
            loaded(X)
        assert "VAE$params" in trace  # in the guide, too, which runs the model
        found = {name: site["value"] for name, site in trace.items() if site["type"] == "param"}
        for param, value in found.items():
            leaves = zip(jax.tree.leaves(value), jax.tree.leaves(want.params[param]), strict=True)
            assert all(np.array_equal(a, b) for a, b in leaves)
