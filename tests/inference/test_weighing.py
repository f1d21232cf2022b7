"""Who weighs a batch against what all data share: exactly one of program, plate and objective, in both languages."""

import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal

from ppl_models.inference import Loss, evaluate, fit, training_step
from ppl_models.inference.training.weighing import Weighing
from ppl_models.programs.pairs import Pair
from ppl_models.programs.record import Plate, Run, Site
from tests.helpers.cases import few

N, B, AT = 12, 4, 0.3
# data that are all alike, and a posterior that is all but a point: one number, whatever is drawn
KL = 0.5 * (AT**2 + 1e-12 - 1) - np.log(1e-6)
EACH = 0.5 * np.log(2 * np.pi) + 0.5 * (2.0 - AT) ** 2
WANTED = EACH + KL / N  # nats per datum

JAX = importlib.util.find_spec("numpyro") is not None
SIZED = pytest.param("numpyro", "sized", marks=pytest.mark.skipif(not JAX, reason="needs NumPyro"))
LANGUAGES = ["pyro", pytest.param("numpyro", marks=pytest.mark.skipif(not JAX, reason="needs NumPyro"))]


def words(language: str) -> SimpleNamespace:
    """What programs of a language are written with."""
    if language == "pyro":
        rows = torch.full((N,), 2.0, dtype=torch.double)
        return SimpleNamespace(
            lib=pyro, dist=pyro.distributions, scale=poutine.scale, rows=rows, fit=fit, evaluate=evaluate,
            number=lambda x: torch.tensor(x, dtype=torch.double), infer=pyro.infer,
        )  # fmt: skip
    import numpyro
    from numpyro import handlers

    import ppl_models.numpyro as tools

    return SimpleNamespace(
        lib=numpyro, dist=numpyro.distributions, scale=handlers.scale, rows=np.full(N, 2.0), fit=tools.fit,
        evaluate=tools.evaluate, number=float, infer=numpyro.infer,
    )  # fmt: skip


def programs(language: str) -> dict[str, Any]:
    """Model by who weighs its batches, with one latent that all data share."""
    of = words(language)
    normal, sample, plate = of.dist.Normal, of.lib.sample, of.lib.plate

    def observe(mu, y):
        sample("y", normal(mu, of.number(1.0)), obs=y)

    def shared():
        return sample("mu", normal(of.number(0.0), of.number(1.0)))

    def nobody(y):
        mu = shared()
        with plate("data", len(y)):
            observe(mu, y)

    def program(y):
        mu = shared()
        with plate("data", len(y)), of.scale(scale=N / len(y)):
            observe(mu, y)

    def around(y):
        mu = shared()
        with of.scale(scale=N / len(y)), plate("rows", len(y)):
            observe(mu, y)

    def sized(y):
        mu = shared()
        with plate("data", N, subsample_size=len(y)):
            observe(mu, y)

    def divergence(y):
        with of.scale(scale=len(y) / N):
            mu = shared()
        with plate("data", len(y)):
            observe(mu, y)

    return {"nobody": nobody, "program": program, "around": around, "plate": sized, "divergence": divergence}


def guide_of(language: str, who: str):
    of = words(language)

    def guide(y):
        at = of.lib.param("at", of.number(AT))
        with of.scale(scale=len(y) / N if who == "divergence" else 1.0):
            of.lib.sample("mu", of.dist.Normal(at, of.number(1e-6)))

    return guide


WHO = "nobody", "program", "around", "plate", "divergence"
TOLD = dict.fromkeys(("program", "around"), "a batch up") | {"divergence": "what all data share down"}
CASES = [(language, who) for language in ("pyro", "numpyro") for who in WHO]


