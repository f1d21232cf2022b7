"""`LinearGaussian`: every closed form against a computation that does not share its algebra."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pyro
import pyro.poutine as poutine
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import multivariate_normal
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from ppl_models.linear_gaussian import FAMILIES, STRUCTURES, LinearGaussian

SKIPS = {"z3": ("z2", "z1"), "x": ("z3", "z1")}


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.double)
    pyro.set_rng_seed(0)
    yield
    torch.set_default_dtype(before)


def seeded(seed: int = 0, bias: float = 0.0, **arguments: object) -> LinearGaussian:
    """A frozen model; `bias` scales random means, which the initialization leaves at zero."""
    generator = torch.Generator().manual_seed(seed)
    model = LinearGaussian(generator=generator, **arguments).requires_grad_(False)
    for value in model.bias.values():
        value.copy_(bias * torch.randn(value.shape, generator=generator))
    return model


def log_joint(model: LinearGaussian, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z) per datum, from a Pyro trace of the model at the concatenated latents z."""
    blocks = model.blocks()
    values = {site: z[..., blocks[site]] for site in model.latents}
    trace = poutine.trace(poutine.condition(model, values)).get_trace(x)
    trace.compute_log_prob()
    return sum(trace.nodes[site]["log_prob"] for site in (*model.latents, "x"))


