"""Steps compiled by XLA: the numbers of the eager ones with torch's draws, true tensors for whoever looks, one line
where XLA cannot."""

import copy
import gc
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from guides import MeanField, Recurrent, SelfReflective
from ppl_models import DRAW, VAE
from ppl_models.inference import fit
from ppl_models.inference.pyro.engine import compilers
from ppl_models.inference.pyro.engine.capture import capture
from ppl_models.inference.pyro.engine.recorder import NotCapturable
from ppl_models.inference.pyro.feeding.batches import Batches
from ppl_models.inference.pyro.training.checkpoint import CHECKPOINT, read
from ppl_models.inference.pyro.training.training_step import training_step
from tests.helpers.cases import few
from tests.helpers.uncompiled import AsItIs, as_it_is
from tests.inference.test_compiled import (
    GUIDES,
    MODELS,
    OPTIONS,
    PROGRAMS,
    close,
    collection,
    images,
    plain,
    rows,
    trained,
    whole,
)

pytest.importorskip("jax")
from ppl_models.inference.pyro.engine.xla import cutting, executable  # noqa: E402 (they import JAX)
from ppl_models.inference.pyro.engine.xla.executable import Xla  # noqa: E402


def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every graph be cut, into pieces of a few operations."""
    monkeypatch.setattr(executable, "suits", lambda *args: False)
    monkeypatch.setattr(executable, "LONG", 0)
    monkeypatch.setattr(cutting, "SIZE", 25)


@pytest.fixture(params=["whole", "in pieces"])
def _whole_or_in_pieces(request, monkeypatch):
    if request.param == "in pieces":
        in_pieces(monkeypatch)


def alike(make: Callable, data: Any = None, rough: float = 1e-10, **options: Any) -> Any:
    """Train eagerly and by XLA, and compare; returns the latter."""
    data = rows().double() if data is None else data
    a, b = trained(make, data, False, **options), trained(make, data, "xla", **options)
    assert b.run.notes == a.run.notes
    close(a, b, rough)
    whole(b.model, b.guide)
    return b


double = partial(plain, dtype=torch.float64)


@pytest.mark.usefixtures("_whole_or_in_pieces")
@pytest.mark.parametrize("name", few(OPTIONS, lambda name: name in ("accumulate", "everything")))
def test_the_same_numbers_whatever_the_arguments(name):
    alike(double, **OPTIONS[name])


@pytest.mark.usefixtures("_whole_or_in_pieces")
@pytest.mark.parametrize("name", few([n for n in PROGRAMS if n != "functions"], lambda name: name == "batch norm"))
def test_programs_of_users(name):
    make, data = PROGRAMS[name]
    alike(make, data, 1e-4)


@pytest.mark.parametrize(
    ("name", "guide", "family"),
    few(
        [(n, g, f) for n in MODELS for g in GUIDES for f in ("diagonal", "rank-one", "full", "flow")],
        lambda name, guide, family: (name, guide, family) == ("dlgm", SelfReflective, "rank-one"),
    ),
)
def test_pairs_of_the_collection(name, guide, family):
    if (family, guide.__name__) == ("flow", "Ladder"):  # a flow has no product with a prior
        return
    alike(partial(collection, name, guide, family), images(name).double(), 1e-8, steps=4)


@pytest.mark.parametrize("window", few([None, 3], lambda window: window == 3))
def test_a_guide_that_reads_the_state_of_the_model(window):
    """Loops are unrolled: a recurrent pair, with windows and without, has the eager numbers."""

    def make() -> tuple[nn.Module, nn.Module]:
        model = DRAW((1, 4, 4), 3, 2, 6, window=window).double()
        return model, Recurrent(model, bits, hidden=5, window=window, image=(1, 4, 4))

    bits = (images("vae") > 0).double()
    alike(make, bits, 1e-8, steps=4)


def test_twenty_steps_of_single_precision():
    """Losses within 1e-5 of the eager ones."""
    found = []
    for compile in (False, "xla"):
        torch.manual_seed(0)
        model, guide = collection("vae", MeanField, "diagonal", double=False)
        step = training_step(model, guide, (images("vae"),), compile=compile, lr=1e-3)
        torch.manual_seed(1)
        found.append([float(step(images("vae"))) for _ in range(20)])
        assert not step.notes
    assert found[1] == pytest.approx(found[0], rel=1e-5)


# Whoever looks.


def test_parameters_moments_and_averages_are_true_at_each_record():
    seen: dict[Any, list[Any]] = {}
    for compile in (False, "xla"):
        torch.manual_seed(0)
        pair = double()

        def look(run: Any, compile: Any = compile, pair: Any = pair) -> None:
            held = [*pair[0].state_dict().values(), *pair[1].state_dict().values()]
            seen.setdefault(compile, []).append([t.clone() for t in held])

        options = {"steps": 9, "batch_size": 10, "every": 3, "seed": 0, "ema": 0.9, "progress": False}
        fit(*pair, rows().double(), compile=compile, callbacks=look, **options)
    assert len(seen["xla"]) == 3
    for one, other in zip(seen[False], seen["xla"], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-9)


def test_parameters_are_true_after_each_call_and_may_be_written_to():
    """A weight that is larger than those which share a buffer, and one that is not."""
    steps = {}
    for compile in (False, "xla"):
        torch.manual_seed(0)
        model, guide = double()
        model.wide = nn.Linear(150, 150).double()
        model.body = lambda self, x, mean: mean + self.wide(mean.repeat(1, 25)).mean()
        step = training_step(model, guide, (rows().double(),), compile=compile, lr=1e-2)
        torch.manual_seed(1)
        told = []
        for i in range(6):
            step(rows().double())
            if i == 3:
                with torch.no_grad():
                    for p in model.parameters():
                        p.mul_(0.5)
            told.append([p.detach().clone() for p in [*model.parameters(), *guide.parameters()]])
        steps[compile] = told
        assert not step.notes
        step.close()
        whole(model, guide)
    for one, other in zip(steps[False], steps["xla"], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-9)


def test_a_last_smaller_batch_and_a_program_in_turns(monkeypatch):
    """Graphs and eager steps in turns hand the parameters on."""
    monkeypatch.setattr("ppl_models.inference.pyro.engine.compiled.PATIENCE", 1)
    alike(double, rows(25).double(), steps=12)


@pytest.mark.parametrize("compiler", ["xla", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_run_that_goes_on_is_the_whole_one_bit_for_bit(compiler, tmp_path):
    options = {"schedule": "constant", "every": 4, "ema": 0.9, "weight_decay": 0.1, "clip": 1.0, "seed": 0}
    straight = trained(plain, rows(), compiler, steps=12, **options)
    trained(plain, rows(), compiler, steps=8, folder=tmp_path, **options)
    assert read(tmp_path / CHECKPOINT).about["compiler"] == compiler
    resumed = trained(plain, rows(), "auto", steps=12, folder=tmp_path, resume=True, **options)
    close(straight, resumed, 0.0)
    assert read(tmp_path / CHECKPOINT).about["compiler"] == compiler


def test_a_run_that_was_compiled_goes_on_without_jax_and_says_so(tmp_path, monkeypatch):
    options = {"schedule": "constant", "every": 4}
    trained(plain, rows(), "xla", steps=4, folder=tmp_path, **options)
    monkeypatch.setattr(compilers, "has_xla", lambda: False)
    monkeypatch.setattr("ppl_models.inference.pyro.training.engine.has_xla", lambda: False)
    monkeypatch.setattr("torch._inductor.compile", lambda *args, **options: 1 / 0)
    notes = trained(plain, rows(), "auto", steps=8, folder=tmp_path, resume=True, **options).run.notes
    assert notes[0].startswith("steps run uncompiled: Inductor could not")
    assert notes[1].startswith("the run was started with steps compiled by xla and goes on with eager steps: its end")


# Programs.


def gammas() -> tuple[Callable, Callable]:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(2.0, 2.0))
            pyro.sample("x", dist.Normal(rate[:, None], 1.0).expand([len(x), 6]).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        shape = pyro.param("shape", torch.tensor(2.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(shape, 2.0).expand([len(x)]))

    return model, guide


def test_an_operation_outside_the_table_is_named_and_another_compiler_takes_it(monkeypatch):
    taken: list[Any] = []
    monkeypatch.setattr(compilers, "Inductor", as_it_is(taken.append))
    b = trained(gammas, rows(), True)
    assert len(taken) == 1
    assert b.run.notes[-1].startswith("steps are compiled by Inductor, not by XLA: the draw aten._standard_gamma")
    close(trained(gammas, rows(), False), b, 1e-5)


def test_asked_for_xla_alone_steps_run_uncompiled_with_the_reason():
    b = trained(gammas, rows(), "xla")
    assert b.run.notes[-1] == "steps run uncompiled: the draw aten._standard_gamma depends on a tensor"
    close(trained(gammas, rows(), False), b, 0.0)


CALL = Xla.__call__


def other_numbers(self: Xla, inputs: Sequence[Tensor]) -> list[Tensor]:
    return [t + 1 for t in CALL(self, inputs)]


def failing(self: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
    raise RuntimeError("no memory")


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (other_numbers, "the compiled step has the loss "),
        (failing, "the compiled step fails (RuntimeError: no memory)"),
    ],
)
def test_where_its_step_is_not_the_eager_one_another_compiler_takes_it(call, why, tmp_path, monkeypatch):
    """With what the trial wrote undone; unless XLA was asked for, or the programs are another one at every run."""
    monkeypatch.setattr(Xla, "__call__", call)
    taken: list[Any] = []
    monkeypatch.setattr(compilers, "Inductor", as_it_is(taken.append))
    a = trained(plain, rows(), False)
    b = trained(plain, rows(), True, folder=tmp_path)
    assert len(taken) == 1
    assert b.run.notes[-1].startswith(f"steps are compiled by Inductor, not by XLA: {why}")
    assert read(tmp_path / CHECKPOINT).about["compiler"] == "inductor"
    close(a, b, 1e-5)
    b = trained(plain, rows(), "xla")
    assert b.run.notes[-1].startswith(f"steps run uncompiled: {why}")
    close(a, b, 0.0)
    monkeypatch.setattr(AsItIs, "__call__", failing)
    b = trained(plain, rows(), True)
    assert b.run.notes[-1] == "steps run uncompiled: the compiled step fails (RuntimeError: no memory)"
    close(a, b, 0.0)


def test_a_program_that_is_another_one_at_every_run_is_given_to_no_other_compiler(monkeypatch):
    turns = iter(range(10**6))
    taken: list[Any] = []
    monkeypatch.setattr(compilers, "Inductor", as_it_is(taken.append))
    b = trained(lambda: plain(lambda self, x, mean: mean + next(turns) % 2), rows(), True)
    assert not taken and b.run.notes[-1].endswith("; the programs do something else at every run")


def compiled(function: Callable, *inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """(outputs, inputs afterwards) of a function compiled by XLA, from the same state of the generator."""
    inputs = [t.clone() for t in inputs]
    graph, held = capture(function, inputs)
    found = Xla(graph, [*inputs, *held], 0)([*inputs, *held])
    return list(found), inputs


def written_through_views(x: Tensor) -> tuple[Tensor, ...]:
    y = torch.zeros(4, 3, dtype=x.dtype)
    first = y[0]
    y[1:3] = x[:2]
    y[:, 2].add_(1.0)
    first.mul_(3)
    x.t()[1].fill_(2.0)
    return y.sum(0), first, x.sum()


def drawn(x: Tensor) -> tuple[Tensor, ...]:
    noise = torch.empty_like(x).normal_(1.0, 2.0)
    mask = nn.functional.dropout(x, 0.3)
    kept = x.clone().uniform_(0.5, 2.0)
    return noise, mask, kept, torch.rand_like(x), torch.randn(3), torch.bernoulli(x, 0.25), torch.randperm(5)


def drawn_askew(x: Tensor) -> tuple[Tensor, ...]:
    """Into memory that lies otherwise than the shape says."""
    rows_ = torch.zeros(4, 3, dtype=x.dtype)
    rows_[:, :2].normal_()
    return nn.functional.dropout(x.t(), 0.4), x.t().clone().bernoulli_(0.3), torch.bernoulli(x.t(), 0.3), rows_


@pytest.mark.usefixtures("_whole_or_in_pieces")
@pytest.mark.parametrize("function", [written_through_views, drawn, drawn_askew])
def test_writes_and_draws_are_torchs(function):
    x = torch.arange(12.0, dtype=torch.float64).reshape(4, 3)
    own = x.clone()
    torch.manual_seed(3)
    expected, after = function(own), torch.get_rng_state()
    torch.manual_seed(3)
    found, (written,) = compiled(function, x)
    assert torch.equal(torch.get_rng_state(), after)
    torch.testing.assert_close(found, list(expected))
    torch.testing.assert_close(written, own)


@pytest.mark.parametrize("draw", [torch.bernoulli, lambda p: torch.normal(p, p), lambda p: torch.multinomial(p, 2)])
def test_a_draw_that_depends_on_a_tensor_is_refused_by_name(draw):
    with pytest.raises(NotCapturable, match=r"the draw aten\.\w+(\.\w+)? depends on a tensor"):
        compiled(lambda p: (draw(p),), torch.full((3, 3), 0.3))


def test_the_first_step_of_a_process_moves_no_generator_of_numpys():
    """JAX draws from it while it is imported."""
    code = """if True:
        import numpy as np, torch
        from guides import MeanField
        from ppl_models import VAE
        from ppl_models.inference import training_step
        x = torch.ones(4, 3)
        model = VAE(3, latent=1, hidden=2)
        step = training_step(model, MeanField(model, x, hidden=2), (x,), compile="xla")
        np.random.seed(0)
        step(x)
        assert not step.notes and np.random.get_state()[2] == 624
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_types_are_torchs_where_jax_promotes_otherwise():
    """Single precision times a number of double precision without dims, whole numbers, comparisons."""
    wide, x = torch.tensor(math.pi, dtype=torch.float64), torch.arange(3.0)
    found, _ = compiled(lambda x, wide: (x * wide, x.long() + 1, x > 1, (x.int() / 2).sum()), x, wide)
    assert [t.dtype for t in found] == [torch.float32, torch.int64, torch.bool, torch.float32]


