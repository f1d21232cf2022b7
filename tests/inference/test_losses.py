"""`estimate` and `Loss`: values and gradients against Pyro's own, closed forms and formulas written out."""

import copy
import functools
import gc
import math
import weakref
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from torch import Tensor, nn
from torch.distributions import constraints
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from guides import BottomUp, Ladder, MeanField, SelfReflective
from ppl_models import VAE, HierarchicalVAE, LinearGaussian, SeReVAE
from ppl_models.inference.objectives.bounds import elbo, free_bits, importance_weighted, soft_free_bits
from ppl_models.inference.pyro.passes.losses import Loss, estimate
from ppl_models.inference.pyro.passes.messengers import Substitute
from ppl_models.inference.pyro.passes.terms import terms, traces
from ppl_models.parts import Program
from tests.helpers.cases import few

DOUBLY = "doubly-reparametrized"
OBJECTIVES = [
    (elbo, "reparametrized"),
    (partial(free_bits, nats=0.1), "reparametrized"),
    (partial(free_bits, nats=0.1, per="unit"), "reparametrized"),
    (soft_free_bits, "reparametrized"),
    (importance_weighted, "reparametrized"),
    (importance_weighted, DOUBLY),
]


pytestmark = pytest.mark.usefixtures("double")


def rows(n: int = 6, event: int = 4, seed: int = 1) -> Tensor:
    return torch.rand(n, event, generator=torch.Generator().manual_seed(seed)).round()


def hierarchy(guide=SelfReflective, layers: int = 3, n: int = 6, spread: float = 0.3, **sizes):
    """A SeRe-VAE and a guide away from its start, where posterior and prior agree."""
    x = rows(n)
    model = SeReVAE(4, layers=layers, latent=2, hidden=8)
    guide = guide(model, x, **{"hidden": 4, **sizes})
    with torch.no_grad():
        for p in (*model.parameters(), *guide.parameters()):
            p += spread * torch.randn(p.shape)
    return model, guide, x


def vae():
    model, x = VAE(4, 2, hidden=8), rows()
    return model, MeanField(model, x, hidden=4), x


def gradient(value: Tensor, params) -> list[Tensor]:
    params = list(params)
    found = torch.autograd.grad(value, params, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(params, found, strict=True)]


def both(model, guide) -> list[Tensor]:
    return [*model.parameters(), *guide.parameters()]


def same(found: list[Tensor], expected: list[Tensor], **tolerance) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


# Against Pyro's own objectives, draw by draw.


@pytest.mark.parametrize("particles", [1, 4])
@pytest.mark.parametrize(
    ("guide", "ours", "theirs"),
    [
        (SelfReflective, partial(Loss, elbo, analytic=False), Trace_ELBO),
        (SelfReflective, partial(Loss, elbo), TraceMeanField_ELBO),
        (SelfReflective, partial(Loss, importance_weighted), partial(RenyiELBO, alpha=0)),
        # the divergences of a guide in another order are no closed forms: ours samples them
        (BottomUp, partial(Loss, elbo), Trace_ELBO),
        (BottomUp, partial(Loss, importance_weighted), partial(RenyiELBO, alpha=0)),
    ],
)
def test_value_and_gradient_are_those_of_pyro(guide, particles, ours, theirs):
    model, guide, x = hierarchy(guide)
    pair = poutine.trace(param_only=True)  # Pyro goes backward only where it sees parameters
    found = []
    vectorized = {"num_particles": particles, "vectorize_particles": particles > 1, "max_plate_nesting": 1}
    for loss in (ours(particles=particles), theirs(**vectorized)):
        for p in both(model, guide):
            p.grad = None
        pyro.set_rng_seed(3)
        with pair:
            value = loss.loss_and_grads(model, guide, x)
        pyro.set_rng_seed(3)
        assert float(loss.loss(model, guide, x)) == pytest.approx(float(value), rel=1e-10)
        found.append((float(value), [p.grad for p in both(model, guide)]))
    pyro.clear_param_store()
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-10)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert (a is None) == (b is None) or (a if b is None else b).abs().max() == 0
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def plain_model(x: Tensor, size: int | None = None) -> None:
    scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x), subsample_size=size) as index:
        pyro.sample("y", dist.Normal(w * x[index, 0], scale), obs=x[index, 1])


