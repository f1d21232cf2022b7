"""How often a program is run before the work begins: looking is not free, and one run shows all there is to see."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pytest
import torch

import ppl_models.inference as torch_tools
from guides import MeanField

try:
    import jax
    import jax.numpy as jnp
    import numpyro

    import guides.numpyro as ports
    import ppl_models.inference.numpyro as jax_tools
except ImportError:
    numpyro = None

LANGUAGES = ["pyro", pytest.param("numpyro", marks=pytest.mark.skipif(numpyro is None, reason="needs NumPyro"))]


class Counted:
    """A model that counts its runs; `before` is how many there were when the work began."""

    def __init__(self, language: str) -> None:
        self.lib, self.runs, self.before = (pyro if language == "pyro" else numpyro), 0, None
        self.x = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
        self.x = torch.from_numpy(self.x) if language == "pyro" else jnp.asarray(self.x)

    def __call__(self, x: Any) -> None:
        self.runs += 1
        dist = self.lib.distributions
        with self.lib.plate("data", len(x)):
            z = self.lib.sample("z", dist.Normal(x[:, :1] * 0, 1.0).to_event(1))
            self.lib.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, x: Any) -> None:
        shift = self.lib.param("shift", x[0, 0] * 0)
        with self.lib.plate("data", len(x)):
            self.lib.sample("z", self.lib.distributions.Normal(x[:, :1] + shift, 1.0).to_event(1))

    def begins(self, work: Callable) -> Callable:
        """The work, which takes the count when it begins."""

        def begun(*args: Any, **kwargs: Any) -> Any:
            self.before = self.runs if self.before is None else self.before
            return work(*args, **kwargs)

        return begun


def made(counted: Counted, language: str, structure: str) -> Callable:
    if structure == "plain":
        return counted.guide
    if language == "pyro":
        return MeanField(counted, counted.x, hidden=4)
    return ports.MeanField(counted, counted.x, hidden=4, key=jax.random.key(0))


@pytest.mark.parametrize("structure", ["plain", "MeanField"])
@pytest.mark.parametrize("particles, most", [(1, 2), (5, 3)])  # one more: the trial of vectorization
@pytest.mark.parametrize("language", LANGUAGES)
def test_fit_runs_a_model_at_most_twice_before_its_first_step(language, particles, most, structure, monkeypatch):
    counted = Counted(language)
    guide = made(counted, language, structure)
    counted.runs = 0
    if language == "pyro":
        from ppl_models.inference.pyro.engine import step

        monkeypatch.setattr(step, "negative", counted.begins(step.negative))
        torch_tools.fit(counted, guide, counted.x, steps=2, particles=particles, progress=False)
    else:
        from ppl_models.inference.numpyro.engine.step import Step

        monkeypatch.setattr(Step, "negative", counted.begins(Step.negative))
        jax_tools.fit(counted, guide, counted.x, steps=2, particles=particles, progress=False)
        most = 2
    assert 1 <= counted.before <= most


@pytest.mark.parametrize("structure", ["plain", "MeanField"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_evaluate_runs_a_model_at_most_four_times_before_its_first_pass(language, structure, monkeypatch):
    counted = Counted(language)
    guide = made(counted, language, structure)
    counted.runs = 0
    if language == "pyro":
        import ppl_models.inference.pyro.evaluation.evaluate as module
    else:
        import ppl_models.inference.numpyro.evaluation.evaluate as module
    monkeypatch.setattr(module, "terms", counted.begins(module.terms))
    module.evaluate(counted, guide, counted.x, particles=10, progress=False)
    assert 1 <= counted.before <= 4
