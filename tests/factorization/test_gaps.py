"""`factorization.gaussian`: prices against tables, closed forms and routes that do not share their algebra."""

import random
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from ppl_models import LinearGaussian
from ppl_models.factorization import Factorization, judge
from ppl_models.factorization.nats import gaussian
from ppl_models.factorization.nats.gaussian import GaussianJoint, Price, price
from ppl_models.factorization.nats.quadratic import linear_gaussian
from ppl_models.programs.laboratory.torch_density import TorchDensity
from tests.helpers.cases import few

# What is no dependence comes out as squared rounding errors, 1e-27. A dependence along a path is a product of the
# path's weights squared, and small if they are: the random models keep all of them FLOOR away from 0, or one factor in
# a thousand would lose less than LOSS nats, such as 2e-8 for five weak steps.
NOTHING, LOSS, FLOOR = 1e-9, 1e-6, 0.5


def linear(
    parents: dict[str, tuple[str, ...]],
    sizes: dict[str, int],
    observed: tuple[str, ...],
    generator: torch.Generator,
    floor: float = 0.0,
) -> GaussianJoint:
    """The recipe of reference/factorization.md, section 6.2: weights, then noise variances, in model order."""
    ends = torch.tensor([0, *sizes.values()]).cumsum(0).tolist()
    blocks = {site: slice(*span) for site, span in zip(sizes, zip(ends, ends[1:], strict=False), strict=True)}
    draw = {"generator": generator, "dtype": torch.double}
    root = torch.zeros(ends[-1], ends[-1], dtype=torch.double)
    for site, block in blocks.items():
        for parent in parents[site]:
            weight = 0.9 * torch.randn(sizes[site], sizes[parent], **draw)
            weight += floor * weight.sign()
            root[block] += weight @ root[blocks[parent]]
        root[block, block] += (0.3 + torch.rand(sizes[site], **draw)).sqrt().diag()
    return GaussianJoint(root @ root.mT, blocks, observed)


def random_pair(seed: int, size: int = 2) -> tuple[Factorization, GaussianJoint, Factorization]:
    """A model on a random DAG and a guide of random order: 3-6 latents, 1-3 data, each edge with probability 0.4.

    Every third guide is a faithful inverse, every third one with an edge less, the others are random as the model.
    """
    source = random.Random(seed)
    latents = [f"z{i}" for i in range(source.randint(3, 6))]
    data = tuple(f"x{i}" for i in range(source.randint(1, 3)))
    sites = [*latents, *data]
    parents = {s: tuple(u for u in latents[: sites.index(s)] if source.random() < 0.4) for s in sites}
    sizes = {site: source.randint(1, size) for site in sites}
    joint = linear(parents, sizes, data, torch.Generator().manual_seed(seed), FLOOR)
    model = Factorization(parents, observed=data)
    source.shuffle(latents)
    if seed % 3 == 2:
        have = {z: tuple(u for u in (*data, *latents[:i]) if source.random() < 0.4) for i, z in enumerate(latents)}
    else:
        have = dict(model.faithful_inverse(latents).items())
        site, gone = source.choice([(z, u) for z in latents for u in have[z]] or [(latents[0], None)])
        if seed % 3 == 1:
            have[site] = tuple(u for u in have[site] if u != gone)
    return model, joint, Factorization(have, given=data, letter="q")


def missing(model: Factorization, guide: Factorization) -> dict[str, tuple[str, ...]]:
    return {row.site: tuple(row.missing) for row in judge(model, guide).rows}


def structure(parents: dict[str, str], given: tuple[str, ...] = ("x",)) -> Factorization:
    """A guide written as {"z1": "x", "z2": "z1 x"}."""
    return Factorization({site: tuple(names.split()) for site, names in parents.items()}, given=given, letter="q")


def chain(**arguments: object) -> GaussianJoint:
    model = LinearGaussian(generator=torch.Generator().manual_seed(0), **arguments).double()
    return GaussianJoint(model.joint()[1].detach(), model.blocks(), ("x",))


def skip() -> GaussianJoint:
    """The chain with z2 -> x; drawn anew, and faithful whatever was drawn."""
    return chain(parents={"x": ("z3", "z2")})