def plain_guide(x: Tensor, size: int | None = None) -> None:
    loc = pyro.param("loc", torch.tensor(0.0))
    spread = pyro.param("spread", torch.tensor(0.5), constraint=constraints.positive)
    pyro.sample("w", dist.Normal(loc, spread))


def regression(n: int = 100) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, generator=generator)
    return torch.stack([x, 2 * x + 0.1 * torch.randn(n, generator=generator)], 1)


@pytest.mark.parametrize("size", [None, 10])
@pytest.mark.parametrize("analytic", [True, False])
def test_programs_with_globals_have_the_scale_of_pyro(size, analytic):
    """Those that subsample, too: there the loss is of all the data."""
    x, values = regression(), []
    plain_model(x), plain_guide(x)
    theirs = TraceMeanField_ELBO() if analytic else Trace_ELBO()
    for loss in (Loss(elbo, analytic=analytic), theirs):
        loss.loss(plain_model, plain_guide, x, size)  # ours looks at the pair once
        pyro.set_rng_seed(5)
        value = loss.differentiable_loss(plain_model, plain_guide, x, size)
        params = [p.unconstrained() for p in pyro.get_param_store().values()]
        values.append([value.detach(), *gradient(value, params)])
    same(*values)
    # a batch of 100 of 1000 data without a plate that knows: the divergence of w is weighed by a tenth
    pyro.set_rng_seed(5)
    one = Loss(elbo, data_size=1000).differentiable_loss(plain_model, plain_guide, x)
    pyro.set_rng_seed(5)
    found = terms(plain_model, plain_guide, (x,))
    torch.testing.assert_close(one, found.kl["w"].sum() / 10 - found.log_likelihood["y"].sum())


def test_a_program_without_plates():
    def model(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(x / 2, 0.5**0.5).to_event(1))

    x = torch.tensor([0.3, -1.0, 2.0])
    evidence = dist.Normal(0.0, 2**0.5).log_prob(x).sum().item()
    for arguments in ({}, {"data_size": 3}, {"particles": 5}):
        for objective in (partial(elbo), importance_weighted):
            loss = Loss(objective, analytic=False, **arguments)
            assert loss.loss(model, guide, x) == pytest.approx(-evidence)


# Training.


def two_patterns() -> Tensor:
    """(20, 8) in single precision: the last three values are all 0 or all 1."""
    return torch.tensor([[1.0, 0, 1, 0, 1, 1, 1, 1], [1.0, 0, 1, 0, 1, 0, 0, 0]]).repeat(10, 1)


@pytest.mark.parametrize("objective", [elbo, partial(free_bits, nats=0.1), importance_weighted])
def test_svi_trains_a_first_and_a_second_pair(objective):
    torch.set_default_dtype(torch.float)
    for make in (lambda m, x: MeanField(m, x, hidden=8), lambda m, x: BottomUp(m, x, hidden=8)):
        x = two_patterns()
        model = VAE(8, 2, hidden=8)
        guide = make(model, x)
        before = [p.detach().clone() for p in both(model, guide)]
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Loss(objective, particles=3))
        losses = [svi.step(x) for _ in range(30)]
        assert isinstance(losses[0], float) and isinstance(svi.evaluate_loss(x), float)
        assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
        moved = [not torch.equal(a, b) for a, b in zip(before, both(model, guide), strict=True)]
        assert sum(moved) > 0.9 * len(moved)
        assert all(p.grad is None or (p.grad == 0).all() for p in both(model, guide))


@pytest.mark.parametrize("size", [None, 50])
def test_svi_finds_the_posterior_of_plain_functions(size):
    x = regression()
    svi = SVI(plain_model, plain_guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.995}), Loss())
    for _ in range(800):
        svi.step(x, size)
    scale, loc, spread = (pyro.param(name).item() for name in ("scale", "loc", "spread"))
    precision = 1 + x[:, 0].square().sum().item() / scale**2
    assert loc == pytest.approx((x[:, 0] @ x[:, 1]).item() / scale**2 / precision, abs=0.02)
    assert scale == pytest.approx(0.1, rel=0.2) and spread == pytest.approx(precision**-0.5, rel=0.5)


