"""Refined guides: unbiased for any number of steps, against closed forms on Gaussians; who may be refined."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoNormal

from guides import BottomUp, Faithful, Infused, Ladder, MeanField, Refined, SelfReflective
from guides.parts.families.continuous import Diagonal, Flow, Full, RankOne, Spread
from guides.parts.families.flows import Autoregressive
from ppl_models import VAE, HierarchicalVAE, Infusion, LinearGaussian, data
from ppl_models.factorization import compare, factorization
from ppl_models.inference import evaluate, fit, importance_weighted
from ppl_models.inference.pyro.passes.particles import vectorizes
from ppl_models.inference.pyro.passes.terms import terms
from ppl_models.programs.noise import Chain, leapfrog
from ppl_models.programs.noise.pyro import event_dims, noise_shape, of_events, of_noise
from ppl_models.programs.noise.pyro_refined import refined
from ppl_models.runs.naming import names
from tests.helpers.collection import GUIDE_SIZES, PAIRS, SIZES, data_of

pytestmark = pytest.mark.usefixtures("double")
METHODS = "dais", "hvi"
# draws that are no Gaussian's; latents that are not alike
APART = ("infusion", "infused"), ("hierarchical-pixel-vae", "recurrent")


def linear(**sizes):
    return LinearGaussian(generator=torch.Generator().manual_seed(0), **sizes).requires_grad_(False)


def prior_like(model, x, guide=MeanField):
    """A guide that draws from the prior: its weights are bounded."""
    q = guide(model, x, hidden=4)
    for name, p in q.named_parameters():
        if ".last." in name:
            p.data.zero_()
    return q


def weights(model, guide, x, particles, **how):
    with torch.no_grad():
        return terms(model, guide, (x,), particles=particles, nesting=1, **how).log_w


@pytest.mark.parametrize(
    ("method", "steps", "momentum"),
    [("dais", 1, 0.9), ("dais", 3, 0.5), ("dais", 3, 1.0), ("hvi", 1, 0), ("hvi", 3, 0)],
)
def test_the_mean_weight_is_the_evidence_whatever_the_steps(method, steps, momentum):
    model, x = linear(event=2, latent=(1, 1), weight=0.5), torch.tensor([[0.5, -0.5], [1.0, 0.0]])
    guide = Refined(prior_like(model, x), steps=steps, method=method, momentum=momentum)
    guide.size.data += torch.linspace(-0.5, 0.5, steps)
    for net in guide.reverse.values():  # an r that is wrong: in the mean, and too wide
        net.last.bias.data.copy_(torch.tensor([0.25, 0.2]))
    w = (weights(model, guide, x, 20_000) - model.log_evidence(x)).exp()
    error = w.std(0) / len(w) ** 0.5  # at four of them a mean of two is missed once in 8,000 times
    assert (error < 0.02).all()
    assert ((w.mean(0) - 1).abs() < 4 * error).all()


def exact(model):
    """The exact posterior as a guide of one latent."""

    def guide(x):
        posterior = model.posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.MultivariateNormal(posterior.loc, scale_tril=posterior.scale_tril))

    return guide


@pytest.mark.parametrize(("steps", "size"), [(1, 0.2), (1, 0.4), (4, 0.4)])
def test_an_exact_guide_loses_what_the_integrator_loses(steps, size):
    """There log w is constant, forces are -e, and the gap is the mean change of the energy: h^6 / 32 for one step."""
    model, x = linear(latent=(2,)), torch.randn(1, 3)
    chain = Chain([size] * steps, [1.0] * steps, 0.9)
    guide = partial(refined_by, model, exact(model), chain)
    found = (weights(model, guide, x, 50_000) - model.log_evidence(x))[:, 0]
    half, kick = torch.tensor([[1, size / 2], [0, 1.0]]), torch.tensor([[1, 0], [-size, 1.0]])
    step, kept, fresh = half @ kick @ half, torch.diag(torch.tensor([1, 0.9])), torch.diag(torch.tensor([0, 1 - 0.81]))
    gap, state = 0.0, torch.eye(2)
    for _ in range(steps):
        after = step @ state @ step.mT
        gap, state = gap + (after - state).trace().item() / 2, kept @ after @ kept + fresh
    assert gap == pytest.approx(size**6 / 32, abs=1e-12) or steps > 1
    assert -found.mean().item() == pytest.approx(2 * gap, abs=4 * (found.std() / len(found) ** 0.5).item())


def refined_by(model, guide, chain, *args):
    return refined(model, guide, args, {}, chain)


def mean_field(model):
    """The best mean-field guide of a linear-Gaussian model, in closed form."""

    def guide(x):
        posterior = model.posterior(x)
        scale = posterior.precision_matrix.diagonal(dim1=-2, dim2=-1).rsqrt()
        with pyro.plate("data", len(x)):
            for name in model.latents:
                own = model.blocks()[name]
                pyro.sample(name, dist.Normal(posterior.loc[:, own], scale[..., own]).to_event(1))

    return guide


def test_the_bound_rises_with_the_steps():
    """A mean-field guide of a chain: from its gap in closed form towards 0, 10 standard errors and more a step."""
    model, x = linear(), torch.randn(4, 3)
    gaps, errors = [], []
    for steps in (0, 4, 16):
        guide = Refined(mean_field(model), steps=steps, model=model)
        found = (model.log_evidence(x) - weights(model, guide, x, 3000)).mean(1)
        gaps.append(found.mean().item())
        errors.append(found.std().item() / len(found) ** 0.5)
    assert gaps[0] == pytest.approx(model.gap("mean-field", "diagonal").item(), abs=4 * errors[0])
    assert gaps[0] - gaps[1] > 4 * errors[0] and gaps[1] - gaps[2] > 4 * errors[1]
    assert gaps[2] < 0.7 * gaps[0]


def test_a_step_on_a_gaussian_is_a_matrix_and_goes_back():
    precision, h = torch.tensor([[2.0, 0.5], [0.5, 1.0]]), 0.3
    e, v = torch.randn(2), torch.randn(2)

    def force(at):
        return {"z": -precision @ at["z"]}

    after, kicked = leapfrog({"z": e}, {"z": v}, h, force)
    one = torch.eye(2)
    drift = torch.cat([torch.cat([one, h / 2 * one], 1), torch.cat([0 * one, one], 1)])
    kick = torch.cat([torch.cat([one, 0 * one], 1), torch.cat([-h * precision, one], 1)])
    torch.testing.assert_close(torch.cat([after["z"], kicked["z"]]), drift @ kick @ drift @ torch.cat([e, v]))
    back, turned = leapfrog(after, {"z": -kicked["z"]}, h, force)
    torch.testing.assert_close(torch.cat([back["z"], -turned["z"]]), torch.cat([e, v]))


def test_a_step_keeps_volumes():
    def step(state):
        e, v = state.chunk(2)
        return torch.cat([d["z"] for d in leapfrog({"z": e}, {"z": v}, 0.7, lambda at: {"z": (3 * at["z"]).sin()})])

    jacobian = torch.autograd.functional.jacobian(step, torch.randn(6))
    assert jacobian.det().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kind", [Ladder, BottomUp])
@pytest.mark.parametrize("method", METHODS)
def test_no_steps_are_the_guide_itself(kind, method):
    model, x = HierarchicalVAE(event=4, latent=(2, 2), hidden=4), torch.rand(3, 4).round()
    guide = kind(model, x, hidden=4)
    found = []
    for each in (guide, Refined(guide, steps=0, method=method)):
        pyro.set_rng_seed(0)
        found.append(terms(model, each, (x,), particles=5, nesting=1))
    assert all(torch.equal(found[0].kl[name], found[1].kl[name]) for name in ("z1", "z2"))
    assert torch.equal(found[0].log_w, found[1].log_w)


@pytest.mark.parametrize("kind", [SelfReflective, BottomUp])
@pytest.mark.parametrize("method", METHODS)
def test_gradients_reach_every_parameter(kind, method):
    model, x = HierarchicalVAE(event=4, latent=(2, 2), hidden=4), torch.rand(5, 4).round()
    guide = Refined(kind(model, x, hidden=4), steps=3, method=method, hidden=4)
    for p in (q for module in (model, guide) for q in module.parameters()):
        p.data += 0.1 * torch.randn_like(p)
    (-terms(model, guide, (x,)).log_w.mean()).backward()
    for module in (model, guide):
        for name, p in module.named_parameters():
            assert p.grad is not None and p.grad.abs().max() > 0, name


def test_the_gradient_is_that_of_the_bound():
    """Second derivatives included: against differences, of sizes, powers and a weight of guide and model."""
    model, x = HierarchicalVAE(event=4, latent=(2, 2), hidden=4), torch.rand(5, 4).round()
    guide = Refined(Ladder(model, x, hidden=4), steps=2)

    def bound():
        pyro.set_rng_seed(1)
        return terms(model, guide, (x,)).log_w.mean()

    bound().backward()
    for p in (guide.size, guide.power, guide.guide.factors.q_z2.last.bias, next(model.parameters())):
        slope, entry, moved = p.grad.flatten()[0].item(), p.data.flatten(), []
        for sign in (1e-5, -2e-5):
            entry[0] += sign
            moved.append(bound().item())
        entry[0] += 1e-5
        assert slope == pytest.approx((moved[0] - moved[1]) / 2e-5, rel=1e-5, abs=1e-8)


FACTORS = {
    "normal": lambda: dist.Normal(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 2.0])).to_event(1),
    "masked": lambda: dist.Normal(torch.zeros(3, 2), 2.0).mask(torch.ones(3, 2) > 0).to_event(1),
    "full": lambda: Full().residual(torch.linspace(-1, 1, 9), 0.5, 2.0),
    "rank-one": lambda: RankOne().residual(torch.linspace(-1, 1, 9), torch.zeros(3), torch.ones(3)),
    "flow": lambda: Flow().residual(torch.linspace(-1, 1, 51), 0.0, 1.0),
    "log-normal": lambda: dist.LogNormal(torch.tensor([1.0, 2.0]), 0.3).to_event(1),
    "spread": lambda: Spread(Diagonal().residual(torch.linspace(-1, 1, 8), 0.0, 1.0), 1),
}


@pytest.mark.parametrize("name", FACTORS)
def test_a_draw_is_a_function_of_its_noise(name):
    """Its density is that of the noise over the change of volume."""
    fn = FACTORS[name]()
    noise = torch.randn(noise_shape(fn))
    value = of_noise(fn, noise)
    jacobian = torch.autograd.functional.jacobian(lambda e: of_noise(fn, e), noise).reshape(value.numel(), -1)
    entries = dist.Normal(0.0, 1.0).log_prob(noise)
    density = of_events(fn, entries)
    assert density.shape == fn.batch_shape
    torch.testing.assert_close(fn.log_prob(of_noise(fn, noise)).sum(), entries.sum() - jacobian.slogdet().logabsdet)
    torch.testing.assert_close(density.sum(), entries.sum())
    assert event_dims(fn) == len(noise.shape) - len(fn.batch_shape) + (name == "spread")


def test_noise_of_autoregressive_steps():
    steps = Autoregressive("affine", hidden=4).over(3)
    fn = steps.residual(torch.linspace(-1, 1, Autoregressive("affine", hidden=4).count(3)), 0.0, 1.0)
    noise = torch.randn(3)
    jacobian = torch.autograd.functional.jacobian(lambda e: of_noise(fn, e), noise)
    density = dist.Normal(0.0, 1.0).log_prob(noise).sum() - jacobian.slogdet().logabsdet
    torch.testing.assert_close(fn.log_prob(of_noise(fn, noise)), density)


def hidden_mean(x):
    """One latent for all data, whose evidence is a Gaussian's."""
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


