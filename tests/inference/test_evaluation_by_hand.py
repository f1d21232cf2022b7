"""`evaluate`: bounds, errors and bits of small pairs, worked out by hand."""

import math
from statistics import fmean, stdev

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from ppl_models.data import Data, Scale
from ppl_models.inference import evaluate
from tests.helpers.by_hand import close, model, posterior

pytestmark = pytest.mark.usefixtures("double")

X = torch.tensor([-1.0, 0.5, 2.0, 3.5, -0.7], dtype=torch.double)


# evaluate: a latent for each datum


@pytest.mark.parametrize("rows", [20_000, 4])  # all data at once; two at a time
def test_the_error_of_a_mean_over_data(rows):
    """The standard deviation of -log p(x_n) over the data, over sqrt n; of the exact posterior nothing else is left."""
    nll = [0.25 * x**2 + 0.5 * math.log(4 * math.pi) for x in X.tolist()]
    kl = [0.5 * (0.5 + x**2 / 4 - 1 - math.log(0.5)) for x in X.tolist()]
    found = evaluate(model, posterior, X, particles=2, rows=rows, progress=False)
    close(found.nll, fmean(nll))
    close(found.nll_error, stdev(nll) / 5**0.5)
    close(found.kl["z"], fmean(kl))
    sampled = evaluate(model, posterior, X, particles=2, rows=rows, progress=False, analytic=False)
    close(sampled.elbo, -fmean(nll))  # log p - log q is one constant for each datum
    assert (found.n, found.particles, found.bits_per_dim) == (5, 2, None)
    assert math.isnan(evaluate(model, posterior, X[:1], particles=2, progress=False).nll_error)
    close(evaluate(model, posterior, X[:2], particles=2, progress=False).nll_error, stdev(nll[:2]) / 2**0.5)


def test_the_difference_of_two_evaluations_is_paired():
    """Of the exact posterior each NLL is known, and so is each difference; of the same evaluation there is none."""
    other = X + torch.tensor([0.0, 1.0, -0.5, 2.0, 0.3], dtype=X.dtype)
    first, second = (evaluate(model, posterior, x, particles=2, rows=4, progress=False) for x in (X, other))
    each = (0.25 * (X**2 - other**2)).tolist()
    found = first - second
    close(found.nll, fmean(each))
    close(found.error, stdev(each) / 5**0.5)
    close(first.nlls.tolist(), [0.25 * x**2 + 0.5 * math.log(4 * math.pi) for x in X.tolist()])
    assert "nlls" not in first.to_dict() and found.n == 5
    assert (first - first).nll == (first - first).error == 0.0
    with pytest.raises(ValueError, match="found 5 and 2 data, want the same data twice"):
        first - evaluate(model, posterior, X[:2], particles=2, progress=False)


def test_all_particles_of_a_datum_are_in_its_mean():
    """A coin for each datum: of 40 particles, in passes of 15, a whole number had ones."""

    def coins(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.3)))
            pyro.sample("x", dist.Normal(k, 2.0), obs=x)

    def fair(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Bernoulli(torch.tensor(0.5)))

    weights = [2 * ODDS[k] * math.exp(-((0.5 - k) ** 2) / 8) / math.sqrt(8 * math.pi) for k in (0, 1)]
    how = {"particles": 40, "rows": 15, "vectorize": True, "progress": False, "analytic": False}
    found = evaluate(coins, fair, X[1:2], **how)
    share = (math.exp(-found.nll) - weights[0]) / (weights[1] - weights[0])
    close(40 * share, round(40 * share))
    assert 0 < round(40 * share) < 40
    close(found.elbo, (1 - share) * math.log(weights[0]) + share * math.log(weights[1]))


def test_the_error_is_the_spread_over_data_sets():
    """Of 200 sets of 20 data, of which one set tells the spread within sqrt(1 / 40) or so."""
    sets = 2**0.5 * torch.randn(200 * 20, generator=torch.Generator().manual_seed(0)).double().reshape(200, 20)
    spread = (0.25 * sets**2).mean(1).std().item()
    errors = [evaluate(model, posterior, x, particles=1, progress=False).nll_error for x in sets[:12]]
    assert spread / 1.5 < fmean(errors) < 1.5 * spread  # without sqrt n it is 4.5 times as large


def test_without_a_plate_all_is_one_datum():
    def apart(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def exact(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(x / 2, 0.5**0.5).to_event(1))

    found = evaluate(apart, exact, X, particles=2, progress=False)
    close(found.nll, sum(0.25 * x**2 + 0.5 * math.log(4 * math.pi) for x in X.tolist()))
    assert found.notes == ["no plate around the data: they count as one datum"]


# evaluate: a latent of all data

ODDS = {0: 0.7, 1: 0.3}  # of the prior; the guide's are even


def coin(x: Tensor) -> None:
    k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.3)))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(k, 2.0), obs=x)


