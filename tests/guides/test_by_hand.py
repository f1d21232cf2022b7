"""What guides are made of, against numbers worked out by hand: families, bases, chains of features, whole factors."""

import math
from types import SimpleNamespace
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions.transforms import IndependentTransform

from guides import BottomUp, Faithful, Infused, Ladder, MeanField, SelfReflective
from guides.infused import InfusedNormal
from guides.parts.encoders import BottomUpChain
from guides.parts.families import continuous as families
from guides.parts.families.continuous import Spread, gaussian_base, reshaped, uncoupled
from guides.parts.families.units import Units, in_units
from tests.helpers.families_by_hand import (
    CHAIN_FEATURES,
    CHAIN_W1,
    CHAIN_W2,
    CHAIN_X,
    FACTORS,
    PARENTS,
    RAW,
    SHIFTED,
    SLOPE,
    SPLINE,
    SPLINE_LOC,
    SPLINE_SCALE,
    SPLINE_SLOPE,
    SPLINE_VALUES,
    TWO,
    UNITS_LOC,
    UNITS_ROOT,
    inverse_softplus,
)

pytestmark = pytest.mark.usefixtures("double")


def tensor(value: object) -> object:
    return torch.tensor(value) if isinstance(value, tuple) else value


def close(found: Tensor, expected: object, rtol: float = 1e-9) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.double), rtol=rtol, atol=1e-10)


# Families


@pytest.mark.parametrize("name", FACTORS)
def test_factors_by_hand(name):
    """log N(z; m, C) = -1/2 (z - m)^T C^-1 (z - m) - 1/2 log |2 pi C|, of the mean and covariance by hand."""
    case = FACTORS[name]
    family = getattr(families, case.family)()
    assert family.count(len(case.mean), case.method == "precision_weighted") == len(case.raw)
    q = getattr(family, case.method)(torch.tensor(case.raw), tensor(case.loc), tensor(case.scale))
    mean, covariance = torch.tensor(case.mean), torch.tensor(case.covariance)
    expected = torch.distributions.MultivariateNormal(mean, covariance)
    for z in (mean, mean + covariance.diagonal().sqrt(), mean - torch.linspace(0.1, 1.0, len(mean))):
        close(q.log_prob(z), expected.log_prob(z), 1e-8)


def test_the_spline_of_a_flow_by_hand():
    q = families.Flow(bins=2).residual(torch.tensor(SPLINE), SPLINE_LOC, SPLINE_SCALE)
    spline, affine = q.transforms
    for base, value in SPLINE_VALUES.items():
        close(affine(spline(torch.tensor([base]))), [value])
    zero = torch.tensor([0.0])
    close(spline.log_abs_det_jacobian(zero, spline(zero)), [math.log(SPLINE_SLOPE)])


def test_a_vector_as_a_matrix_is_read_row_by_row():
    loc, scale = torch.arange(6.0), torch.arange(1.0, 7.0)
    q = reshaped(dist.Normal(loc, scale).to_event(1), (2, 3))
    assert q.event_shape == (2, 3)
    close(q.mean, loc.reshape(2, 3))
    close(q.base_dist.scale, scale.reshape(2, 3))
    coupled = reshaped(dist.MultivariateNormal(loc, scale_tril=torch.eye(6) * scale), (3, 2))
    z = torch.randn(3, 2)
    close(coupled.log_prob(z), dist.Normal(loc, scale).log_prob(z.reshape(6)).sum())
    assert coupled.event_shape == (3, 2)


def test_a_joint_density_is_shared_out_equally():
    """A density of six entries over rows of two: three shares of a third each."""
    joint = dist.Normal(torch.arange(6.0).reshape(3, 2), 1.0).to_event(2)
    q, z = Spread(joint, 1), torch.ones(5, 3, 2)
    assert (q.batch_shape, q.event_shape, q.sample((4,)).shape) == ((3,), (2,), (4, 3, 2))
    total = sum(-0.5 * (1 - k) ** 2 - 0.5 * math.log(2 * math.pi) for k in range(6))
    close(q.log_prob(z), torch.full((5, 3), total / 3))
    wide = q.expand((7, 3))
    assert wide.batch_shape == (7, 3) and wide.joint.batch_shape == (7,)


# Bases of priors