def test_half_precision_and_copies():
    make = partial(collection, "vae", MeanField, "diagonal", double=False)
    options = {"steps": 5, "batch_size": 10, "precision": "bfloat16"}
    a, b = (trained(make, images("vae"), c, **options) for c in (False, "xla"))
    assert not b.run.notes
    close(a, b, 2e-2)
    copy.deepcopy(b.model)


@pytest.mark.parametrize("compile", [False, "xla"])
def test_many_steps_are_steps_one_by_one(compile):
    """Twenty, more than a call takes, and a batch of another shape in between."""
    found = []
    for together in (False, True):
        torch.manual_seed(0)
        model, guide = plain()
        step = training_step(model, guide, (rows(),), compile=compile, lr=1e-2)
        torch.manual_seed(1)
        batches = [(rows(12 if i == 7 else 40, seed=i),) for i in range(20)]
        losses = step.many(batches) if together else torch.stack([step(*batch) for batch in batches])
        found.append([losses, *(p.detach().clone() for p in [*model.parameters(), *guide.parameters()])])
        assert not step.notes and step.steps == 20
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("ema", [None, 0.9])
def test_many_steps_write_weights_where_they_lie(ema):
    """XLA copies nothing that is as large as a weight that stands alone."""
    x, least = torch.rand(8, 784).round(), 784 * 32
    model = VAE(784, latent=2, hidden=32)
    step = training_step(model, MeanField(model, x, hidden=32), (x,), compile="xla", ema=ema)
    step.many([(x,)] * 3)
    (graph,) = step._step.graphs.values()
    text = graph.functions[0].run.block.run.as_text()
    sizes = [math.prod(map(int, found.split(","))) for found in re.findall(r"= f32\[([\d,]+)\]\S* copy\(", text)]
    assert f"f32[{784},{32}]" in text and max(sizes, default=0) < least