def test_a_module_for_any_optimizer():
    torch.set_default_dtype(torch.float)
    x = two_patterns()
    model = VAE(8, 2, hidden=8)
    module = Loss(importance_weighted, particles=4, gradient=DOUBLY)(model, MeanField(model, x, hidden=8))
    assert isinstance(module, nn.Module) and {*module.parameters()} == {*both(model, module.guide)}
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        value = module(x)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert not list(pyro.get_param_store().keys())


@pytest.mark.parametrize(
    ("auto", "gradient"),
    few(
        [(auto, how) for auto in (AutoNormal, AutoMultivariateNormal, AutoDelta) for how in ("reparametrized", DOUBLY)],
        lambda auto, gradient: (auto, gradient) in ((AutoNormal, "reparametrized"), (AutoMultivariateNormal, DOUBLY)),
    ),
)
def test_guides_of_pyros_own(auto, gradient):
    x = regression()
    guide = auto(plain_model)
    guide(x)
    svi = SVI(
        plain_model, guide, pyro.optim.Adam({"lr": 0.1}), Loss(importance_weighted, particles=4, gradient=gradient)
    )
    for _ in range(250):
        svi.step(x)
    assert guide.median(x)["w"].item() == pytest.approx(2.0, abs=0.12)


# The doubly-reparametrized gradient.


def two_runs(model, guide, x: Tensor, particles: int, beta: float = 1.0) -> list[Tensor]:
    """Written out: a run that draws, and a second one at the same values, as leaves, that weighs."""
    pyro.set_rng_seed(7)
    with pyro.plate("_particles", particles, dim=-2):
        _, drawn, _ = traces(model, guide, (x,), {})
    z = {name: drawn.nodes[name]["value"] for name in ("z1", "z2", "z3")}
    leaves = {name: value.detach().requires_grad_() for name, value in z.items()}
    with Substitute(leaves):
        found = terms(model, guide, (x,), particles=particles, nesting=1)
    log_p, log_q = sum(found.log_p.values()), sum(found.log_q.values())
    log_w = sum(found.log_likelihood.values()) + beta * (log_p - log_q)
    share = torch.softmax(log_w, 0).detach()
    slopes = torch.autograd.grad(log_w, list(leaves.values()), share * (1 - beta + beta * share), retain_graph=True)
    direct = (share * (sum(found.log_likelihood.values()) + beta * log_p)).sum()
    path = sum((s * v).sum() for s, v in zip(slopes, z.values(), strict=True))
    return gradient(-(direct + path) / len(x), both(model, guide))


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("guide", [SelfReflective, Ladder, BottomUp])
def test_doubly_reparametrized_by_two_runs(guide, beta):
    model, guide, x = hierarchy(guide)
    expected = two_runs(model, guide, x, 5, beta)
    pyro.set_rng_seed(7)
    value, found = estimate(
        importance_weighted, model, guide, (x,), beta=torch.tensor(beta), particles=5, nesting=1, gradient=DOUBLY
    )
    same(gradient(value, both(model, guide)), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(value, -importance_weighted(found[0], beta))
    pyro.set_rng_seed(7)
    plain, _ = estimate(importance_weighted, model, guide, (x,), beta=beta, particles=5, nesting=1)
    torch.testing.assert_close(value, plain)
    with torch.no_grad():
        assert not estimate(importance_weighted, model, guide, (x,), gradient=DOUBLY)[0].requires_grad


def agree_in_mean(model, guide, params, x, repeats: int, beta: float = 1.0, **how) -> None:
    """The two gradients have one mean: differences, of `repeats` batches of replicates, within 5.5 standard errors."""
    differences = []
    for _ in range(repeats):
        one, two = (
            estimate(importance_weighted, model, guide, (x,), beta=beta, nesting=1, gradient=word, **how)[0]
            for word in ("reparametrized", DOUBLY)
        )
        pair = [torch.cat([g.flatten() for g in gradient(value, params)]) for value in (one, two)]
        differences.append(pair[0] - pair[1])
    d = torch.stack(differences)
    error = d.std(0) / math.sqrt(repeats)
    live = error > 1e-12
    assert live.any() and (d.mean(0)[~live].abs() < 1e-10).all()
    assert (d.mean(0)[live] / error[live]).abs().max() < 5.5


@pytest.mark.parametrize(
    ("guide", "beta", "how"),
    [
        pytest.param(SelfReflective, 1.0, {"particles": 3}, marks=pytest.mark.slow),
        pytest.param(SelfReflective, 0.5, {"particles": 3}, marks=pytest.mark.slow),
        pytest.param(SelfReflective, 0.5, {"passes": 3}, marks=pytest.mark.slow),
        pytest.param(BottomUp, 1.0, {"particles": 3}, marks=pytest.mark.slow),
    ],
)
def test_doubly_reparametrized_is_unbiased(guide, beta, how):
    """Of a hierarchy whose guide shares parameters with the prior: 40 batches of 300 replicates."""
    model, guide, x = hierarchy(guide, layers=2, spread=0.2)
    agree_in_mean(model, guide, both(model, guide), x[:1].expand(300, -1), 40, beta, **how)


@pytest.mark.parametrize("auto", [AutoNormal, AutoMultivariateNormal])
def test_auxiliary_draws_and_globals_are_unbiased(auto):
    """Of guides that draw an auxiliary site and make point masses of it; all data have one weight."""
    x = regression(3)
    guide = auto(plain_model, init_scale=0.3)
    guide(x)
    params = [*guide.parameters(), pyro.get_param_store()._params["scale"]]
    agree_in_mean(plain_model, guide, params, x, 200, particles=3)


class Exact(Program):
    """q(z1 | x) = N(A x + b, L L^T) with the moments of the posterior, as parameters."""

    def __init__(self, model: LinearGaussian) -> None:
        super().__init__()
        eye = torch.eye(model.event)
        at = model.posterior(torch.cat([torch.zeros(1, model.event), eye]))
        self.bias = nn.Parameter(at.mean[0].detach().clone())
        self.map = nn.Parameter((at.mean[1:] - at.mean[0]).T.detach().clone())
        self.tril = nn.Parameter(at.scale_tril[0].detach().clone())

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.MultivariateNormal(x @ self.map.T + self.bias, scale_tril=self.tril))


