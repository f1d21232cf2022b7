"""`evaluate`, objectives and discrepancies: numbers of small pairs, worked out by hand."""

import math
from dataclasses import replace
from statistics import fmean, stdev

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from ppl_models.data import Data, Scale
from ppl_models.inference import Terms, evaluate
from ppl_models.inference.objectives.bounds import (
    elbo,
    free_bits,
    importance_weighted,
    log_weights,
    mean_kl,
    soft_free_bits,
)
from ppl_models.inference.objectives.criteria import aggregate, info_vae, moment_matching, unregularized
from ppl_models.inference.objectives.discrepancies import (
    Energy,
    Gaussian,
    InverseMultiquadric,
    Laplace,
    Polynomial,
    mmd,
    moments,
)
from ppl_models.inference.objectives.stateful import adaptive_free_bits

pytestmark = pytest.mark.usefixtures("double")

X = torch.tensor([-1.0, 0.5, 2.0, 3.5, -0.7], dtype=torch.double)


def close(found: Tensor | float, expected: object, rtol: float = 1e-10) -> None:
    found = torch.as_tensor(found, dtype=torch.double)
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.double), rtol=rtol, atol=1e-10)


# evaluate: a latent for each datum


def model(x: Tensor) -> None:
    """x ~ N(z, 1), z ~ N(0, 1): x ~ N(0, 2)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def posterior(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))


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


# Objectives


def terms(**changed: object) -> Terms:
    """One particle, two data; a latent z of the data and one, g, of all of them."""
    found = {
        "log_likelihood": {"x": torch.tensor([[-3.0, -5.0]])},
        "log_p": {"z": torch.tensor([[-1.0, -2.0]]), "g": torch.tensor([[-0.5]])},
        "log_q": {"z": torch.tensor([[-0.2, -0.4]]), "g": torch.tensor([[0.7]])},
        "kl": {"z": torch.tensor([[0.6, 1.0]]), "g": torch.tensor([[0.9]])},
        "shared": frozenset({"g"}),
    }
    return Terms(**{**found, **changed})


def test_who_is_divided_by_which_number_of_data():
    t = terms()
    close(elbo(t, 0.5), -4 - 0.5 * 0.8 - 0.5 * 0.9 / 2)
    close(elbo(t, 0.5, 10), -4 - 0.5 * 0.8 - 0.5 * 0.9 / 10)
    # a program that draws 2 of 8 data and scales what is local by 4
    scaled = terms(
        log_likelihood={"x": 4 * t.log_likelihood["x"]},
        kl={"z": 4 * t.kl["z"], "g": t.kl["g"]},
        full_size=8,
    )
    close(elbo(scaled, 0.5, 10), -4 - 0.5 * 0.8 - 0.5 * 0.9 / 8)
    assert [v.item() for v in mean_kl(t, ("z", "g"), 10)] == pytest.approx([0.8, 0.09])
    assert [v.item() for v in mean_kl(scaled, ("z", "g"), 10)] == pytest.approx([0.8, 0.9 / 8])
    # what is observed outside the plate counts once, too
    more = terms(log_likelihood={**t.log_likelihood, "y": torch.tensor([[-7.0]])}, shared=frozenset({"g", "y"}))
    close(elbo(more, 1.0, 10), -4 - 0.8 - 0.9 / 10 - 7.0 / 10)


def test_an_infinite_divergence_without_weight_counts_for_nothing():
    infinite = terms(kl={"z": torch.tensor([[math.inf, 1.0]]), "g": torch.tensor([[0.9]])})
    close(elbo(infinite, 0.0), -4.0)
    assert elbo(infinite, 0.5) == -math.inf


def test_the_bound_of_several_particles_is_the_log_of_their_mean():
    """Weights e^-3 and e^-5 of one datum, e^-7 and none at all of another."""
    two = torch.tensor([[-3.0, -7.0], [-5.0, -math.inf]])
    t = Terms({"x": two}, {}, {}, {}, frozenset())
    close(importance_weighted(t), (math.log((math.exp(-3) + math.exp(-5)) / 2) - 7 - math.log(2)) / 2)
    far = Terms({"x": torch.tensor([[-3000.0], [-3001.0]])}, {}, {}, {}, frozenset())
    close(importance_weighted(far), -3000 + math.log((1 + math.exp(-1)) / 2))


def test_floors_by_hand():
    """Groups of z: means 0.2 and 2 by unit, 2.2 by layer; of g, which all of ten data share, 0.4 of the site."""
    units = {"z": torch.tensor([[[0.1, 1.0], [0.3, 3.0]]]), "g": torch.tensor([[[0.4]]])}
    kl = {name: value.sum(-1) for name, value in units.items()}
    t = terms(kl=kl, units=lambda: units)
    close(free_bits(t, 0.5, 10, nats=1.0), -4 - 0.5 * (2.2 + 1.0 / 10))
    close(free_bits(t, 0.5, 10, nats=1.0, per="unit"), -4 - 0.5 * (1.0 + 2.0 + 1.0 / 10))
    close(free_bits(t, 1.0, 10, nats=0.0), elbo(t, 1.0, 10))

    def soft(value: float) -> float:
        return 1.0 + 0.2 * math.log(1 + math.exp((value - 1.0) / 0.2))

    close(soft_free_bits(t, 0.5, 10, nats=1.0, width=0.2), -4 - 0.5 * (soft(2.2) + soft(0.4) / 10))
    # with as many particles of each datum, in which the groups are averaged first
    likelihood = {"x": torch.tensor([[-3.0, -5.0]] * 2)}
    twice = terms(log_likelihood=likelihood, kl={"z": torch.tensor([[0.1, 0.2], [3.0, 3.1]])})
    close(free_bits(twice, nats=1.0), -4 - 1.6)
    # at the floor itself the divergence has its slope, below it none
    at = torch.tensor([[1.0, 1.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(free_bits(terms(kl={"z": at}), nats=1.0), at)
    close(slope, [[-0.5, -0.5]])
    with pytest.raises(ValueError, match="found nats=-1, want at least 0"):
        free_bits(t, nats=-1)


def test_weights_of_all_data_by_hand():
    t = terms()
    log_w, size = log_weights(t, 0.5)
    assert size == 2
    close(log_w, [[-8 + 0.5 * (-0.8 - 1.6) + 0.5 * (-1.2)]])
    close(t.log_w, [[-3 - 0.8 - 1.2, -5 - 1.6 - 1.2]])
    scaled = terms(log_p={"z": t.log_p["z"]}, log_q={"z": t.log_q["z"]}, shared=frozenset(), full_size=8)
    close(log_weights(scaled)[0], [[-3.8 / 4, -6.6 / 4]])
    with pytest.raises(ValueError, match="found the sites g outside the data plate and 2 of 7 data"):
        log_weights(t, 1.0, 7)
    assert log_weights(t, 1.0, 2)[1] == 2
    alone = Terms({"x": torch.tensor([[-3.0]])}, {}, {}, {}, frozenset({"x"}))
    assert log_weights(alone)[1] == 1 and log_weights(alone, 1.0, 7)[1] == 7
    assert t.seen == 2


def test_the_controller_of_free_bits_by_hand():
    """Groups above 1.05 nats, between, and below 1: up to 1 at most, held, and down."""
    kl = {"a": torch.tensor([[1.0, 1.2]]), "b": torch.tensor([[1.0, 1.04]]), "c": torch.tensor([[0.5, 1.3]])}
    t = Terms({"x": torch.tensor([[-3.0, -5.0]])}, {}, {}, kl, frozenset())
    objective = adaptive_free_bits(nats=1.0)
    state = objective.init(t)
    assert {name: value.tolist() for name, value in state.items()} == {f"gamma.{n}": [1.0] for n in "abc"}
    value, after = objective(t, 0.5, None, state)
    close(value, -4 - 0.5 * (1.1 + 1.02 + 0.9))
    assert [after[f"gamma.{n}"].item() for n in "abc"] == pytest.approx([1.0, 1.0, 1 / 1.1])
    state = {f"gamma.{n}": torch.tensor([0.5]) for n in "abc"}
    value, after = objective(t, 1.0, None, state)
    close(value, -4 - 0.5 * (1.1 + 1.02 + 0.9))
    assert [after[f"gamma.{n}"].item() for n in "abc"] == pytest.approx([0.55, 0.5, 0.5 / 1.1])
    state = {f"gamma.{n}": torch.tensor([1e-6]) for n in "abc"}
    _, after = objective(t, 1.0, None, state)
    assert [after[f"gamma.{n}"].item() for n in "abc"] == pytest.approx([1.1e-6, 1e-6, 1e-6])
    # at the ends of the band the weight stays
    held = {n: torch.full((1, 2), v) for n, v in (("a", 1.0), ("b", 2.0))}
    _, after = adaptive_free_bits(nats=1.0, slack=1.0)(
        Terms({"x": torch.zeros(1, 2)}, {}, {}, held, frozenset()),
        1.0,
        None,
        {f"gamma.{n}": torch.tensor([0.5]) for n in "ab"},
    )
    assert [after[f"gamma.{n}"].item() for n in "ab"] == [0.5, 0.5]


# Discrepancies

A = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.double)
B = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.double)


def test_kernels_by_hand():
    x, y = torch.tensor([3.0, -4.0]), torch.zeros(2)
    close(Gaussian(2.0)(x, y), math.exp(-25 / 8))
    close(Gaussian()(x, y), math.exp(-25 / 4))  # width 2 / sqrt 2
    close(Laplace(2.0)(x, y), math.exp(-7 / 2))
    close(Laplace()(x, y), math.exp(-7 / 2))
    close(InverseMultiquadric(5.0)(x, y), 5 / 30)
    close(InverseMultiquadric()(x, y), 4 / 29)
    close(Energy()(x, y), -5.0)
    close(Polynomial(3)(x, torch.tensor([2.0, 1.0])), (1 + 2 / 2) ** 3)


def test_estimators_by_hand():
    """|a - a'| = 5, |b - b'| = sqrt 5; |a - b| = 1, 2, sqrt 20, sqrt 13."""
    across = [1.0, 2.0, 20**0.5, 13**0.5]
    close(mmd(A, B, kernel="energy"), -5 - 5**0.5 + 2 * fmean(across), 1e-9)
    close(mmd(A, B, kernel="energy", estimator="biased"), -5 / 2 - 5**0.5 / 2 + 2 * fmean(across), 1e-9)
    close(mmd(A, B, kernel="energy", estimator="linear"), -5 - 5**0.5 + 2 + 20**0.5, 1e-9)
    # of five and three draws the linear one takes one pair of each, the first two
    more = torch.cat([A, 100 * torch.ones(3, 2)]), torch.cat([B, -torch.ones(1, 2)])
    close(mmd(*more, kernel="energy", estimator="linear"), -5 - 5**0.5 + 2 + 20**0.5, 1e-9)


def test_moments_by_hand():
    """Means (1.5, 2) and (0.5, 1); covariances [[4.5, 6], [6, 8]] and [[0.5, -1], [-1, 2]]."""
    close(moments(A, B), 1 + 1 + 16 + 49 + 49 + 36)


def test_criteria_weigh_the_discrepancy_of_all_codes():
    """Two latents of one unit, side by side: the codes are the rows of A, draws of the prior those of B."""

    def sides(table: Tensor) -> dict[str, Tensor]:
        return {"a": table[None, :, :1], "b": table[None, :, 1:]}

    kl = {"a": torch.tensor([[0.5, 1.5]]), "b": torch.tensor([[2.0, 2.0]])}
    t = Terms(
        {"x": torch.tensor([[-3.0, -5.0]])},
        kl,
        kl,
        kl,
        frozenset(),
        drawn=sides(A),
        prior=sides(B),
        auxiliary=frozenset(),
    )
    close(aggregate(t, moments), 152.0)
    close(info_vae(t, 0.5, alpha=0.25, lambda_=3.0, discrepancy=moments), -4 - 0.5 * 0.75 * 3 - 0.5 * 2.25 * 152)
    close(moment_matching(t, weight=0.1), -4 - 15.2)
    two = Terms(
        t.log_likelihood,
        kl,
        kl,
        kl,
        frozenset(),
        drawn={n: torch.cat([v, v]) for n, v in sides(A).items()},
        prior=sides(B),
    )
    close(aggregate(two, moments), 152.0)  # the mean over particles
    more = replace(t, log_p={**kl, "aux": kl["a"]}, auxiliary=frozenset({"aux"}))
    close(aggregate(more, moments), 152.0)  # what has no prior has no code
    outside = replace(t, log_likelihood={**t.log_likelihood, "y": torch.tensor([[-7.0]])}, shared=frozenset({"y"}))
    close(unregularized(outside, 1.0, 10), -4 - 0.7)
    # D is of the codes first and of the prior second
    close(aggregate(t, lambda codes, prior: (2 * codes - prior).sum()), 2 * 7.0 - 3.0)