def fork() -> GaussianJoint:
    parents = {"a": (), "b": ("a",), "c": ("a",), "xb": ("b",), "xc": ("c",)}
    return linear(parents, dict.fromkeys(parents, 1), ("xb", "xc"), torch.Generator().manual_seed(0))


MEAN_FIELD = {"z3": "x", "z2": "x", "z1": "x"}
BOTTOM_UP = {"z3": "x", "z2": "z3", "z1": "z2"}
TOP_DOWN = {"z1": "x", "z2": "z1 x", "z3": "z2 x"}
WITH_SKIP = {"z1": "x", "z2": "z1 x", "z3": "z2 x"}
BLIND = {"z1": "x", "z2": "z1", "z3": "z2 x"}
PYRO = {"c": "xc", "b": "xb", "a": "b c"}
ALL_DATA = {"c": "xb xc", "b": "xb xc", "a": "b c"}
NAMI = {"c": "xb xc", "b": "c xb", "a": "b c"}
DIAGONAL = "diagonal"

# reference/factorization.md, section 6.2, every row; its z1, z2, z3 are z3, z2, z1 here
TABLE = [
    (chain, MEAN_FIELD, "full", 1.3314, 1.2203, 1.2203, {"z3": 0.000, "z2": 0.169, "z1": 1.163}),
    (chain, MEAN_FIELD, DIAGONAL, 1.4404, 1.3233, 1.3233, {"z3": 0.101, "z2": 0.173, "z1": 1.167}),
    (chain, BOTTOM_UP, "full", 0.0, 0.0, 0.0, {}),
    (chain, BOTTOM_UP, DIAGONAL, 0.1193, 0.1193, 0.1193, {"z3": 0.101, "z2": 0.018, "z1": 0.001}),
    (chain, TOP_DOWN, DIAGONAL, 0.1031, 0.1031, 0.1031, {"z1": 0.004, "z2": 0.003, "z3": 0.096}),
    (chain, TOP_DOWN, "full", 0.0, 0.0, 0.0, {}),
    (chain, BLIND, "full", 0.1936, 0.1952, 0.0, {"z2": 0.194}),
    (skip, WITH_SKIP, "full", 0.0, 0.0, 0.0, {}),
    (fork, PYRO, "full", 0.0185, 0.0185, 0.0106, {"b": 0.018}),
    (fork, ALL_DATA, "full", 0.0106, 0.0106, 0.0106, {"b": 0.011}),
    (fork, NAMI, "full", 0.0, 0.0, 0.0, {}),
]


@pytest.mark.parametrize(("build", "parents", "family", "forward", "elbo", "per_x", "sites"), TABLE)
def test_the_table_of_prices(
    build: Callable[[], GaussianJoint],
    parents: dict[str, str],
    family: str,
    forward: float,
    elbo: float,
    per_x: float,
    sites: dict[str, float],
) -> None:
    joint = build()
    guide = structure(parents, joint.observed)
    found = price(joint, guide, family=family)
    assert found.forward == pytest.approx(forward, abs=5e-5)
    assert found.elbo == pytest.approx(elbo, abs=5e-5)
    assert found.sites == pytest.approx(dict.fromkeys(parents, 0.0) | sites, abs=5e-4)
    # fitted datum by datum a factor has all the data for constants
    fitted = Factorization({z: (*joint.observed, *p) for z, p in guide.items()}, given=joint.observed, letter="q")
    assert price(joint, fitted, family=family).elbo == pytest.approx(per_x, abs=5e-5)


@pytest.mark.parametrize("family", ["full", "diagonal"])
@pytest.mark.parametrize(
    ("name", "parents"),
    [
        ("mean-field", MEAN_FIELD),
        ("top-down", {"z1": "x", "z2": "z1 x", "z3": "z1 z2 x"}),
        ("bottom-up", {"z3": "x", "z2": "z3 x", "z1": "z2 z3 x"}),
    ],
)
def test_the_elbo_agrees_with_the_closed_forms(name: str, parents: dict[str, str], family: str) -> None:
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        skips = {"z3": ("z2", "z1"), "x": ("z3", "z1")} if seed % 2 else {}
        model = LinearGaussian(parents=skips, latent=(1, 3, 2), generator=generator).double().requires_grad_(False)
        joint = GaussianJoint(model.joint()[1].detach(), model.blocks(), ("x",))
        found = price(joint, structure(parents), family=family).elbo
        assert found == pytest.approx(model.gap(name, family).item(), abs=1e-8)


