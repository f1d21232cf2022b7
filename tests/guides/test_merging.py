"""Merging inference: what its state hands on, and what it is not for."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from guides import Merging
from ppl_models import HierarchicalVAE, LinearGaussian, MatNet
from ppl_models.factorization import compare

X = torch.eye(4)[:3]


def test_the_state_hands_on_every_latent_above():
    """Each network reads the latent before it alone; the rest comes by the state, needed or not."""
    for model, verdict in (
        (MatNet, "faithful, minimal, perfect"),
        (HierarchicalVAE, "faithful, not minimal, not perfect"),
    ):
        program = model(4, (2, 2, 2), hidden=8)
        guide = Merging(program, X, hidden=8)
        assert guide.factors.parents == {"z1": (), "z2": ("z1",), "z3": ("z2",)}
        report = compare(program, guide, X)
        assert str(report.guide) == "q(z1 | x) q(z2 | z1, x) q(z3 | z1, z2, x)"
        assert report.verdict == verdict


def test_the_state_is_that_of_its_formula(double):
    """m_1 = MLP(b_1), m_l = m_{l-1} + MLP(b_l, z_{l-1}, m_{l-1}); the factor's numbers by a network of m_l, z_{l-1}."""
    torch.manual_seed(0)
    model, x = MatNet(4, (2, 3, 2), hidden=8), X.double()
    guide = Merging(model, x, hidden=8)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        inner, b = guide.factors.conditionals, {}
        encode = inner.encode
        inner.encode = lambda evidence: b.update(encode(evidence)) or dict(b)
        nodes = pyro.poutine.trace(guide).get_trace(x).nodes
        state, above = None, []
        for name in ("z1", "z2", "z3"):
            read = [b[name], *above]
            merged = guide.factors.merges[f"q_{name}"](*read, *([] if state is None else [state]))
            state = merged if state is None else state + merged
            loc, log_scale = getattr(inner, f"q_{name}")(state, *above).chunk(2, -1)
            fn = nodes[name]["fn"].base_dist
            torch.testing.assert_close(fn.loc, loc, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(fn.scale, (5 * torch.tanh(log_scale / 5)).exp(), rtol=1e-10, atol=1e-10)
            above = [nodes[name]["value"]]


def test_on_linear_data_its_structure_costs_nothing():
    model = LinearGaussian(3, (1, 2, 1), {"z3": ("z1", "z2"), "x": ("z1", "z2", "z3")}).requires_grad_(False)
    x = model(n=3)
    assert compare(model, Merging(model, x, family="full", hidden=8), x).gap.elbo == pytest.approx(0, abs=1e-8)


def test_a_run_leaves_no_state_behind():
    """Two runs of one noise agree, whatever was run between them."""
    model = MatNet(4, (2, 2), hidden=8)
    guide = Merging(model, X, hidden=8)
    runs = []
    for rows in (X, X[:1], X):
        pyro.set_rng_seed(0)
        runs.append(guide(rows))
    assert all(torch.equal(runs[0][name], runs[2][name]) for name in ("z1", "z2"))


def shared(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def with_covariate(x, c):
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Normal(y + c, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_latents_that_read_different_data_are_refused():
    with pytest.raises(
        ValueError, match="found the site 'loc', which reads no data, want latents that all read the same"
    ):
        Merging(shared, torch.randn(5))
    args = torch.randn(5), torch.randn(5)
    assert Merging(with_covariate, *args, evidence=("x", "c"), hidden=8)(*args)["z"].shape == (5,)