def test_the_base_of_a_prior_by_hand():
    loc, scale = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.2, 3.0, 1.0])
    found = gaussian_base(dist.Normal(loc, scale).to_event(1))
    close(found[0], loc)
    close(found[1], scale)
    assert found[2:] == ((3,), [])
    # a matrix of which the rows belong to a batch, and a scalar that becomes a vector of one
    loc, scale, shape, _ = gaussian_base(
        dist.Normal(torch.arange(6.0).reshape(2, 3), 0.2).expand((5, 2, 3)).to_event(2)
    )
    assert (loc.shape, shape) == ((5, 6), (2, 3))
    close(scale, torch.full((5, 6), 0.2))
    loc, scale, shape, _ = gaussian_base(dist.Normal(torch.tensor([1.0, 2.0]), 3.0))
    assert loc.tolist() == [[1.0], [2.0]] and scale.tolist() == [[3.0], [3.0]] and shape == ()
    # bijections are taken off in their order, and event dims that only they have are kept
    transforms = [dist.transforms.AffineTransform(1.0, 2.0), dist.transforms.ExpTransform()]
    found = gaussian_base(dist.TransformedDistribution(dist.Normal(loc[:, 0], 0.2).to_event(1), transforms))
    close(found[0], [1.0, 2.0])
    close(found[1], [0.2, 0.2])
    assert found[2] == (2,) and found[3] == transforms
    assert gaussian_base(dist.Laplace(0.0, 1.0)) is None and gaussian_base(dist.Gamma(1.0, 1.0)) is None


def test_event_dims_are_given_back_one_by_one():
    q = dist.Normal(torch.zeros(4, 2, 3), 1.0).to_event(2)
    assert [(uncoupled(q, k).batch_shape, uncoupled(q, k).event_shape) for k in (0, 1, 2)] == [
        ((4,), (2, 3)),
        ((4, 2), (3,)),
        ((4, 2, 3), ()),
    ]
    twice = dist.Independent(dist.Normal(torch.zeros(4, 2, 3), 1.0).to_event(1), 1)  # one within the other
    assert [uncoupled(twice, k).batch_shape for k in (1, 2)] == [(4, 2), (4, 2, 3)]
    pushed = dist.TransformedDistribution(q, [dist.transforms.ExpTransform()])
    z = torch.full((4, 2, 3), 2.0)
    close(uncoupled(pushed, 1).log_prob(z), dist.LogNormal(0.0, 1.0).log_prob(z).sum(-1))
    of_events = dist.TransformedDistribution(q, [IndependentTransform(dist.transforms.ExpTransform(), 2)])
    assert uncoupled(of_events, 1).batch_shape == (4, 2)
    close(uncoupled(of_events, 2).log_prob(z), dist.LogNormal(0.0, 1.0).log_prob(z))
    assert uncoupled(dist.MultivariateNormal(torch.zeros(3), torch.eye(3)), 1) is None
    kept = torch.tensor([True, False, True, False])
    masked = uncoupled(q.mask(kept), 1)
    assert masked.batch_shape == (4, 2) and ((masked.log_prob(z) != 0).all(-1) == kept).all()


def test_what_is_linear_in_the_parents_is_added_to_the_shifts():
    units: Any = SimpleNamespace(slope=torch.tensor(SLOPE))
    close(Units.shifted(units, torch.tensor(RAW), [torch.tensor(p) for p in PARENTS]), SHIFTED)


def test_units_of_copies_are_each_its_own():
    """Flows of two entries for two copies: what each is alone; at rest a Gaussian, of covariance root root^T."""
    family, raw = families.Flow(bins=2), torch.linspace(-1.0, 1.0, 30).reshape(2, 15)
    loc, root = torch.tensor(UNITS_LOC), torch.tensor(UNITS_ROOT)
    z = torch.tensor([[0.3, 1.9], [4.0, -2.0]])
    together = in_units(family.residual(raw, 0.0, 1.0), loc, root).log_prob(z)
    alone = [in_units(family.residual(raw[k], 0.0, 1.0), loc[k], root[k]).log_prob(z[k]) for k in (0, 1)]
    close(together, torch.stack(alone))
    found = in_units(family.residual(torch.zeros(2, 15), 0.0, 1.0), loc, root).log_prob(z)
    close(found, dist.MultivariateNormal(loc, root @ root.mT).log_prob(z))


# Features


def test_the_chain_of_a_ladder_begins_at_the_last_latent():
    chain = BottomUpChain(["z1", "z2"], 2, 3, 0)
    for net, weight in zip(chain.nets, (CHAIN_W1, CHAIN_W2), strict=True):
        net.first[0].weight.data, net.first[0].bias.data = torch.tensor(weight), torch.zeros(3)
    found = chain(torch.tensor([CHAIN_X]))
    assert {*found} == {"z1", "z2"}
    for name, expected in CHAIN_FEATURES.items():
        close(found[name], [expected])


