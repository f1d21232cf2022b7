"""The sequential VAE and infusion training: their equations by hand, both criteria, the infused guide, their bounds."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from guides import Infused, MeanField, SelfReflective
from guides.infused import InfusedNormal
from ppl_models import VAE, Infusion, LinearGaussian, SequentialVAE
from ppl_models.inference import elbo, evaluate, fit, terms, unregularized
from ppl_models.inference.pyro.passes.messengers import Substitute
from ppl_models.parts.likelihoods import bounded_exp
from ppl_models.parts.nets import LadderNet, Pyramid, PyramidEncoder

LIKELIHOODS = ("bernoulli", "gaussian", "gaussian:0.3", "unit-gaussian:0.3", "logistic:8")
BUILD = {
    "mlp": {"event": 12},
    "shared": {"event": 12, "shared": True},
    "predictor": {"event": 12, "predictor": True},
    "conv": {"event": (3, 2, 2), "network": "conv", "hidden": 64},
    "conv-shared-predictor": {"event": (3, 2, 2), "network": "conv", "hidden": 64, "shared": True, "predictor": True},
}


def built(name: str, likelihood: str = "bernoulli", steps: int = 3, **more) -> tuple[SequentialVAE, Tensor]:
    torch.manual_seed(0)
    sizes = {"latent": 2, "hidden": 8, "steps": steps, "likelihood": likelihood, **BUILD[name], **more}
    model = SequentialVAE(**sizes).double()
    for parameter in model.parameters():  # what starts at zero hides mistakes
        parameter.data += 0.2 * torch.randn_like(parameter)
    u = torch.rand(5, 12, dtype=torch.double)
    return model, (u > 0.5).double() if likelihood == "bernoulli" else (u * 7).round() / 7


def normal(z: Tensor, loc: Tensor | float = 0.0, scale: Tensor | float = 1.0) -> Tensor:
    return dist.Normal(loc, scale).log_prob(z).sum(-1)


def codes_of(trace: poutine.Trace, steps: int = 3) -> list[Tensor]:
    return [trace.nodes[f"z{t + 1}"]["value"] for t in range(steps)]


def images_by_hand(model: SequentialVAE, codes: list[Tensor]) -> list[Tensor]:
    """m_1 = G_1(z_1), m_t = g_t G_t(m_{t-1}, z_t) + (1 - g_t) m_{t-1}."""
    bound = torch.sigmoid if model.likelihood.__class__.__name__ != "Gaussian" else (lambda h: h)
    means = [bound(model.networks[0](codes[0]))]
    for t, z in enumerate(codes[1:], 1):
        h = model.networks[min(t, len(model.networks) - 1)](z, means[-1])
        out, gate = h[:, :12], torch.sigmoid(h[:, 12:])
        gate = torch.cat([gate] * (12 // gate.shape[1]), 1)
        means.append(gate * bound(out) + (1 - gate) * means[-1])
    return means


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("name", BUILD)
def test_density(name, likelihood):
    model, x = built(name, likelihood)
    trace = poutine.trace(model).get_trace(x)
    trace.compute_log_prob()
    codes = codes_of(trace)
    for t, z in enumerate(codes):
        loc, scale = 0.0, 1.0
        if t and model.predictors:
            loc, raw = model.predictors[min(t, len(model.predictors)) - 1](codes[t - 1]).chunk(2, -1)
            scale = bounded_exp(raw)
        torch.testing.assert_close(trace.nodes[f"z{t + 1}"]["log_prob"], normal(z, loc, scale))
    mean = images_by_hand(model, codes)[-1]
    scale = None if model.log_scales is None else bounded_exp(model.log_scales[2])
    if likelihood == "bernoulli":
        expected = (x * mean.log() + (1 - x) * (1 - mean).log()).sum(-1)
    elif "gaussian" in likelihood:
        expected = normal(x, mean, 0.3 if ":" in likelihood else scale)
    else:
        edges = [((x + sign / 14 - mean) / (0.1 * scale)).sigmoid() for sign in (1, -1)]
        upper, lower = torch.where(x > 1 - 1e-9, 1.0, edges[0]), torch.where(x < 1e-9, 0.0, edges[1])
        expected = (upper - lower).log().sum(-1)
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model.images(codes), torch.stack(images_by_hand(model, codes)))
    assert model(n=4).shape == (4, 12)


def test_weights_are_shared_where_asked():
    separate, shared = built("mlp")[0], built("shared")[0]
    assert (len(separate.networks), len(shared.networks)) == (3, 2)
    assert len(built("predictor")[0].predictors) == 2 and len(built("conv-shared-predictor")[0].predictors) == 1
    assert len(built("mlp", steps=1)[0].networks) == 1


# The published surrogate


def per_step_by_hand(model: SequentialVAE, codes: list[Tensor], x: Tensor) -> list[Tensor]:
    """log p(x; m_t) of every step, with m_{t-1} held fixed."""
    found, before = [], None
    for t, z in enumerate(codes):
        mean = model.image_of(t, before, z)
        found.append(model.around(t, mean).log_prob(x))
        before = mean.detach()
    return found


@pytest.mark.parametrize(("Guide", "alone"), [(MeanField, True), (SelfReflective, False)])
def test_a_factor_of_the_guide_is_trained_by_later_steps_only_through_codes_that_a_guide_reads(Guide, alone):
    model, x = built("mlp", "gaussian:0.3", criterion="per-step")
    guide = Guide(model, x, hidden=4).double()
    for parameter in guide.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    torch.manual_seed(1)
    found = terms(model, guide, (x,))
    later = sum(found.log_likelihood[site].mean() - found.kl[z].mean() for site, z in (("x2", "z2"), ("x", "z3")))
    first = [p for name, p in guide.named_parameters() if "z1" in name and "encoder" not in name]
    slopes = torch.autograd.grad(later, first, allow_unused=True)
    assert first and all(slope is None or not slope.abs().max() for slope in slopes) == alone


@pytest.mark.parametrize("name", ["mlp", "conv-shared-predictor"])
def test_in_training_every_step_is_scored_and_stands_alone(name):
    model, x = built(name, "gaussian:0.3", criterion="per-step")
    guide = MeanField(model, x, hidden=4)
    codes = {site: v.detach() for site, v in guide(x).items()}
    with Substitute(codes):
        found = terms(model, guide, (x,))
    expected = per_step_by_hand(model, list(codes.values()), x)
    assert list(found.log_likelihood) == ["x1", "x2", "x"]
    for each, value in zip(found.log_likelihood.values(), expected, strict=True):
        torch.testing.assert_close(each[0], value)
    total = elbo(found)
    torch.testing.assert_close(total, sum(v.mean() for v in expected) - sum(kl.mean() for kl in found.kl.values()))
    # the gradient of each step's networks is that of its own term
    slopes = torch.autograd.grad(
        sum(v.mean() for v in found.log_likelihood.values()), list(model.networks.parameters())
    )
    by_hand = torch.autograd.grad(sum(v.mean() for v in expected), list(model.networks.parameters()))
    for a, b in zip(slopes, by_hand, strict=True):
        torch.testing.assert_close(a, b)


def test_no_gradient_crosses_a_step():
    model, x = built("mlp", "gaussian:0.3", criterion="per-step")
    trace = poutine.trace(model).get_trace(x)
    trace.compute_log_prob()
    first = list(model.networks[0].parameters())
    last = trace.nodes["x"]["log_prob"].sum()
    assert all(g is None for g in torch.autograd.grad(last, first, allow_unused=True, retain_graph=True))
    assert all(g is not None for g in torch.autograd.grad(trace.nodes["x1"]["log_prob"].sum(), first))


def test_no_gradient_crosses_a_step_by_way_of_the_predictor():
    model, x = built("predictor", "gaussian:0.3", criterion="per-step")
    guide = MeanField(model, x, hidden=4)
    first = [p for name, p in guide.named_parameters() if "q_z1" in name]
    found = terms(model, guide, (x,))
    assert all(g is None for g in torch.autograd.grad(found.kl["z2"].sum(), first, allow_unused=True))
    model.eval()
    slopes = torch.autograd.grad(terms(model, guide, (x,)).kl["z2"].sum(), first, allow_unused=True)
    assert any(g is not None and g.abs().sum() > 0 for g in slopes)


def test_evaluated_it_is_the_model_of_the_last_step():
    model, x = built("mlp", criterion="per-step")
    proper = built("mlp")[0]
    proper.load_state_dict(model.state_dict())
    guide, twin = MeanField(model, x, hidden=4), MeanField(proper, x, hidden=4)
    twin.load_state_dict(guide.state_dict())
    a, b = (evaluate(m, g, x, particles=20, progress=False) for m, g in ((model, guide), (proper, twin)))
    assert (a.elbo, a.nll) == (b.elbo, b.nll)
    assert model.training  # as it was
    pyro.set_rng_seed(0)
    run = fit(model, guide, x, steps=2, batch_size=5, validation=x, progress=False)
    assert run.history[-1]["negative_elbo"] > 2 * run.history[-1]["valid"]  # three times x, against once


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"criterion": "last"}, "found criterion='last', want 'elbo' or 'per-step'"),
        ({"steps": 0}, "found steps=0, want an integer of at least 1"),
        (
            {"event": (1, 16, 16), "network": "conv", "latent": 1},
            "found latent=1, want at least 2, or one size for each",
        ),
        ({"event": (1, 16, 16), "network": "conv", "latent": (1, 2, 3)}, r"found latent=\(1, 2, 3\), want at least 2"),
        ({"likelihood": torch.nn.Identity()}, "likelihood: found a Identity, want a module with count"),
    ],
)
def test_what_means_nothing_is_refused(sizes, text):
    with pytest.raises(ValueError, match=f"SequentialVAE: {text}"):
        SequentialVAE(**{"event": 16, "steps": 2, **sizes})


# Ladders


def test_codes_of_every_scale_and_the_image_before_reach_the_image():
    net = LadderNet([1, 2, 3], (2, 30, 20), context=1, channels=4)
    z, x = torch.randn(2, 3, 6, requires_grad=True), torch.randn(3, 600, requires_grad=True)
    for block in net.blocks:
        torch.nn.init.normal_(block.outer.weight, std=0.1)
    y = net(z, x)
    assert y.shape == (2, 3, 1200)
    slopes = torch.autograd.grad(y.square().sum(), (z, x))
    assert (slopes[0] != 0).all() and (slopes[1] != 0).float().mean() > 0.9
    assert [tuple(m.shape) for m in Pyramid((1, 30, 20), 4)(torch.randn(2, 1, 30, 20))] == [
        (2, 4, 15, 10),
        (2, 8, 8, 5),
        (2, 16, 4, 3),
    ]
    assert LadderNet([2], (1, 8, 8))(torch.randn(3, 2)).shape == (3, 64)


def test_a_pyramid_reads_every_scale():
    encoder = PyramidEncoder((1, 16, 16), 5, channels=4)
    x = torch.randn(2, 3, 256)
    features = encoder(x)
    assert features.shape == (2, 3, 5) and [head.out_features for head in encoder.heads] == [2, 3]
    torch.testing.assert_close(features[1, 2], encoder(x[1, 2][None])[0])


# Infusion


def infusion(criterion: str = "elbo") -> tuple[Infusion, Tensor]:
    torch.manual_seed(0)
    model = Infusion(6, steps=4, hidden=8, criterion=criterion).double()
    return model, torch.rand(5, 6, dtype=torch.double)


def test_density_of_the_chain():
    model, x = infusion()
    trace = poutine.trace(model).get_trace(x)
    trace.compute_log_prob()
    codes = codes_of(trace, 4)
    loc, raw = model.start.chunk(2)
    torch.testing.assert_close(trace.nodes["z1"]["log_prob"], normal(codes[0], loc, 1e-3 + (10 * raw).exp()))
    for t, (before, after) in enumerate(zip(codes, [*codes[1:], x], strict=True)):
        h = torch.relu(model.network.norms[t](model.network.first(before)))
        loc, spread = model.network.last(h).chunk(2, -1)
        scale = (1e-4 + 0.1 * spread.sigmoid()).sqrt()
        site = "x" if t == 3 else f"z{t + 2}"
        torch.testing.assert_close(trace.nodes[site]["log_prob"], normal(after, loc.sigmoid(), scale))


def test_infusion_training_is_the_unregularized_criterion_of_the_infused_chain():
    model, x = infusion("per-step")
    guide = Infused(model, x, rate=0.2)
    codes = {site: v.detach() for site, v in guide(x).items()}
    with Substitute(codes):
        value = unregularized(terms(model, guide, (x,)))
    chain = [None, *codes.values()]
    each = [model.transition(t, z).log_prob(x).mean() for t, z in enumerate(chain)]
    weights = [1 / 4, 1 / 4, 2 / 4, 3 / 4, 1]
    by_hand = sum(w * e for w, e in zip(weights, each, strict=True))
    torch.testing.assert_close(value, by_hand)
    for a, b in zip(*(torch.autograd.grad(v, list(model.parameters())) for v in (value, by_hand)), strict=True):
        torch.testing.assert_close(a, b)


def test_its_bound_is_that_of_the_paper():
    model, x = infusion()
    guide = Infused(model, x, rate=0.2)
    codes = list(guide(x).values())
    with Substitute(dict(zip(("z1", "z2", "z3", "z4"), codes, strict=True))):
        bound = elbo(terms(model, guide, (x,), analytic=False))
    rates, log_q = (0.2, 0.2, 0.4, 0.5), 0.0  # at most 1/2
    log_p = model.transition(4, codes[-1]).log_prob(x)
    for t, (z, rate) in enumerate(zip(codes, rates, strict=True)):
        prior = model.transition(t, codes[t - 1] if t else None).base_dist
        own, near = prior.log_prob(z).exp(), dist.Normal(x, 0.01).log_prob(z).exp()
        log_p = log_p + prior.log_prob(z).sum(-1)
        log_q = log_q + ((1 - rate) * own + rate * near).log().sum(-1)
    torch.testing.assert_close(bound, (log_p - log_q).mean())


def test_infused_draws_follow_their_density_and_are_reparametrized():
    loc, target = torch.zeros(6).double().requires_grad_(), torch.full((6,), 0.9).double()
    q = InfusedNormal(loc, torch.full((6,), 0.5).double(), target, rate=0.3, width=0.1, channels=2)
    z = q.rsample((40_000,))
    mean, variance = 0.3 * 0.9, 0.7 * 0.25 + 0.3 * (0.01 + 0.81) - (0.3 * 0.9) ** 2
    assert ((z.mean(0) - mean).abs() < 5 * (variance / 40_000) ** 0.5).all()  # five standard errors
    assert ((z.var(0) - variance).abs() < 0.01).all()
    torch.testing.assert_close(q.mean.detach(), torch.full((6,), mean).double())
    chosen = (z - 0.9).abs() < 0.3
    together = (chosen[:, :3] == chosen[:, 3:]).double().mean()  # the channels of a pixel, but for tails
    assert together > 0.8  # 0.87; of two choices it would be 0.53
    # E grad z = 0.7: what is not infused moves with the prior's mean
    (slope,) = torch.autograd.grad(z.mean(0).sum(), loc)
    assert ((slope - 0.7).abs() < 5 * (0.21 / 40_000) ** 0.5).all()
    x = torch.linspace(-3, 4, 2001, dtype=torch.double)
    one = InfusedNormal(torch.zeros(1).double(), torch.ones(1).double(), torch.ones(1).double(), 0.25, 0.2)
    torch.testing.assert_close(torch.trapezoid(one.log_prob(x[:, None]).exp(), x).item(), 0.9985, rtol=1e-3, atol=0)
    a, b = (InfusedNormal(loc, torch.ones(6).double(), target, r, channels=2).log_prob(z[:3]) for r in (0.0, 1e-12))
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_infusion_training_raises_the_bound_and_learns_where_to_begin():
    pyro.set_rng_seed(0)
    widths = torch.tensor([0.05, 0.05, 0.05, 0.05, 0.002, 0.3])  # a border's pixel, and a busy one
    x = 0.7 + widths * torch.randn(200, 6)
    model = Infusion(6, steps=3, hidden=16, criterion="per-step")
    guide = Infused(model, x[:3])
    before = evaluate(model, guide, x, particles=5, progress=False).elbo
    fit(model, guide, x, steps=400, batch_size=50, lr=2e-2, objective=unregularized, seed=0, progress=False)
    assert evaluate(model, guide, x, particles=5, progress=False).elbo > before + 3
    start = model.transition(0, None)  # the best p_0 is the mean and scale of the data
    assert (start.mean - x.mean(0)).abs().max() < 0.05
    assert (start.variance.sqrt() / x.std(0)).log().abs().max() < 0.4


@pytest.mark.parametrize(
    ("model", "sizes", "text"),
    [
        (
            lambda: VAE(6, 2, 4, likelihood="gaussian"),
            {},
            r"site 'z1' has the event shape \(2,\), with 6 values a datum",
        ),
        (lambda: LinearGaussian(6, (6, 2)), {}, r"site 'z2' has the event shape \(2,\)"),
        (lambda: Infusion(6, 2, 4), {"rate": 0.7}, "found rate=0.7, want 0 <= rate <= 0.5"),
        (lambda: Infusion(6, 2, 4), {"width": 0}, "found width=0, want more than 0"),
        (lambda: Infusion(6, 2, 4), {"image": (3, 1, 1)}, r"found image=\(3, 1, 1\), want one of the 6 values of site"),
        (lambda: Infusion(6, 2, 4), {"image": 5}, r"found image=5, want image \(channels, height, width\)"),
    ],
)
def test_what_cannot_be_infused_is_refused(model, sizes, text):
    with pytest.raises(ValueError, match=f"guide Infused: {text}"):
        Infused(model(), torch.rand(3, 6), **sizes)


def test_infusion_refuses_unknown_criteria():
    with pytest.raises(ValueError, match="Infusion: found criterion='x', want 'elbo' or 'per-step'"):
        Infusion(4, criterion="x")
    assert math.isfinite(evaluate(*_pair(), torch.rand(4, 6), particles=3, progress=False).nll)


def _pair() -> tuple[Infusion, Infused]:
    model = Infusion(6, 2, 4)
    return model, Infused(model, torch.rand(3, 6))
