"""Criteria beyond the ELBO: identities, estimators of discrepancies, draws of the prior, every model and guide."""

import gc
import weakref
from functools import partial
from itertools import product

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from guides import BottomUp, Faithful, Infused, Ladder, MeanField, SelfReflective
from ppl_models import DLGM, VAE, HierarchicalVAE, Infusion, LinearGaussian, PixelVAE, SequentialVAE, SeReVAE
from ppl_models.inference import elbo, fit, info_vae, mmd, moment_matching, moments, terms, training_step, unregularized
from ppl_models.inference.objectives.criteria import aggregate
from ppl_models.inference.objectives.discrepancies import KERNELS, Gaussian, InverseMultiquadric, Laplace, Polynomial
from tests.helpers.cases import few

MODELS = {
    "vae": lambda: VAE(6, 2, 4),
    "dlgm": lambda: DLGM(6, (2, 3), 4),
    "hierarchical": lambda: HierarchicalVAE(6, (2, 3), 4),
    "sere": lambda: SeReVAE(6, 2, 2, 4),
    "pixel": lambda: PixelVAE((1, 2, 3), 2, 4, 2),
    "sequential": lambda: SequentialVAE(6, 2, 2, 4),
    "linear": lambda: LinearGaussian(6, (2, 2)),
    "infusion": lambda: Infusion(6, 2, 4, criterion="per-step"),
}
GUIDES = (MeanField, BottomUp, Ladder, SelfReflective, Faithful)
CRITERIA = {
    "unregularized": unregularized,
    "mmd": partial(info_vae, alpha=1.0, lambda_=10.0),
    "info": partial(info_vae, alpha=0.5, lambda_=3.0, discrepancy=partial(mmd, kernel="imq", estimator="linear")),
    "moments": partial(moment_matching, weight=2.0),
}


def bits(n: int = 8) -> Tensor:
    return (torch.rand(n, 6, generator=torch.Generator().manual_seed(1)) > 0.5).float()


# Discrepancies: estimators against closed forms


def exact_mmd(width: float, a: tuple[float, float], b: tuple[float, float]) -> float:
    """MMD^2 of N(m, s^2) in each of two independent coordinates, with the Gaussian kernel."""

    def mean_kernel(p: tuple[float, float], q: tuple[float, float]) -> float:
        spread = width**2 + p[1] ** 2 + q[1] ** 2
        return (width**2 / spread) * np.exp(-2 * (p[0] - q[0]) ** 2 / (2 * spread))

    return mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b)


@pytest.mark.parametrize("estimator", ["unbiased", "linear"])
def test_estimators_are_unbiased(estimator):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(3000, 12, 2, generator=generator).double(), torch.randn(3000, 8, 2, generator=generator).double()
    y = 0.5 + 1.5 * y
    found = torch.stack([mmd(a, b, kernel=Gaussian(0.8), estimator=estimator) for a, b in zip(x, y, strict=True)])
    error = found.std() / 3000**0.5
    assert abs(found.mean() - exact_mmd(0.8, (0, 1), (0.5, 1.5))) < 4 * error  # four standard errors
    null = torch.stack([mmd(a[:6], a[6:], kernel=Gaussian(0.8), estimator=estimator) for a in x])
    assert abs(null.mean()) < 4 * null.std() / 3000**0.5 and null.min() < 0


def test_the_biased_estimator_is_a_squared_distance():
    """With an explicit feature map: that of (1 + x y)^2 on the line is (1, sqrt 2 x, x^2)."""
    x, y = torch.randn(9, 1).double(), 1 + torch.randn(7, 1).double()

    def embedded(v: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(v), 2**0.5 * v, v**2], 1).mean(0)

    expected = (embedded(x) - embedded(y)).square().sum()
    torch.testing.assert_close(mmd(x, y, kernel=Polynomial(2), estimator="biased"), expected)


