"""A step tells the norm of the gradient and the mean divergence of each latent; its update is torch's AdamW."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pyro
import pytest
import torch
from numpyro import distributions as jax_dist
from pyro import distributions as dist
from torch import Tensor, nn

from ppl_models.inference.config import FitConfig
from ppl_models.inference.numpyro.engine.parameters import find
from ppl_models.inference.numpyro.engine.step import Blocks, Step, begun
from ppl_models.inference.numpyro.feeding.batches import Order, columns_of
from ppl_models.inference.objectives.bounds import elbo
from ppl_models.inference.pyro.engine import compiled
from ppl_models.inference.pyro.engine.compiled import Compiled
from ppl_models.inference.pyro.engine.optimizer_state import OptimizerState, trainable
from ppl_models.inference.pyro.engine.step import Eager, StepConfig, StepInputs
from ppl_models.inference.pyro.passes.terms import terms
from tests.helpers.uncompiled import as_it_is

LATENTS = ("mu", "z")


class Model(nn.Module):
    """p(mu) p(z | mu) p(x | z), mu outside the plate of the data."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(2, 4)

    def forward(self, x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mu.expand(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)


class Guide(nn.Module):
    """q(mu) q(z | x)."""

    def __init__(self) -> None:
        super().__init__()
        self.loc, self.shift = nn.Linear(4, 2), nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> None:
        pyro.sample("mu", dist.Normal(self.shift, 0.5).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc(x), 0.5).to_event(1))


def rows(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("compile", [False, True])
def test_a_step_tells_the_norm_and_the_divergence_of_each_latent(compile, batches, monkeypatch):
    monkeypatch.setattr(compiled, "compiled", as_it_is())
    torch.manual_seed(0)
    model, guide, data = Model().double(), Guide().double(), [(rows(5, seed),) for seed in range(batches)]
    config = StepConfig(FitConfig(clip=0.1, analytic=False, ema=None), kl_of=LATENTS, data_size=20)
    eager = Eager(model, guide, OptimizerState(trainable({"model": model, "guide": guide}), average=False), config)
    torch.manual_seed(1)
    found = [terms(model, guide, args, analytic=False) for args in data]
    loss = sum(-elbo(each, 1.0, 20) for each in found) / batches
    gradients = torch.autograd.grad(loss, [*model.parameters(), *guide.parameters()])
    norm = sum(g.square().sum() for g in gradients).sqrt()
    kl = [sum((f.kl[n] / (20 if n == "mu" else 5)).sum() for f in found) / batches for n in LATENTS]
    torch.manual_seed(1)
    step = Compiled(eager) if compile else eager
    outcome = step(data, StepInputs(0, 0.01))
    assert compile == bool(getattr(step, "graphs", False))
    torch.testing.assert_close(outcome, torch.stack([loss, loss, norm, torch.tensor(1.0).double(), *kl]).detach())


@pytest.mark.slow
def test_what_a_step_of_numpyro_tells(double):
    data, key = columns_of(np.asarray(rows(5)), "test"), jax.random.key(0)

    def model(x):
        mu = numpyro.sample("mu", jax_dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", jax_dist.Normal(jnp.broadcast_to(mu, (len(x), 2)), 1.0).to_event(1))
            numpyro.sample("x", jax_dist.Normal(z @ jnp.ones((2, 4)), 1.0).to_event(1), obs=x)

    def guide(x):
        numpyro.sample("mu", jax_dist.Normal(numpyro.param("shift", jnp.ones(2)), 0.5).to_event(1))
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", jax_dist.Normal(x @ numpyro.param("v", jnp.ones((4, 2))), 0.5).to_event(1))

    free, parameters, _ = find(model, guide, (data[0].values,), key)
    settings = FitConfig(objective=elbo, steps=3, batch_size=5, ema=None, analytic=False)
    step = Step(model, guide, parameters, data, settings, key, LATENTS)
    blocks = Blocks(step, Order(5, 5, 0), 3)
    state, _ = blocks(begun(free, False, LATENTS), 0, 1)
    now = {name: column[0] for name, column in blocks.table(0, 1, 1).items()}
    rows_, noise = step.batch(blocks.stored, now, 0)
    slopes = jax.grad(lambda p: step.negative(p, rows_, noise, 1.0)[0])(free)
    loss, (_, found, _) = step.negative(free, rows_, noise, 1.0)
    norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(slopes)))
    np.testing.assert_allclose(state.tally, [loss, loss, norm, 1.0, *(found.kl[n].sum() / 5 for n in LATENTS)], 1e-5)


def test_nothing_more_is_told_where_nothing_is_asked(monkeypatch):
    sizes = []
    monkeypatch.setattr(compiled, "compiled", as_it_is(lambda found: sizes.append(len(found.graph.nodes))))
    for latents in ((), LATENTS):
        model, guide = Model().double(), Guide().double()
        slots = OptimizerState(trainable({"model": model, "guide": guide}), average=False)
        step = Compiled(Eager(model, guide, slots, StepConfig(FitConfig(clip=1.0, ema=None), kl_of=latents)))
        assert len(step([(rows(5),)], StepInputs(0, 0.01))) == 4 + len(latents)
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("fused", [True, False])
def test_the_update_is_that_of_torch(fused):
    """Bit for bit; what has no gradient is left alone, weight decay included."""

    def parameters(dtype):
        generator = torch.Generator().manual_seed(0)
        return [torch.randn(n, generator=generator, dtype=dtype, requires_grad=True) for n in (3, 5, 2)]

    ours, theirs = ([*parameters(torch.float), *parameters(torch.double)] for _ in range(2))
    state = OptimizerState({str(i): p for i, p in enumerate(ours)}, average=False)
    state.fused = fused
    optimizer = torch.optim.AdamW(theirs, lr=1e-2, weight_decay=0.1, fused=fused)
    for step in range(5):
        for each in (ours, theirs):
            for i, p in enumerate(each):
                p.grad = None if i == 2 else (p.detach() * (step + 1)).sin()
        state.update(step + 1, 1e-2, 0.1)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    state.without_gradients()
    assert all(p.grad is None for p in ours)


def test_a_sparse_gradient_is_refused():
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="fit: the gradient of 'table' is sparse, want a dense one; try sparse=False"):
        OptimizerState({"table": table.weight}, average=False).update(1, 1e-2, 0.0)
