"""Programs under Pyro's own tools: registration, training, copies, devices' dtypes, and what is left behind."""

import copy
import gc
import warnings
import weakref
from collections.abc import Callable

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from guides import BottomUp, Ladder, MeanField, SelfReflective
from ppl_models import VAE, HierarchicalVAE, LinearGaussian, SeReVAE
from ppl_models.inference.pyro.passes.terms import terms
from ppl_models.inference.pyro.training.fit import fit
from tests.helpers.cases import few

GUIDES = (MeanField, BottomUp, Ladder, SelfReflective)
TOP_DOWN = (MeanField, Ladder, SelfReflective)

pytestmark = pytest.mark.filterwarnings("ignore:Failed to verify mean field restriction")


def pixels(n: int = 16, width: int = 12) -> Tensor:
    """Binary rows that have something to learn: each is one of two patterns, a tenth of the pixels flipped."""
    generator = torch.Generator().manual_seed(0)
    patterns = (torch.rand(2, width, generator=generator) < 0.5).float()
    rows = patterns[torch.randint(2, (n,), generator=generator)]
    flips = torch.rand(n, width, generator=generator) < 0.1
    return torch.where(flips, 1 - rows, rows)


def pair(guide: Callable = SelfReflective, x: Tensor | None = None) -> tuple[nn.Module, nn.Module]:
    model = HierarchicalVAE(12, (2, 3), hidden=8)
    return model, guide(model, pixels(3) if x is None else x, hidden=8)


def weights(*modules: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for module in modules for p in module.parameters()]


