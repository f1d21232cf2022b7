"""`fit`: that it does what its docstring says, step by step, and what it leaves behind when it cannot."""

import copy
import json
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import (
    SVI,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn
from torch.distributions import constraints, kl_divergence

from guides import BottomUp, MeanField
from ppl_models import VAE
from ppl_models.data import Data, Identity
from ppl_models.inference import FitConfig, elbo, fit, load, terms
from ppl_models.inference.pyro.engine.optimizer_state import OptimizerState
from ppl_models.inference.pyro.passes import losses
from ppl_models.inference.pyro.training import engine, fit as training
from ppl_models.parts import Program


class Recognition(Program):
    """q(z1 | x) = N(W x + b, diag(s^2))."""

    def __init__(self, event: int = 8, latent: int = 2) -> None:
        super().__init__()
        self.loc = nn.Linear(event, latent)
        self.log_scale = nn.Parameter(torch.zeros(latent))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.Normal(self.loc(x), self.log_scale.exp()).to_event(1))


def pair(seed: int = 0) -> tuple[VAE, Recognition]:
    torch.manual_seed(seed)
    return VAE(8, 2, hidden=8), Recognition()


def rows(n: int = 50, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(2, (n, 1), generator=generator).float()
    flips = torch.bernoulli(torch.full((n, 8), 0.05), generator=generator)
    return (torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]) + which + flips) % 2


def quiet(model, guide, data, **arguments):
    return fit(model, guide, data, **{"seed": 0, "progress": False, **arguments})


