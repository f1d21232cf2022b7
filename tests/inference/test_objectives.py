"""Objectives as functions of `Terms` and schedules as functions of the step: against numbers worked out by hand."""

import json
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from guides import BottomUp, Ladder, MeanField, SelfReflective
from ppl_models import VAE, LinearGaussian, SeReVAE
from ppl_models.inference.objectives.bounds import elbo, free_bits, importance_weighted, soft_free_bits
from ppl_models.inference.pyro.passes.terms import Terms, concatenated, terms
from ppl_models.inference.schedules import Constant, Cosine, Cyclic, Exponential, Linear, Saturating, from_dict, to_dict

pytestmark = pytest.mark.usefixtures("double")


def by_hand(**changed) -> Terms:
    """Two particles, two data; z1 of two units, z2 of one."""
    units = {
        "z1": torch.tensor([[[0.1, 1.0], [0.3, 2.0]], [[0.0, 3.0], [0.0, 2.0]]]),  # means 0.1 and 2.0
        "z2": torch.tensor([[[0.2], [0.4]], [[0.3], [0.3]]]),  # mean 0.3
    }
    kl = {name: value.sum(-1) for name, value in units.items()}
    found = {
        "log_likelihood": {"x": torch.tensor([[-3.0, -5.0], [-4.0, -4.0]])},  # mean -4
        "log_p": {name: -value for name, value in kl.items()},
        "log_q": {name: torch.zeros(2, 2) for name in kl},
        "kl": kl,
        "shared": frozenset(),
        "units": lambda: units,
    }
    return Terms(**{**found, **changed})


def close(a: Tensor, b: float) -> None:
    torch.testing.assert_close(a, torch.tensor(b), rtol=1e-12, atol=1e-12)


def test_elbo_and_free_bits_by_hand():
    t = by_hand()
    close(elbo(t), -4 - 2.1 - 0.3)
    close(elbo(t, 0.5), -4 - 1.2)
    close(free_bits(t, nats=0.0), -4 - 2.1 - 0.3)
    close(free_bits(t, nats=0.5), -4 - 2.1 - 0.5)  # the layers' means, not each datum's, meet the floor
    close(free_bits(t, nats=0.5, per="unit"), -4 - (0.5 + 2.0) - 0.5)
    close(free_bits(t, 0.25, nats=0.5, per="unit"), -4 - 0.25 * 3.0)
    close(free_bits(t, torch.tensor(0.25), nats=0.5, per="unit"), -4 - 0.25 * 3.0)


def test_free_bits_by_sample_floor_every_draw():
    t = by_hand()
    # z1: 1.1, 2.3, 3.0, 2.0; z2: 0.2, 0.4, 0.3, 0.3
    close(free_bits(t, nats=2.0, per="sample"), -4 - (2 + 2.3 + 3 + 2) / 4 - 2)
    close(free_bits(t, 0.5, nats=0.3, per="sample"), -4 - 0.5 * (2.1 + (0.3 + 0.4 + 0.3 + 0.3) / 4))
    close(free_bits(by_hand(kl=dict.fromkeys(t.kl, torch.zeros(2, 2))), nats=0.0, per="sample"), -6.4)  # never closed
    leaf = torch.tensor([[0.5, 3.0]], requires_grad=True)
    one = by_hand(log_q={**t.log_q, "z2": leaf}, log_p={**t.log_p, "z2": torch.zeros(1, 2)})
    (slope,) = torch.autograd.grad(free_bits(one, nats=2.0, per="sample"), leaf)
    torch.testing.assert_close(slope, torch.tensor([[0.0, -0.5]]))
    g = torch.tensor([[0.3], [0.5]])  # a shared site has one draw for all data
    shared = {"kl": {**t.kl, "g": g}, "log_q": {**t.log_q, "g": g}, "log_p": {**t.log_p, "g": 0 * g}}
    shared = by_hand(**shared, shared=frozenset({"g"}), units=None)
    close(free_bits(shared, data_size=10, nats=0.4, per="sample"), -4 - 2.1 - 0.4 - 0.45 / 10)
    scaled = {key: {n: 3 * v for n, v in getattr(t, key).items()} for key in ("log_likelihood", "log_p", "log_q", "kl")}
    close(free_bits(by_hand(**scaled, full_size=6), nats=2.0, per="sample"), -4 - 2.325 - 2)
    free = by_hand(kl={**t.kl, "f": 0.1 * torch.ones(2, 2)}, auxiliary=frozenset({"f"}))
    close(free_bits(free, nats=2.0, per="sample"), -4 - 2.325 - 2 - 0.1)