@pytest.mark.parametrize("kind", [Faithful, AutoNormal, AutoLowRankMultivariateNormal])
def test_global_latents_and_guides_of_pyro(kind):
    x = torch.randn(4)
    guide = kind(hidden_mean, x) if kind is Faithful else kind(hidden_mean, init_scale=1.0)
    if kind is not Faithful:
        guide(x)  # which makes it
    evidence = dist.MultivariateNormal(torch.zeros(4), torch.eye(4) + 4.0).log_prob(x)
    with torch.no_grad():
        found = torch.stack([terms(hidden_mean, Refined(guide, steps=2), (x,)).log_w.sum() for _ in range(2)])
        whole = evaluate(hidden_mean, guide, x, particles=4000, refine=2, progress=False)
    assert torch.isfinite(found).all()
    assert whole.refined == 2 and "refined: 2 Hamiltonian steps" in whole.notes[-1]
    assert -4 * whole.nll == pytest.approx(evidence.item(), abs=4 * 4 * whole.nll_error)


def test_its_particles_run_at_once_and_its_rows_may_be_left_out():
    model, x = HierarchicalVAE(event=4, latent=(2, 2), hidden=4), torch.rand(120, 4).round()
    guide = Refined(Ladder(model, x[:3], hidden=4), steps=2)
    assert vectorizes(model, guide, (x[:5],), 1) is None
    assert evaluate(model, guide, x, particles=5, progress=False).notes == []


