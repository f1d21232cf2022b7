"""The families "iaf", "maf" and "nsf" in guides: calls of their networks, densities, exactness, refusals."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from guides import BottomUp, Faithful, Ladder, MeanField, SelfReflective
from guides.parts.families.flows import Autoregressive, Steps
from ppl_models import VAE, HierarchicalVAE, LinearGaussian, SeReVAE
from ppl_models.factorization import compare
from ppl_models.inference import evaluate, fit, importance_weighted, mutual_information
from ppl_models.inference.pyro.passes.terms import terms
from ppl_models.parts.flows.autoregressive import MaskedNet
from tests.helpers.cases import few
from tests.helpers.counting import counted_calls

GUIDES = (MeanField, BottomUp, Ladder, SelfReflective, Faithful)
FAMILIES = ("iaf", "maf", "nsf:steps=1")
PERFECT = "faithful, minimal, perfect"
X = torch.bernoulli(torch.full((16, 6), 0.5), generator=torch.Generator().manual_seed(0))


def pair(guide, family: str = "iaf", **sizes):
    """A small SeRe-VAE and a guide."""
    model = SeReVAE(event=6, layers=2, latent=3, hidden=8, **sizes)
    return model, guide(model, X[:3], family=family, hidden=8)


@pytest.mark.parametrize("guide", GUIDES)
def test_calls_in_a_step_and_in_an_evaluation(guide):
    """One call a step of the flow wherever its own draws are scored: as many as passes, whatever the particles."""
    model, q = pair(guide)
    with counted_calls(MaskedNet) as calls:
        for particles in (1, 5):
            before = calls()
            terms(model, q, (X,), particles=particles, nesting=1)
            assert calls() - before == 4  # two latents, two steps each
        before = calls()
        fit(model, q, X, steps=3, batch_size=8, particles=4, progress=False)
        first = calls() - before
        fit(model, q, X, steps=7, batch_size=8, particles=4, progress=False)
        assert calls() - before - 2 * first == 4 * 4
        counts = []
        for rows in (40, 80):
            before = calls()
            evaluate(model, q, X, particles=20, rows=rows, progress=False)
            counts.append(calls() - before)
        assert counts[0] - counts[1] == 4 * (8 - 4)  # 16 data of 20 particles in passes of 2 or 4 data


def test_draws_and_densities_are_those_of_algorithm_1(double):
    """Kingma et al. 2016: y <- g y + (1 - g) m, g = sigmoid(s), s at first 2; log q falls by sum log g at each step."""
    torch.manual_seed(0)
    model, x = VAE(event=6, latent=3, hidden=8), X.double()
    q = MeanField(model, x[:3], family="iaf:steps=3,context=4", hidden=8)
    with torch.no_grad():
        for parameter in q.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        torch.manual_seed(1)
        fn = pyro.poutine.trace(q).get_trace(x).nodes["z1"]
        torch.manual_seed(1)
        y = torch.randn(16, 3)
        log_q = -(y**2 / 2 + math.log(2 * math.pi) / 2).sum(-1)
        *steps, last = fn["fn"].transforms
        assert len(steps) == 3
        for step in steps:
            m, s = step.net(y, *step.context).unbind(-1)
            g = torch.sigmoid(s + 2)
            y, log_q = g * y + (1 - g) * m, log_q - g.log().sum(-1)
        z, log_q = last.loc + last.scale * y, log_q - last.scale.log().sum(-1)
    torch.testing.assert_close(fn["value"], z, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fn["fn"].log_prob(fn["value"]), log_q, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("guide", [MeanField, Ladder, SelfReflective])
@pytest.mark.parametrize("family", FAMILIES)
def test_density_of_an_own_draw_is_that_of_the_slow_inverse(guide, family, double):
    x = X.double()
    model = SeReVAE(event=6, layers=2, latent=3, hidden=8)
    q = guide(model, x[:3], family=family, hidden=8)
    with torch.no_grad(), pyro.poutine.trace() as drawn:
        q(x)
    for name in ("z1", "z2"):
        node = drawn.trace.nodes[name]
        own = node["fn"].log_prob(node["value"])
        torch.testing.assert_close(own, node["fn"].log_prob(node["value"].clone()), rtol=1e-10, atol=1e-10)


def test_starts_as_the_product_with_the_prior():
    """Without weights the steps are the identity, so a ladder's merge is that of the diagonal family."""
    model, x = HierarchicalVAE(event=6, latent=(2, 3), hidden=8), X[:4]
    flow, plain = (Ladder(model, x, family=family, hidden=8) for family in ("iaf:context=4", "diagonal"))
    for each in flow.modules():
        if isinstance(each, MaskedNet):
            torch.nn.init.zeros_(each.last.weight)
    for z in ("z1", "z2"):
        flow_net, net = (getattr(g.factors, f"q_{z}") for g in (flow, plain))
        net.load_state_dict({k: v[: len(net.state_dict()[k])] for k, v in flow_net.state_dict().items()})
    plain.factors.encoders.load_state_dict(flow.factors.encoders.state_dict())
    draws = []
    for guide in (flow, plain):
        torch.manual_seed(1)
        with torch.no_grad():
            draws.append(guide(x))
    torch.testing.assert_close(draws[0], draws[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "family", few(("diagonal", "iaf:hidden=8", "maf:hidden=8"), lambda family: "maf" not in family)
)
def test_a_linear_flow_reaches_the_posterior_of_a_linear_gaussian_model(family):
    """Correlated entries: a diagonal factor keeps the gap that is known in closed form, affine flows close it."""
    torch.manual_seed(7)
    model = LinearGaussian(event=3, latent=(2,)).requires_grad_(False)
    x = model(n=256)
    gap = model.gap("mean-field", "diagonal").item()
    assert gap > 0.15
    torch.manual_seed(0)
    guide = MeanField(model, x, family=family, encoder="linear", depth=0)
    fit(model, guide, x, steps=1000, lr=0.03, batch_size=256, particles=4, progress=False)
    found = evaluate(model, guide, x, particles=200, progress=False)
    left = model.log_evidence(x).mean().item() - found.elbo
    assert abs(left - (gap if family == "diagonal" else 0.0)) < 0.01


def test_entries_of_a_site_are_a_clique():
    model = VAE(event=6, latent=3, hidden=8)
    for family, verdict in (("diagonal", "unfaithful"), ("iaf", PERFECT), ("maf", PERFECT), ("nsf", PERFECT)):
        guide = MeanField(model, X[:3], family=family, hidden=8)
        report = compare(model, guide, X[:3], level="element")
        assert report.verdict == verdict
        assert ("q(z1.2 | z1.0, z1.1, x.0..x.5)" in str(report)) == (verdict == PERFECT)


@pytest.mark.parametrize("family", FAMILIES)
def test_importance_weights_are_unbiased(family):
    """E[w] = p(x): a thousand particles of a guide far from trained against many of the prior."""
    torch.manual_seed(0)
    model = VAE(event=6, latent=2, hidden=8)
    guide = MeanField(model, X[:3], family=family, hidden=8)
    found = evaluate(model, guide, X, particles=20_000, progress=False)
    torch.manual_seed(1)
    with torch.no_grad():
        z = torch.randn(100_000, 1, 2)
        log_p = model.likelihood(model.decoder(z)).log_prob(X)
        exact = -(torch.logsumexp(log_p, 0) - torch.tensor(100_000.0).log()).mean().item()
    assert abs(found.nll - exact) < 0.02


def test_mutual_information_says_what_it_costs():
    model, guide = pair(MeanField)
    found = mutual_information(model, guide, X)
    assert [("'z1'" in note, "'z2'" in note, "6 calls" in note) for note in found.notes] == [(1, 0, 1), (0, 1, 1)]
    assert found.notes[0] in str(found)
    assert not mutual_information(*pair(MeanField, "maf"), X).notes


def test_over_one_entry():
    """An affine flow of one entry is a Gaussian, taken for one, with its closed form; a spline is not."""
    model = VAE(event=6, latent=1, hidden=8)
    for family, flows in (("iaf", 0), ("maf", 0), ("nsf", 1)):
        guide = MeanField(model, X[:3], family=family, hidden=8)
        assert sum(isinstance(m, Steps) for m in guide.modules()) == flows


def test_sizes():
    _, guide = pair(MeanField, "iaf:steps=3,hidden=7,depth=2,context=5")
    steps = guide.factors.family("z1")
    assert len(steps.flow.nets) == 3
    assert [tuple(p.shape) for p in steps.flow.nets[0].contexts.parameters()] == [(7, 5)]
    _, given = pair(partial(MeanField), Autoregressive("gate", steps=3, hidden=7, depth=2, context=5))
    assert str(given.factors.family("z1")) == str(steps)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("iaf:steps", "found 'iaf:steps', want a name and sizes; try 'iaf:steps=2'"),
        ("iaf:steps=2,steps=3", "want a name and sizes"),
        ("iaf:steps=0", "found steps=0, want an integer of at least 1"),
        ("iaf:width=2", "found family 'iaf:width=2', want sizes of 'iaf', which has steps, hidden, depth, context"),
        ("full:steps=2", "want sizes of 'full', which has none"),
        ("iff", "found family 'iff', want one of 'diagonal', .*'iaf', 'maf', 'nsf'"),
    ],
)
def test_refused(family, message):
    with pytest.raises(ValueError, match=message):
        pair(MeanField, family)