def forward_by_regression(joint: GaussianJoint, guide: Factorization) -> float:
    """E_x KL( p(z | x) || q ) of the guide whose conditionals are the least squares fits of its sites.

    q's joint with p(x) is composed as a covariance; then E_x KL is the KL of the two joints.
    """
    covariance, blocks = torch.from_numpy(joint.covariance), joint.blocks
    places = {node: torch.arange(len(covariance))[block] for node, block in blocks.items()}
    nodes = [*joint.observed, *guide.parents]
    order = torch.cat([places[node] for node in nodes])
    known = torch.cat([places[node] for node in joint.observed])
    composed = torch.zeros_like(covariance)
    composed[known[:, None], known] = covariance[known[:, None], known]
    for site, have in guide.items():
        own, given = places[site][:, None], torch.cat([places[site][:0], *(places[node] for node in have)])[:, None]
        fit = torch.linalg.lstsq(covariance[given, given.mT], covariance[given, own.mT]).solution.mT
        noise = covariance[own, own.mT] - fit @ covariance[given, own.mT]
        composed[own, known] = fit @ composed[given, known]
        composed[known[:, None], own.mT] = composed[own, known].mT
        composed[own, own.mT] = fit @ composed[given, given.mT] @ fit.mT + noise
        known = torch.cat([known, places[site]])
    mean = torch.zeros(len(order), dtype=torch.double)
    exact = MultivariateNormal(mean, covariance[order[:, None], order])
    return kl_divergence(exact, MultivariateNormal(mean, composed[order[:, None], order])).item()


def test_the_forward_price_is_that_of_the_guide_found_by_regression() -> None:
    for seed in range(200):
        _, joint, guide = random_pair(seed)
        found = price(joint, guide, elbo=False)
        assert found.forward == pytest.approx(forward_by_regression(joint, guide), abs=1e-8)
        assert found.forward == pytest.approx(sum(found.sites.values()), abs=1e-12)
        assert min(found.sites.values()) >= 0


@pytest.mark.parametrize(("pairs", "minimized"), few([(100, 8), (300, 24)], lambda pairs, minimized: pairs == 100))
def test_a_price_is_zero_exactly_where_the_structure_is_faithful(
    pairs: int, minimized: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaussian, "NOTHING", -1.0)  # minimize even where there is nothing to find
    verdicts = []
    for seed in range(pairs):
        model, joint, guide = random_pair(seed)
        verdict = judge(model, guide)
        verdicts.append(verdict.faithful)
        found = price(joint, guide, elbo=seed < minimized)
        for nats in [found.forward, found.elbo][: 1 + (seed < minimized)]:
            assert nats < NOTHING if verdict.faithful else nats > LOSS, (seed, nats)
        # and factor by factor
        for row in verdict.rows:
            nats = found.sites[row.site]
            assert nats > LOSS if row.missing else nats < NOTHING, (seed, row, nats)
    assert pairs / 4 < sum(verdicts) < 3 * pairs / 4


def test_an_edge_is_worth_what_adding_it_saves() -> None:
    priced = 0
    for seed in range(60):
        model, joint, guide = random_pair(seed)
        for family in ("full", "diagonal"):
            before = price(joint, guide, missing(model, guide), elbo=False, family=family)
            for (site, u), worth in before.edges.items():
                wider = Factorization(dict(guide.items()) | {site: (*guide.parents[site], u)}, given=guide.given)
                after = price(joint, wider, elbo=False, family=family)
                assert worth == pytest.approx(before.sites[site] - after.sites[site], abs=1e-9)
                priced += 1
    assert priced > 100


def test_latents_that_the_guide_lacks_are_summed_out() -> None:
    joint = chain()
    assert price(joint, structure({"z1": "x", "z3": "z1 x"})).elbo == 0
    lost = price(joint, structure({"z1": "x", "z3": "x"}), {"z3": ("z1",)})
    assert lost.elbo > LOSS and lost.edges["z3", "z1"] == pytest.approx(lost.forward)