def test_at_an_exact_guide_its_doubly_reparametrized_gradient_is_zero():
    model = LinearGaussian(latent=(2,), generator=torch.Generator().manual_seed(0))
    guide, x = Exact(model), model(n=4).detach()
    arguments = {"particles": 8, "nesting": 1}
    value, _ = estimate(importance_weighted, model, guide, (x,), gradient=DOUBLY, **arguments)
    torch.testing.assert_close(value, -model.log_evidence(x).mean())
    assert all(g.abs().max() < 1e-10 for g in gradient(value, guide.parameters()))
    plain, _ = estimate(importance_weighted, model, guide, (x,), **arguments)
    assert max(g.abs().max() for g in gradient(plain, guide.parameters())) > 1e-2
    # that of the model is an average of scores, whose mean is the gradient of the evidence
    x = x[:1].expand(20_000, -1)
    value, _ = estimate(importance_weighted, model, guide, (x,), gradient=DOUBLY, **arguments)
    same(
        gradient(value, model.parameters()),
        gradient(-model.log_evidence(x[:1]).mean(), model.parameters()),
        atol=0.03,
        rtol=0,
    )


def test_the_guides_signal_stands_out():
    """Near the posterior, with 64 particles, the variance of the guide's gradient falls by more than ten."""
    model = LinearGaussian(latent=(2,), generator=torch.Generator().manual_seed(0))
    guide, x = Exact(model), model(n=1).detach()
    with torch.no_grad():
        guide.bias += 0.1
    found = {word: [] for word in ("reparametrized", DOUBLY)}
    for word, gradients in found.items():
        for _ in range(50):
            value, _ = estimate(importance_weighted, model, guide, (x,), particles=64, nesting=1, gradient=word)
            gradients.append(torch.cat([g.flatten() for g in gradient(value, guide.parameters())]))
    plain, doubly = (torch.stack(g).var(0).sum() for g in found.values())
    assert 10 * doubly < plain