def test_steps_one_by_one_write_weights_where_they_lie():
    """Whatever uses their memory keeps it, and sees what steps and others write there."""
    x = torch.rand(8, 784).round()
    model = VAE(784, latent=2, hidden=32)
    step = training_step(model, MeanField(model, x, hidden=32), (x,), compile="xla")
    weight = model.decoder.last.weight
    step(x)
    place, seen, before = weight.data_ptr(), weight.detach(), weight.detach().clone()
    step(x)
    assert weight.data_ptr() == place and torch.equal(seen, weight) and not torch.equal(before, weight)
    with torch.no_grad():
        weight.zero_()
    step(x)
    assert weight.data_ptr() == place and 0 < weight.abs().max() < 0.01
    step.many([(x,)] * 2)
    assert weight.data_ptr() == place and torch.equal(seen, weight)
    last = weight.detach().clone()
    del step
    gc.collect()
    assert torch.equal(weight, last)


def test_the_step_that_was_not_finite_is_told_in_a_call_of_many(monkeypatch):
    told = []
    for compile in (False, "xla"):
        order = iter(range(100))

        def batch(self: Batches, order: Any = order) -> list[Tensor]:
            return [rows(10) * (float("nan") if next(order) == 7 else 1.0)]

        monkeypatch.setattr(Batches, "__next__", batch)
        with pytest.raises(ValueError, match=r"at step \d+: the batch has NaN") as error:
            trained(plain, rows(), compile, steps=40, every=40)
        told.append(str(error.value))
    assert told[0] == told[1]


