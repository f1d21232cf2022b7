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
from ppl_models.inference.evaluation.tally import Tally
from ppl_models.inference.resuming import unfinished

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
    seen = Tally(25)
    for columns in (log_w[:, :1], log_w[:, 1:]):
        nll = seen.add(columns, -1.0, {"z": 0.5})
        assert nll == pytest.approx(-np.log(np.exp(columns).mean(0)), abs=1e-12)
    tens = [-np.log(np.exp(log_w[i : i + 10]).mean(0)) for i in (0, 10)]
    assert list(seen.sums) == [1, 10] and seen.done == 3
    assert seen.sums[1] == pytest.approx(-log_w.mean(0).sum(), abs=1e-12)
    assert seen.sums[10] == pytest.approx(np.mean(tens, 0).sum(), abs=1e-12)
    found = seen.result(3, [], False)
    assert found.elbo == pytest.approx(-2 / 3) and found.kl == {"z": pytest.approx(1 / 3)}
    again = Tally(25)
    again.go_on(seen.state())
    assert again.result(3, [], False) == found and again.of("khat") == pytest.approx(seen.of("khat"))


def test_weights_of_zero_and_weights_that_are_no_numbers_end_nothing():
    log_w = np.zeros((30, 4))
    log_w[3, 0], log_w[4, 1], log_w[5, 2] = -np.inf, np.nan, np.inf
    seen = Tally(30)
    seen.add(log_w, 0.0, {})
    assert np.isnan(seen.of("khat")).tolist() == [False, True, True, False] and not seen.finite(4)


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


def noisy(events):
    """A model of dequantized rows that draws so many numbers of its own, none of which matters."""

    def pixels(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(events), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(torch.zeros(1), 0.1).expand(x.shape).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(events), 1.0).to_event(1))

    return pixels, guide


def test_pairs_see_the_same_noise_of_the_data_however_many_rows_a_pass_has():
    """Each pair is exact, so that numbers differ by the noise of the data alone, if it does."""
    rows = Data(torch.arange(230, dtype=torch.uint8).reshape(115, 2) % 16, (2,), 16, Dequantize(16), "levels")
    one, other = (
        evaluate(*noisy(events), rows, particles=2, rows=size, progress=False) for events, size in ((1, 20), (3, 74))
    )
    assert one.nlls == pytest.approx(other.nlls, abs=1e-4)
    assert abs(evaluate(*noisy(1), rows, particles=2, seed=1, progress=False).nlls - one.nlls).max() > 1e-2


def test_ports_see_the_same_noise_of_the_data_however_many_rows_a_pass_has():
    numpyro = pytest.importorskip("numpyro")
    from jax import random

    from ppl_models.inference.numpyro.evaluation.evaluate import _seeded
    from ppl_models.inference.numpyro.feeding.batches import columns_of

    levels = torch.arange(230, dtype=torch.uint8).reshape(115, 2) % 16
    columns = columns_of(Data(levels, (2,), 16, Dequantize(16), "levels"), numpyro.__name__)
    few, many = (_seeded(columns, random.key(0)) for _ in range(2))
    parts = [few(start, min(start + 37, 115))[0] for start in range(0, 115, 37)]
    assert (np.concatenate(parts) == many(0, 115)[0]).all() and np.unique(many(0, 115)[0]).size > 200


# ---- an evaluation that was stopped


def in_pyro(tmp_path, scale=0.9, **how):
    how = {"particles": 50, "rows": 500, "resume": tmp_path / "state.npz", "progress": False} | how
    return evaluate(model, scaled(scale), data(), **how)


def in_numpyro(tmp_path, scale=0.9, **how):
    numpyro = pytest.importorskip("numpyro")
    from ppl_models.inference.numpyro import evaluate as port

    def ported(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", numpyro.distributions.Normal(0.0, 1.0))
            numpyro.sample("x", numpyro.distributions.Normal(z, 1.0), obs=x)

    def guide(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", numpyro.distributions.Normal(x / 2, scale))

    how = {"particles": 50, "rows": 500, "resume": tmp_path / "state.npz", "progress": False} | how
    return port(ported, guide, data().numpy(), **how)


@pytest.fixture
def calls(monkeypatch):
    """Counts chunks, of which the third is interrupted while the list holds "stop"."""
    found: list[str] = []
    add = Tally.add

    def counting(self, *args):
        found.append("chunk")
        if "stop" in found and found.count("chunk") == 3:
            raise KeyboardInterrupt
        return add(self, *args)

    monkeypatch.setattr(Tally, "add", counting)
    monkeypatch.setattr(unfinished, "PAUSE", 0.0)
    return found


@pytest.mark.parametrize("language", [in_pyro, in_numpyro])
def test_one_that_was_stopped_goes_on_to_the_same_numbers(language, tmp_path, calls):
    want = language(tmp_path, resume=None)
    assert calls == ["chunk"] * 4
    calls[:] = ["stop"]
    with pytest.raises(KeyboardInterrupt):
        language(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]
    calls.clear()
    found = language(tmp_path)
    # the first one once more, by which the pair is known, and those that were not there yet
    assert calls == ["chunk"] * 3 and not list(tmp_path.iterdir())
    assert found == want
    for name in ("nlls", "elbos", "khats"):
        assert (getattr(found, name) == getattr(want, name)).all()


@pytest.mark.parametrize("other", [{"seed": 1}, {"particles": 49}, {"refine": 1}, "damaged"])
def test_the_file_of_another_one_is_not_read(other, tmp_path, calls):
    calls[:] = ["stop"]
    with pytest.raises(KeyboardInterrupt):
        in_pyro(tmp_path)
    calls.clear()
    if other == "damaged":
        path = tmp_path / "state.npz"
        path.write_bytes(path.read_bytes()[:200])
    in_pyro(tmp_path, **{} if other == "damaged" else other)
    assert calls == ["chunk"] * 4


@pytest.mark.parametrize(
    "language, other",
    [
        (in_pyro, {"scale": 0.8}),
        (in_numpyro, {"scale": 0.8}),
        (in_pyro, {"refine": 2}),
        pytest.param(in_numpyro, {"refine": 2}, marks=pytest.mark.slow),
    ],
)
def test_the_file_of_another_pair_without_weights_is_not_read(language, other, tmp_path, calls):
    """A number in a function's code, or the steps of a refinement, are nothing that weights tell of."""
    want = language(tmp_path, **other)
    calls[:] = ["stop"]
    with pytest.raises(KeyboardInterrupt):
        language(tmp_path, refine=min(1, other.get("refine", 0)))
    calls.clear()
    assert language(tmp_path, **other) == want and calls == ["chunk"] * 4


def test_without_a_seed_there_is_nothing_to_go_on_from(tmp_path):
    for language in (in_pyro, in_numpyro):
        with pytest.raises(ValueError, match="evaluate: found resume and seed=None, want a seed"):
            language(tmp_path, seed=None)