@pytest.mark.parametrize("guide", few(GUIDES, lambda guide: guide is SelfReflective))
def test_svi_trains_a_first_and_a_second_pair_alike(guide):
    x = pixels(64)
    improved = []
    for _ in range(2):
        pyro.set_rng_seed(3)
        model, q = pair(guide)
        before = weights(model, q)
        svi = SVI(model, q, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
        losses = [svi.step(x) for _ in range(60)]
        moved = [not torch.equal(a, b) for a, b in zip(before, weights(model, q), strict=True)]
        assert all(moved)
        improved.append((sum(losses[:10]), sum(losses[-10:])))
    assert improved[0] == improved[1]  # the same seed, so the same numbers: nothing of the first pair is left in it
    assert improved[0][1] < 0.9 * improved[0][0]


@pytest.mark.parametrize("guide", few(GUIDES, lambda guide: guide is Ladder))
@pytest.mark.parametrize("elbo", [Trace_ELBO(), TraceMeanField_ELBO()])
def test_torch_optimizers_train_through_pyros_losses(guide, elbo):
    x = pixels(64)
    model, q = pair(guide)
    loss = elbo(model, q)
    optimizer = torch.optim.Adam([*model.parameters(), *q.parameters()], lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(x)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert len(pyro.get_param_store()) == 0


@pytest.mark.parametrize("guide", few(GUIDES, lambda guide: guide in (MeanField, SelfReflective)))
def test_vectorized_particles_agree_in_mean_with_a_loop(guide):
    x = pixels(8)
    model, q = pair(guide)

    def draws(**options: object) -> Tensor:
        elbo = Trace_ELBO(max_plate_nesting=1, **options)
        with torch.no_grad():
            return torch.tensor([elbo.differentiable_loss(model, q, x) for _ in range(40)])

    loop, vectorized = draws(num_particles=5), draws(num_particles=5, vectorize_particles=True)
    # five standard errors of a difference of means over 40 losses of 5 particles
    error = 5 * ((loop.var() + vectorized.var()) / 40).sqrt()
    assert (loop.mean() - vectorized.mean()).abs() < error


@pytest.mark.parametrize("guide", GUIDES)
def test_predictive_with_the_guide_and_without(guide):
    x = pixels(5)
    model, q = pair(guide)
    samples = Predictive(model, guide=q, num_samples=7)(x)
    assert {name: samples[name].shape[0] for name in ("z1", "z2")} == {"z1": 7, "z2": 7}
    assert samples["z2"].shape[-2:] == (5, 3)
    generated = Predictive(model, num_samples=7)()
    assert generated["x"].shape[0] == 7 and generated["x"].shape[-2:] == (1, 12)


def test_predictive_in_parallel():
    model, q = pair(x=pixels(5))
    samples = Predictive(model, guide=q, num_samples=7, parallel=True, return_sites=["z1", "z2"])(pixels(5))
    assert samples["z2"].shape == (7, 5, 3)


def test_a_hundred_models_leave_the_param_store_empty():
    x = pixels(4)
    for _ in range(100):
        model = VAE(12, 2, 4)
        model(x)
    model, q = pair()
    q(x)
    Trace_ELBO()(model, q)(x)
    poutine.trace(model).get_trace(x)
    fit(model, q, x, steps=3, progress=False)
    assert len(pyro.get_param_store()) == 0


def test_only_svi_registers_and_under_names_of_their_own():
    x = pixels(4)
    model, q = pair()
    for modules in [(model, q), copy.deepcopy((model, q))]:
        SVI(*modules, pyro.optim.Adam({"lr": 0.0}), Trace_ELBO()).step(x)
    names = list(pyro.get_param_store().keys())
    assert len(names) == 2 * len(weights(model, q))
    assert len({name.split(".")[0] for name in names}) == 4


def test_a_copied_pair_trains_apart():
    x = pixels(4)
    pair_1 = pair()
    pair_2 = copy.deepcopy(copy.deepcopy(pair_1))
    assert pair_2[1].model is pair_2[0]
    kept = weights(*pair_1)
    for modules in (pair_1, pair_2):  # registered, then the second trained
        SVI(*modules, pyro.optim.Adam({"lr": 0.0}), Trace_ELBO()).step(x)
    svi = SVI(*pair_2, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(3):  # the inner layers of a block have no gradient until its last one has left zero
        svi.step(x)
    assert all(torch.equal(a, b) for a, b in zip(kept, weights(*pair_1), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(kept, weights(*pair_2), strict=True))


@pytest.mark.parametrize("guide", GUIDES)
def test_a_frozen_model_gives_no_warning_and_does_not_move(guide):
    x = pixels(8)
    model, q = pair(guide)
    model.requires_grad_(False)
    before, inferred = weights(model), weights(q)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svi = SVI(model, q, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
        for _ in range(3):
            svi.step(x)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))
    same = [name for (name, b), a in zip(q.named_parameters(), inferred, strict=True) if torch.equal(a, b)]
    assert not same
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_does_not_own_its_model(guide):
    model, q = pair(guide)
    assert {id(p) for p in model.parameters()}.isdisjoint(id(p) for p in q.parameters())
    assert not any(module is model for module in q.modules())


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("run", ["pyro", "terms"])
def test_a_loss_leaves_no_trace_in_the_guide(guide, run):
    x = pixels(4)
    model, q = pair(guide)
    alive: list[weakref.ref] = []

    class Watch(poutine.messenger.Messenger):
        def _pyro_post_sample(self, msg: dict) -> None:
            if msg["name"] == "z2":
                alive.append(weakref.ref(msg["value"]))

    with Watch():
        loss = Trace_ELBO()(model, q)(x) if run == "pyro" else terms(model, q, (x,)).log_w.sum()
    loss.backward()
    del loss
    gc.collect()
    assert alive and all(ref() is None for ref in alive)


@pytest.mark.parametrize("guide", GUIDES)
def test_state_dicts_round_trip(guide):
    x = pixels(4)
    first, second = pair(guide), pair(guide)
    for a, b in zip(first, second, strict=True):
        b.load_state_dict(a.state_dict())

    def loss(modules: tuple[nn.Module, nn.Module]) -> Tensor:
        pyro.set_rng_seed(5)
        return Trace_ELBO()(*modules)(x)

    assert torch.equal(loss(first), loss(second))


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("make", [lambda: VAE(12, 3, 8), lambda: SeReVAE(12, 3, 2, 8), lambda: LinearGaussian(12)])
def test_double_precision_by_to(guide, make):
    x = pixels(4)
    model = make()
    q = guide(model, x, hidden=8)
    model.to(torch.float64)
    q.to(torch.float64)
    found = terms(model, q, (x.double(),), particles=2)
    assert found.log_w.dtype == torch.float64 and found.log_w.shape == (2, 4)
    trace = poutine.trace(q).get_trace(x.double())
    assert {trace.nodes[name]["value"].dtype for name in q.layout.latents} == {torch.float64}


def test_calling_a_guide_gives_the_latents():
    x = pixels(4)
    for guide in GUIDES:
        _, q = pair(guide)
        values = q(x)
        assert {name: tuple(v.shape) for name, v in values.items()} == {"z1": (4, 2), "z2": (4, 3)}
        assert {name: tuple(v.shape) for name, v in q(x=x).items()} == {"z1": (4, 2), "z2": (4, 3)}