def softly(kl: float, nats: float, width: float) -> float:
    return nats + width * math.log1p(math.exp((kl - nats) / width))


def test_soft_free_bits_by_hand():
    t = by_hand()
    close(soft_free_bits(t, 0.5, nats=0.4, width=0.2), -4 - 0.5 * (softly(2.1, 0.4, 0.2) + softly(0.3, 0.4, 0.2)))
    expected = sum(softly(kl, 0.4, 0.2) for kl in (0.1, 2.0, 0.3))
    close(soft_free_bits(t, nats=0.4, width=0.2, per="unit"), -4 - expected)


@given(nats=st.floats(0, 3), width=st.floats(0.01, 1), beta=st.floats(0, 2), per=st.sampled_from(["layer", "unit"]))
def test_floors_order_the_bounds(nats, width, beta, per):
    t = by_hand()
    sharp, soft = free_bits(t, beta, nats=nats, per=per), soft_free_bits(t, beta, nats=nats, width=width, per=per)
    groups = 2 if per == "layer" else 3
    assert soft <= sharp + 1e-12 and sharp <= elbo(t, beta) + 1e-12
    assert sharp - soft <= beta * groups * width * math.log(2) + 1e-12


def test_a_group_below_its_floor_has_no_gradient():
    kl = {"z1": torch.full((1, 2), 0.2, requires_grad=True), "z2": torch.full((1, 2), 0.8, requires_grad=True)}
    t = by_hand(kl=kl)
    low, high = torch.autograd.grad(free_bits(t, 0.5, nats=0.5), list(kl.values()))
    assert (low == 0).all() and (high == -0.25).all()  # beta over two data
    low, high = torch.autograd.grad(soft_free_bits(t, 0.5, nats=0.5, width=0.1), list(kl.values()))
    weight = 1 / (1 + math.exp(-3.0))  # three widths from the floor
    assert weight > 0.95
    torch.testing.assert_close(low, torch.full((1, 2), -0.25 * (1 - weight)))
    torch.testing.assert_close(high, torch.full((1, 2), -0.25 * weight))


def test_shared_sites_and_subsampling_programs():
    g = torch.tensor([[0.3], [0.5]])  # mean 0.4, for all data
    t = by_hand(kl={**by_hand().kl, "g": g}, shared=frozenset({"g"}), units=None)
    close(elbo(t), -6.4 - 0.4 / 2)
    close(elbo(t, data_size=10), -6.4 - 0.4 / 10)
    close(free_bits(t, nats=1.0, data_size=10), -4 - 2.1 - 1.0 - 1.0 / 10)
    close(free_bits(t, nats=0.2, data_size=10), -4 - 2.1 - 0.3 - 0.4 / 10)
    # a program that draws 2 of 6 data scales what is local by three
    plain = by_hand()
    scaled = by_hand(
        log_likelihood={"x": 3 * plain.log_likelihood["x"]}, kl={n: 3 * v for n, v in plain.kl.items()}, full_size=6
    )
    close(free_bits(scaled, nats=0.5), -4 - 2.1 - 0.5)
    close(soft_free_bits(scaled, nats=0.4, width=0.2), -4 - softly(2.1, 0.4, 0.2) - softly(0.3, 0.4, 0.2))


def test_what_has_no_prior_has_no_floor():
    t = by_hand(kl={**by_hand().kl, "f": torch.full((2, 2), 0.1)}, auxiliary=frozenset({"f"}))
    close(free_bits(t, nats=0.5), -4 - 2.1 - 0.5 - 0.1)
    close(free_bits(t, nats=0.5, per="unit"), -4 - 2.5 - 0.5 - 0.1)


