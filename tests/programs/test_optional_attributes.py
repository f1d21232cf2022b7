"""Distributions without a support, an `arg_constraints` entry or a way to be drawn: those of one's own."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro.contrib.zuko import ZukoToPyro
from torch.distributions import Independent, Normal

import guides
from ppl_models.factorization import compare, factorization
from ppl_models.inference import ancestral, evaluate, fit
from ppl_models.inference.pyro.passes.terms import terms, traces
from ppl_models.inference.pyro.sampling.sampling import parts_of
from ppl_models.programs import pyro as torch_programs
from ppl_models.programs.pairs import Undrawn
from ppl_models.views import to_arviz
from tests.helpers.cases import few

try:
    import jax
    import jax.numpy as jnp
    import numpyro

    import guides.numpyro as ports
    import ppl_models.inference.numpyro as jax_tools
    from ppl_models.inference.numpyro.passes.terms import terms as jax_terms
    from ppl_models.programs import numpyro as jax_programs
except ImportError:
    numpyro = None

HALF = 0.5 * np.log(2 * np.pi)
LANGUAGES = ["pyro", pytest.param("numpyro", marks=pytest.mark.skipif(numpyro is None, reason="needs NumPyro"))]
KINDS = ("scored", "drawn")


class Scored(pyro.distributions.TorchDistribution):
    """A Gaussian that can be scored, and nothing else."""

    def __init__(self, loc: torch.Tensor) -> None:
        self.loc = loc
        super().__init__(loc.shape, validate_args=False)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        return -0.5 * (value - self.loc) ** 2 - HALF


class Drawn(Scored):
    """One that can be drawn, too."""

    has_rsample = True

    def rsample(self, sample_shape: Any = ()) -> torch.Tensor:
        return self.loc + torch.randn(*sample_shape, *self.loc.shape, dtype=self.loc.dtype)


FAMILIES: dict[str, dict[str, Any]] = {"pyro": {"scored": Scored, "drawn": Drawn}}
if numpyro is not None:

    class JaxScored(numpyro.distributions.Distribution):
        """The same in NumPyro."""

        def __init__(self, loc: Any) -> None:
            self.loc = loc
            super().__init__(batch_shape=jnp.shape(loc))

        def log_prob(self, value: Any) -> Any:
            return -0.5 * (value - self.loc) ** 2 - HALF

    class JaxDrawn(JaxScored):
        """One that can be drawn, too."""

        def sample(self, key: Any, sample_shape: Any = ()) -> Any:
            return self.loc + jax.random.normal(key, (*sample_shape, *jnp.shape(self.loc)))

    FAMILIES["numpyro"] = {"scored": JaxScored, "drawn": JaxDrawn}


@pytest.fixture
def wide(double: None) -> Iterator[None]:
    """In both languages."""
    with nullcontext() if numpyro is None else jax.enable_x64(True):
        yield


def model_of(language: str, kind: str) -> Callable:
    """z ~ N(0, 1), x ~ N(z, 1), the latter of a kind."""
    lib = pyro if language == "pyro" else numpyro
    dist = lib.distributions
    family = FAMILIES[language].get(kind, partial(dist.Normal, scale=1.0))

    def model(x: Any) -> None:
        with lib.plate("data", len(x)):
            z = lib.sample("z", dist.Normal(x * 0, 1.0).to_event(1))
            lib.sample("x", family(z).to_event(1), obs=x)

    return model


def rows(language: str, n: int) -> Any:
    x = np.random.default_rng(0).normal(size=(n, 2))
    return torch.tensor(x) if language == "pyro" else jnp.asarray(x)


def guide_of(language: str, name: str, model: Callable, x: Any) -> Any:
    if language == "pyro":
        torch.manual_seed(0)
        return getattr(guides, name)(model, x, hidden=4)
    return getattr(ports, name)(model, x, hidden=4, key=jax.random.key(0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_inspector_and_guides_do_without(language, kind, wide):
    model, x = model_of(language, kind), rows(language, 3)
    assert str(factorization(model, x)) == "p(z) p(x | z)"
    for name in ("MeanField", "BottomUp", "Faithful") if language == "pyro" else ("Faithful",):
        guide = guide_of(language, name, model, x)
        report = compare(model, guide, x)
        assert report.faithful and not report.reasons


def test_elements_do_without():
    model, x = model_of("pyro", "scored"), rows("pyro", 1)
    report = compare(model, guide_of("pyro", "Faithful", model, x), x, level="element")
    assert report.faithful and not report.reasons


@pytest.mark.parametrize("kind", few(KINDS, lambda kind: kind == "scored"))
@pytest.mark.parametrize("language", LANGUAGES)
def test_numbers_are_those_of_the_gaussian(language, kind, wide):
    x, found, bounds = rows(language, 8), {}, {}
    bound = evaluate if language == "pyro" else jax_tools.evaluate
    for which in ("normal", kind):
        model = model_of(language, which)
        guide = guide_of(language, "MeanField", model, x)
        if language == "pyro":
            torch.manual_seed(1)
            found[which] = terms(model, guide, (x,), particles=3).log_w.detach().numpy()
        else:
            found[which] = np.asarray(jax_terms(model, guide, (x,), particles=3, key=jax.random.key(1)).log_w)
        if language == "pyro":
            fit(model, guide, x, steps=2, batch_size=4, seed=0, progress=False)
        bounds[which] = bound(model, guide, x, particles=3, progress=False).elbo
    np.testing.assert_allclose(found[kind], found["normal"], rtol=1e-12)
    assert bounds[kind] == pytest.approx(bounds["normal"], rel=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_predictions_are_left_out_where_nothing_can_be_drawn(language, kind):
    model, x = model_of(language, kind), rows(language, 4)
    found = to_arviz(model, guide_of(language, "MeanField", model, x), x, draws=2)
    there = found.groups() if hasattr(found, "extend") else found.children  # of ArviZ 0.x, of 1.x
    predictive = {name for name in there if "predictive" in name}
    assert predictive == ({"posterior_predictive", "prior_predictive"} if kind == "drawn" else set())
    assert found["prior"]["z"].shape == (1, 2, 4, 2)
    says = "left the predictive groups out: the site 'x' cannot be drawn, as"
    assert (says in found.attrs["notes"]) == (kind == "scored")


def test_a_latent_of_a_flow_is_of_all_numbers(double):
    """A ZukoToPyro has neither a support nor `sample`: it is drawn as programs draw it."""

    def model(x: torch.Tensor, flow: bool = True) -> None:
        base = Independent(Normal(x * 0, 1.0), 1)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", ZukoToPyro(base) if flow else pyro.distributions.Normal(x * 0, 1.0).to_event(1))
            pyro.sample("x", pyro.distributions.Normal(z, 1.0).to_event(1), obs=x)

    x = torch.randn(3, 2)
    assert str(factorization(model, x)) == "p(z) p(x | z)"
    for name in ("Faithful", "MeanField", "SelfReflective", "BottomUp"):
        weights = []
        for program in (model, partial(model, flow=False)):
            guide = guide_of("pyro", name, program, x)
            torch.manual_seed(1)
            weights.append(terms(program, guide, (x,), particles=3, analytic=False).log_w)
        assert compare(model, guide_of("pyro", name, model, x), x).faithful
        if name != "SelfReflective":  # which starts around a Gaussian prior that it knows
            torch.testing.assert_close(*weights)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_cannot_be_drawn_is_told_by_name(language):
    lib, x = (pyro if language == "pyro" else numpyro), rows(language, 3)

    def model(x: Any) -> None:
        lib.sample("z", FAMILIES[language]["scored"](x))
        lib.sample("x", lib.distributions.Normal(x, 1.0), obs=x)

    def own(x: Any) -> None:
        lib.sample("z", lib.distributions.Normal(0.0, 1.0))
        raise NotImplementedError("mine")

    run = (torch_programs if language == "pyro" else jax_programs).run
    with pytest.raises(ValueError, match="the site 'z' cannot be drawn, as .*Scored has no `sample`; pass the data"):
        run(model, (x,))
    with pytest.raises(NotImplementedError, match="mine"):
        run(own, (x,))


def test_rows_that_cannot_be_drawn_are_told_by_name():
    model, x = model_of("pyro", "scored"), rows("pyro", 3)
    with pytest.raises(Undrawn, match="no data can be drawn from the model: the site 'x' cannot be drawn, as"):
        ancestral(model, x)


@pytest.mark.skipif(numpyro is None, reason="needs NumPyro")
def test_rows_of_numpyro_programs_that_cannot_be_drawn_are_told_by_name():
    from ppl_models.runs.backends import numpyro as backend

    model, x = model_of("numpyro", "scored"), rows("numpyro", 3)
    with pytest.raises(Undrawn, match="no data can be drawn from the model: the site 'x' cannot be drawn, as JaxSc"):
        backend.sample(model, x, 3, True)
    guide = guide_of("numpyro", "MeanField", model, x)
    with pytest.raises(Undrawn, match="data given latents: the site 'x' cannot be drawn, as JaxScored has no"):
        backend.reconstruct((model, guide), x, torch.zeros(3, 2))


def test_rows_given_codes_are_drawn_where_there_is_no_mean():
    """They are no copies of the data."""
    model, x = model_of("pyro", "drawn"), rows("pyro", 3)
    with torch.no_grad():
        trace, _, _ = traces(model, guide_of("pyro", "MeanField", model, x), (x,), {})
    assert not torch.isclose(parts_of(trace, 3, draws=False)["x"], x).any()
    torch.testing.assert_close(parts_of(trace, 3, draws=True)["x"], x)