@st.composite
def models(draw: st.DrawFn) -> LinearGaussian:
    """Any directed acyclic graph over 1 to 4 latents: skips, several roots, childless latents."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    names = [f"z{layer}" for layer in range(1, len(sizes) + 1)]
    parents = {}
    for place, site in enumerate([*names, "x"]):
        if place and draw(st.booleans()):
            chosen = st.lists(st.sampled_from(names[:place]), unique=True, min_size=int(site == "x"))
            parents[site] = tuple(draw(chosen))
    seed, event = draw(st.integers(0, 999)), draw(st.integers(1, 3))
    return seeded(seed, 0.7, event=event, latent=sizes, parents=parents)


# reference/factorization.md, section 6.2; its z3, z2, z1 are z1, z2, z3 here
@pytest.mark.parametrize(
    ("structure", "family", "nats"),
    [
        ("mean-field", "full", 1.2203),
        ("mean-field", "diagonal", 1.3233),
        ("top-down", "full", 0.0),
        ("top-down", "diagonal", 0.1031),
        ("bottom-up", "full", 0.0),
        ("bottom-up", "diagonal", 0.1193),
    ],
)
def test_gap_reproduces_the_table(structure: str, family: str, nats: float) -> None:
    assert seeded().gap(structure, family).item() == pytest.approx(nats, abs=5e-5)


def test_draws_do_not_depend_on_the_default_dtype() -> None:
    exact = seeded(parents=SKIPS)
    torch.set_default_dtype(torch.float)
    rounded = seeded(parents=SKIPS)
    assert rounded.state_dict().keys() == exact.state_dict().keys()
    for key, value in rounded.state_dict().items():
        assert value.dtype == torch.float
        torch.testing.assert_close(value, exact.state_dict()[key].float(), rtol=0, atol=0)


def test_global_generator_is_the_default_one() -> None:
    torch.manual_seed(3)
    drawn = LinearGaussian().state_dict()
    for key, value in seeded(3).state_dict().items():
        torch.testing.assert_close(drawn[key], value, rtol=0, atol=0)


def test_parameters_are_named_for_edges_and_sites() -> None:
    names = {name for name, _ in LinearGaussian(2, (3, 1), {"x": ("z2", "z1")}).named_parameters()}
    assert names == {"weight.z2_z1", "weight.x_z2", "weight.x_z1"} | {
        f"{kind}.{site}" for kind in ("bias", "log_scale") for site in ("z1", "z2", "x")
    }


def test_trace_has_the_sites_in_generation_order() -> None:
    trace = poutine.trace(seeded(parents=SKIPS)).get_trace(n=4)
    sites = [name for name, site in trace.nodes.items() if site["type"] == "sample" and name != "data"]
    assert sites == ["z1", "z2", "z3", "x"]
    assert [tuple(trace.nodes[site]["value"].shape) for site in sites] == [(4, 2), (4, 2), (4, 2), (4, 3)]
    assert not trace.nodes["x"]["is_observed"]
    x = trace.nodes["x"]["value"]
    observed = poutine.trace(seeded()).get_trace(x).nodes["x"]
    assert observed["is_observed"] and observed["value"] is x


def test_joint_agrees_with_ancestral_samples() -> None:
    model, n = seeded(1, 1.0, parents=SKIPS), 200_000
    trace = poutine.trace(model).get_trace(n=n)
    v = torch.cat([trace.nodes[site]["value"] for site in model.blocks()], -1)
    mean, covariance = model.joint()
    variance = covariance.diagonal()
    # five standard errors of a sample mean and of a sample covariance of Gaussians
    assert ((v.mean(0) - mean).abs() < 5 * (variance / n).sqrt()).all()
    error = 5 * ((variance.outer(variance) + covariance.square()) / n).sqrt()
    assert ((v.T.cov() - covariance).abs() < error).all()


def test_log_evidence_agrees_with_scipy() -> None:
    model = seeded(2, 1.0)
    w = {edge: value.numpy() for edge, value in model.weight.items()}
    b = {site: value.numpy() for site, value in model.bias.items()}
    noise = {site: np.diag(np.exp(2 * value.numpy())) for site, value in model.log_scale.items()}
    mean, covariance = b["z1"], noise["z1"]  # pushed down the chain, layer by layer
    for site, parent in (("z2", "z1"), ("z3", "z2"), ("x", "z3")):
        a = w[f"{site}_{parent}"]
        mean, covariance = a @ mean + b[site], a @ covariance @ a.T + noise[site]
    x = model(n=7)
    expected = multivariate_normal(mean, covariance).logpdf(x.numpy())
    np.testing.assert_allclose(model.log_evidence(x).numpy(), expected, rtol=1e-12)


def test_log_evidence_agrees_with_quadrature() -> None:
    model = seeded(4, 1.0, event=2, latent=(1,))
    x = model(n=3)
    grid = torch.linspace(-12, 12, 4001)
    z = grid[:, None, None].expand(-1, 3, 1)
    integral = log_joint(model, x, z).logsumexp(0) + math.log(24 / 4000)  # trapezoids; the ends vanish
    torch.testing.assert_close(model.log_evidence(x), integral, rtol=1e-10, atol=0)


@settings(max_examples=60, deadline=None)
@given(model=models())
def test_posterior_evidence_and_gaps_on_any_graph(model: LinearGaussian) -> None:
    pyro.set_rng_seed(0)
    x = model(n=5)
    posterior, evidence = model.posterior(x), model.log_evidence(x)
    assert posterior.batch_shape == evidence.shape == (5,)
    # Bayes: log p(x, z) - log p(z | x) = log p(x) at every z, typical of the posterior or not; 4 particles
    for z in (posterior.sample((4,)), 2 * torch.randn(4, *posterior.mean.shape)):
        bayes = log_joint(model, x, z) - posterior.log_prob(z)
        torch.testing.assert_close(bayes, evidence.expand(4, 5), rtol=1e-8, atol=1e-8)
    gap = {words: model.gap(*words).item() for words in itertools.product(STRUCTURES, FAMILIES)}
    assert gap["top-down", "full"] == gap["bottom-up", "full"] == 0
    assert gap["mean-field", "full"] >= -1e-12
    for structure in STRUCTURES[1:]:  # a mean field is one of either, so it cannot lose less
        assert -1e-12 <= gap[structure, "diagonal"] <= gap["mean-field", "diagonal"] + 1e-12
    assert gap["mean-field", "full"] <= gap["mean-field", "diagonal"] + 1e-12


def best_guide(model: LinearGaussian, structure: str, family: str) -> Tensor:
    """Precision of q = prod_l q(z_l | what it sees, x), each factor as good as its family allows.

    By regression within the posterior covariance, on what the factor sees (mean field: on all the rest).
    """
    covariance = model.posterior(torch.zeros(1, model.event)).covariance_matrix[0]
    blocks, order = model.blocks(), model.latents[:: -1 if structure == "bottom-up" else 1]
    index = {site: list(range(blocks[site].start, blocks[site].stop)) for site in order}
    precision = torch.zeros_like(covariance)
    for place, site in enumerate(order):
        own = index[site]
        other = [i for name in order if name != site for i in index[name]]
        seen = other if structure == "mean-field" else [i for name in order[:place] for i in index[name]]
        slope = torch.linalg.solve(covariance[seen][:, seen], covariance[seen][:, own]).T
        kept = torch.linalg.inv(covariance[own][:, own] - slope @ covariance[seen][:, own])
        if family == "diagonal":
            kept = kept.diagonal().diag()
        residual = torch.zeros(len(own), len(covariance))
        residual[:, own] = torch.eye(len(own))
        if structure != "mean-field":
            residual[:, seen] = -slope
        precision += residual.T @ kept @ residual
    return precision


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("family", FAMILIES)
def test_gap_is_the_divergence_of_the_best_guide(structure: str, family: str) -> None:
    model = seeded(5, latent=(2, 1, 3), parents=SKIPS)
    exact = model.posterior(torch.zeros(1, 3))
    best = best_guide(model, structure, family)

    def divergence(precision: Tensor) -> float:
        return kl_divergence(MultivariateNormal(exact.mean, precision_matrix=precision), exact).item()

    gap = model.gap(structure, family).item()
    assert divergence(best) == pytest.approx(gap, abs=1e-10)
    for factor in (0.9, 1.1):
        assert divergence(factor * best) > gap


def test_single_precision_is_good_enough_for_wide_models() -> None:
    model = seeded(6, event=32, latent=(32, 32, 32, 32))  # condition number of the covariance: 8e8
    x = model(n=4)
    evidence, mean, gap = model.log_evidence(x), model.posterior(x).mean, model.gap()
    model, x = model.float(), x.float()
    rounded = model.log_evidence(x), model.posterior(x).mean, model.gap()
    for single, exact in zip(rounded, (evidence, mean, gap), strict=True):
        torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=5e-3)


def test_particles_broadcast() -> None:
    model = seeded(parents={"z2": (), "x": ("z3", "z1")})
    with pyro.plate("particles", 6, dim=-2):
        trace = poutine.trace(model).get_trace(n=4)
    assert trace.nodes["x"]["value"].shape == (6, 4, 3)
    assert trace.nodes["z2"]["value"].shape == (6, 4, 2)


def test_log_evidence_and_gap_are_differentiable() -> None:
    model = LinearGaussian(parents=SKIPS, generator=torch.Generator().manual_seed(0))
    x = torch.randn(6, 3)
    for function in (lambda: model.log_evidence(x).mean(), lambda: model.gap("top-down", "diagonal")):
        model.zero_grad()
        function().backward()
        for key in ("weight.x_z1", "log_scale.z2"):
            parameter = model.get_parameter(key)
            entry = parameter.data.view(-1)[1:2]
            entry += 1e-5
            above = function().item()
            entry -= 2e-5
            slope = (above - function().item()) / 2e-5
            entry += 1e-5
            assert parameter.grad.view(-1)[1].item() == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"latent": ()}, r"found latent=\(\), want an integer of at least 1, or several"),
        ({"latent": (2, 0)}, r"found latent=\(2, 0\), want an integer of at least 1, or several"),
        ({"latent": (2.0,)}, r"found latent=\(2.0,\), want an integer of at least 1, or several"),
        ({"event": -1}, "found event=-1, want an integer of at least 1"),
        (
            {"parents": {"z4": ("z1",)}},
            "found parents of 'z4', which is no site, want some of z1, z2, z3, x; rename",
        ),
        (
            {"parents": {"z2": ("z3",)}},
            r"found parents of 'z2' \('z3',\), want earlier latents \(z1\), each once; drop 'z3'",
        ),
        ({"parents": {"z1": ("z1",)}}, r"parents of 'z1' .* latents \(there are none\), each once; drop 'z1'"),
        ({"parents": {"x": ("z1", "y")}}, r"parents of 'x' .* latents \(z1, z2, z3\), each once; drop 'y'"),
        ({"parents": {"x": ("z1", "z1")}}, "parents of 'x' .* each once; drop the repeats"),
        ({"parents": {"x": "z1"}}, r"parents of 'x' 'z1', want a tuple of names; try \('z1',\)"),
        ({"parents": {"x": 3}}, r"parents of 'x' 3, want a tuple of names; try \('z1',\), or \(\) for none"),
        ({"parents": {"x": {"z1": 1}}}, "parents of 'x' a dict of length 1, want a tuple of names"),
    ],
)
def test_bad_graphs_are_refused(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        LinearGaussian(**arguments)


def test_bad_words_are_refused() -> None:
    with pytest.raises(ValueError, match="found structure='ladder', want one of 'mean-field', 'top-down', 'bottom-up'"):
        seeded().gap("ladder")
    with pytest.raises(ValueError, match="found family='low-rank', want 'full' or 'diagonal'"):
        seeded().gap("top-down", "low-rank")


@pytest.mark.parametrize("method", ["forward", "log_evidence", "posterior"])
def test_bad_data_are_refused(method: str) -> None:
    function = getattr(seeded(), method)
    text = r"site 'x': found dtype torch.float32, want the model's torch.float64; try x.to\(torch.float64\)"
    with pytest.raises(TypeError, match=text):
        function(torch.zeros(2, 3, dtype=torch.float))
    integers = torch.zeros(2, 3, dtype=torch.long)
    for x in (torch.zeros(2, 4), torch.zeros(0, 3), torch.full((2, 3), math.nan), integers):
        with pytest.raises((ValueError, TypeError), match="x"):
            function(x)