def test_importance_weighted_by_hand():
    t = by_hand()
    log_w = [[-3 - 1.1 - 0.2, -5 - 2.3 - 0.4], [-4 - 3.0 - 0.3, -4 - 2.0 - 0.3]]
    each = [math.log((math.exp(log_w[0][n]) + math.exp(log_w[1][n])) / 2) for n in range(2)]
    close(importance_weighted(t), sum(each) / 2)
    tempered = [[-3 - 0.5 * 1.3, -5 - 0.5 * 2.7], [-4 - 0.5 * 3.3, -4 - 0.5 * 2.3]]
    each = [math.log((math.exp(tempered[0][n]) + math.exp(tempered[1][n])) / 2) for n in range(2)]
    close(importance_weighted(t, 0.5), sum(each) / 2)
    # weights of one datum each, though the program scales what it sees by three
    scaled = {key: {n: 3 * v for n, v in getattr(t, key).items()} for key in ("log_likelihood", "log_p", "log_q", "kl")}
    close(importance_weighted(by_hand(**scaled, full_size=6)), importance_weighted(t).item())


def test_with_a_shared_site_all_data_have_one_weight():
    g = torch.tensor([[-0.3], [-0.5]])
    t = by_hand()
    t = by_hand(
        log_p={**t.log_p, "g": g},
        log_q={**t.log_q, "g": torch.zeros(2, 1)},
        kl={**t.kl, "g": -g},
        shared=frozenset({"g"}),
    )
    one, two = -4.3 - 7.7 - 0.3, -7.3 - 6.3 - 0.5
    close(importance_weighted(t), math.log((math.exp(one) + math.exp(two)) / 2) / 2)
    close(importance_weighted(t, data_size=2), importance_weighted(t).item())
    with pytest.raises(ValueError, match="found the sites g outside the data plate and 2 of 10 data"):
        importance_weighted(t, data_size=10)


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (partial(free_bits, per="site"), "free_bits: found per='site', want one of 'layer', 'unit', 'sample'"),
        (partial(soft_free_bits, per=""), "soft_free_bits: found per='', want"),
        (partial(free_bits, nats=-1.0), "free_bits: found nats=-1.0, want at least 0"),
        (partial(free_bits, nats=math.nan), "found nats=nan"),
        (partial(soft_free_bits, width=0.0), "found width=0.0, want more than 0"),
    ],
)
def test_arguments(objective, words):
    with pytest.raises(ValueError, match="^(soft_)?free_bits: ") as caught:
        objective(by_hand())
    assert words in str(caught.value)


# Terms of programs.


def linear(latent=(2, 2), seed=0) -> tuple[LinearGaussian, Tensor]:
    model = LinearGaussian(latent=latent, generator=torch.Generator().manual_seed(seed)).requires_grad_(False)
    return model, model(n=5)


def exact(model: LinearGaussian):
    """q(z1 | x) = p(z1 | x): a model of one latent."""

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.MultivariateNormal(model.posterior(x).mean, model.posterior(x).covariance_matrix))

    return guide


@pytest.mark.parametrize("particles", [1, 7])
def test_at_the_exact_posterior_every_bound_is_the_evidence(particles):
    model, x = linear((2,))
    evidence = model.log_evidence(x).mean()
    found = terms(model, exact(model), (x,), particles=particles, nesting=1, analytic=False)
    torch.testing.assert_close(elbo(found), evidence)
    torch.testing.assert_close(importance_weighted(found), evidence)


def test_the_bound_rises_with_particles_to_the_evidence():
    """Of the prior as a guide: E log mean_k w_k by 4000 replicates of each row; K = 1 in closed form."""
    model = LinearGaussian(1, (1,), weight=8.0, generator=torch.Generator().manual_seed(1)).requires_grad_(False)
    x = torch.full((4000, 1), 0.7)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z1", model._conditional("z1", {}))

    bounds = [importance_weighted(terms(model, guide, (x,), particles=k, nesting=1)).item() for k in (1, 4, 16, 256)]
    evidence = model.log_evidence(x[:1]).item()
    w, s, b = model.weight["x_z1"].item(), model.log_scale["x"].exp().item(), model.log_scale["z1"].exp().item()
    first = -math.log(s) - 0.5 * math.log(2 * math.pi) - (0.7**2 + (w * b) ** 2) / (2 * s**2)
    spread = math.sqrt((2 * (w * b) ** 4 + 4 * 0.7**2 * (w * b) ** 2) / 4) / s**2
    assert bounds[0] == pytest.approx(first, abs=5 * spread / math.sqrt(4000))
    assert bounds == sorted(bounds) and bounds[-1] == pytest.approx(evidence, abs=0.01)