def divergence_nearby(joint: GaussianJoint, guide: Factorization, seed: int) -> float:
    """E_x KL( q || p ) of a guide near the least squares fits, by the KL of the two joints."""
    covariance, draw = (
        torch.from_numpy(joint.covariance),
        {"generator": torch.Generator().manual_seed(seed), "dtype": torch.double},
    )
    places = {node: torch.arange(len(covariance))[block] for node, block in joint.blocks.items()}
    slopes, noise = torch.zeros_like(covariance), torch.zeros_like(covariance)
    data = torch.cat([places[node] for node in joint.observed])[:, None]
    noise[data, data.mT] = torch.linalg.cholesky(covariance[data, data.mT])
    for site, have in guide.items():
        own, given = places[site][:, None], torch.cat([places[site][:0], *(places[node] for node in have)])[:, None]
        fit = torch.linalg.lstsq(covariance[given, given.mT], covariance[given, own.mT]).solution.mT
        slopes[own, given.mT] = fit + 0.1 * torch.randn(fit.shape, **draw)
        rest = covariance[own, own.mT] - fit @ covariance[given, own.mT]
        noise[own, own.mT] = (0.6 + 0.5 * torch.rand((), **draw)) * torch.linalg.cholesky(rest)
    root = torch.linalg.solve(torch.eye(len(covariance), dtype=torch.double) - slopes, noise)
    mean = torch.zeros(len(covariance), dtype=torch.double)
    q = MultivariateNormal(mean, root @ root.mT)
    return kl_divergence(q, MultivariateNormal(mean, covariance)).item()


def test_no_guide_of_the_structure_has_a_smaller_gap() -> None:
    for seed in range(2, 32, 3):
        _, joint, guide = random_pair(seed)
        found = price(joint, guide).elbo
        assert all(divergence_nearby(joint, guide, draw) >= found - 1e-9 for draw in range(50))


def test_gradients_and_modes_of_the_caller_do_not_matter() -> None:
    joint, guide = chain(), structure(BLIND)
    with torch.no_grad():
        quiet = price(joint, guide)
        assert linear_gaussian(TorchDensity(lambda v: -v @ v), {"z": 1, "x": 2}, ("x",)) is not None
    assert quiet == price(joint, guide)


def test_a_price_is_cheap() -> None:
    _, joint, guide = random_pair(8)
    calls = []
    sys.setprofile(lambda frame, event, what: calls.append(event) if event.endswith("call") else None)
    try:
        assert isinstance(price(joint, guide), Price)
    finally:
        sys.setprofile(None)
    assert len(calls) < 3e5, len(calls)