def state(*modules: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for module in modules for p in module.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_it_trains_and_records():
    model, guide = pair()
    x = rows(200)
    # of the bounds on so few held-out rows, one draw each, some seeds' are above 3.5
    run = quiet(model, guide, x, epochs=40, batch_size=50, lr=1e-2, validation=rows(60, seed=2), seed=2)
    assert [r["step"] for r in run.history] == list(range(4, 161, 4))
    assert (
        run.history[0].keys() == {"step", "loss", "negative_elbo", "grad_norm", "valid", "seconds"}
        and run.folder is None
    )
    first, last = run.history[0], run.history[-1]
    # 8 fair bits are 5.5 nats; one of two patterns with 5% of flips is 8 H(0.05) + log 2 = 2.3 nats
    assert first["negative_elbo"] > 5 and 2.0 < last["negative_elbo"] < 3.5 and last["valid"] < 3.5
    assert last["loss"] == last["negative_elbo"]  # no warm-up
    seconds = [r["seconds"] for r in run.history]
    assert seconds == sorted(seconds) and 0 < seconds[0] and seconds[-1] <= run.seconds
    assert not list(pyro.get_param_store().keys())


@pytest.mark.parametrize(
    ("arguments", "last", "records"),
    [
        ({"steps": 7, "batch_size": 10}, 7, [5, 7]),
        ({"steps": 7, "batch_size": 10, "every": 3}, 7, [3, 6, 7]),
        ({"steps": 3, "batch_size": 10}, 3, [3]),
        ({"epochs": 2, "batch_size": 10}, 10, [5, 10]),
        ({"epochs": 0.5, "batch_size": 10}, 2, [2]),
        ({"epochs": 0.01, "batch_size": 10}, 1, [1]),
        ({"epochs": 2, "batch_size": 20}, 4, [2, 4]),  # 50 rows: two batches, the rest waits for the next shuffle
        ({"epochs": 3, "batch_size": 10**6}, 3, [1, 2, 3]),
    ],
)
def test_how_long(arguments, last, records):
    run = quiet(*pair(), rows(50), **arguments)
    assert [r["step"] for r in run.history] == records and records[-1] == last


class Spy(Program):
    """The recognition network, which notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.seen = Recognition(), []

    def forward(self, x: Tensor) -> None:
        self.seen.append(x)
        self.inner(x)


def test_every_row_is_drawn_once_an_epoch_and_in_new_orders():
    model, spy = pair()[0], Spy()
    x = rows(20)
    x[:, :5] = torch.tensor([[int(b) for b in f"{i:05b}"] for i in range(20)]).float()
    names = {tuple(row.tolist()): i for i, row in enumerate(x[:, :5])}
    quiet(model, spy, x, epochs=3, batch_size=5)
    order = [names[tuple(row.tolist())] for batch in spy.seen[-12:] for row in batch[:, :5]]
    # the first batch is looked at before the first step, so the last twelve passes are the twelve steps
    epochs = [order[0:20], order[20:40], order[40:60]]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs) and epochs[0] != epochs[1] != epochs[2]
    spy.seen.clear()
    quiet(model, spy, x, steps=2, batch_size=100)
    assert all(torch.equal(batch, x) for batch in spy.seen)


def manual(model, guide, x, beta: float, seed: int) -> Tensor:
    """-ELBO with weight beta, by hand: one draw, the divergence of two Gaussians in closed form."""
    pyro.set_rng_seed(seed)
    q = dist.Normal(guide.loc(x), guide.log_scale.exp())
    z = q.rsample()
    log_likelihood = dist.Bernoulli(logits=model.decoder(z)).log_prob(x).sum(-1)
    return (beta * kl_divergence(q, dist.Normal(0.0, 1.0)).sum(-1) - log_likelihood).mean()


def reseeded(monkeypatch, seed: int) -> None:
    """Every pass draws the same noise, so that a hand-written loss can draw it too."""

    def wrapped(*args, **kwargs):
        pyro.set_rng_seed(seed)
        return terms(*args, **kwargs)

    for module, name in ((losses, "terms"), (losses, "_terms"), (engine, "terms")):
        monkeypatch.setattr(module, name, wrapped)


@pytest.mark.parametrize("warmup", [0, 4])
def test_steps_by_hand(monkeypatch, warmup):
    """Six steps of AdamW at the rates of the schedule, with clipping, KL weight and moving average, all written out."""
    reseeded(monkeypatch, 5)
    (model, guide), x = pair(), rows(30)
    twins = copy.deepcopy((model, guide))
    every = {"ema": 0.2, "lr": 0.02, "clip": 0.5, "weight_decay": 0.1, "warmup": warmup, "every": 1}
    run = quiet(model, guide, x, steps=6, batch_size=30, validation=x, **every)

    params = [p for twin in twins for p in twin.parameters()]
    optimizer = torch.optim.AdamW(params, weight_decay=0.1)
    average = [p.detach().clone() for p in params]
    for t in range(6):
        beta = min(1.0, (t + 1) / 4) if warmup else 1.0
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * 0.5 * (1 + math.cos(math.pi * t / 6))
        value = manual(*twins, x, beta, 5)
        optimizer.zero_grad()
        value.backward()
        norm = torch.sqrt(sum(p.grad.square().sum() for p in params))
        assert norm > 0.5
        for p in params:
            p.grad *= 0.5 / norm
        record = run.history[t]
        assert record["loss"] == pytest.approx(value.item(), rel=1e-5)
        assert record["negative_elbo"] == pytest.approx(manual(*twins, x, 1.0, 5).item(), rel=1e-5)
        optimizer.step()
        decay = min(0.2, (1 + t) / (10 + t))
        average = [decay * a + (1 - decay) * p.detach() for a, p in zip(average, params, strict=True)]
        # the validation sees the average, the training goes on from the raw parameters
        kept = [p.detach().clone() for p in params]
        with torch.no_grad():
            for p, a in zip(params, average, strict=True):
                p.copy_(a)
            assert record["valid"] == pytest.approx(manual(*twins, x, 1.0, 5).item(), rel=1e-5)
            for p, k in zip(params, kept, strict=True):
                p.copy_(k)
    for p, a in zip([*model.parameters(), *guide.parameters()], average, strict=True):
        torch.testing.assert_close(p.detach(), a, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("total", "rise"), [(6, 1), (50, 5), (5000, 100)])
def test_a_warm_cosine_begins_low(total, rise):
    """Over a tenth of the steps, 100 at most."""
    warm, plain = FitConfig().rates(total), FitConfig(schedule="cosine").rates(total)
    for t in range(total):
        assert plain(t) == pytest.approx((1 + math.cos(math.pi * t / total)) / 2)
        assert warm(t) == pytest.approx(min(1, (t + 1) / rise) * plain(t))
    assert [FitConfig(schedule="constant").rates(total)(t) for t in (0, total)] == [1, 1]


def test_clipping_bounds_the_gradient_of_the_update(monkeypatch):
    norms = []

    def update(self, *args):
        norms.append(torch.sqrt(sum(p.grad.square().sum() for p in self.parameters)).item())
        return taken(self, *args)

    taken = OptimizerState.update
    monkeypatch.setattr(OptimizerState, "update", update)
    quiet(*pair(), rows(), steps=5, clip=None)
    free = max(norms)
    norms.clear()
    quiet(*pair(), rows(), steps=5, clip=free / 10)
    assert max(norms) <= free / 10 * 1.0001 and len(norms) == 5


@pytest.mark.parametrize("ema", [None, 0.0])
def test_without_an_average_the_last_parameters_are_left(ema):
    one, two = pair(), pair()
    quiet(*one, rows(), steps=4, ema=ema, schedule="constant")
    quiet(*two, rows(), steps=4, ema=None, schedule="constant")
    assert same(state(*one), state(*two))
    quiet(*two, rows(), steps=4, ema=0.5)
    assert not same(state(*one), state(*two))


def test_seeds():
    one, two, other = pair(), pair(), pair()
    histories = [quiet(*p, rows(), steps=6, batch_size=8, seed=s).history for p, s in ((one, 3), (two, 3), (other, 4))]
    assert same(state(*one), state(*two)) and not same(state(*one), state(*other))
    drop = [[{k: v for k, v in r.items() if k != "seconds"} for r in h] for h in histories]
    assert drop[0] == drop[1] != drop[2]
    # without one the global generator decides
    one, two = pair(), pair()
    for p in (one, two):
        pyro.set_rng_seed(11)
        quiet(*p, rows(), steps=3, batch_size=8, seed=None)
    assert same(state(*one), state(*two))


def test_what_is_frozen_stays():
    model, guide = pair()
    model.requires_grad_(False)
    before, other = state(model), state(guide)
    quiet(model, guide, rows(), steps=3)
    assert same(state(model), before) and not same(state(guide), other)
    guide.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter; is everything frozen"):
        quiet(model, guide, rows(), steps=3)
    # the running statistics of a frozen program stay as well
    frozen = Normed().requires_grad_(False)
    quiet(frozen, Recognition(), rows(), steps=3)
    assert frozen.norm.num_batches_tracked == 1 and frozen.training  # the one is its constructor's
    assert set(frozen.modes) == {(False, False, False)}


class Normed(Program):
    """A decoder with what differs between training and evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.norm, self.drop = nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)
        self.modes = []
        self.norm(torch.randn(4, 8))

    def forward(self, x: Tensor) -> None:
        self.modes.append((self.training, self.norm.training, self.drop.training))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z1", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.drop(self.norm(self.net(z)))).to_event(1), obs=x)


