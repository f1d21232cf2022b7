"""What `evaluate` says of its own error: sampling, convergence in the particles, k-hats, the reconstruction."""

import json
from math import log, pi

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from ppl_models.data import Data, Dequantize
from ppl_models.inference import evaluate
from ppl_models.inference.weights import Weights

N = 40


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def scaled(scale: float):
    """The exact posterior N(x / 2, 1 / 2) has a scale of 0.7071."""

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, scale))

    return guide


def data() -> Tensor:
    return torch.randn(N, generator=torch.Generator().manual_seed(1)) * 2**0.5


def test_the_sampling_error_is_the_spread_over_seeds():
    found = [evaluate(model, scaled(1.0), data(), particles=20, seed=seed, progress=False) for seed in range(60)]
    spread = np.std([each.nll for each in found], ddof=1)
    told = np.mean([each.sampling_error for each in found])
    assert told == pytest.approx(spread, rel=0.3)  # the spread of 60 has a relative error of 0.09
    assert told < found[0].nll_error / 3


def test_the_bounds_by_fewer_are_those_of_groups_of_the_weights():
    log_w = np.random.default_rng(0).normal(size=(25, 3)) * 2
    seen = Weights(25)
    seen.add(log_w[:, :1])
    seen.add(log_w[:, 1:])
    assert seen.sizes == [1, 10]
    tens = [-np.log(np.exp(log_w[i : i + 10]).mean(0)) for i in (0, 10)]
    assert seen.sums[1] == pytest.approx(-log_w.mean(0).sum(), abs=1e-12)
    assert seen.sums[10] == pytest.approx(np.mean(tens, 0).sum(), abs=1e-12)


def test_weights_of_zero_and_weights_that_are_no_numbers_end_nothing():
    log_w = np.zeros((30, 4))
    log_w[3, 0], log_w[4, 1], log_w[5, 2] = -np.inf, np.nan, np.inf
    seen = Weights(30)
    seen.add(log_w)
    assert np.isnan(seen.khats[0]).tolist() == [False, True, True, False]


def test_an_exact_guide_has_converged_at_once_and_a_narrow_one_never():
    exact = evaluate(model, scaled(0.5**0.5), data(), particles=200, progress=False)
    assert list(exact.convergence) == [1, 10, 100] and exact.khats.shape == (N,)
    for value in exact.convergence.values():
        assert value == pytest.approx(exact.nll, abs=1e-5)
    assert exact.sampling_error < 1e-6 and "0 of 40 above" in str(exact)
    # its weights have moments below 1 / (1 - 0.3^2 / 0.7071^2) = 1.22 alone: k-hat 0.82
    narrow = evaluate(model, scaled(0.3), data(), particles=1000, progress=False)
    assert np.median(narrow.khats) == pytest.approx(1 - 0.3**2 / 0.5, abs=0.15)
    told = json.loads(json.dumps(narrow.to_dict()))["khat"]
    assert told["above"] > N / 2 and f"{told['above']} of 40 above 0.67" in str(narrow)
    bounds = list(narrow.convergence.values())
    assert bounds[0] > bounds[1] > bounds[2] > narrow.nll


def test_the_reconstruction_has_its_closed_form():
    x, scale = data(), 0.5
    found = evaluate(model, scaled(scale), x, particles=2000, progress=False)
    want = 0.5 * log(2 * pi) + 0.5 * ((x / 2) ** 2 + scale**2).mean().item()
    assert found.reconstruction == pytest.approx(want, abs=0.01)  # the error of 80,000 draws is 0.002


def test_particles_that_are_one_tell_no_error_and_no_convergence():
    found = evaluate(model, scaled(1.0), data(), particles=1, progress=False)
    assert np.isnan(found.sampling_error) and found.convergence == {} and np.isnan(found.khats).all()
    assert "k-hat" not in str(found) and found.to_dict()["khat"] is None


def test_bits_of_dequantized_levels_are_told_to_be_a_bound():
    def pixels(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(0.1 * z[:, None].expand(-1, 2), 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    levels = torch.arange(16, dtype=torch.uint8).reshape(8, 2)
    found = evaluate(pixels, guide, Data(levels, (2,), 16, Dequantize(16), "levels"), particles=2, progress=False)
    assert found.dequantized and "dequantized" in str(found)