def test_pyros_bounds_take_it():
    model, x = HierarchicalVAE(event=4, latent=(2, 2), hidden=4), torch.rand(3, 4).round()
    guide, found = Refined(Ladder(model, x, hidden=4), steps=2), []
    for loss in (Trace_ELBO(), TraceMeanField_ELBO(), None):
        pyro.set_rng_seed(0)
        found.append(-terms(model, guide, (x,)).log_w.sum().item() if loss is None else loss.loss(model, guide, x))
    assert found == [pytest.approx(found[2])] * 3


def test_the_inspector_judges_the_base():
    model, x = HierarchicalVAE(event=4, latent=(2, 2), hidden=4), torch.rand(3, 4).round()
    report = compare(model, Refined(MeanField(model, x, hidden=4)), x)
    assert report.notes[0] == "refined: structure of the base" and report.missing == {"z2": ("z1",)}
    assert str(factorization(Refined(Ladder(model, x, hidden=4)), x)) == "q(z1 | x) q(z2 | z1, x)"


def local(x, size=20):
    with pyro.plate("data", size, subsample_size=5) as rows:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x[rows])


def shared(x, size=20):
    mean = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", size, subsample_size=5) as rows:
        pyro.sample("x", dist.Normal(mean.sum(-1), 1.0), obs=x[rows])


