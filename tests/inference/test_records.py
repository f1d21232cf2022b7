"""The records of a training: the norm of the gradient always, the divergence of each latent where it is asked for."""

import os
import signal

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as jax_dist
import pytest
import torch

from guides import BottomUp
from ppl_models import HierarchicalVAE
from ppl_models.inference import elbo, fit, terms
from ppl_models.inference.pyro.engine import compiled
from ppl_models.inference.pyro.training.engine import PyroEngine
from ppl_models.numpyro import fit as fit_numpyro
from tests.helpers.uncompiled import as_it_is

X = (torch.rand(12, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()
STILL = {"steps": 4, "every": 2, "lr": 1e-30, "ema": None, "seed": 0, "progress": False}  # parameters do not move


def pair():
    torch.manual_seed(0)
    model = HierarchicalVAE(event=4, latent=(3, 2), hidden=8)
    return model, BottomUp(model, X, hidden=8)


@pytest.fixture
def noise(monkeypatch):
    """The states of the generator before each step."""
    states, advance = [], PyroEngine.advance

    def listening(self, done, most):
        states.append(torch.get_rng_state())
        return advance(self, done, most)

    monkeypatch.setattr(PyroEngine, "advance", listening)
    return states


def fields(run, *names):
    return [{n: v for n, v in record.items() if n in names or not names and n != "seconds"} for record in run.history]


@pytest.mark.parametrize("compile", [False, True])
def test_the_divergence_of_each_latent_is_recorded(compile, noise, monkeypatch):
    monkeypatch.setattr(compiled, "compiled", as_it_is())
    model, guide = pair()
    run = fit(model, guide, X, record_kl=True, compile=compile, **STILL)
    torch.set_rng_state(noise[0])
    for record in run.history:
        found = [terms(model, guide, (X,)).kl for _ in range(2)]
        assert record.keys() == {"step", "loss", "negative_elbo", "grad_norm", "kl.z1", "kl.z2", "seconds"}
        for name in ("z1", "z2"):
            mean = sum(kl[name].mean().item() for kl in found) / 2
            assert record[f"kl.{name}"] == pytest.approx(mean, rel=1e-5)
    assert not run.notes and run.model is model and run.guide is guide


@pytest.mark.parametrize("particles", [1, 3])
def test_to_record_changes_no_number(particles):
    told, plain = (
        fit(*pair(), X, record_kl=on, steps=6, every=2, batch_size=5, particles=particles, seed=0, progress=False)
        for on in (True, False)
    )
    assert fields(told, "step", "loss", "negative_elbo", "grad_norm") == fields(plain)


def test_the_norm_is_that_of_the_gradient(noise):
    model, guide = pair()
    run = fit(model, guide, X, analytic=False, **{**STILL, "steps": 1})
    torch.set_rng_state(noise[0])
    loss, parameters = -elbo(terms(model, guide, (X,), analytic=False)), [*model.parameters(), *guide.parameters()]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    norm = sum(g.square().sum() for g in gradients if g is not None).sqrt()
    assert run.history[0]["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)


def test_numpyro_records_them_too():
    x = np.asarray(X)

    def model(x):
        with numpyro.plate("data", len(x)):
            z2 = numpyro.sample("z2", jax_dist.Normal(jnp.zeros((len(x), 2)), 1.0).to_event(1))
            z1 = numpyro.sample("z1", jax_dist.Normal(z2, 1.0).to_event(1))
            numpyro.sample("x", jax_dist.Normal(z1 @ jnp.ones((2, 4)), 1.0).to_event(1), obs=x)

    def guide(x):
        with numpyro.plate("data", len(x)):
            loc = x @ numpyro.param("w", jnp.ones((4, 2)))
            z2 = numpyro.sample("z2", jax_dist.Normal(loc, 0.5).to_event(1))
            numpyro.sample("z1", jax_dist.Normal(z2 + 1.0, 1.0).to_event(1))

    told, plain = (fit_numpyro(model, guide, x, record_kl=on, **STILL) for on in (True, False))
    assert fields(told, "step", "loss", "negative_elbo", "grad_norm") == fields(plain)
    z2 = (np.log(2) + (0.25 + (x @ np.ones((4, 2))) ** 2) / 2 - 0.5).sum(1).mean()
    for record in told.history:
        assert [record["kl.z2"], record["kl.z1"]] == pytest.approx([z2, 1.0], rel=1e-5)


def test_a_loss_of_a_library_tells_no_divergences():
    import pyro

    with pytest.raises(ValueError, match="found record_kl=True with a loss of Pyro's, which tells no divergences"):
        fit(*pair(), X, loss=pyro.infer.Trace_ELBO(), record_kl=True, **STILL)


def test_a_run_goes_on_with_its_divergences(tmp_path):
    def interrupt(run):
        if run.history[-1]["step"] == 4:
            os.kill(os.getpid(), signal.SIGINT)

    how = {"steps": 8, "every": 4, "batch_size": 5, "seed": 0, "record_kl": True, "progress": False}
    whole = fit(*pair(), X, **how)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(*pair(), X, folder=tmp_path, callbacks=interrupt, **how)
    assert caught.value.run.history[-1]["step"] == 4
    assert fields(fit(*pair(), X, folder=tmp_path, resume=True, **how)) == fields(whole)
    with pytest.raises(ValueError, match="found record_kl=False, but the run in this folder was started with True"):
        fit(*pair(), X, folder=tmp_path, resume=True, **{**how, "record_kl": False})