@pytest.mark.parametrize(
    ("language", "who"), few(CASES, often=lambda of, who: of == "pyro" or who in ("program", "divergence"))
)
def test_a_batch_weighs_the_same_whoever_weighs_it(language, who):
    if language == "numpyro" and not JAX:
        pytest.skip("needs NumPyro")
    of, model = words(language), programs(language)[who]
    losses = [None, of.infer.TraceMeanField_ELBO()]
    if language == "pyro":
        losses += [Trace_ELBO(), TraceEnum_ELBO(max_plate_nesting=1), Loss(), Loss(particles=2)]
    for loss in losses:
        drawn = isinstance(loss, (Trace_ELBO, TraceEnum_ELBO)) and not isinstance(loss, TraceMeanField_ELBO)
        loose = 0.3 if drawn else 1e-4  # of a divergence that is drawn
        for size in (B, N) if language == "pyro" else (B,):
            pyro.clear_param_store()
            known = size == N or who == "nobody"  # what a program scales by in other batches than these
            how = {"validation": of.rows if known else None} | ({} if loss is None else {"loss": loss})
            quiet = {"lr": 1e-9, "compile": False, "seed": 0, "progress": False}
            run = of.fit(model, guide_of(language, who), of.rows, steps=1, batch_size=size, **quiet, **how)
            record = run.history[-1]
            assert record["loss"] == pytest.approx(WANTED, abs=loose), (loss, size)
            assert record.get("valid", WANTED) == pytest.approx(WANTED, abs=loose)
            told = f"the programs scale {TOLD.get(who)} by {N} / {B} themselves, which is not done a second time"
            assert run.notes == ([told] if who in TOLD and size == B else [])
    pyro.clear_param_store()
    if language == "pyro" or who == "nobody":
        found = of.evaluate(model, guide_of(language, who), of.rows, particles=2, progress=False)
        assert -found.elbo == pytest.approx(WANTED, abs=1e-4)


@pytest.mark.parametrize("who", ["nobody", "program", "divergence"])
def test_losses_and_steps_of_ones_own_weigh_batches_alike(who):
    model, guide, x = programs("pyro")[who], guide_of("pyro", who), words("pyro").rows[:B]
    for loss in (None, TraceMeanField_ELBO(), Loss(data_size=N)):
        pyro.clear_param_store()
        step = training_step(model, guide, (x,), lr=1e-9, data_size=N, loss=loss)
        assert float(step(x)) == pytest.approx(WANTED, abs=1e-4)
    assert float(Loss(data_size=N).loss(model, guide, x)) / B == pytest.approx(WANTED, abs=1e-4)


def test_who_raises_a_batch_to_all_the_data():
    loss, up, down = Trace_ELBO(), (N / B, 1.0), (B / N, 1.0)
    shared = Weighing("data", N, shared=True)
    assert (shared.factors(B), shared.factors(B, loss), shared.counted(loss, B)) == ((1, 1), up, N)
    # without sites that all data share there is nothing to weigh a batch against
    local = Weighing("data", N)
    assert (local.factors(B), local.factors(B, loss), local.counted(loss, B)) == ((1, 1), (1, 1), B)
    program = Weighing("data", N, scales="data", shared=True)
    assert (program.factors(B), program.factors(B, loss), program.counted(loss, B)) == (down, (1, 1), N)
    other = Weighing("data", N, scales="shared", shared=True)
    assert (other.factors(B), other.factors(B, loss), other.counted(loss, B)) == ((1, N / B), (1, 1), B)
    plate = Weighing("data", N, full_size=2 * N, shared=True)
    assert (plate.factors(B), plate.factors(B, loss), plate.counted(loss, B)) == ((1, 1), (1, 1), 2 * N)
    sized = Loss(data_size=N)  # weighs its batches itself
    assert [w.counted(sized, B) for w in (shared, program, other)] == [B] * 3 and shared.factors(B, sized) == (1, 1)


def pair(local: list[Any], shared: float = 1.0, size: int = B, full_size: int | None = None) -> Pair:
    plates = (Plate("data", -1, size, full_size or size),)
    sites = [Site(name="w", kind="latent", shape=(), scale=shared)]
    sites += [Site(name=f"x{i}", kind="observed", shape=(size,), plates=plates, scale=s) for i, s in enumerate(local)]
    return Pair(Run(sites), Run([]), plates[0])


def test_a_program_weighs_its_batch_where_all_that_is_local_or_all_else_is_scaled_so():
    for local in ([3.0, np.float32(3.0)], [np.full(B, 3.0)]):
        assert pair(local).scales(N) == "data"
    assert pair([1.0], 1 / 3).scales(N) == "shared"
    # one site of two, all of the program, another number, all the data, a plate that subsamples
    for found in (pair([3.0, 1.0]), pair([3.0], 3.0), pair([2.0]), pair([3.0], size=N), pair([3.0], full_size=N)):
        assert found.scales(N) == ""
    assert pair([3.0]).scales(None) == "" and pair([np.ones(B)]).scales(N) == ""


# nats per datum