def test_modes():
    model, guide = Normed(), Recognition()
    model.eval()
    model.drop.train()  # a mixture, which must be there again afterwards
    quiet(model, guide, rows(40), steps=4, batch_size=10, validation=rows(10), every=2)
    assert (model.training, model.norm.training, model.drop.training, guide.training) == (False, False, True, True)
    steps = [m for m in model.modes if m == (True, True, True)]
    validations = [m for m in model.modes if m == (False, False, False)]
    assert len(steps) == 4 and len(steps) + len(validations) == len(model.modes)
    assert model.norm.num_batches_tracked == 1 + 4  # its constructor's, and one a step
    with pytest.raises(ValueError, match="Bernoulli|support|inside"):
        quiet(model, guide, rows() + 0.5, steps=4)
    assert (model.training, model.norm.training, model.drop.training, guide.training) == (False, False, True, True)


def regression_model(x: Tensor, y: Tensor) -> None:
    scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x, scale), obs=y)


def regression_guide(x: Tensor, y: Tensor) -> None:
    loc = pyro.param("loc", torch.tensor(0.0))
    spread = pyro.param("spread", torch.tensor(0.03), constraint=constraints.positive)
    pyro.sample("w", dist.Normal(loc, spread))


def test_plain_functions_of_several_arguments(tmp_path):
    """The exact posterior of a Bayesian regression with known truth: w = 2, noise 0.1, 200 rows."""
    torch.manual_seed(0)
    x = torch.randn(200)
    y = 2 * x + 0.1 * torch.randn(200)
    quiet(regression_model, regression_guide, (x, y), steps=300, batch_size=200, lr=0.1, ema=0.9, folder=tmp_path)
    scale, loc = pyro.param("scale").item(), pyro.param("loc").item()
    assert scale == pytest.approx(0.1, rel=0.15)
    precision = 1 + x.square().sum() / scale**2
    assert loc == pytest.approx((x @ y / scale**2 / precision).item(), abs=0.01)
    assert pyro.param("spread").item() == pytest.approx(precision.rsqrt().item(), rel=0.2)
    # the checkpoint has the parameters of the store
    store = dict(pyro.get_param_store().named_parameters())
    kept = {name: value.detach().clone() for name, value in store.items()}
    with torch.no_grad():
        for value in store.values():
            value.zero_()
    load(tmp_path / "checkpoint.safetensors", {"params": store})
    assert all(torch.equal(store[name].detach(), kept[name]) for name in kept) and len(kept) == 3
    with pytest.raises(ValueError, match=r"fit: data: found lengths \[200, 199\], want equal lengths"):
        quiet(regression_model, regression_guide, (x, y[1:]), steps=1)