def test_point_masses_are_parameters():
    """MAP by a point mass: every weight is equal, and the gradient is that of the joint density."""
    x = regression(20)

    def guide(x: Tensor) -> None:
        pyro.sample("w", dist.Delta(pyro.param("w_map", torch.tensor(0.3))))

    plain_model(x), guide(x)
    params = [p.unconstrained() for p in pyro.get_param_store().values()]
    values = [
        estimate(importance_weighted, plain_model, guide, (x,), particles=4, nesting=1, gradient=word)[0]
        for word in ("reparametrized", DOUBLY)
    ]
    same(*(gradient(value, params) for value in values))


# Capture, synchronization, memory.


@pytest.mark.parametrize(
    ("make", "objective", "how"),
    few(
        [(vae, *each) for each in OBJECTIVES]
        + [(partial(hierarchy, SelfReflective, 2), *OBJECTIVES[i]) for i in (2, 5)]
        + [(partial(hierarchy, BottomUp, 2), *OBJECTIVES[i]) for i in (0, 5)],
        lambda make, *how: make is vae,
    ),
)
def test_capture(make, objective, how):
    """One graph of the step, right for other data, noise and weights of the divergences than those of the capture."""
    model, guide, x = make()
    params = both(model, guide)

    def step(x: Tensor, beta: Tensor, *params: Tensor) -> tuple[Tensor, ...]:
        value, _ = estimate(objective, model, guide, (x,), beta=beta, particles=3, nesting=1, gradient=how)
        return value, *gradient(value, params)

    with pyro.validation_enabled(False):
        graph = make_fx(step)(x, torch.tensor(0.2), *params)
        other = rows(seed=2)
        for beta in (0.7, 1.0):
            pyro.set_rng_seed(4)
            expected = step(other, torch.tensor(beta), *params)
            pyro.set_rng_seed(4)
            same(graph(other, torch.tensor(beta), *params), expected)


class Synchronizations(TorchDispatchMode):
    """Raises where a number is read, or a size that data decide."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(word in str(func) for word in ("_local_scalar_dense", "nonzero", "masked_select")):
            raise AssertionError(f"{func} makes a device wait")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("objective", "how"), OBJECTIVES)
def test_no_number_is_read(objective, how):
    model, guide, x = hierarchy(SelfReflective, layers=2)
    loss = Loss(objective, particles=3, gradient=how, beta=torch.tensor(0.5))
    loss.differentiable_loss(model, guide, x)
    beta = torch.tensor(0.5)
    with pyro.validation_enabled(False), Synchronizations():
        loss.differentiable_loss(model, guide, x).backward()
        estimate(objective, model, guide, (x,), beta=beta, passes=2, nesting=1, gradient=how)[0].backward()
        with pytest.raises(AssertionError, match="makes a device wait"):
            loss.loss(model, guide, x)


@pytest.mark.parametrize("how", ["reparametrized", DOUBLY])
def test_nothing_of_a_step_stays(how):
    model, guide, x = hierarchy()
    loss = Loss(importance_weighted, particles=2, gradient=how)
    value, found = estimate(importance_weighted, model, guide, (x,), particles=2, nesting=1, gradient=how)
    gone = [weakref.ref(value), *(weakref.ref(t) for t in found[0].log_q.values())]
    loss.loss_and_grads(model, guide, x)
    del value, found
    gc.collect()
    assert not any(ref() is not None for ref in gone)


# How particles run.


def test_passes_are_particles_of_one_bound():
    model = LinearGaussian(latent=(2,), generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    guide = Exact(model)
    with torch.no_grad():
        guide.bias += 0.3
    x = model(n=1).expand(20_000, -1)
    values = []
    for how in ({"particles": 8}, {"passes": 8}, {"particles": 2, "passes": 4}):
        value, found = estimate(importance_weighted, model, guide, (x,), nesting=1, **how)
        assert len(found) == how.get("passes", 1)
        values.append(value.item())
    single = estimate(importance_weighted, model, guide, (x,))[0].item()
    assert max(values) - min(values) < 0.02 and single - max(values) > 0.1


class OneByOne(Program):
    """A decoder that is wrong with a particle dim: it reduces over dim 0."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.seen = nn.BatchNorm1d(2), []

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z1", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            self.seen.append(z.dim())
            pyro.sample("x", dist.Normal(self.norm(z.reshape(len(x), 2)), 1.0).to_event(1), obs=x)