def wide_layers() -> tuple[nn.Module, nn.Module]:
    """Weights that are too large to share a buffer."""
    model, guide = double()
    model.wide = nn.Linear(150, 150).double()
    model.body = lambda self, x, mean: mean + self.wide(mean.repeat(1, 25)).mean()
    return model, guide


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_trial_step_leaves_no_trace(accumulate):
    alike(wide_layers, accumulate=accumulate, validation=rows(20, seed=5).double())


def normalized_still() -> tuple[nn.Module, nn.Module]:
    """Normalizations of every kind: fixed, without running moments, and with moments in parts of a buffer."""
    model, guide = double(lambda self, x, mean: self.bare(self.still(mean)) + self.each(mean[:, None])[:, 0])
    model.still = nn.BatchNorm1d(6).double()
    model.still.train = lambda mode=True: model.still
    model.still.training = False
    model.bare = nn.BatchNorm1d(6, track_running_stats=False).double()
    model.each = nn.InstanceNorm1d(1, track_running_stats=True).double()
    return model, guide


def test_normalizations_of_other_kinds():
    b = trained(normalized_still, rows().double(), "xla")
    assert b.run.notes == [
        "steps run uncompiled: a normalization keeps its running moments in a part of another tensor"
    ]

    def make() -> tuple[nn.Module, nn.Module]:
        model, guide = normalized_still()
        model.body = lambda self, x, mean: self.bare(self.still(mean))
        return model, guide

    alike(make, rough=1e-6)  # a shift before a normalization has a gradient of rounding errors