def test_pyros_own_guides_and_objectives():
    for loss in (None, Trace_ELBO(), TraceMeanField_ELBO(), Trace_ELBO(num_particles=3, vectorize_particles=True)):
        model, guide = pair()
        run = quiet(model, guide, rows(), steps=150, lr=0.02, batch_size=25, loss=loss)
        assert run.history[-1]["negative_elbo"] < 4.5 < run.history[0]["negative_elbo"]
    torch.manual_seed(0)
    x = torch.randn(200)
    auto = AutoNormal(regression_model)
    quiet(regression_model, auto, (x, 2 * x), steps=300, batch_size=200, lr=0.05)
    assert auto.median()["w"].item() == pytest.approx(2.0, abs=0.1)
    for wrong in ({"warmup": 3}, {"particles": 2}, {"analytic": False}):
        with pytest.raises(ValueError, match="with a loss of Pyro's"):
            quiet(*pair(), rows(), steps=1, loss=Trace_ELBO(), **wrong)


def test_svi_trains_after_fit_and_fit_after_svi():
    model, guide = pair()
    quiet(model, guide, rows(), steps=2)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    before = state(model, guide)
    svi.step(rows())
    assert not same(state(model, guide), before)
    quiet(model, guide, rows(), steps=2)


def test_data_objects_are_drawn_anew():
    x = rows(40)
    data = Data(x, (8,), None, Identity(), "rows train")
    one, two = pair(), pair()
    quiet(*one, data, steps=5, batch_size=10, validation=data)
    quiet(*two, x, steps=5, batch_size=10, validation=x)
    assert same(state(*one), state(*two))


def test_particles_and_sampled_divergences_lower_no_bound():
    model, guide = pair()
    run = quiet(model, guide, rows(), steps=150, lr=0.02, particles=4, analytic=False)
    assert run.history[-1]["negative_elbo"] < 4.5


def test_particles_run_one_by_one_where_a_program_needs_it():
    """A reduction over dim 0 is right for one particle and wrong for a stack of them."""

    dims = []

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z1", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            dims.append(z.dim())
            total = z.sum(1).reshape(len(x), 1)
            pyro.sample("x", dist.Normal(total.expand(-1, 8), 1.0).to_event(1), obs=x)

    run = quiet(model, Recognition(), rows(16), steps=3, batch_size=16, particles=5)
    assert dims[-15:] == [2] * 15 and math.isfinite(run.history[-1]["negative_elbo"])


# What goes wrong.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "found steps=None and epochs=None, want exactly one"),
        ({"steps": 1, "epochs": 1}, "found steps=1 and epochs=1"),
        ({"steps": 0}, "found steps=0, want an integer of at least 1"),
        ({"steps": 1.5}, "found steps=1.5, want an integer"),
        ({"epochs": 0}, "found epochs=0, want a number, 0 < epochs"),
        ({"epochs": -1}, "found epochs=-1"),
        ({"steps": 1, "batch_size": 0}, "found batch_size=0"),
        ({"steps": 1, "particles": 0}, "found particles=0"),
        ({"steps": 1, "every": 0}, "found every=0"),
        ({"steps": 1, "lr": 0.0}, "found lr=0.0, want more than 0"),
        ({"steps": 1, "lr": math.nan}, "found lr=nan"),
        (
            {"steps": 1, "schedule": "linear"},
            "want one of 'warm-cosine', 'cosine', 'constant' or a function of the step",
        ),
        ({"steps": 1, "warmup": -1}, "found warmup=-1"),
        ({"steps": 1, "clip": 0}, "found clip=0, want a number, more than 0 or None"),
        ({"steps": 1, "ema": 1.0}, "found ema=1.0, want a number, 0 <= ema < 1"),
        ({"steps": 1, "weight_decay": -1}, "found weight_decay=-1"),
    ],
)
def test_arguments(arguments, words):
    with pytest.raises(ValueError, match="^fit: ") as caught:
        quiet(*pair(), rows(), **arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize("place", ["data", "validation"])
@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        (lambda x: x[:0], ValueError, r"found lengths \[0\], want equal lengths of at least 1"),
        (lambda x: torch.cat([x, x[:1] / 0]), ValueError, "NaN or infinite values \\(first in row 50\\); clean"),
        (lambda x: (), ValueError, r"found lengths \[\]"),
        (lambda x: list(x), TypeError, "found list, want a tensor of rows"),
        (lambda x: 3, TypeError, "found int, want a tensor of rows"),
        (lambda x: x.sum(), TypeError, "found a scalar, want a tensor of rows"),
    ],
)
def test_bad_data_stop_before_any_step(tmp_path, place, wrong, kind, words):
    model, guide = pair()
    before = state(model, guide)
    arguments = {"data": rows(), place: wrong(rows())}
    with pytest.raises(kind, match=f"fit: {place}: {words}"):
        quiet(model, guide, **arguments, steps=5, folder=tmp_path / "run")
    assert same(state(model, guide), before) and not list(tmp_path.iterdir())