@pytest.mark.parametrize("kind", [MeanField, BottomUp])
def test_a_plate_that_subsamples_draws_its_data_once(kind):
    """The evidence of the rows, and what is observed of them, are those of one draw of indices."""
    x = 100.0 * torch.arange(20)
    guide = kind(local, x, hidden=4)
    for p in guide.parameters():
        p.data.zero_()
    found = terms(local, Refined(guide, steps=3), (x,)).log_likelihood["x"]
    assert found.shape == (1, 5) and len(found.unique()) == 5
    with pytest.raises(ValueError, match="'z' outside of the plate 'data', which draws 5 of 20"):
        terms(shared, Refined(kind(shared, x, hidden=4)), (x,))


def test_what_cannot_be_refined():
    model, x = VAE(event=4, latent=2, hidden=4), torch.rand(6, 4).round()
    guide = MeanField(model, x, hidden=4)
    with pytest.raises(ValueError, match="does not know its model"):
        Refined(lambda x: None)
    with pytest.raises(ValueError, match="'hvi', want a guide of this library"):
        Refined(lambda x: None, model=model, method="hvi")
    with pytest.raises(ValueError, match="takes some already"):
        evaluate(model, Refined(guide), x, refine=2, progress=False)
    with pytest.raises(ValueError, match="drawn from a InfusedNormal"):
        infusion = Infusion(event=4, steps=2, hidden=4)
        terms(infusion, Refined(Infused(infusion, x)), (x,))
    with pytest.raises(ValueError, match="'mean', which all 6 data share, in batches of 2"):
        many = torch.randn(6)
        fit(hidden_mean, Refined(Faithful(hidden_mean, many)), many, steps=1, batch_size=2, progress=False)
    with pytest.raises(ValueError, match="densities of other values"):
        how = {"objective": importance_weighted, "gradient": "doubly-reparametrized"}
        fit(model, Refined(guide), x, steps=1, **how, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_captured_step_is_the_eager_one(method):
    torch.set_default_dtype(torch.float32)
    losses = []
    for compiled in (False, True):
        pyro.set_rng_seed(0)
        model, x = HierarchicalVAE(event=4, latent=(2, 2), hidden=8), torch.rand(64, 4).round()
        guide = Refined(Ladder(model, x[:3], hidden=8), steps=2, method=method, hidden=8)
        run = fit(model, guide, x, steps=4, every=1, batch_size=16, seed=0, compile=compiled, progress=False)
        assert run.notes == []
        losses.append([record["loss"] for record in run.history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_the_bound_of_a_trained_vae_rises():
    torch.set_default_dtype(torch.float32)
    train, test = data.load("digits")
    model = VAE(event=64, latent=8, hidden=64)
    guide = MeanField(model, train[:3], hidden=64)
    fit(model, guide, train, steps=300, lr=3e-3, seed=0, progress=False)
    bounds = [evaluate(model, guide, test, particles=20, refine=k, progress=False).elbo for k in (0, 4, 8, 16)]
    assert bounds == sorted(bounds) and bounds[-1] - bounds[0] > 0.05  # of 360 x 20 draws


@pytest.mark.slow
@pytest.mark.parametrize(("model", "guide"), [each for each in PAIRS if each not in APART])
def test_every_pair_can_be_refined(model, guide):
    """With steps of no size nothing moves: the weights are those of the guide, whatever a pair is made of."""
    pyro.set_rng_seed(0)
    p, x = names.catalogue("model")[model](**SIZES[model]), data_of(model, 5).double()
    q = names.catalogue("guide")[guide](p, x[:3], **GUIDE_SIZES[guide])
    for method in METHODS:
        still = Refined(q, steps=2, method=method, momentum=1.0, hidden=4)
        still.size.data.fill_(-1e3)
        for net in still.reverse.values():
            net.last.weight.data.zero_(), net.last.bias.data.zero_()
        with pyro.poutine.trace() as drawn:
            still(x)
        sites = {name: node["fn"] for name, node in drawn.trace.nodes.items() if node["type"] == "sample"}
        sites = {name: fn for name, fn in sites.items() if hasattr(fn, "change")}
        assert sites and all(fn.change.abs().max() < 1e-12 for fn in sites.values())
        assert vectorizes(p, Refined(q, steps=1, method=method), (x,), 1) is None
        assert torch.isfinite(terms(p, Refined(q, steps=2, method=method), (x,), particles=2, nesting=1).log_w).all()


@pytest.mark.parametrize("method", METHODS)
def test_no_number_is_read_and_nothing_put_on_the_cpu(method):
    """On the meta device, where there are no numbers."""
    model, x = HierarchicalVAE(event=4, latent=(2, 2), hidden=4), torch.rand(3, 4).round()
    guide = Refined(Ladder(model, x, hidden=4), steps=2, method=method, hidden=4)
    with pyro.validation_enabled(False):
        (-terms(model.to("meta"), guide.to("meta"), (x.to("meta"),)).log_w.mean()).backward()
    assert all(p.grad.is_meta for p in guide.parameters())