def even(x: Tensor) -> None:
    pyro.sample("k", dist.Bernoulli(torch.tensor(0.5)))


def log_weight(k: int) -> float:
    density = sum(-((x - k) ** 2) / 8 - 0.5 * math.log(8 * math.pi) for x in X.tolist())
    return density + math.log(ODDS[k] / 0.5)


def test_the_error_of_a_mean_over_particles():
    """Weights of two sizes: how many of 40 draws had which is in the mean, and with it their deviation."""
    low, high = sorted(math.exp(log_weight(k)) for k in (0, 1))
    ones = 0
    # in one pass, in passes of three and one left over, one by one
    for vectorize, rows in ((True, 20_000), (True, 15), (False, 20_000)):
        how = {"particles": 40, "vectorize": vectorize, "rows": rows, "progress": False}
        found = evaluate(coin, even, X, **how)
        mean = math.exp(-5 * found.nll)
        share = (mean - low) / (high - low)
        close(40 * share, round(40 * share), 1e-8)
        deviation = (share * (1 - share) * 40 / 39) ** 0.5 * (high - low)
        close(found.nll_error, deviation / mean / 40**0.5 / 5, 1e-8)
        ones += 40 * share
        # the bound: log w of a draw on average, over 5 data; of the divergence in closed form what all draws have
        kl = 0.5 * math.log(0.5 / 0.3) + 0.5 * math.log(0.5 / 0.7)
        close(found.kl["k"], kl / 5, 1e-6)
        logs = sorted(log_weight(k) for k in (0, 1))
        sampled = evaluate(coin, even, X, analytic=False, **how)
        close(sampled.nll, found.nll)
        close(sampled.elbo, ((1 - share) * logs[0] + share * logs[1]) / 5)
    assert 30 < ones < 90 and math.isnan(evaluate(coin, even, X, particles=1, progress=False).nll_error)


def test_weights_that_no_number_holds_have_an_error():
    """Of weights e^2000 apart the larger alone count: of 40 draws a share f, whose deviation is sqrt(f (1 - f))."""
    far = 2000 * X
    found = evaluate(coin, even, far, particles=40, vectorize=True, progress=False)
    largest = math.log(0.3 / 0.5) + sum(-((x - 1) ** 2) / 8 - 0.5 * math.log(8 * math.pi) for x in far.tolist())
    share = math.exp(-5 * found.nll - largest)
    assert 0.2 < share < 0.8
    close(found.nll_error, ((1 - share) / share * 40 / 39) ** 0.5 / 40**0.5 / 5, 1e-3)


def test_bits_are_those_of_all_particles():
    """Pixels of probability 1/4 whatever the code: -log p(x) is known up to log 1/K sum_k p(z_k) / q(z_k)."""

    def pixels(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1, dtype=x.dtype), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(0.25 + 0 * z.expand(*z.shape[:-1], 3)).to_event(1), obs=x)

    def off(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.ones(1, dtype=x.dtype), 1.0).to_event(1))

    data = Data(torch.tensor([[0, 1, 1], [0, 0, 1]], dtype=torch.uint8), (3,), 2, Scale(2), "bits")
    found = evaluate(pixels, off, data, particles=3, progress=False)
    close(found.bits_per_dim, found.nll / (3 * math.log(2)), 1e-6)
    close(found.elbo, -3 * math.log(4) + 1.5 * math.log(3) - 0.5, 1e-6)  # three ones and three zeros; KL 1/2


def test_the_error_over_particles_is_the_spread_over_seeds():
    found = [evaluate(coin, even, X, particles=30, vectorize=True, seed=seed, progress=False) for seed in range(15)]
    spread, error = stdev(f.nll for f in found), fmean(f.nll_error for f in found)
    assert spread / 2 < error < 2 * spread  # without sqrt K it is 5.5 times as large, without n five times


def test_both_a_latent_of_all_data_and_one_for_each():
    """mu ~ N(0, 1), z_n ~ N(mu, 1), x_n ~ N(z_n, 1): the exact posterior gives the evidence of x ~ N(0, 2 I + 1 1')."""
    n = len(X)

    def both(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    precision = 1 + n / 2

    def exact(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(x.sum() / 2 / precision, precision**-0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((mu + x) / 2, 0.5**0.5))

    law = torch.distributions.MultivariateNormal(torch.zeros(n), 2 * torch.eye(n) + 1)
    found = evaluate(both, exact, X, particles=3, progress=False, analytic=False)
    close(found.nll, -law.log_prob(X) / n)
    close(found.elbo, law.log_prob(X) / n)
    close(found.nll_error, 0.0)
    assert found.notes == [
        "latents or data outside the data plate: all data count as one datum, numbers are divided by n"
    ]