def test_data_of_another_model_stop_before_any_step(tmp_path):
    model, guide = pair()
    before = state(model, guide)
    for x, kind, words in (
        (rows()[:, :7], (ValueError, RuntimeError), "shape"),
        (rows().double(), (TypeError, RuntimeError), "dtype"),
        (rows() / 2, ValueError, "Bernoulli likelihood wants 0 or 1; binarize"),
    ):
        with pytest.raises(kind, match=words):
            quiet(model, guide, x, steps=5, folder=tmp_path / "run")
    assert same(state(model, guide), before) and not list(tmp_path.iterdir())


def test_a_wrong_value_in_any_row_stops_before_any_step(tmp_path):
    for n in (50, 2500):
        for place in ("data", "validation"):
            model, guide = pair()
            before = state(model, guide)
            x = rows(n)
            x[n - 1, 3] = 0.5
            with pytest.raises(ValueError, match="found the value 0.5, a Bernoulli likelihood wants 0 or 1; binarize"):
                quiet(model, guide, **{"data": rows(n), place: x}, steps=2, batch_size=10, folder=tmp_path / "run")
            assert same(state(model, guide), before) and not list(tmp_path.iterdir())
    # of a plain model, whose likelihood has no check of its own, too
    x[0, 3], x[n - 1] = 1, 0.5

    def plain(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z1", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            logits = z.sum(-1, keepdim=True).expand(*z.shape[:-1], 8)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    with pytest.raises(ValueError, match="within the support"):
        quiet(plain, guide, x, steps=2, batch_size=10)
    with pyro.validation_enabled(False):  # who does not want to know is not told
        quiet(plain, guide, x, steps=2, batch_size=10)


def test_looking_at_every_row_changes_nothing(monkeypatch):
    def nothing(*_):
        pass

    one, two = pair(), pair()
    quiet(*one, rows(), steps=4, batch_size=10)
    monkeypatch.setattr(training, "check_values", nothing)
    look = training.pair_info
    monkeypatch.setattr(training, "pair_info", lambda *args, **how: [look(*args, **how) for _ in range(3)][-1])
    quiet(*two, rows(), steps=4, batch_size=10)
    assert same(state(*one), state(*two))


def test_models_of_one_size_and_wild_priors_train():
    guide = Recognition()

    def fixed(x: Tensor) -> None:
        with pyro.plate("data", 10):
            z = pyro.sample("z1", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(10, 8), 1.0).to_event(1), obs=x)

    quiet(fixed, guide, rows(25), steps=3, batch_size=10)

    def wild(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z1", dist.Normal(torch.zeros(2), 1e4).to_event(1))  # its exponential is 0 or infinite
            pyro.sample("x", dist.Normal(0.0, z.sum(-1, keepdim=True).expand(-1, 8).exp()).to_event(1), obs=x)

    quiet(wild, guide, rows(25), steps=3, batch_size=10)


def test_the_order_of_model_and_guide():
    model, guide = pair()
    x = rows()
    with pytest.raises(ValueError, match="guide, VAE at .*observes the site 'x'; are model and guide in this order"):
        quiet(guide, model, x, steps=1)
    with pytest.raises(ValueError, match="model Recognition observes nothing .it draws 'z1'.; are model and guide in"):
        quiet(guide, guide, x, steps=1)
    for make in (MeanField, BottomUp):
        for loss in (None, Trace_ELBO()):
            with pytest.raises(ValueError, match="observes the site 'x'; are model and guide in this order"):
                quiet(make(model, x, hidden=4), model, x, steps=1, loss=loss)


def test_a_guide_with_another_model_of_its_own_is_refused():
    model, guide = pair()
    guide.model, guide.layout = pair()[0].forward, None
    with pytest.raises(ValueError, match="the guide Recognition runs its own model, forward at .*build the guide on"):
        quiet(model, guide, rows(), steps=1)
    del guide.layout  # `model` of another module may be anything
    quiet(model, guide, rows(), steps=1)


def mixture(x: Tensor) -> None:
    """Two components; which one is enumerated, where the middle is not known."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 3.0))
        k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(z + 4 * k, 0.5), obs=x[:, 0])


def mixture_guide(x: Tensor) -> None:
    loc = pyro.param("loc", torch.zeros(2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc[0] + 0.5 * x[:, 0], loc[1].exp()))


@pytest.mark.parametrize("nesting", [1, math.inf])
@pytest.mark.parametrize("make", [None, BottomUp])
def test_enumerated_sites_are_left_to_the_loss(make, nesting):
    x = torch.randn(40, 2) + 4 * (torch.arange(40) % 2).unsqueeze(-1)
    guide = mixture_guide if make is None else make(mixture, x, hidden=4)
    loss = TraceEnum_ELBO(max_plate_nesting=nesting)
    run = quiet(mixture, guide, x, steps=60, lr=0.05, batch_size=20, loss=loss, validation=x)
    assert run.history[-1]["valid"] < run.history[0]["valid"]
    drawn = torch.tensor([loss.loss(mixture, guide, x) / 40 for _ in range(40)])
    assert run.history[-1]["valid"] == pytest.approx(drawn.mean().item(), abs=4 * drawn.std().item())


def test_latents_without_a_pathwise_gradient_want_a_loss_of_pyros():
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(4 * k, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        logit = pyro.param("logit", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Bernoulli(logits=logit.expand(len(x))))

    x = torch.full((30,), 4.0)
    words = r"the guide draws the site 'k' from a Bernoulli.*loss=pyro.infer.Trace_ELBO\(\)"
    with pytest.raises(ValueError, match=words):
        quiet(model, guide, x, steps=1)
    for loss in (Trace_ELBO(), TraceEnum_ELBO()):
        pyro.clear_param_store()
        program = config_enumerate(guide) if isinstance(loss, TraceEnum_ELBO) else guide
        quiet(model, program, x, steps=200, lr=0.1, ema=None, loss=loss)
        assert pyro.param("logit").item() > 1


@pytest.mark.parametrize(
    ("loss", "kind", "words"),
    [
        (RenyiELBO(), ValueError, "loss RenyiELBO has no differentiable_loss; Trace_ELBO, TraceMeanField_ELBO and"),
        (TraceGraph_ELBO(), ValueError, "loss TraceGraph_ELBO has no differentiable_loss; Trace_ELBO, "),
        (Trace_ELBO, TypeError, r"loss is the class Trace_ELBO, want an instance; try Trace_ELBO\(\)"),
        (lambda *_: 0.0, TypeError, "loss is a function, want an objective of Pyro's"),
    ],
)
def test_losses_without_gradients_are_refused(loss, kind, words):
    with pytest.raises(kind, match=f"fit: {words}"):
        quiet(*pair(), rows(), steps=1, loss=loss)


class Bomb(Program):
    """A guide that goes wrong at a given call."""

    def __init__(self, at: int, how: str) -> None:
        super().__init__()
        self.inner, self.at, self.how, self.calls = Recognition(), at, how, 0

    def forward(self, x: Tensor) -> None:
        self.calls += torch.is_grad_enabled()
        if self.calls == self.at and self.how == "interrupt":
            raise KeyboardInterrupt
        scale = self.inner.log_scale.exp()
        if self.calls == self.at:
            scale = scale * math.nan if self.how == "nan" else scale + (0 * scale).sqrt()  # sqrt'(0) = inf
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.Normal(self.inner.loc(x), scale).to_event(1))


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("nan", ValueError, "the loss is nan at step 6; the first term .* the divergence of site 'z1'; try a smaller"),
        ("gradient", ValueError, "the gradient is not finite at step 6; try a smaller lr"),
        ("interrupt", KeyboardInterrupt, None),
    ],
)
def test_a_failure_midway_keeps_the_checkpoint_and_the_pair(tmp_path, how, kind, words):
    model, bomb, x = pair()[0], Bomb(6, how), rows()
    with pytest.raises(kind, match=words):
        quiet(model, bomb, x, steps=10, every=2, ema=0.5, folder=tmp_path)
    names = ["checkpoint.previous.safetensors", "checkpoint.safetensors", "history.json", "history.jsonl"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    history = json.loads((tmp_path / "history.json").read_text())["history"]
    assert [r["step"] for r in history] == [2, 4]
    twin, other = VAE(8, 2, hidden=8), Bomb(0, "")
    load(tmp_path / "checkpoint.safetensors", {"model": twin, "guide": other})
    # the pair has the average of the five steps done, which the checkpoint of the fourth has not
    bomb.at = 0
    assert all(torch.isfinite(p).all() for p in state(model, bomb)) and model.training
    assert torch.isfinite(elbo(terms(twin, other, (x,)))) and torch.isfinite(elbo(terms(model, bomb, (x,))))
    assert not same(state(twin), state(model))
    quiet(model, bomb, x, steps=2)


def test_a_failure_in_the_first_steps_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="at step 2"):
        quiet(pair()[0], Bomb(2, "nan"), rows(), steps=10, every=5, folder=tmp_path / "deep" / "run")
    assert not list(tmp_path.iterdir())


def test_interrupted_validation_leaves_the_average_once(monkeypatch):
    model, guide = pair()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(engine.PyroEngine, "_bound", interrupt)
    one = pair()
    with pytest.raises(KeyboardInterrupt):
        quiet(model, guide, rows(), steps=4, every=2, ema=0.5, validation=rows(), schedule="constant")
    quiet(*one, rows(), steps=2, ema=0.5, schedule="constant")
    assert same(state(model, guide), state(*one))


def test_files(tmp_path):
    model, guide = pair()
    run = quiet(model, guide, rows(), steps=4, every=2, folder=tmp_path / "a" / "b", ema=0.5)
    assert run.folder == tmp_path / "a" / "b"
    assert json.loads((run.folder / "history.json").read_text()) == {"history": run.history}
    other = pair(9)
    load(run.folder / "checkpoint.safetensors", dict(zip(("model", "guide"), other, strict=True)))
    assert same(state(*other), state(model, guide))  # the averages, which the pair is left with


def test_folders_that_cannot_be_written_to_stop_before_any_step(tmp_path):
    model, guide = pair()
    before = state(model, guide)
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", "/proc/run"):
        with pytest.raises(ValueError, match="cannot write to the folder .*(file|proc).*choose another one"):
            quiet(model, guide, rows(), steps=2, folder=folder)
    assert (tmp_path / "file").read_text() == "mine"
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoint.safetensors").write_text("another")
    with pytest.raises(ValueError, match="holds a checkpoint.safetensors already; choose another folder"):
        quiet(model, guide, rows(), steps=2, folder=run)
    assert (run / "checkpoint.safetensors").read_text() == "another" and same(state(model, guide), before)
    # an empty folder is used, and stays if nothing comes of it
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="at step 2"):
        quiet(model, Bomb(2, "nan"), rows(), steps=10, every=5, folder=tmp_path / "empty")
    assert not list((tmp_path / "empty").iterdir())


def test_text_in_place_of_a_bar(capsys):
    fit(*pair(), rows(), steps=40, seed=0)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 20 and lines[0].startswith("step 2/40  loss ") and lines[-1].startswith("step 40/40  loss ")
    assert "negative ELBO" in lines[0] and "nan" not in "".join(lines)
    fit(*pair(), rows(), steps=3, seed=0)
    assert len(capsys.readouterr().err.strip().splitlines()) == 3
    quiet(*pair(), rows(), steps=3)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


@pytest.mark.cuda
def test_rows_go_to_where_the_parameters_are():
    model, guide = (m.cuda() for m in pair())
    for x in (rows(), rows().cuda(), Data(rows(), (8,), None, Identity(), "rows")):
        run = quiet(model, guide, x, steps=5, batch_size=10, validation=x)
        assert math.isfinite(run.history[-1]["valid"])