class Inference(Program):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 2)

    def forward(self, x: Tensor, shift: float = 0.0) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.Normal(self.net(x) + shift, 1.0).to_event(1))


def test_particles_run_one_by_one_where_a_program_needs_it():
    model, guide, x = OneByOne(), Inference(), torch.randn(5, 2)
    loss = Loss(importance_weighted, particles=4)
    means = model.norm.running_mean.clone()
    loss.differentiable_loss(model, guide, x)
    assert model.seen[-4:] == [2] * 4 and model.norm.num_batches_tracked == 4 and model.training
    assert not torch.equal(means, model.norm.running_mean)
    # looking draws nothing: the second call, which does not look, gives what that of a fresh loss gives
    model.eval()
    values = []
    for one in (loss, Loss(importance_weighted, particles=4)):
        pyro.set_rng_seed(3)
        values.append(one.loss(model, guide, x))
    assert values[0] == values[1] and not model.training


def test_keyword_arguments():
    def model(x: Tensor, shift: float = 0.0) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z1", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + shift, 1.0).to_event(1), obs=x)

    guide, x = Inference(), torch.randn(5, 2)
    loss = Loss(elbo, particles=2, analytic=False)
    assert loss.loss(model, guide, x, shift=30.0) > loss.loss(model, guide, x) + 100


def test_the_weight_may_change_between_steps():
    model, guide, x = hierarchy()
    loss, values = Loss(beta=0.0), []
    for beta in (0.0, 1.0):
        loss.beta = beta
        pyro.set_rng_seed(1)
        values.append(loss.loss(model, guide, x))
    pyro.set_rng_seed(1)
    found = terms(model, guide, (x,))
    assert values[1] - values[0] == pytest.approx(sum(v.sum() for v in found.kl.values()).item())


# What is refused.


def discrete(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.5)))
        pyro.sample("x", dist.Normal(k, 1.0), obs=x)


def discrete_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("k", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.3))))


def test_latents_that_are_not_reparametrized():
    x = torch.randn(4)
    loss = Loss(analytic=False)
    assert math.isfinite(loss.loss(discrete, discrete_guide, x))  # a value needs no gradient
    with pytest.raises(ValueError, match="Loss: the guide draws the site 'k' from a Bernoulli, not reparametrized"):
        loss.differentiable_loss(discrete, discrete_guide, x)
    with pytest.raises(ValueError, match="the guide draws the site 'k' from a Bernoulli, not repar.*doubly"):
        estimate(importance_weighted, discrete, discrete_guide, (x,), gradient=DOUBLY)


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"gradient": "score"}, ValueError, "found gradient='score', want 'reparametrized' or 'doubly-rep"),
        ({"gradient": DOUBLY}, ValueError, "with the objective elbo, want importance_weighted"),
        ({"objective": partial(free_bits, nats=1.0), "gradient": DOUBLY}, ValueError, "want importance_weighted"),
        ({"particles": 0}, ValueError, "Loss: found particles=0, want an integer of at least 1"),
        ({"objective": "elbo"}, TypeError, "Loss: found objective='elbo', want a function of Terms"),
        ({"objective": Trace_ELBO}, TypeError, "want a function of Terms"),
        ({"objective": Trace_ELBO()}, TypeError, "want a function of Terms"),
    ],
)
def test_arguments(arguments, kind, words):
    with pytest.raises(kind) as caught:
        Loss(**arguments)
    assert words in str(caught.value)


def test_pairs_that_do_not_fit():
    model, guide, x = hierarchy()
    with pytest.raises(ValueError, match="runs its own model"):
        Loss()(copy.deepcopy(model), guide)(x)
    other = HierarchicalVAE(4, (2, 2), hidden=8)
    with pytest.raises(ValueError, match="no factor for the site|does not draw"):
        Loss()(other, functools.partial(plain_guide))(x)