def chain(language: str):
    """One sequence, no plate."""
    of = words(language)

    def model(y):
        a = of.lib.sample("a", of.dist.Normal(of.number(0.0), of.number(1.0)))
        for t in range(1, len(y)):
            of.lib.sample(f"y{t}", of.dist.Normal(a, of.number(1.0)), obs=y[t])

    def guide(y):
        of.lib.sample("a", of.dist.Normal(of.lib.param("at", of.number(AT)), of.number(1e-6)))

    return model, guide


@pytest.mark.parametrize("language", LANGUAGES)
def test_without_a_plate_the_training_counts_one_datum_as_the_evaluation_does(language):
    of, (model, guide), wanted = words(language), chain(language), KL + (N - 1) * EACH
    mean_field = of.infer.TraceMeanField_ELBO()
    for how in ({}, {"loss": mean_field}, {"particles": 2}) if language == "pyro" else ({"loss": mean_field},):
        if language == "pyro":
            pyro.clear_param_store()
        quiet = {"steps": 1, "lr": 1e-9, "validation": of.rows, "progress": False, **how}
        run = of.fit(model, guide, of.rows, batch_size=N, **quiet)
        assert run.notes == ["no plate around the data: they count as one datum"]
        record = run.history[-1]
        assert record["loss"] == pytest.approx(wanted, rel=1e-4) and record["valid"] == pytest.approx(wanted, rel=1e-4)
    found = of.evaluate(model, guide, of.rows, particles=2, progress=False)
    assert -found.elbo == pytest.approx(wanted, rel=1e-4) and found.notes == run.notes
    if language == "pyro":
        pyro.clear_param_store()
    run = of.fit(model, guide, of.rows, batch_size=B, **quiet)
    assert run.history[-1]["loss"] == pytest.approx(KL + (B - 1) * EACH, rel=1e-4)
    assert run.notes == [
        "no plate around the data: they count as one datum; each batch of 4 of 12 rows is one: try a plate around "
        "them, or batch_size=12"
    ]


# which data a batch holds


def signs(language: str, who: str):
    """One latent a datum, for whose numbers an autoguide must know which datum is which."""
    of = words(language)

    def observe(y):
        z = of.lib.sample("z", of.dist.Normal(of.number(0.0), of.number(100.0)))
        of.lib.sample("y", of.dist.Normal(z, of.number(1.0)), obs=y)

    def given(index, y):
        with of.lib.plate("data", N, subsample=index):
            observe(y)

    def computed(index, y):
        of.lib.sample("scale", of.dist.Normal(of.number(0.0), of.number(1.0)))
        with of.lib.plate("data", N, subsample=index[:, 0].long()):
            observe(y)

    def sized(y):
        with of.lib.plate("data", N, subsample_size=len(y)):
            observe(y)

    y = [50.0 * (-1.0) ** i for i in range(N)]
    y = torch.tensor(y, dtype=torch.double) if language == "pyro" else np.array(y)
    index = torch.arange(N)
    data = {"given": (index, y), "computed": (index[:, None].double(), y), "sized": y}[who]
    return {"given": given, "computed": computed, "sized": sized}[who], data, y


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("language", "who"), [*(("pyro", who) for who in ("given", "computed", "sized")), SIZED])
def test_an_autoguide_learns_of_the_data_that_the_model_observes(language, who, own):
    of = words(language)
    model, data, y = signs(language, who)
    pyro.clear_param_store()
    guide = of.infer.autoguide.AutoNormal(model)
    how = {"loss": of.infer.Trace_ELBO()} if own else {}
    run = of.fit(model, guide, data, steps=9, lr=1.0, batch_size=B, seed=0, compile=False, progress=False, **how)
    found = guide.locs.z.detach().numpy() if language == "pyro" else run.params["z_auto_loc"]
    assert (np.sign(np.asarray(found)) == np.sign(np.asarray(y))).all() and run.notes == []


def test_plates_that_draw_and_index_the_data_themselves_are_left_to():
    def model(y):
        with pyro.plate("data", N, subsample_size=B) as index:
            z = pyro.sample("z", pyro.distributions.Normal(0.0, 100.0))
            pyro.sample("y", pyro.distributions.Normal(z, 1.0), obs=y[index])

    y = torch.tensor([50.0 * (-1.0) ** i for i in range(N)])
    guide = AutoNormal(model)
    fit(model, guide, y, steps=40, lr=1.0, batch_size=N, seed=0, compile=False, progress=False)
    assert torch.equal(guide.locs.z.sign(), y.sign())
