"""Runs of the inspector leave nothing behind."""

import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.ops.provenance import ProvenanceTensor, get_provenance

from guides import Faithful
from ppl_models import VAE
from ppl_models.programs.laboratory import experiments
from ppl_models.programs.laboratory.provenance import tagged
from ppl_models.programs.state import torch as state
from ppl_models.programs.state.torch import reachable, seed_generators


def drawn() -> tuple:
    return torch.rand(3).tolist(), random.random(), np.random.rand()


def test_generators_are_seeded_as_pyro_seeds_them():
    pyro.set_rng_seed(7)
    want = drawn()
    seed_generators(7)
    assert drawn() == want


@pytest.mark.skipif(torch.accelerator.is_available(), reason="torch keeps calls for devices that are not there")
def test_no_run_leaves_a_call_for_a_device_that_is_not_there():
    kept = [len(module._queued_calls) for module in (torch.cuda, torch.xpu)]
    Faithful(VAE(event=4, latent=2, hidden=4), torch.rand(3, 4).round(), hidden=4)  # it inspects the model
    assert [len(module._queued_calls) for module in (torch.cuda, torch.xpu)] == kept


def test_all_modules_are_found_however_many_there_are(monkeypatch):
    monkeypatch.setattr(state, "MOST", 20)
    net = torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(100)))
    assert [len(found) for found in reachable([{"net": net}])] == [101, 200]
    assert len(reachable([[[] for _ in range(100)], net])[0]) == 101


def test_containers_hold_what_they_held_in_its_order():
    class Held(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.seen, self.names, self.known = [1], {"b": 2, "a": 1}, set()

        def forward(self):
            self.seen.append(2)
            self.names["b"] = self.names.pop("b")
            self.known.add(3)
            self.new = torch.zeros(())
            self.register_buffer("made", torch.zeros(()))
            pyro.sample("z", dist.Normal(0.0, 1.0))

    module = Held()
    kept = module.seen, module.names, module.known
    with experiments([module], (), {}) as (experiment,):
        experiment.run()
        assert len(module.seen) > 1
    assert (module.seen, list(module.names), module.known) == ([1], ["b", "a"], set())
    assert all(a is b for a, b in zip(kept, (module.seen, module.names, module.known), strict=True))
    assert not hasattr(module, "new") and not hasattr(module, "made") and not list(module.buffers())


class Named(torch.nn.Parameter):
    """A parameter of a class of its own."""


class Marked(torch.Tensor):
    """A tensor of a class of its own, which no copy takes the place of."""


@pytest.mark.parametrize("kind", [torch.nn.Parameter, Named, Marked])
def test_parameters_of_any_class_are_as_they_were(kind):
    module = torch.nn.Module()
    module.weight = kind(torch.ones(2)) if kind is not Marked else torch.nn.Parameter(torch.ones(2))
    module.other = torch.ones(2).as_subclass(Marked).requires_grad_() if kind is Marked else None
    held = module.weight if kind is not Marked else module.other

    def program():
        pyro.sample("z", dist.Normal(module.weight, 1.0).to_event(1))

    with experiments([program], (), {}) as (experiment,):
        experiment.laboratory.settle()
        experiment.run(jitter=0)
        assert bool((module.weight != 1.0).all())
    assert type(held) is kind and held.dtype is torch.float32 and held.tolist() == [1.0, 1.0]


def test_runs_say_whether_they_drew():
    def program(noise):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        return z + noise()

    for noise, drew in ((float, False), (random.random, True), (np.random.rand, True), (lambda: torch.rand(()), True)):
        with experiments([program], (noise,), {}) as (experiment,):
            assert experiment.run({"z": np.array(1.0)}).drew is drew
            assert experiment.run().drew


def test_tags_are_those_of_pyro():
    a, b = torch.rand(2, 4), torch.rand(2, 4)

    def computed(mark):
        x, y = mark(a, frozenset("x")), mark(b, frozenset("y"))
        low, high = torch.cat([x, y], -1).chunk(2, -1)
        values, places = x.max(-1)
        return [low + high, values, places, torch.stack((x, a))[1], torch.where(a > 0, x, y), x.new_zeros(2), a + b]

    for mine, theirs in zip(computed(tagged), computed(ProvenanceTensor), strict=True):
        assert get_provenance(mine) == get_provenance(theirs) and torch.equal(mine, theirs)
    assert get_provenance(tagged(tagged(a, frozenset("x")), frozenset("y"))) == frozenset("xy")