def silent(guide: torch.nn.Module, biases: dict[str, tuple[float, ...]]) -> None:
    """Networks that read nothing and give these numbers."""
    for name, raw in biases.items():
        network = getattr(guide.factors, f"q_{name}")
        for parameter in network.parameters():
            torch.nn.init.zeros_(parameter)
        network.bias.data = torch.tensor(raw)


def chain(x: Tensor) -> None:
    """Scales 1, 0.2 and 3, each layer around twice the layer above."""
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(torch.ones(1), 1.0).to_event(1))
        z2 = pyro.sample("z2", dist.Normal(2 * z1, 0.2).to_event(1))
        z3 = pyro.sample("z3", dist.Normal(2 * z2, 3.0).to_event(1))
        pyro.sample("x", dist.Normal(z3, 1.0).to_event(1), obs=x)


X = torch.tensor([[0.5], [-1.0]])


def drawn(guide: torch.nn.Module) -> tuple[dict[str, Tensor], dict[str, dist.Distribution]]:
    """(values, factors) of one run."""
    trace = poutine.trace(guide).get_trace(X.double())
    nodes = {name: trace.nodes[name] for name in ("z1", "z2", "z3")}
    return {n: node["value"] for n, node in nodes.items()}, {n: node["fn"] for n, node in nodes.items()}


def test_a_ladder_multiplies_each_estimate_with_the_prior_of_its_layer():
    """At z2 precision 25 of the estimate and 25 of the prior, at z3 1 and 1/9, whatever is drawn above."""
    guide = Ladder(chain, X.double(), hidden=4)
    shifts = {"z1": (0.0, 0.0), "z2": (3.0, inverse_softplus(0.04 - 1e-5)), "z3": (4.0, inverse_softplus(1 - 1e-5))}
    silent(guide, shifts)
    values, factors = drawn(guide)
    close(factors["z2"].mean, 3 + 2 * values["z1"] * 25 / 50)
    close(factors["z3"].mean, 4 + 2 * values["z2"] / 9 / (10 / 9))
    close(factors["z2"].variance, torch.full((2, 1), 1 / 50))
    close(factors["z3"].variance, torch.full((2, 1), 0.9))


def test_the_estimate_of_the_last_latent_reads_the_first_level_of_the_chain():
    guide = Ladder(chain, X.double(), hidden=4, parents="none")
    (levels,) = guide.factors.encoders
    features = [guide.factors.encode({key: X.double() for key in guide.layout.sizes})]
    levels.nets[2].first[0].bias.data += 1.0  # of the last level, that of the first latent
    levels.nets[2].first[0].weight.data += 1.0
    levels.nets[2].last.weight.data += torch.randn(4, 4)
    features.append(guide.factors.encode({key: X.double() for key in guide.layout.sizes}))
    assert torch.equal(features[0]["z3"], features[1]["z3"]) and torch.equal(features[0]["z2"], features[1]["z2"])
    assert not torch.allclose(features[0]["z1"], features[1]["z1"])


def test_a_residual_factor_starts_at_the_prior_and_moves_in_its_units():
    guide = SelfReflective(chain, X.double(), hidden=4, base="prior")
    silent(guide, dict.fromkeys(("z1", "z2", "z3"), (0.0, 0.0)))
    values, factors = drawn(guide)
    for name, mean, scale in (("z1", 1.0, 1.0), ("z2", 2 * values["z1"], 0.2), ("z3", 2 * values["z2"], 3.0)):
        close(factors[name].mean, torch.as_tensor(mean).expand(2, 1))
        close(factors[name].stddev, torch.full((2, 1), scale))
    silent(guide, {"z2": (0.5, TWO), "z3": (-1.0, TWO)})
    values, factors = drawn(guide)
    close(factors["z2"].mean, 2 * values["z1"] + 0.5)
    close(factors["z3"].mean, 2 * values["z2"] - 1)
    close(factors["z2"].stddev, torch.full((2, 1), 0.4))
    close(factors["z3"].stddev, torch.full((2, 1), 6.0))


