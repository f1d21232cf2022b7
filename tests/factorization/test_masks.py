"""Structure of sites that a mask hides on the rows that are looked at: it is that of rows where they count."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine

import guides
from ppl_models.factorization import compare, factorization
from tests.helpers.cases import few

try:
    import jax
    import jax.numpy as jnp
    import numpyro
    from numpyro import handlers

    import guides.numpyro as ports
except ImportError:
    numpyro = None

LANGUAGES = ["pyro", pytest.param("numpyro", marks=pytest.mark.skipif(numpyro is None, reason="needs NumPyro"))]
MASKS = {"missing": [False] * 3, "some": [True, False, True], "there": [True] * 3}
WHERE = ("around", "within", "event")


def model_of(language: str, where: str) -> Callable:
    """x ~ N(z, 1), y ~ N(z, 1) where it is there; the mask is around the site or in its distribution."""
    lib = pyro if language == "pyro" else numpyro
    normal = lib.distributions.Normal

    def model(x: Any, y: Any, there: Any) -> None:
        with lib.plate("data", len(x)):
            z = lib.sample("z", normal(0.0, 1.0))
            lib.sample("x", normal(z, 1.0), obs=x)
            if where == "around":
                with poutine.mask(mask=there) if language == "pyro" else handlers.mask(mask=there):
                    lib.sample("y", normal(z, 1.0), obs=y)
            elif where == "within":
                lib.sample("y", normal(z, 1.0).mask(there), obs=y)
            else:
                lib.sample("y", normal(z[..., None], 1.0).to_event(1).mask(there), obs=y[:, None])

    return model


def arguments(language: str, mask: str) -> tuple[Any, ...]:
    x, y = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    return tuple(map(torch.tensor if language == "pyro" else jnp.asarray, (x, y, np.array(MASKS[mask]))))


def faithful(language: str, model: Callable, args: tuple[Any, ...]) -> Any:
    if language == "pyro":
        return guides.Faithful(model, *args, hidden=4)
    return ports.Faithful(model, *args, hidden=4, key=jax.random.key(0))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("where", few(WHERE, lambda where: where == "within"))
@pytest.mark.parametrize("language", LANGUAGES)
def test_rows_of_all_kinds_make_one_structure(language, where, mask):
    model, args = model_of(language, where), arguments(language, mask)
    assert str(factorization(model, *args)) == "p(z) p(x | z) p(y | z, there)"
    guide = faithful(language, model, args)
    assert str(guide.factorization) == "q(z | x, y, there)"
    report = compare(model, guide, *args)
    assert report.faithful and not report.reasons


@pytest.mark.parametrize("there", [1, 0])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_mask_of_one_whole_number_is_looked_at_with_others(language, there):
    """Zeros and ones that count copies as lengths do, and are all alike in the example."""
    lib = pyro if language == "pyro" else numpyro
    x, y, _ = arguments(language, "some")
    count = torch.full((3,), there) if language == "pyro" else jnp.full(3, there)

    def model(x: Any, y: Any, count: Any) -> None:
        with lib.plate("data", len(x)):
            z = lib.sample("z", lib.distributions.Normal(0.0, 1.0))
            lib.sample("x", lib.distributions.Normal(z, 1.0), obs=x)
            lib.sample("y", lib.distributions.Normal(z, 1.0).mask(count > 0), obs=y)

    assert str(factorization(model, x, y, count)) == "p(z) p(x | z) p(y | z, count)"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_guide_is_not_called_faithful_on_rows_that_cannot_tell(language):
    """One that ignores y and one that reads it where it is there look alike on rows where it is nowhere."""
    lib, model = (pyro if language == "pyro" else numpyro), model_of(language, "around")

    def blind(x: Any, y: Any, there: Any) -> None:
        with lib.plate("data", len(x)):
            lib.sample("z", lib.distributions.Normal(x / 2, 0.7))

    def reads(x: Any, y: Any, there: Any) -> None:
        with lib.plate("data", len(x)):
            lib.sample("z", lib.distributions.Normal((x + y * there) / (2 + there), 0.7))

    for guide, verdict in ((blind, False), (reads, True)):
        assert compare(model, guide, *arguments(language, "some")).faithful is verdict
        report = compare(model, guide, *arguments(language, "missing"))
        assert report.faithful is None
        assert "'y' is masked out in every row" in report.reasons[0] and "pass rows in which" in report.reasons[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_mask_that_is_no_array_is_looked_behind(language):
    lib = pyro if language == "pyro" else numpyro

    def model(x: Any, y: Any = None) -> None:
        with lib.plate("data", len(x)):
            z = lib.sample("z", lib.distributions.Normal(0.0, 1.0))
            lib.sample("x", lib.distributions.Normal(z, 1.0), obs=x)
            lib.sample("y", lib.distributions.Normal(z, 1.0).mask(y is not None), obs=x * 0 if y is None else y)

    x, y, _ = arguments(language, "there")
    assert str(factorization(model, x)) == str(factorization(model, x, y)) == "p(z) p(x | z) p(y | z)"
    for args in ((x,), (x, y)):
        guide = faithful(language, model, args)
        assert {"x", "y"} <= {*guide.layout.factorization.parents} and "y" in guide.layout.reads["z"]


def test_a_latent_that_is_masked_out_keeps_its_structure():
    def model(x: torch.Tensor, there: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", pyro.distributions.Normal(0.0, 1.0))
            with poutine.mask(mask=there):
                z2 = pyro.sample("z2", pyro.distributions.Normal(z1, 1.0))
            pyro.sample("x", pyro.distributions.Normal(z1 + z2, 1.0), obs=x)

    x, _, missing = arguments("pyro", "missing")
    found = [str(factorization(model, x, m)) for m in (missing, ~missing)]
    assert found == ["p(z1) p(z2 | z1, there) p(x | z1, z2)"] * 2