def test_what_jax_cannot_take_runs_without_it(monkeypatch):
    """A kind of numbers that it lacks, and a JAX that fails."""
    model, guide = plain(lambda self, x, mean, n: mean + n.float()[:, None])
    n = torch.arange(40).to(torch.uint16)
    step = training_step(model, guide, (rows(), n), compile="xla")
    step(rows(), n)
    lacks = "NotImplementedError: JAX has no torch.uint16"
    assert step.notes == [f"steps run uncompiled: XLA could not compile the step ({lacks})"]
    monkeypatch.setitem(sys.modules, "ppl_models.inference.pyro.engine.xla.executable", None)
    b = trained(plain, rows(), "xla")
    assert b.run.notes[0].startswith("steps run uncompiled: JAX cannot be imported (ModuleNotFoundError")


def test_what_gives_the_batches_may_fail_and_may_write():
    """Steps before an error are taken; a tensor that a step reads is read as it is when the step is asked for."""
    told, after = [], []
    for compile in (False, "xla"):
        torch.manual_seed(0)
        heat = torch.ones(())
        model, guide = plain(lambda self, x, mean, heat=heat: mean * heat)
        step = training_step(model, guide, (rows(),), compile=compile, lr=1e-2)
        torch.manual_seed(1)

        def batches(heat: Tensor = heat) -> Iterator[tuple[Tensor]]:
            for i in range(7):
                heat.fill_(1 + i // 3)
                yield (rows(seed=i),)
            raise OSError("the disk")

        with pytest.raises(OSError, match="the disk"):
            step.many(batches())
        assert step.steps == 7 and not step.notes
        told.append(step(rows()).item())
        after.append([p.detach().clone() for p in [*model.parameters(), *guide.parameters()]])
        assert step.many([]).shape == (0,)
    assert told[1] == pytest.approx(told[0], rel=1e-4)
    torch.testing.assert_close(after[1], after[0], rtol=1e-3, atol=1e-4)