def test_a_base_of_its_own_begins_at_that_of_the_prior_on_the_example():
    """As wide as the prior and its means together; then it follows the numbers of the network alone."""

    def spread_out(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(100 * x, 3.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    x = torch.tensor([[0.02], [0.1]]).double()
    guide = SelfReflective(spread_out, x, hidden=4)
    for raw, data, mean, scale in (((0.0, 0.0), x, 6.0, 5.0), ((0.5, TWO), 10 * x, 6.5, 10.0)):
        silent(guide, {"z": raw})
        factor = poutine.trace(guide).get_trace(data).nodes["z"]["fn"]
        close(factor.mean, torch.full((2, 1), mean))
        close(factor.stddev, torch.full((2, 1), scale))


def positive(x: Tensor) -> None:
    """A local latent above zero, and a scalar on the line."""
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Gamma(2.0, 3.0))
        b = pyro.sample("b", dist.Normal(a, 0.2))
        pyro.sample("x", dist.Normal(b, 1.0), obs=x)


@pytest.mark.parametrize("make", [MeanField, SelfReflective, BottomUp])
def test_a_free_factor_is_pushed_to_the_support(make):
    """log a ~ N(0.5, 2^2), as the log is what takes (0, inf) to the line."""
    x = torch.zeros(3)
    guide = make(positive, x, hidden=4)
    silent(guide, {"a": (0.5, TWO)})
    fn = poutine.trace(guide).get_trace(x).nodes["a"]["fn"]
    z = torch.tensor([0.5, 1.0, 4.0])
    normal = torch.distributions.Normal(0.5, 2.0)
    close(fn.log_prob(z), normal.log_prob(z.log()) - z.log())


def lognormal(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.LogNormal(0.0, 3.0))
        b = pyro.sample("b", dist.LogNormal(a.log(), 0.2))
        pyro.sample("x", dist.Normal(b, 1.0), obs=x)


@pytest.mark.parametrize(
    ("make", "raw", "own", "deviation"),
    [
        (SelfReflective, (0.5, TWO), 0.5, 0.4),
        (Ladder, (1.5, inverse_softplus(0.04 - 1e-5)), 1.5, 0.02**0.5),  # half of an estimate of 3, half of the prior
    ],
)
def test_bijections_of_the_prior_are_those_of_the_factor(make, raw, own, deviation):
    """log b ~ N(log a + 0.5, 0.4^2), or N((3 + log a) / 2, 0.02)."""
    x = torch.zeros(3)
    guide = make(lognormal, x, hidden=4, **({"base": "prior"} if make is SelfReflective else {}))
    silent(guide, {"b": raw})
    nodes = poutine.trace(guide).get_trace(x).nodes
    a, fn = nodes["a"]["value"], nodes["b"]["fn"]
    center = own + (a.log() if make is SelfReflective else a.log() / 2)
    z = torch.tensor([0.5, 1.0, 4.0])
    close(fn.log_prob(z), torch.distributions.Normal(center, deviation).log_prob(z.log()) - z.log())


@pytest.mark.parametrize("make", [MeanField, BottomUp, Faithful])
def test_factors_of_their_own_start_at_scale_one(make):
    guide = make(chain, X.double(), hidden=4)
    silent(guide, {"z1": (0.0, 0.0), "z2": (0.5, TWO), "z3": (0.0, 0.0)})
    _, factors = drawn(guide)
    for name, mean, scale in (("z1", 0.0, 1.0), ("z2", 0.5, 2.0), ("z3", 0.0, 1.0)):
        close(factors[name].mean, torch.full((2, 1), mean))
        close(factors[name].stddev, torch.full((2, 1), scale))


@pytest.mark.parametrize("make", [MeanField, Ladder, SelfReflective, BottomUp, Faithful])
def test_factors_of_data_start_with_the_usual_weights(make):
    """torch draws weights of a layer of 64 within 1/8; smaller ones let latents die in training."""
    guide = make(chain, X.double(), hidden=64)
    weight = guide.factors.q_z2.last.weight
    assert 0.9 / 8 < weight.abs().max() <= 1 / 8


def test_factors_of_globals_start_at_a_tenth_of_them():
    guide = Faithful(nested, torch.zeros(3, dtype=torch.double), hidden=64)
    weight = guide.factors.q_b.last.weight
    assert 0.09 / 8 < weight.abs().max() <= 0.1 / 8


def nested(x: Tensor) -> None:
    """A global given a global."""
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(a, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)


def test_a_network_of_global_parents_stays_bounded():
    x = torch.zeros(3)
    guide = Faithful(nested, x, hidden=8)
    assert guide.factors.parents == {"a": (), "b": ("a",)}
    far, further = (guide.factors.raw("b", {}, {"a": torch.tensor(value)}) for value in (1e6, 1e9))
    close(far, further, 1e-4)


def test_the_parent_of_a_factor_is_read_on_the_line():
    """A network of one linear map reads log a, not a."""
    x = torch.zeros(3)
    guide = SelfReflective(positive, x, hidden=4, depth=0, encoder="linear", parents="all", base="prior")
    network = guide.factors.q_b
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    network.first[1].weight.data = torch.tensor([[1.0], [0.0]])
    trace = poutine.trace(guide).get_trace(x)
    a, fn = trace.nodes["a"]["value"], trace.nodes["b"]["fn"]
    close(fn.mean, a + a.log())  # the prior's mean, moved by what the network reads
    # log a moves with the bias of its own network, and b with both
    (slope,) = torch.autograd.grad(fn.mean.sum(), guide.factors.q_a.bias)
    close(slope[0], (a + 1).sum())


def test_orders_of_guides():
    args = (X.double(),)
    assert [*Ladder(chain, *args, hidden=4).order] == ["z1", "z2", "z3"]
    guide = BottomUp(chain, *args, hidden=4)
    assert guide.order == ["z3", "z2", "z1"] and guide.factors.parents == {"z3": (), "z2": ("z3",), "z1": ("z2",)}
    guide = Faithful(chain, *args, hidden=4)
    assert guide.order == ["z1", "z2", "z3"] and guide.factors.parents == {"z1": (), "z2": ("z1",), "z3": ("z2",)}


# Factors in plates of their own


def triples(x: Tensor) -> None:
    """Three copies of a latent for each datum, of which one value is seen."""
    with pyro.plate("data", len(x), dim=-2):
        with pyro.plate("copies", 3, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0), obs=x)