@pytest.mark.slow
def test_globals_have_flows_too():
    """Two regression coefficients that the posterior ties."""
    pyro.set_rng_seed(0)
    features = torch.randn(40, 2) @ torch.tensor([[1.0, 0.9], [0.0, 0.3]])
    y = features.sum(-1) + 0.5 * torch.randn(40)

    def model(features: Tensor, y: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(features @ w, 0.5), obs=y)

    guide = Faithful(model, features, y, family="iaf:hidden=8")
    fit(model, guide, (features, y), steps=400, lr=1e-2, particles=8, batch_size=40, progress=False)
    with torch.no_grad():
        draws = torch.stack([guide(features, y)["w"] for _ in range(2000)])
    precision = features.T @ features / 0.25 + torch.eye(2)
    mean = torch.linalg.solve(precision, features.T @ y / 0.25)
    torch.testing.assert_close(draws.mean(0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(draws.T.cov(), torch.linalg.inv(precision), atol=0.01, rtol=0)


def test_importance_weighted_training_takes_flows():
    model, guide = pair(SelfReflective)
    run = fit(model, guide, X, steps=3, particles=4, objective=importance_weighted, progress=False)
    assert torch.isfinite(torch.tensor(run.history[-1]["loss"]))


@pytest.mark.parametrize("guide", [SelfReflective, Ladder])
def test_shared_splines_need_no_inverse_and_no_volume(guide):
    """The divergence of a layer is that of its bases: one call a coupling for the draw, none for a density."""
    model, q = pair(guide, "diagonal", bijection="spline")
    with counted_calls(MaskedNet) as calls:
        found = terms(model, q, (X,), particles=3, nesting=1)
        assert calls() == 4  # two layers, two couplings each
    torch.manual_seed(0)
    many = terms(model, q, (X,), particles=4000, nesting=1)
    sampled = many.log_q["z1"] - many.log_p["z1"]
    error = 4 * (sampled.std(0) / 4000**0.5).max().item()
    torch.testing.assert_close(found.kl["z1"][0], sampled.mean(0), atol=error, rtol=0)