@pytest.mark.parametrize("analytic", [True, False])
@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("guide", [MeanField, SelfReflective, Ladder])
def test_units_sum_to_the_divergence(guide, particles, analytic):
    """In closed form and sampled; under the bijections that a self-reflective guide shares with the prior, too."""
    x = torch.rand(5, 8).round()
    model = SeReVAE(8, layers=3, latent=2, hidden=8) if guide is not MeanField else VAE(8, 3, hidden=8)
    found = terms(model, guide(model, x, hidden=8), (x,), None, particles, 1, analytic)
    units = found.kl_units
    for name, kl in found.kl.items():
        assert units[name].shape == (particles, 5, model.latent)
        torch.testing.assert_close(units[name].sum(-1), kl)
    one = {name: value.flatten() for name, value in units.items()}
    assert all((value >= 0).all() for value in one.values()) or not analytic
    floors = sum(units[n].mean((0, 1)).clamp(min=0.1).sum() for n in units)
    expected = sum(v.mean() for v in found.log_likelihood.values()) - floors
    torch.testing.assert_close(free_bits(found, nats=0.1, per="unit"), expected)


@pytest.mark.parametrize("weight", [2.0, torch.tensor([[1.0], [2.0], [3.0]])])
@pytest.mark.parametrize("particles", [1, 4])
def test_units_of_scaled_masked_and_plated_sites(particles, weight):
    """Coordinates times inner plates; scales and masks of a batch reach every coordinate."""
    kept = torch.tensor([[True], [False], [True]])

    def latents(data: pyro.plate, shift: float) -> None:
        pyro.sample("c", dist.Gamma(torch.full((5,), 2.0 + shift), 1.0).to_event(1))
        with data, pyro.poutine.scale(scale=weight), pyro.poutine.mask(mask=kept):
            pyro.sample("a", dist.Normal(torch.full((2,), shift), 1.0).to_event(1))
        with data, pyro.plate("pixels", 4, dim=-1):
            pyro.sample("b", dist.Normal(shift * torch.tensor([1.0, 2.0]), 1.0).to_event(1))

    def model(x: Tensor) -> None:
        data = pyro.plate("data", 3, dim=-2)
        latents(data, 0.0)
        with data:
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        latents(pyro.plate("data", 3, dim=-2), 1.0)

    found = terms(model, guide, (torch.zeros(3, 1),), particles=particles, nesting=2)
    units = found.kl_units
    assert found.shared == {"c"} and units["c"].shape[1:] == (1, 5)
    if not isinstance(weight, Tensor):  # tensors are not compared, so that with them the divergence is a sampled one
        torch.testing.assert_close(units["a"], torch.tensor([1.0, 0, 1.0])[:, None].expand(particles, 3, 2))
    torch.testing.assert_close(units["b"], torch.tensor([0.5, 2.0] * 4).expand(particles, 3, 8))
    for name, kl in found.kl.items():
        torch.testing.assert_close(units[name].sum(-1).expand_as(kl), kl)


@pytest.mark.parametrize("family", ["full", "rank-one"])
def test_factors_that_are_no_product_have_no_units(family):
    x = torch.rand(5, 8).round()
    model = VAE(8, 3, hidden=8)
    found = terms(model, MeanField(model, x, hidden=8, family=family), (x,))
    with pytest.raises(ValueError, match="site 'z1' has no divergences by unit: found the factor .*Normal and the pr"):
        free_bits(found, per="unit")
    assert torch.isfinite(free_bits(found))
    with pytest.raises(ValueError, match="put together without units"):
        free_bits(by_hand(units=None), per="unit")


def test_a_guide_in_another_order_has_sampled_units():
    x = torch.rand(5, 3)
    model = LinearGaussian(latent=(2, 2), generator=torch.Generator().manual_seed(0))
    found = terms(model, BottomUp(model, x, hidden=8), (x,))
    for name, kl in found.kl.items():
        torch.testing.assert_close(kl, found.log_q[name] - found.log_p[name])
        torch.testing.assert_close(found.kl_units[name].sum(-1), kl)


def test_passes_are_particles():
    x = torch.rand(5, 8).round()
    model = SeReVAE(8, layers=2, latent=2, hidden=8)
    guide = SelfReflective(model, x, hidden=8)
    found = [terms(model, guide, (x,), particles=k, nesting=1) for k in (1, 3, 2)]
    whole = concatenated(found)
    assert {v.shape for v in whole.log_q.values()} == {(6, 5)} and whole.kl_units["z1"].shape == (6, 5, 2)
    torch.testing.assert_close(elbo(whole), sum(k * elbo(f) for k, f in zip((1, 3, 2), found, strict=True)) / 6)
    assert concatenated(found[:1]) is found[0]