@pytest.mark.parametrize("kernel", KERNELS)
@hypothesis.given(st.integers(0, 10**6))
@hypothesis.settings(max_examples=20)
def test_kernels_are_symmetric_and_positive(kernel, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(n, 3, generator=generator).double() for n in (6, 5))
    k = KERNELS[kernel]
    table = k(x[:, None], x[None])
    torch.testing.assert_close(table, table.T)
    if kernel == "energy":  # positive between weights of sum zero, which is all that a discrepancy asks for
        center = torch.eye(6).double() - 1 / 6
        table = center @ table @ center
    assert torch.linalg.eigvalsh(table).min() > -1e-9 * table.abs().max()
    a, b = (mmd(p, q, kernel=kernel, estimator="biased") for p, q in ((x, y), (y, x)))
    torch.testing.assert_close(a, b)
    assert a > -1e-12 and mmd(x, x, kernel=kernel, estimator="biased").abs() < 1e-12


def test_default_widths_are_those_of_the_papers():
    x, y = torch.randn(4, 5).double(), torch.randn(4, 5).double()
    torch.testing.assert_close(Gaussian()(x, y), torch.exp(-(x - y).square().mean(-1) / 5))
    torch.testing.assert_close(InverseMultiquadric()(x, y), 10 / (10 + (x - y).square().sum(-1)))
    torch.testing.assert_close(Laplace()(x, y), torch.exp(-(x - y).abs().sum(-1) / 5))


