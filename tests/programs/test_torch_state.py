"""Runs of the inspector leave nothing behind."""

import random

import numpy as np
import pyro
import pytest
import torch

from guides import Faithful
from ppl_models import VAE
from ppl_models.programs.state.torch import seed_generators


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