# Schedules.

SCHEDULES = st.one_of(
    st.builds(Constant, st.floats(-2, 2)),
    st.builds(Linear, st.integers(1, 50), st.floats(0, 2), st.floats(0, 2)),
    st.builds(Cyclic, st.integers(1, 50), st.floats(0.01, 1)),
    st.integers(1, 50).flatmap(lambda n: st.builds(Cosine, st.just(n), st.integers(0, n - 1))),
    st.builds(Exponential, st.floats(0.1, 100)),
    st.builds(Saturating, st.floats(0.1, 100)),
)


@given(SCHEDULES)
def test_a_schedule_survives_json(schedule):
    again = from_dict(json.loads(json.dumps(to_dict(schedule))))
    assert again == schedule and [again(t) for t in range(60)] == [schedule(t) for t in range(60)]


@given(st.integers(1, 200), st.integers(0, 400))
def test_the_schedules_that_fit_has(n, t):
    assert Linear(n)(t) == pytest.approx(min(1.0, (t + 1) / n), rel=1e-15)
    if t < n:
        assert Cosine(n)(t) == 0.5 * (1 + math.cos(math.pi * t / n))
    else:
        assert Linear(n)(t) == 1 and Cosine(n)(t) == 0


@given(st.integers(1, 50), st.floats(0.01, 1), st.integers(0, 500))
def test_cycles(period, rising, t):
    cyclic = Cyclic(period, rising)
    assert cyclic(t) == cyclic(t + period) and 0 <= cyclic(t) <= 1 and cyclic(t - t % period) == 0
    tau = (t % period) / period
    assert cyclic(t) == pytest.approx(tau / rising if tau <= rising else 1.0)


@given(st.integers(1, 50), st.floats(-3, 3), st.floats(-3, 3))
def test_a_line_ends_where_it_should(steps, start, end):
    line = Linear(steps, start, end)
    assert line(steps - 1) == line(steps + 7) == end
    assert line(0) == pytest.approx(start + (end - start) / steps)


def test_a_rise_before_the_wave():
    schedule = Cosine(10, warmup=4)
    assert [schedule(t) for t in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0] and schedule(7) == pytest.approx(0.5)


@given(st.floats(0.1, 1e5), st.integers(0, 400))
def test_a_rise_that_slows_down(steps, t):
    schedule = Saturating(steps)
    assert schedule(0) == 0 and schedule(t) == 1 - math.exp(-t / steps)
    assert 1 - schedule(t + 1) == pytest.approx((1 - schedule(t)) * math.exp(-1 / steps), abs=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Saturating(0), "Saturating: found steps=0, want more than 0"),
        (lambda: Linear(0), "Linear: found steps=0, want an integer of at least 1"),
        (lambda: Linear(2.0), "Linear: found steps=2.0"),
        (lambda: Linear(True), "Linear: found steps=True"),
        (lambda: Linear(3, end=math.inf), "Linear: found end=inf, want a finite number"),
        (lambda: Constant(math.nan), "Constant: found value=nan"),
        (lambda: Constant("1"), "Constant: found value='1'"),
        (lambda: Cyclic(0), "Cyclic: found period=0"),
        (lambda: Cyclic(4, 0.0), "Cyclic: found rising=0.0, want 0 < rising <= 1"),
        (lambda: Cosine(0), "Cosine: found total=0"),
        (lambda: Cosine(4, -1), "Cosine: found warmup=-1"),
        (lambda: Cosine(4, 4), "Cosine: found warmup=4 of total=4 steps, want fewer"),
        (lambda: Exponential(0), "Exponential: found half_life=0, want more than 0"),
        (lambda: from_dict({"kind": "Step"}), "from_dict: found the kind 'Step', want one of Constant, Linear"),
        (lambda: from_dict({}), "from_dict: found the kind None"),
        (lambda: from_dict({"kind": "Linear", "step": 3}), "from_dict: found fields ['step'] of a Linear"),
        (lambda: from_dict({"kind": "Linear", "steps": 0}), "Linear: found steps=0"),
        (lambda: to_dict(lambda step: 1.0), "to_dict: found <function"),
    ],
)
def test_schedules_that_are_none(make, words):
    with pytest.raises(ValueError) as caught:
        make()
    assert words in str(caught.value)