def test_moments_see_means_and_covariances():
    x = torch.randn(500, 3).double()
    assert moments(x, x) == 0
    shifted = moments(x, x + torch.tensor([1.0, 0.0, 2.0]))
    torch.testing.assert_close(shifted, torch.tensor(5.0).double())
    wide = moments(x, 2 * (x - x.mean(0)) + x.mean(0))
    torch.testing.assert_close(wide, (3 * torch.cov(x.T)).square().sum())


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: mmd(x, x, kernel="rbf"), "mmd: found kernel='rbf', want one of 'gaussian', 'laplace', 'imq'"),
        (lambda x: mmd(x, x, estimator="fast"), "mmd: found estimator='fast', want one of 'unbiased', 'biased'"),
        (lambda x: mmd(x, x[:, :1]), r"mmd: found samples of shapes \(4, 2\) and \(4, 1\), want \(m, d\) and \(n, d\)"),
        (lambda x: mmd(x[:1], x), "with at least two draws each"),
        (lambda x: moments(x, x[0]), "moments: found samples of shapes"),
        (
            lambda x: mmd(x, x, kernel=lambda a, b: None),
            r"mmd: found None from kernel=a function, want an array of sha",
        ),
        (lambda x: mmd(x, x, kernel=lambda a, b: a - b), r"found a Tensor of shape \(4, 4, 2\) .*of shape \(4, 4\)"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call(torch.randn(4, 2))


# Criteria: identities


@pytest.fixture
def pair() -> tuple:
    model = HierarchicalVAE(6, (2, 3), 4).double()
    return model, SelfReflective(model, bits().double(), hidden=4), bits().double()


def test_criteria_by_hand(pair):
    model, guide, x = pair
    found = terms(model, guide, (x,), particles=3)
    likelihood = found.log_likelihood["x"].mean()
    rate = sum(kl.mean() for kl in found.kl.values())
    codes, prior = (torch.cat([s["z1"], s["z2"]], -1) for s in (found.drawn, found.prior))
    assert codes.shape == prior.shape == (3, 8, 5)
    torch.testing.assert_close(unregularized(found), likelihood)
    apart = sum(mmd(codes[k], prior[k]) for k in range(3)) / 3  # of each particle one code a datum
    torch.testing.assert_close(info_vae(found, alpha=0.75, lambda_=3.0), likelihood - 0.25 * rate - 2.75 * apart)
    expected = likelihood - 0.5 * (0.25 * rate + 2.75 * apart)
    torch.testing.assert_close(info_vae(found, 0.5, alpha=0.75, lambda_=3.0), expected)
    apart = sum(moments(codes[k], prior[k]) for k in range(3)) / 3
    torch.testing.assert_close(moment_matching(found, weight=3.0), likelihood - 3 * apart)


@pytest.mark.parametrize("particles", few([1, 4], lambda particles: particles == 4))
def test_the_discrepancy_of_codes_from_their_prior_is_unbiased_with_particles(particles):
    """q(z | x) = N(0.8 x, 0.6^2) of x ~ N(0, 1): the aggregate is the prior, and the codes of one datum are alike."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.8 * x, 0.6).to_event(1))

    apart = partial(mmd, kernel=Gaussian(1.0))
    values = [torch.randn(12, 1) for _ in range(800)]
    found = torch.stack([aggregate(terms(model, guide, (x,), particles=particles, nesting=1), apart) for x in values])
    assert abs(found.mean()) < 4 * found.std() / 800**0.5  # four standard errors


def test_known_criteria_are_special_cases(pair):
    model, guide, x = pair
    found = terms(model, guide, (x,))
    assert info_vae(found, alpha=0.0, lambda_=1.0) == elbo(found)
    torch.testing.assert_close(info_vae(found, alpha=-1.8, lambda_=2.8), elbo(found, 2.8))  # 1 up to rounding
    torch.testing.assert_close(info_vae(found, alpha=-3.0, lambda_=4.0), elbo(found, 4.0))  # a beta-VAE
    assert unregularized(found, 17.0) == elbo(found, 0.0) == moment_matching(found, weight=0.0)
    infinite = terms(model, guide, (x,))
    infinite.kl["z1"] = torch.full_like(infinite.kl["z1"], float("inf"))
    assert unregularized(infinite).isfinite()


def test_what_is_unbounded_is_refused(pair):
    found = terms(*pair[:2], (pair[2],))
    for options in ({"alpha": 1.5, "lambda_": 1.0}, {"alpha": -1.0, "lambda_": 1.0}):
        with pytest.raises(ValueError, match="want alpha at most 1 and alpha .* lambda_ at least 1"):
            info_vae(found, **options)
    with pytest.raises(ValueError, match="moment_matching: found weight=-1, want at least 0"):
        moment_matching(found, weight=-1)


# Draws of the prior


def test_the_prior_is_drawn_downwards_and_no_further_than_its_last_latent():
    reached = []

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.tensor(1.0), 2.0))
            b = pyro.sample("b", dist.Normal(3 * a, 0.5))
            reached.append(len(x))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(x, 0.1))
            pyro.sample("b", dist.Normal(x, 0.1))

    x = torch.zeros(2000)
    found = terms(model, guide, (x,), particles=2)
    before = len(reached)
    a, b = found.prior["a"], found.prior["b"]
    assert a.shape == b.shape == (2, 2000, 1) and len(reached) == before
    table = torch.cat([a, b], -1).flatten(0, 1)
    assert (table.mean(0) - torch.tensor([1.0, 3.0])).abs().max() < 5 * 6.1 / 4000**0.5
    torch.testing.assert_close(torch.cov(table.T), torch.tensor([[4.0, 12.0], [12.0, 36.25]]), rtol=0.1, atol=0)
    assert found.prior["a"] is a  # one run


def test_what_nothing_asks_for_is_not_drawn():
    model, x = VAE(6, 2, 4), bits()
    guide = MeanField(model, x, hidden=4)
    torch.manual_seed(0)
    found = terms(model, guide, (x,))
    elbo(found)
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    aggregate(terms(model, guide, (x,)), mmd)
    assert not torch.equal(state, torch.random.get_rng_state())


def test_gradients_reach_a_prior_that_is_learned(pair):
    model, guide, x = pair
    aggregate(terms(model, guide, (x,)), mmd).backward()
    assert all(p.grad is not None for p in model.priors.parameters())
    assert model.priors[0].last.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.decoder.parameters())


def test_global_latents_have_no_aggregate():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    with pytest.raises(ValueError, match="discrepancy of q.z.: found the latent 'mu' outside the plate of the data"):
        info_vae(terms(model, guide, (torch.randn(4),)), alpha=0.0, lambda_=2.0)


def test_masked_latents_are_refused():
    def model(x):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=x > 0):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.randn(4)
    with pytest.raises(ValueError, match="site 'z': found a mask on this latent, want a code for every datum"):
        info_vae(terms(model, MeanField(model, x, hidden=4), (x,)), alpha=0.0, lambda_=2.0)


def test_a_pass_is_let_go_before_its_prior_is_drawn():
    """What the decoder has made of the guide's codes must not live as long as the terms do."""
    model, x = VAE(6, 2, 4), bits()
    kept = []

    class Watched(torch.nn.Module):
        def forward(self, z):
            y = decoder(z)
            kept.append(weakref.ref(y))
            return y

    decoder, model.decoder = model.decoder, Watched()
    guide = MeanField(model, x, hidden=4)
    kept.clear()
    with torch.no_grad():
        found = terms(model, guide, (x,))
    gc.collect()
    assert not [ref for ref in kept if ref() is not None] and found.prior["z1"].shape == (1, 8, 2)


# Every model and guide, eager and captured


def often(model: str, guide: type, criterion: str) -> bool:
    """Every model, every guide and every criterion."""
    if criterion != "mmd":
        return (model, guide) == ("vae", MeanField)
    return guide in (MeanField, Infused) or model == "hierarchical"


@pytest.mark.parametrize(
    ("model", "guide", "criterion"),
    few(
        [(*pair, c) for pair in [*product(MODELS, GUIDES), ("infusion", Infused)] for c in CRITERIA],
        often,
    ),
)
def test_every_criterion_trains_every_pair(model, guide, criterion):
    p, x = MODELS[model](), bits()
    q = guide(p, x, **({} if guide is Infused else {"hidden": 4}))
    run = fit(p, q, x, steps=2, batch_size=4, particles=2, objective=CRITERIA[criterion], seed=0, progress=False)
    assert np.isfinite(run.history[-1]["loss"])
    assert all(torch.isfinite(parameter).all() for parameter in (*p.parameters(), *q.parameters()))


SLOWER = [pytest.param(name, marks=pytest.mark.slow) for name in ("unregularized", "info", "moments")]


@pytest.mark.parametrize("criterion", ["mmd", *SLOWER])
def test_a_captured_step_is_the_eager_one(criterion):
    losses = {}
    for compiled in (False, True):
        pyro.set_rng_seed(0)
        p, x = HierarchicalVAE(6, (2, 3), 4, depth=0), bits()
        q = SelfReflective(p, x, encoder="linear", depth=0)
        step = training_step(p, q, (x,), objective=CRITERIA[criterion], compile=compiled)
        pyro.set_rng_seed(1)
        losses[compiled] = [float(step(x)) for _ in range(3)]
        assert not step.notes
    np.testing.assert_allclose(losses[False], losses[True], rtol=1e-4)


@pytest.mark.slow
def test_mmd_pulls_the_codes_to_the_prior_and_leaves_them_information():
    """Data that one code can tell: with alpha = 1 the aggregate is near the prior, and each code is narrow."""
    pyro.set_rng_seed(0)
    x = torch.randn(2000, 1) @ torch.tensor([[1.0, -1.0, 0.5]]) * 3 + 0.1 * torch.randn(2000, 3)
    model = VAE(3, 1, 16, likelihood="gaussian:0.3")
    guide = MeanField(model, x[:3], hidden=16)
    objective = partial(info_vae, alpha=1.0, lambda_=300.0, discrepancy=partial(mmd, kernel=Gaussian(1.0)))
    fit(model, guide, x, steps=600, batch_size=200, lr=1e-2, objective=objective, seed=0, progress=False)
    with torch.no_grad():
        found = terms(model, guide, (x,))
    z = found.drawn["z1"]
    assert abs(z.mean()) < 0.15 and 0.8 < z.std() < 1.2
    assert found.log_q["z1"].mean() > 0.5  # a standard normal has -1.42: each code says much of its datum
