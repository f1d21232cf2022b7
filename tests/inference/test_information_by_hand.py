"""Information of codes, encoders read backwards, joints, chains and images: numbers worked out by hand."""

import math
from statistics import fmean, stdev

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from ppl_models.inference import (
    Joint,
    MutualInformation,
    ancestral,
    markov_chain,
    mutual_information,
    reversal,
    sharpness,
)
from ppl_models.inference.pyro.evaluation.densities import Densities
from ppl_models.inference.pyro.evaluation.discrete import coupled
from ppl_models.inference.pyro.evaluation.information import _smaller
from tests.helpers.by_hand import close, model, posterior

pytestmark = pytest.mark.usefixtures("double")


def wide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))


# Mutual information


def told(**changed: float) -> MutualInformation:
    numbers = {"lower": 1.0, "upper": 1.5, "ceiling": 3.0, "leave_one_out": 1.5, "rate": 1.75}
    return MutualInformation(**{**numbers, "lower_error": 0.1, "upper_error": 0.2, "n": 20, **changed})


def test_what_is_left_of_the_rate_is_bracketed_from_below_and_above():
    """rate - I with I between 1 and 1.5: between 0.25 and 0.75; and never below zero."""
    assert told().marginal == (0.25, 0.75)
    assert told(rate=1.25).marginal == (0.0, 0.25)
    assert told(rate=0.5).marginal == (0.0, 0.0)


def test_reached_is_said_within_a_twentieth_of_the_ceiling():
    assert ", reached" in str(told(lower=2.96)) and ", reached" not in str(told(lower=2.94))
    assert str(told()).splitlines()[0] == "I(x; z)      1.000 to 1.500 nats (+- 0.100, 0.200)"


@pytest.fixture
def codes(monkeypatch) -> list:
    """What `Densities.draw` gives, in blocks of three data and two codes."""
    kept, draw = [], Densities.draw
    monkeypatch.setattr("ppl_models.inference.pyro.evaluation.densities.DATA", 3)
    monkeypatch.setattr("ppl_models.inference.pyro.evaluation.densities.BLOCK", 6)
    monkeypatch.setattr(Densities, "draw", lambda *args: kept.append(draw(*args)) or kept[-1])
    return kept


ROWS = torch.tensor([0.0, 1.0, 3.0, -1.0, 0.2, 2.0, -2.5, 1.5, 9.0], dtype=torch.double)


@pytest.mark.parametrize("rows", [None, 8])
def test_a_bracket_by_hand(rows, codes):
    """Sums over a table of the densities of every code at every datum."""

    found = mutual_information(model, wide, ROWS, rows=rows)
    z, n = codes[-1][0]["z"], rows or 9
    assert found.n == len(z) == n and found.ceiling == math.log(n)
    x = ROWS.tolist()[:n]
    table = [[math.exp(-0.5 * (code - v) ** 2) for v in x] for code in z.tolist()]
    lower = [math.log(row[i] / fmean(row)) for i, row in enumerate(table)]
    without = [math.log(row[i] / fmean(row[:i] + row[i + 1 :])) for i, row in enumerate(table)]
    rates = [v**2 / 2 for v in x]  # KL(N(x, 1) || N(0, 1))
    close(found.lower, fmean(lower), 1e-6)
    close(found.lower_error, stdev(lower) / n**0.5, 1e-6)
    close(found.leave_one_out, fmean(without), 1e-6)
    close(found.rate, fmean(rates), 1e-6)
    # on every half of the data the bound that is smaller on the other half
    halves = [without if fmean(without[1 - k :: 2]) <= fmean(rates[1 - k :: 2]) else rates for k in (0, 1)]
    upper = [v for k in (0, 1) for v in halves[k][k::2]]
    close(found.upper, fmean(upper), 1e-6)
    close(found.upper_error, stdev(upper) / n**0.5, 1e-6)


def test_of_two_bounds_the_smaller_on_the_other_half():
    one, other = torch.tensor([0.0, 10.0, 0.0, 10.0]), torch.full((4,), 5.0)
    close(_smaller(one, other), [5.0, 5.0, 10.0, 10.0])
    close(_smaller(other, one), [5.0, 5.0, 10.0, 10.0])
    # the first datum is one of a half: means 5 and 11 of it, 7 and 8 of the other
    one, other = torch.tensor([0.0, 7.0, 10.0, 7.0]), torch.tensor([20.0, 8.0, 2.0, 8.0])
    close(_smaller(one, other), [0.0, 10.0, 7.0, 7.0])


def test_two_data_are_enough_for_a_bracket():
    assert mutual_information(model, wide, ROWS[:2]).ceiling == math.log(2)
    with pytest.raises(ValueError, match="found 1 datum, want at least 2"):
        mutual_information(model, wide, ROWS[:1])


def test_a_rate_without_a_closed_form_is_sampled(codes):
    """log q - log p at the codes, of q Student's t with three degrees of freedom."""

    def student(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.StudentT(3.0, x, 1.0))

    found = mutual_information(model, student, ROWS)
    rates = []
    for code, v in zip(codes[-1][0]["z"].tolist(), ROWS.tolist(), strict=True):
        log_q = math.log(2 / (math.pi * 3**0.5)) - 2 * math.log(1 + (code - v) ** 2 / 3)
        rates.append(log_q + code**2 / 2 + 0.5 * math.log(2 * math.pi))
    close(found.rate, fmean(rates), 1e-6)


