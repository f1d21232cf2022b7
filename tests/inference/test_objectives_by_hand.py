"""Objectives and discrepancies: numbers of small `Terms` and samples, worked out by hand."""

import math
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from torch import Tensor

from ppl_models.inference import Terms
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
from ppl_models.inference.objectives.finite import counted, refuse
from ppl_models.inference.objectives.stateful import adaptive_free_bits
from tests.helpers.by_hand import close

pytestmark = pytest.mark.usefixtures("double")


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


def test_particles_of_what_all_data_share_are_averaged():
    """Log densities -1 and -3, divergences 0.9 and 0.1: means of -2 and 0.5."""
    shared = {"g": torch.tensor([[0.9], [0.1]])}
    t = Terms({"y": torch.tensor([[-1.0], [-3.0]])}, {}, {}, shared, frozenset({"g", "y"}))
    close(elbo(t, 1.0, 5), (-2 - 0.5) / 5)
    close(elbo(t, 0.5), -2 - 0.25)


def test_an_infinite_divergence_without_weight_counts_for_nothing():
    infinite = terms(kl={"z": torch.tensor([[math.inf, 1.0]]), "g": torch.tensor([[0.9]])})
    close(elbo(infinite, 0.0), -4.0)
    assert elbo(infinite, 0.5) == -math.inf


def test_the_bound_of_several_particles_is_the_log_of_their_mean():
    """Weights e^-3 and e^-5 of one datum, e^-7 and none at all of another."""
    two = torch.tensor([[-3.0, -7.0], [-5.0, -math.inf]])
    t = Terms({"x": two}, {}, {}, {}, frozenset())
    close(importance_weighted(t), (math.log((math.exp(-3) + math.exp(-5)) / 2) - 7 - math.log(2)) / 2)
    assert importance_weighted(Terms({"x": torch.full((2, 1), -math.inf)}, {}, {}, {}, frozenset())) == -math.inf
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

    # what has no prior has no units and no floor
    more = terms(kl={**kl, "f": torch.full((1, 2), 0.1)}, units=lambda: units, auxiliary=frozenset({"f"}))
    close(free_bits(more, 0.5, 10, nats=1.0, per="unit"), -4 - 0.5 * (1.0 + 2.0 + 1.0 / 10 + 0.1))

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


def test_the_band_of_the_controller_is_in_units_of_its_target():
    """Of 0.5 nats and a slack of a tenth: from 0.5 to 0.55."""
    kl = {"a": torch.full((1, 2), 0.56), "b": torch.full((1, 2), 0.54), "c": torch.full((1, 2), 0.49)}
    objective = adaptive_free_bits(nats=0.5, slack=0.1, rate=0.25)
    state = {f"gamma.{n}": torch.tensor([0.5]) for n in kl}
    _, after = objective(Terms({"x": torch.zeros(1, 2)}, {}, {}, kl, frozenset()), 1.0, None, state)
    assert [after[f"gamma.{n}"].item() for n in kl] == pytest.approx([0.625, 0.5, 0.4])


def test_what_is_not_finite_is_counted_and_told():
    masks = {"a": torch.tensor([True, False, True]), "b": torch.tensor([False, False, False])}
    assert counted(masks) == {"a": 2, "b": 0} and counted(masks, {"a": 3}) == {"a": 5, "b": 0}
    with pytest.raises(ValueError, match="evaluate: found ELBO nan; the a is not finite for 2 of 3 data, want finite"):
        refuse("evaluate", {"ELBO": math.nan, "NLL": 1.0}, {"b": 0, "a": 2}, 3)
    with pytest.raises(ValueError, match="evaluate: found ELBO inf, want finite"):
        refuse("evaluate", {"ELBO": math.inf}, {"b": 0}, 3)


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
    between = 2 * fmean(math.exp(-(d**2) / 8) for d in across)  # a kernel that is one at distance zero
    own = math.exp(-25 / 8), math.exp(-5 / 8)
    close(mmd(A, B, kernel=Gaussian(2.0)), sum(own) - between)
    close(mmd(A, B, kernel=Gaussian(2.0), estimator="biased"), sum((1 + k) / 2 for k in own) - between)
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
