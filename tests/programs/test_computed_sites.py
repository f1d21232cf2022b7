"""Sites that a program computes and that look observed: reparametrized ones, and point masses."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import reparam

import guides
from ppl_models.factorization import compare, factorization
from ppl_models.inference import ancestral, evaluate
from ppl_models.inference.pyro.passes.terms import terms, traces
from ppl_models.inference.pyro.sampling.sampling import parts_of, rows_from
from ppl_models.programs import pyro as torch_programs
from ppl_models.views import to_arviz
from tests.helpers.cases import few

try:
    import jax
    import jax.numpy as jnp
    import numpyro
    from numpyro.infer import reparam as jax_reparam

    import guides.numpyro as ports
    from ppl_models.inference.numpyro.passes.terms import terms as jax_terms
    from ppl_models.programs import numpyro as jax_programs
except ImportError:
    numpyro = None

LANGUAGES = ["pyro", pytest.param("numpyro", marks=pytest.mark.skipif(numpyro is None, reason="needs NumPyro"))]
EFFECT = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERROR = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
DATA_SITES, LATENTS = ["y"], ["mu", "tau", "theta_base"]


@pytest.fixture
def wide(double: None) -> Iterator[None]:
    """In both languages."""
    with nullcontext() if numpyro is None else jax.enable_x64(True):
        yield


def schools(effect: Any, error: Any, lib: Any, how: str) -> None:
    """Eight schools, theta = mu + tau z; what theta is, `how` says."""
    dist = lib.distributions
    mu, tau = (
        lib.sample("mu", dist.Normal(effect.sum() * 0, 5.0)),
        lib.sample("tau", dist.HalfCauchy(effect[0] * 0 + 5)),
    )
    with lib.plate("data", len(effect)):
        if how == "reparam":
            affine = lib.distributions.transforms.AffineTransform(mu, tau)
            theta = lib.sample("theta", dist.TransformedDistribution(dist.Normal(effect * 0, 1.0), [affine]))
        else:
            z = lib.sample("theta_base", dist.Normal(effect * 0, 1.0))
            value, log_density = mu + tau * z, -0.5 * z**2 if how == "density" else 0.0
            point = dist.Delta(value, log_density)
            if how == "deterministic":
                theta = lib.deterministic("theta", value)
            elif how == "masked":
                theta = lib.sample("theta", point.mask(False), obs=value)
            else:
                theta = lib.sample("theta", point, obs=mu + tau * z)
        lib.sample("y", dist.Normal(theta, error), obs=effect)


def program(language: str, how: str) -> Callable:
    model = partial(schools, lib=pyro if language == "pyro" else numpyro, how=how)
    if how != "reparam":
        return model
    if language == "pyro":
        return poutine.reparam(model, config={"theta": reparam.TransformReparam()})
    return numpyro.handlers.reparam(model, config={"theta": jax_reparam.TransformReparam()})


def arguments(language: str) -> tuple[Any, Any]:
    return tuple(map(torch.tensor if language == "pyro" else jnp.asarray, (EFFECT, ERROR)))


def mean_field(language: str, model: Callable, args: Any) -> Any:
    if language == "pyro":
        torch.manual_seed(0)
        return guides.MeanField(model, *args, hidden=4)
    return ports.MeanField(model, *args, hidden=4, key=jax.random.key(0))


KINDS = {"deterministic": "deterministic", "reparam": "deterministic", "masked": "deterministic", "delta": "point"}
CASES = [(language, how) for language in ("pyro", "numpyro") for how in KINDS]


@pytest.mark.parametrize("language, how", few(CASES, lambda language, how: language == "pyro"))
def test_computed_values_are_no_data(language, how, wide):
    if language == "numpyro" and numpyro is None:
        pytest.skip("needs NumPyro")
    model, args = program(language, how), arguments(language)
    run = (torch_programs if language == "pyro" else jax_programs).run(model, args)
    assert run["theta"].kind == KINDS[how] and [*run.computed] == ["theta"]
    assert [*run.observed] == DATA_SITES and [*run.latents] == LATENTS
    guide = mean_field(language, model, args)
    assert [*guide.layout.evidence_sites] == DATA_SITES
    three = tuple(arg[:3] for arg in args)
    assert str(factorization(model, *three)) == "p(mu) p(tau) p(theta_base) p(y | mu, tau, theta_base, error)"
    found = to_arviz(model, guide, args, draws=3)
    assert [*found["observed_data"]] == DATA_SITES and [*found["log_likelihood"]] == DATA_SITES
    z, theta = (found["posterior"][name].values for name in ("theta_base", "theta"))
    mu, tau = (found["posterior"][name].values[..., None] for name in ("mu", "tau"))
    np.testing.assert_allclose(theta, mu + tau * z, rtol=1e-12)
    assert found["posterior"]["theta"].dims == ("chain", "draw", "data")
    assert not np.allclose(found["prior"]["theta"], theta)


@pytest.mark.parametrize(
    "language", [LANGUAGES[0], pytest.param("numpyro", marks=[*LANGUAGES[1].marks, pytest.mark.slow])]
)
def test_all_ways_to_name_a_computed_value_have_one_density(language, wide):
    args, weights = arguments(language), {}
    for how in (*KINDS, "density"):
        model = program(language, how)
        guide = mean_field(language, model, args)
        if language == "pyro":
            torch.manual_seed(1)
            found = terms(model, guide, args, particles=3)
            weights[how], z = found.log_w.detach().numpy(), found.drawn["theta_base"].detach().numpy()
        else:
            found = jax_terms(model, guide, args, particles=3, key=jax.random.key(1))
            weights[how], z = np.asarray(found.log_w), np.asarray(found.drawn["theta_base"])
    for how in KINDS:
        np.testing.assert_allclose(weights[how], weights["deterministic"], rtol=1e-12)
    # a point mass with a density is a factor
    more = weights["density"] - weights["deterministic"]
    np.testing.assert_allclose(more.sum(-1), -0.5 * (z**2).sum((1, 2)), rtol=1e-10)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_density_of_a_point_mass_is_a_factor_of_the_structure(language, wide):
    model, args = program(language, "density"), arguments(language)
    three = tuple(arg[:3] for arg in args)
    wanted = "p(mu) p(tau) p(theta_base) p(theta (density) | theta_base) p(y | mu, tau, theta_base, error)"
    assert str(factorization(model, *three)) == wanted
    guide = mean_field(language, model, args)
    assert guide.layout.factorization.parents["theta (density)"] == ("theta_base",)
    assert [*guide.layout.evidence_sites] == DATA_SITES


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_guide_may_give_a_computed_value_a_name(language, wide):
    """It is no observation, which a guide must not make."""
    lib, (x, _) = (pyro if language == "pyro" else numpyro), arguments(language)
    dist = lib.distributions

    def model(x: Any) -> None:
        with lib.plate("data", len(x)):
            z = lib.sample("z", dist.Normal(x * 0, 1.0))
            lib.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Any) -> None:
        with lib.plate("data", len(x)):
            mean = lib.sample("mean", dist.Delta(x / 2), obs=x / 2)
            lib.sample("z", dist.Normal(mean, 0.5**0.5))

    assert compare(model, guide, x[:3]).faithful
    if language == "pyro":
        found = terms(model, guide, (x,), particles=4, analytic=False).log_w.numpy()
    else:
        found = np.asarray(jax_terms(model, guide, (x,), particles=4, analytic=False, key=jax.random.key(0)).log_w)
    exact = -(EFFECT**2) / 4 - 0.5 * np.log(4 * np.pi)
    np.testing.assert_allclose(found, np.broadcast_to(exact, found.shape), rtol=1e-12)


def pictures(x: Any, lib: Any) -> None:
    """Data as wide as what is computed before them."""
    dist = lib.distributions
    with lib.plate("data", len(x)):
        z = lib.sample("z", dist.Normal(x[:, :1] * 0, 1.0).to_event(1))
        logits = lib.sample("logits", dist.Delta(z + x * 0 - 3, event_dim=1), obs=z + x * 0 - 3)
        lib.deterministic("twice", 2 * logits)
        lib.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def test_pictures_are_of_data_and_not_of_what_is_computed(double):
    x, model = torch.ones(4, 3), partial(pictures, lib=pyro)
    assert set(ancestral(model, x, seed=0).unique().tolist()) <= {0.0, 1.0}
    means = ancestral(model, x, draws=False, seed=0)
    assert ((means > 0) & (means < 1)).all()
    guide = guides.MeanField(model, x, hidden=4)
    with torch.no_grad():
        trace, _, _ = traces(model, guide, (x,), {})
    rows = rows_from(parts_of(trace, 4, draws=False), 3, None)
    torch.testing.assert_close(rows, torch.sigmoid(trace.nodes["logits"]["value"]))


@pytest.mark.skipif(numpyro is None, reason="needs NumPyro")
def test_pictures_of_numpyro_programs_are_of_data(wide):
    from ppl_models.runs.backends import numpyro as backend

    model, x = partial(pictures, lib=numpyro), jnp.ones((4, 3))
    assert set(backend.sample(model, x, 4, True).unique().tolist()) <= {0.0, 1.0}
    guide = ports.MeanField(model, x, hidden=4, key=jax.random.key(0))
    rows = backend.reconstruct((model, guide), x, torch.ones(4, 3))
    assert ((rows > 0) & (rows < 1)).all()


def test_reparametrized_sites_of_every_kind_are_computed(double):
    """What Pyro's strategies make of a model, at the evidence by hand."""

    def model(x: torch.Tensor) -> None:
        scale = pyro.sample("scale", pyro.distributions.LogNormal(torch.zeros(()), 0.1))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(2), scale).to_event(1))
            pyro.sample("x", pyro.distributions.Normal(z, 1.0).to_event(1), obs=x)

    x = torch.randn(4, 2)
    config = {"scale": reparam.TransformReparam(), "z": reparam.LocScaleReparam(0.3)}
    unit = {"scale": reparam.UnitJacobianReparam(torch.distributions.transforms.AffineTransform(1.0, 1.0))}
    for program in (reparam.AutoReparam()(model), poutine.reparam(model, config), poutine.reparam(model, unit)):
        run = torch_programs.run(program, (x,))
        assert [*run.observed] == ["x"] and "scale" in run.computed
        guide = guides.MeanField(program, x, hidden=4)
        assert [*guide.layout.evidence_sites] == ["x"]
        found = evaluate(program, guide, x, particles=5, progress=False)
        assert np.isfinite(found.elbo)