def test_a_scale_of_one_program_leaves_the_rate_in_closed_form():
    def weighed(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            with pyro.poutine.scale(scale=0.1):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    close(mutual_information(weighed, wide, ROWS).rate, fmean(v**2 / 2 for v in ROWS.tolist()))


def test_codes_that_tell_all_data_apart_reach_the_ceiling():
    def sharp(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1e-6))

    found = mutual_information(model, sharp, ROWS)
    close(found.lower, math.log(9))
    close(found.rate, fmean((1e-12 + v**2 - 1) / 2 - math.log(1e-6) for v in ROWS.tolist()))


def test_the_encoder_read_backwards_by_hand():
    """Weights of codes at data, in blocks; a code far from the first data meets its own later."""
    data = torch.cat([ROWS, torch.linspace(20.0, 40.0, 120, dtype=torch.double)])

    z = [0.5, 30.0]
    found = reversal(model, wide, data, torch.tensor(z))
    for k, code in enumerate(z):
        w = [math.exp(-0.5 * (code - v) ** 2) for v in data.tolist()]
        mean, square = (sum(a * v**power for a, v in zip(w, data.tolist(), strict=True)) / sum(w) for power in (1, 2))
        close(found.mean[k], [mean], 1e-8)
        close(
            found.variance[k], [sum(a * (v - mean) ** 2 for a, v in zip(w, data.tolist(), strict=True)) / sum(w)], 1e-6
        )
        close(found.log_q[k], math.log(fmean(w)) - 0.5 * math.log(2 * math.pi))
        close(found.effective[k], sum(w) ** 2 / sum(a * a for a in w))


# Joints, chains, images


def test_a_joint_of_two_data_and_two_codes_by_hand():
    """p(x) = (2/5, 3/5), q(z) = (1/2, 1/2); rows of the encoder (3/4, 1/4) and (1/3, 2/3)."""
    joint = Joint(torch.tensor([[0.3, 0.1], [0.2, 0.4]]))
    close(joint.encoder, [[0.75, 0.25], [1 / 3, 2 / 3]])
    close(joint.decoder, [[0.6, 0.4], [0.2, 0.8]])
    entropy = -0.4 * math.log(0.4) - 0.6 * math.log(0.6)
    information = 0.3 * math.log(1.5) + 0.1 * math.log(0.5) + 0.2 * math.log(2 / 3) + 0.4 * math.log(4 / 3)
    close(joint.information, information)
    close(joint.entropy, entropy)
    close(joint.conditional_entropy, entropy - information)
    close(joint.divergence(torch.tensor([0.2, 0.8])), 0.5 * math.log(2.5) + 0.5 * math.log(0.625))
    close(joint.transition, [[0.5, 0.5], [1 / 3, 2 / 3]])
    close(joint.variance(torch.tensor([[0.0], [10.0]])), [24.0, 16.0])
    half = torch.tensor([0.5, 0.5])
    close(coupled(half, torch.tensor([0.25, 0.75]), 1.0).table, [[0.25, 0.25], [0.0, 0.5]])
    close(coupled(half, torch.tensor([0.25, 0.75]), 0.5).table, [[0.1875, 0.3125], [0.0625, 0.4375]])


def test_every_second_state_of_a_chain_is_kept():
    """z = x + 1, x' = 2 z: 0, 2, 6, 14, 30, 62, of which the second and the fourth."""

    def doubled(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(2 * z, 1e-9).to_event(1), obs=x)

    def one_more(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x + 1, 1e-9).to_event(1))

    found = markov_chain(doubled, one_more, torch.zeros(1, 1), 5, every=2)
    assert found.states.flatten().tolist() == pytest.approx([0, 6, 30], abs=1e-6)
    assert found.codes["z"].flatten().tolist() == pytest.approx([3, 15], abs=1e-6) and found.every == 2
    assert len(markov_chain(doubled, one_more, torch.zeros(1, 1), 2, every=2).states) == 2
    # data are drawn from N(z, 1) of z ~ N(0, 1/2): of their means alone the variance would be 1/2
    noisy = markov_chain(model, posterior, torch.zeros(1000, dtype=torch.double), 1)
    assert abs(noisy.states[1].var().item() / 1.5 - 1) < 5 * (2 / 1000) ** 0.5  # five standard errors
    drawn, means = (ancestral(doubled, torch.ones(1000, 1), draws=draws) for draws in (True, False))
    assert not torch.equal(drawn, means) and (drawn - means).abs().max() < 1e-6


def test_sharpness_by_hand():
    """4 * 5 - 1 - 2 - 4 - 7 at the middle of the one channel, 4 * 1 at that of the other."""
    one, other = [9.0, 1.0, 9.0, 2.0, 5.0, 4.0, 9.0, 7.0, 9.0], [0.0] * 4 + [1.0] + [0.0] * 4
    assert sharpness(torch.tensor([one + other]), (2, 3, 3)) == pytest.approx((6.0**2 + 4.0**2) / 2)
