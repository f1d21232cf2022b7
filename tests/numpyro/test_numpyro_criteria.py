"""Discrepancies and general criteria in JAX: torch's numbers, draws of the prior, and trainings with each of them."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

pytest.importorskip("numpyro")

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import torch

from guides.numpyro import Infused, MeanField
from ppl_models.inference.numpyro import (
    Terms,
    elbo,
    evaluate,
    fit,
    info_vae,
    moment_matching,
    moments,
    terms,
    unregularized,
)
from ppl_models.inference.numpyro.passes.terms import traces
from ppl_models.inference.objectives import criteria, discrepancies
from ppl_models.inference.pyro.passes.terms import Terms as TorchTerms
from ppl_models.numpyro import VAE, Infusion
from ppl_models.numpyro.parts.program import training
from tests.helpers.cases import few
from tests.helpers.precision import quick

KEY = jax.random.key(0)


def samples(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [np.random.default_rng(i).normal(size=shape) for i, shape in enumerate(shapes)]


# Discrepancies


@pytest.mark.parametrize("kernel", [*discrepancies.KERNELS, "wide"])
def test_discrepancies_are_torchs(wide, kernel):
    x, y = samples((7, 3), (5, 3))
    kernel = discrepancies.InverseMultiquadric(0.5) if kernel == "wide" else kernel
    for estimator in discrepancies.ESTIMATORS:
        options = {"estimator": estimator}
        expected = torch.tensor(x).requires_grad_()
        value = discrepancies.mmd(expected, torch.tensor(y), kernel=kernel, **options)
        value.backward()
        found, slope = quick(jax.value_and_grad(partial(discrepancies.mmd, kernel=kernel, **options)))(x, y)
        np.testing.assert_allclose(found, value.item(), rtol=1e-11)
        np.testing.assert_allclose(slope, expected.grad, rtol=1e-9, atol=1e-12)


def test_moments_are_torchs(wide):
    x, y = samples((7, 3), (5, 3))
    expected = discrepancies.moments(torch.tensor(x), torch.tensor(y)).item()
    np.testing.assert_allclose(moments(jnp.asarray(x), jnp.asarray(y)), expected, rtol=1e-12)
    assert moments(jnp.asarray(x), jnp.asarray(x)) == 0


@pytest.mark.parametrize(
    ("shapes", "options"),
    [
        (((3, 2), (3, 2)), {"kernel": "cosine"}),
        (((3, 2), (3, 2)), {"estimator": "cubic"}),
        (((3, 2), (3, 1)), {}),
        (((1, 2), (3, 2)), {}),
    ],
)
def test_what_has_no_discrepancy_is_refused_as_by_torch(shapes, options):
    x, y = samples(*shapes)
    with pytest.raises(ValueError, match="mmd: found") as theirs:
        discrepancies.mmd(torch.tensor(x), torch.tensor(y), **options)
    with pytest.raises(ValueError, match="mmd: found") as ours:
        discrepancies.mmd(x, y, **options)
    assert str(ours.value) == str(theirs.value)


# Criteria


def both(**more: object) -> tuple[Terms, TorchTerms]:
    """The same terms in both languages: two particles, four data, latents of two and three units."""
    names, units = ("z1", "z2"), {"z1": 2, "z2": 3}
    x, *rest = samples((2, 4), *[(2, 4)] * 6, *[(2, 4, n) for n in units.values()] * 2)
    tables = [dict(zip(names, rest[i : i + 2], strict=True)) for i in range(0, 10, 2)]

    def made(kind: type, as_array: Callable) -> object:
        log_p, log_q, kl, drawn, prior = ({n: as_array(v) for n, v in table.items()} for table in tables)
        options = {"shared": frozenset(), "drawn": drawn, "prior": prior, **more}
        return kind({"x": as_array(x)}, log_p, log_q, kl, **options)

    return made(Terms, jnp.asarray), made(TorchTerms, torch.tensor)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unregularized", {}),
        ("info_vae", {"alpha": 0.0, "lambda_": 1.0}),
        ("info_vae", {"alpha": 0.5, "lambda_": 3.0}),
        ("info_vae", {"alpha": 1.0, "lambda_": 10.0}),
        ("info_vae", {"alpha": -1.0, "lambda_": 2.0}),
        ("moment_matching", {"weight": 2.0}),
    ],
)
def test_criteria_are_torchs(wide, name, options):
    mine, theirs = both()
    for beta in (1.0, 0.3, 0):
        found = getattr(criteria, name)(mine, beta, 100, **options)
        expected = getattr(criteria, name)(theirs, beta, 100, **options)
        np.testing.assert_allclose(found, expected.item(), rtol=1e-12)
        if beta:
            np.testing.assert_allclose(getattr(criteria, name)(mine, jnp.asarray(beta), 100, **options), found)


def test_criteria_with_options(wide):
    mine, theirs = both(auxiliary=frozenset({"z2"}))  # which has no prior
    options = {"alpha": 1.0, "lambda_": 2.0}
    laplace = partial(discrepancies.mmd, kernel="laplace")
    found = info_vae(mine, discrepancy=laplace, **options)
    np.testing.assert_allclose(found, info_vae(theirs, discrepancy=laplace, **options).item())
    # the extremes: an ELBO, and a beta-VAE
    assert info_vae(mine, alpha=0.0, lambda_=1.0) == elbo(mine)
    assert info_vae(mine, alpha=-3.0, lambda_=4.0) == elbo(mine, 4.0)


def test_masked_latents_are_refused():
    def model(x):
        with numpyro.plate("data", len(x)), numpyro.handlers.mask(mask=x > 0):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with numpyro.plate("data", len(x)), numpyro.handlers.mask(mask=x > 0):
            numpyro.sample("z", dist.Normal(x, 1.0))

    found = terms(model, guide, (jnp.arange(-2.0, 2.0),), key=KEY)
    with pytest.raises(ValueError, match="site 'z': found a mask on this latent, want a code for every datum"):
        info_vae(found, alpha=0.0, lambda_=2.0)


def test_what_is_no_criterion_is_refused_as_by_torch():
    mine, theirs = both(shared=frozenset({"z2"}))
    for name, options in (
        ("info_vae", {"alpha": 1.5, "lambda_": 1.0}),
        ("info_vae", {"alpha": 0.0, "lambda_": 0.5}),
        ("info_vae", {"alpha": 0.0, "lambda_": 2.0}),
        ("moment_matching", {"weight": -1.0}),
        ("moment_matching", {}),
    ):
        with pytest.raises(
            ValueError, match="info_vae: found|moment_matching: found|discrepancy of q.z.: found"
        ) as expected:
            getattr(criteria, name)(theirs, **options)
        with pytest.raises(
            ValueError, match="info_vae: found|moment_matching: found|discrepancy of q.z.: found"
        ) as found:
            getattr(criteria, name)(mine, **options)
        assert str(found.value) == str(expected.value)


def test_a_divergence_without_weight_may_be_infinite():
    found = Terms({"x": jnp.ones((1, 2))}, {}, {}, {"z": jnp.full((1, 2), jnp.inf)}, frozenset())
    assert elbo(found, 0) == elbo(found, 0.0) == unregularized(found) == 1
    assert elbo(found, 1e-30) == -jnp.inf and jnp.isnan(elbo(found, jnp.zeros(())))  # of a traced weight it is unknown


# Draws of guide and prior

RUNS: list[str] = []


def chain(x, learned=True):
    loc = numpyro.param("loc", jnp.array([3.0, -1.0])) if learned else jnp.array([3.0, -1.0])
    RUNS.append("started")
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(loc, 2.0).to_event(1))
        u = numpyro.sample("u", dist.Normal(z.sum(-1), 0.5))
        RUNS.append("drawn")
        numpyro.sample("x", dist.Normal(u, 1.0), obs=x)


def amortized(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(jnp.stack([x, -x], -1), 0.1).to_event(1))
        numpyro.sample("u", dist.Normal(z[..., 0], 0.2))


def test_draws_are_those_of_the_guide_and_those_of_the_prior_follow_it(x64):
    n, particles = 1000, 20
    x = jnp.linspace(-1.0, 1.0, n)

    def run(key: jax.Array) -> tuple[dict, dict, dict]:
        found = terms(chain, amortized, (x,), particles=particles, key=key)
        sites = traces(chain, amortized, (x,), key=jax.random.split(key, particles)[3], params={})[1]
        # nothing runs before the first is asked for, once for all of them, and not beyond the last latent
        RUNS.clear()
        assert set(found.prior) == {"z", "u"} and len(found.prior) == 2 and "x" not in found.prior and not RUNS
        prior = dict(found.prior)
        assert RUNS == ["started"]
        with pytest.raises(KeyError):
            found.prior["x"]
        return found.drawn, prior, {name: sites[name]["value"] for name in prior}

    drawn, prior, third = quick(run)(KEY)
    shapes = {"z": (20, n, 2), "u": (20, n, 1)}
    assert {name: value.shape for name, value in drawn.items()} == shapes
    assert {name: value.shape for name, value in prior.items()} == shapes
    np.testing.assert_allclose(drawn["z"][3], third["z"], rtol=1e-6)
    np.testing.assert_allclose(drawn["u"][3, :, 0], third["u"], rtol=1e-6)
    z, u = (np.asarray(prior[name], float).reshape(n * particles, -1) for name in ("z", "u"))
    # each moment of n * particles draws within five standard errors: z ~ N(loc, 2^2), u | z ~ N(z1 + z2, 0.5^2)
    count = n * particles
    for values, mean, scale in (
        (z[:, 0], 3.0, 2.0),
        (z[:, 1], -1.0, 2.0),
        (u[:, 0], 2.0, (2 * 4 + 0.25) ** 0.5),
        (u[:, 0] - z.sum(1), 0.0, 0.5),
    ):
        assert abs(values.mean() - mean) < 5 * scale / count**0.5
        assert abs(values.std() / scale - 1) < 5 / (2 * count) ** 0.5
    assert len(np.unique(z)) > 0.99 * z.size
    assert abs(np.corrcoef(z[:, 0], np.asarray(drawn["z"]).reshape(-1, 2)[:, 0])[0, 1]) < 5 / count**0.5


def test_one_particle_and_a_global_latent():
    def model(x):
        mu = numpyro.sample("mu", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", dist.Normal(mu[0], 1.0), obs=x)

    def guide(x):
        numpyro.sample("e", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        numpyro.sample("mu", dist.Normal(jnp.zeros(3), 0.1).to_event(1))

    found = terms(model, guide, (jnp.zeros(4),), key=KEY)
    assert found.shared >= {"mu"} and list(found.drawn) == list(found.prior) == ["mu"]
    assert found.drawn["mu"].shape == found.prior["mu"].shape == (1, 1, 3)
    with pytest.raises(ValueError, match="discrepancy of q.z.: found the latent 'mu' outside the plate of the data"):
        info_vae(found, alpha=0.0, lambda_=2.0)


def test_a_learned_prior_is_pulled_towards_the_codes(wide):
    """The gradient of |m_q - m_p|^2 + ... with m_p = loc + noise: through the draws of the prior, and nothing else."""
    x, loc = jnp.linspace(-1.0, 1.0, 6), jnp.array([0.3, 0.7])

    def value(loc: jax.Array) -> tuple[jax.Array, tuple]:
        found = terms(chain, amortized, (x,), particles=3, key=KEY, params={"loc": loc})
        codes = [jnp.concatenate([s[n].reshape(18, -1) for n in ("z", "u")], -1) for s in (found.drawn, found.prior)]
        return moment_matching(found), (*codes, unregularized(found))

    (_, (q, p, _)), slope = quick(jax.value_and_grad(value, has_aux=True))(loc)
    apart = q.mean(0) - p.mean(0)
    # both entries of loc move u, too; covariances do not depend on it
    np.testing.assert_allclose(slope, 2 * (apart[:2] + apart[2]), rtol=1e-9)


@pytest.mark.parametrize(
    ("objective", "options"),
    few(
        [
            (unregularized, {"warmup": 2}),
            (partial(info_vae, alpha=0.5, lambda_=2.0), {"warmup": 2}),
            (moment_matching, {"particles": 2}),
        ],
        lambda objective, options: "particles" in options,
    ),
)
def test_fit_takes_a_criterion(objective, options):
    x = np.random.default_rng(0).integers(2, size=(8, 4)).astype(np.float32)
    model = VAE(4, 2, 4, key=KEY)
    guide = MeanField(model, x[:2], hidden=4, key=KEY)
    run = fit(model, guide, x, steps=3, batch_size=4, objective=objective, **options, seed=0, progress=False)
    assert math.isfinite(run.history[-1]["loss"]) and (run.model.decoder.last.weight != model.decoder.last.weight).any()


# The mode of a training


@pytest.mark.slow
def test_data_are_scored_at_every_step_in_training_alone():
    x = np.random.default_rng(0).uniform(size=(8, 4)).astype(np.float32)
    pairs, records, bounds = {}, {}, {}
    for criterion in ("elbo", "per-step"):
        model = Infusion(4, steps=2, hidden=4, criterion=criterion, key=KEY)
        pairs[criterion] = pair = model, Infused(model, x[:2], rate=0.3, key=KEY)
        options = {"steps": 1, "lr": 1e-30, "objective": unregularized, "validation": x, "seed": 0, "progress": False}
        records[criterion] = fit(*pair, x, **options).history[-1]
        bounds[criterion] = evaluate(*pair, x, particles=2, progress=False)
    model, guide = pairs["per-step"]
    with training():
        seen = terms(model, guide, (jnp.asarray(x),), key=KEY)
    assert set(seen.log_likelihood) == {"x0", "x1", "x"}
    assert set(terms(model, guide, (jnp.asarray(x),), key=KEY).log_likelihood) == {"x"}
    # the loss is another one; the bound on validation data, and an evaluation, are those of the plain model
    assert records["per-step"]["loss"] != records["elbo"]["loss"]
    assert records["per-step"]["valid"] == records["elbo"]["valid"]
    assert bounds["per-step"] == bounds["elbo"]