def plain(build: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Callable[[Tensor], Tensor]:
    """z ~ N(0, I), x ~ N(loc(z), scale(z)), two coordinates each."""

    def log_density(v: Tensor) -> Tensor:
        loc, scale = build(v[:2], WEIGHT)
        noise = torch.distributions.Normal(loc, scale).log_prob(v[2:]).sum()
        return torch.distributions.Normal(0.0, 1.0).log_prob(v[:2]).sum() + noise

    return log_density


WEIGHT = torch.tensor([[0.7, -0.4], [0.2, 1.1]], dtype=torch.double)
ONE = torch.ones(2, dtype=torch.double)
SIZES = {"z": 2, "x": 2}
NOT_LINEAR_GAUSSIAN = {
    "tanh": plain(lambda z, w: (torch.tanh(w @ z), ONE)),
    "weak tanh": plain(lambda z, w: (z + torch.tanh(1e-3 * w @ z), ONE)),
    "relu": plain(lambda z, w: (torch.relu(w @ z), ONE)),
    "relu far away": plain(lambda z, w: (torch.relu(w @ z - 20.0), ONE)),
    "relu network": plain(lambda z, w: (w @ torch.relu(w @ z + 0.5) + z, ONE)),
    "leaky relu": plain(lambda z, w: (F.leaky_relu(w @ z, 0.9), ONE)),
    "scale of z": plain(lambda z, w: (w @ z, torch.exp(0.3 * z / (1 + z.abs())))),
    "square": plain(lambda z, w: (w @ z.square(), ONE)),
    "Student-t": lambda v: torch.distributions.StudentT(4.0).log_prob(v).sum(),
    "Laplace": lambda v: -v.abs().sum(),
    "improper": lambda v: -v[:3].square().sum(),
    "upside down": lambda v: v.square().sum(),
    "linear": lambda v: v.sum(),
    "nan": lambda v: v.sum().log(),
    "an exception": lambda v: torch.distributions.Gamma(ONE[0], 1.0, validate_args=True).log_prob(v).sum(),
    "no gradient": lambda v: -v.detach().square().sum(),
    "a number": lambda v: 3.0,
}


@pytest.mark.parametrize("name", NOT_LINEAR_GAUSSIAN)
def test_the_detector_rejects(name: str) -> None:
    for seed in range(5):
        assert linear_gaussian(TorchDensity(NOT_LINEAR_GAUSSIAN[name]), SIZES, ("x",), seed=seed) is None


def test_the_detector_finds_the_covariance_of_linear_gaussian_models() -> None:
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        model = LinearGaussian(parents={"x": ("z3", "z1")}, generator=generator).double().requires_grad_(False)
        for value in model.bias.values():
            value.copy_(5 * torch.randn(value.shape, generator=generator))
        mean, covariance = model.joint()
        density = MultivariateNormal(mean, covariance)
        found = linear_gaussian(TorchDensity(lambda v, p=density: p.log_prob(v) - 7.0), model.sizes, ("x",))
        assert found is not None
        assert found.blocks == model.blocks() and found.observed == ("x",)
        torch.testing.assert_close(torch.from_numpy(found.covariance), covariance, rtol=1e-8, atol=1e-8)


def test_the_detector_accepts_scales_far_from_one() -> None:
    scales = torch.tensor([1e-3, 1.0, 1e3, 1.0], dtype=torch.double)
    density = TorchDensity(lambda v: -(v / scales).square().sum() / 2 - (v[0] - v[3]) ** 2)
    found = linear_gaussian(density, SIZES, ("x",))
    assert found is not None
    precision = np.linalg.inv(found.covariance)
    assert precision[0, 3].item() == pytest.approx(-2, rel=1e-4)


GOOD = torch.eye(3, dtype=torch.double)
BLOCKS = {"z": slice(0, 1), "y": slice(1, 2), "x": slice(2, 3)}


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: GaussianJoint(GOOD[:2], BLOCKS, ("x",)), r"\(2, 3\)"),
        (lambda: GaussianJoint(GOOD + GOOD.roll(1), BLOCKS, ("x",)), "symmetric"),
        (lambda: GaussianJoint(GOOD * float("nan"), BLOCKS, ("x",)), "finite"),
        (lambda: GaussianJoint(torch.ones(3, 3), BLOCKS, ("x",)), "node 'y'"),
        (lambda: GaussianJoint(GOOD, {**BLOCKS, "x": slice(1, 3)}, ("x",)), "blocks"),
        (lambda: GaussianJoint(GOOD, BLOCKS, ("w",)), "'w'"),
        (lambda: price(GaussianJoint(GOOD, BLOCKS, ("x",)), structure({"u": "x"})), "'u'.*no latent"),
        (lambda: price(GaussianJoint(GOOD, BLOCKS, ("x",)), structure({"x": "y"}, ("y",))), "'x'.*no latent"),
        (lambda: price(GaussianJoint(GOOD, BLOCKS, ("x",)), structure({"z": "c"}, ("c",))), "site 'z'.*'c'"),
        (lambda: price(GaussianJoint(GOOD, BLOCKS, ("x",)), structure({"z": "x"}), {"z": ("y",)}), "site 'z'.*'y'"),
        (lambda: price(GaussianJoint(GOOD, BLOCKS, ("x",)), structure({"z": "x"}), {"y": ("x",)}), "'y'.*no site"),
        (
            lambda: price(GaussianJoint(GOOD, BLOCKS, ("x",)), structure({"z": "x"}), family="low rank"),
            "family 'low rank'",
        ),
        (lambda: linear_gaussian(TorchDensity(lambda v: v.sum()), {"z": 1}, ("x",)), "'x'"),
    ],
)
def test_errors_name_the_site(act: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        act()