@pytest.mark.parametrize("make", [MeanField, BottomUp])
def test_copies_in_a_private_plate_have_numbers_of_their_own(make):
    """Six numbers for three copies are (mean, log scale) of the first, of the second, of the third."""
    x = torch.zeros(4, 1)
    guide = make(triples, x, hidden=4)
    silent(guide, {"z": (1.0, 0.0, 2.0, TWO, 3.0, -TWO)})
    fn = poutine.trace(guide).get_trace(x).nodes["z"]["fn"]
    close(fn.mean.expand(4, 3), [[1.0, 2.0, 3.0]] * 4)
    close(fn.stddev.expand(4, 3), [[1.0, 2.0, 0.5]] * 4)


# Infused


def test_an_infused_normal_by_hand():
    """Two channels of two pixels: entries 0 and 2, and 1 and 3, are chosen together."""
    loc, scale, target = torch.zeros(4), torch.tensor([1.0, 2.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    z = torch.tensor([0.5, 1.0, 1.5, 2.0])

    def normal(value: float, mean: float, deviation: float) -> float:
        return math.exp(-0.5 * ((value - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))

    def pixel(*entries: int) -> float:
        own = math.prod(normal(z[i].item(), 0.0, scale[i].item()) for i in entries)
        infused = math.prod(normal(z[i].item(), target[i].item(), 0.5) for i in entries)
        return math.log(0.75 * own + 0.25 * infused)

    close(InfusedNormal(loc, scale, target, 0.25, 0.5).log_prob(z), sum(pixel(i) for i in range(4)))
    two = InfusedNormal(loc, scale, target, 0.25, 0.5, channels=2)
    close(two.log_prob(z), pixel(0, 2) + pixel(1, 3))
    close(two.mean, 0.25 * target)
    draws = InfusedNormal(loc, 1e-9 * scale, target, 0.25, 1e-9, channels=2).sample((2000,))
    chosen = draws > 0.5
    assert (chosen[:, :2] == chosen[:, 2:]).all()  # the channels of a pixel together
    shares = chosen[:, :2].double().mean(0)
    assert ((shares - 0.25).abs() < 5 * (0.25 * 0.75 / 2000) ** 0.5).all()  # five standard errors
    assert (draws - torch.where(chosen, target, 0.0)).abs().max() < 1e-6


def test_rates_rise_from_latent_to_latent():
    def steps(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = torch.zeros(1)
            for t in range(1, 5):
                z = pyro.sample(f"z{t}", dist.Normal(z, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    guide = Infused(steps, X.double(), rate=0.2, width=0.1)
    assert guide.rates == pytest.approx({"z1": 0.2, "z2": 0.2, "z3": 0.4, "z4": 0.5})
    fn = poutine.trace(guide).get_trace(X.double()).nodes["z3"]["fn"]
    assert (fn.rate, fn.width) == (0.4, 0.1)
    close(fn.target, X.double())
    x = torch.rand(2, 4)
    guide = Infused(pixels, x, image=(2, 1, 2))
    fn = poutine.trace(guide).get_trace(x).nodes["z"]["fn"]
    assert (fn.channels, fn.rate, fn.width) == (2, 0.02, 0.01)


def pixels(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
