"""Two lines that a training gives of itself: that its latents fell silent, and that its loss jumped."""

import json

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as jax_dist
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_models.inference import fit
from ppl_models.inference.objectives.bounds import mean_kl
from ppl_models.inference.objectives.terms import Terms
from ppl_models.inference.training.watch import Watch
from ppl_models.numpyro import fit as fit_numpyro

X = np.linspace(-1, 1, 8, dtype=np.float32)
HOW = {"every": 10, "ema": None, "clip": None, "seed": 0, "progress": False}


def pyro_pair():
    """Data that do not depend on z, so that all that the guide learns is its prior; it starts one unit beside it."""
    pyro.clear_param_store()

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("shift", torch.ones(())).expand(len(x)), 1.0))

    return model, guide, torch.from_numpy(X)


def numpyro_pair():
    def model(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", jax_dist.Normal(jnp.zeros(len(x)), 1.0))
            numpyro.sample("x", jax_dist.Normal(numpyro.param("loc", 0.0), 1.0), obs=x)

    def guide(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", jax_dist.Normal(jnp.broadcast_to(numpyro.param("shift", 1.0), (len(x),)), 1.0))

    return model, guide, X


LANGUAGES = pytest.mark.parametrize(("fitted", "pair"), [(fit, pyro_pair), (fit_numpyro, numpyro_pair)])


@LANGUAGES
def test_latents_that_fell_silent_are_told_once(fitted, pair):
    notes = fitted(*pair(), steps=80, lr=0.1, **HOW).notes
    assert len(notes) == 1 and notes[0].startswith("every KL is 0.000 in the 10 steps up to step "), notes
    assert "nats a datum before): the latents say nothing of the data; try a smaller lr" in notes[0]


@LANGUAGES
def test_a_loss_that_jumped_is_told_once(fitted, pair):
    run = fitted(*pair(), steps=40, lr=1e-3, schedule=lambda step: 1.0 if step != 25 else 1e5, **HOW)
    losses = [record["loss"] for record in run.history]
    assert losses[1] < 3 and losses[2] > 1000  # one step of a hundred units, and four more at a hundred of them
    start = f"the loss jumped to {losses[2]:.5g} in the 10 steps up to step 30, from {min(losses[:2]):.5g}; "
    assert len(run.notes) == 1 and run.notes[0].startswith(start), run.notes


def say(watch, step, loss, *kl, last=False):
    record = {"step": step, "loss": loss, "negative_elbo": loss, "grad_norm": 1.0}
    return list(watch(record, kl, 100, last))


def test_what_is_no_fault_is_not_told():
    for losses in ([1e6, 540.0, 90.0, 89.0], [90.0, 500.0, 90.0], [-100.0, 900.0], [0.02, 0.01, 5.0], [-2.0, -900.0]):
        watch = Watch()
        assert not [line for loss in losses for line in say(watch, 1, loss)]
    watch = Watch()  # silent at the start, as a guide around the prior is
    assert (
        not say(watch, 100, 1.0, 0.0, 0.0) and not say(watch, 200, 1.0, 0.0, 3.0) and not say(watch, 300, 1.0, 0.0, 0.2)
    )
    assert not say(Watch(), 999, 1.0, 0.0, last=True)  # too soon to say, as of latents that no step tells
    assert not say(Watch(), 5000, 1.0, last=True)


def test_what_is_one():
    watch = Watch()
    said = [
        say(watch, step, loss, *kl)
        for step, loss, *kl in [(1, 90.0, 0.0, 9.0), (2, 9990.0, 8e3, 1.0), (3, 132.0, 0.0, 9e-4)]
    ]
    assert [len(lines) for lines in said] == [0, 1, 1] and "(8e+03 nats a datum before)" in said[2][0]
    assert not say(watch, 4, 1e7, 0.0, 0.0)
    assert len(say(Watch(), 1000, 1.0, 0.0, 0.0, last=True)) == 1  # they never said anything


def test_it_goes_on_from_a_file():
    watch = Watch()
    say(watch, 1, 90.0, 9.0)
    again = Watch(**json.loads(json.dumps(watch.to_dict())))
    assert again == watch and len(say(again, 2, 9990.0, 0.0)) == 2


def test_a_latent_that_a_pass_does_not_draw_has_no_divergence():
    kl = {"a": torch.tensor([[1.0, 3.0]])}
    found = mean_kl(Terms({"x": torch.zeros(1, 2)}, {}, {}, kl, frozenset()), ("a", "b"))
    assert [t.item() for t in found] == [2.0, 0.0] and all(t.shape == () for t in found)


def test_a_loss_that_is_huge_from_the_first_record_on_is_told_once():
    watch = Watch()
    first = {"step": 10, "loss": 5e15, "negative_elbo": 5e15, "grad_norm": 1e9}
    told = [*watch(first, [], 10, False), *watch({**first, "step": 20, "loss": 6e15}, [], 10, True)]
    assert len(told) == 1 and told[0].startswith(
        "the loss is 5e+15 nats a datum in the 10 steps up to step 10, so that"
    )
    assert not [*Watch()({**first, "loss": 1e6, "negative_elbo": 1e6}, [], 10, True)]
    assert Watch(**watch.to_dict()) == watch
