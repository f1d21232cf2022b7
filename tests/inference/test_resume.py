"""Exact resume: a training that is ended at any moment and goes on comes to the end of one that was left alone."""

import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoNormal
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_models import VAE
from ppl_models.data import Binarize, Data
from ppl_models.inference import Cyclic, Linear, fit, load
from ppl_models.inference.objectives.bounds import free_bits
from ppl_models.inference.pyro.engine.compiled import Compiled
from ppl_models.inference.pyro.engine.step import Eager
from ppl_models.inference.pyro.feeding.batches import Batches
from ppl_models.inference.pyro.training import engine
from ppl_models.inference.pyro.training.checkpoint import CHECKPOINT, PREVIOUS, read
from ppl_models.inference.pyro.training.engine import PyroEngine
from ppl_models.inference.pyro.training.tensorboard import TensorBoard
from ppl_models.inference.resuming import history
from ppl_models.inference.resuming.history import LINES, SHOWN, History
from ppl_models.inference.training.loop import Loop
from ppl_models.parts import Program
from tests.helpers.cases import few
from tests.helpers.processes import Killed, bomb, records_of, untimed

# as many workers as a test wants, on a machine of any size
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

ROOT = Path(__file__).resolve().parents[2]
STEPS = 23


class Recognition(Program):
    """q(z1 | x) = N(W norm(x) + b, diag(s^2)), whose norm keeps running statistics, and dropout."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.2)) if norm else nn.Identity()
        self.loc = nn.Linear(8, 2)
        self.log_scale = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.Normal(self.loc(self.norm(x)), self.log_scale.exp()).to_event(1))


def rows(n: int = 50, seed: int = 1) -> Tensor:
    return torch.bernoulli(torch.full((n, 8), 0.4), generator=torch.Generator().manual_seed(seed))


def grey(n: int = 50) -> Data:
    """Binarized anew at each access."""
    values = torch.randint(256, (n, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))
    return Data(values, (8,), 256, Binarize(256), "grey")


def modules(norm: bool = False, double: bool = False) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(3)
    pair = VAE(8, 2, hidden=8), Recognition(norm)
    return tuple(m.double() for m in pair) if double else pair


def regression(x: Tensor, y: Tensor) -> None:
    slope = pyro.param("slope", torch.zeros(()))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(slope * x, 1.0))
        pyro.sample("y", dist.Normal(z, pyro.param("noise", torch.tensor(0.5), constraint=constraints.positive)), obs=y)


def regression_guide(x: Tensor, y: Tensor) -> None:
    weight = pyro.param("weight", lambda: torch.randn(2) * 0.1)
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(weight[0] * x + weight[1] * y, 0.5))


def functions() -> tuple[Callable, Callable]:
    pyro.clear_param_store()
    torch.manual_seed(3)
    return regression, regression_guide


def weights(x: Tensor, y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(w[0] + w[1] * x, 0.5), obs=y)


def auto(kind: type) -> Callable[[], tuple[Callable, Callable]]:
    def make() -> tuple[Callable, Callable]:
        pyro.clear_param_store()
        torch.manual_seed(3)
        return weights, kind(weights)

    return make


def line(n: int = 50) -> tuple[Tensor, Tensor]:
    x = torch.linspace(-1, 1, n)
    return x, 2 * x + 0.1 * torch.randn(n, generator=torch.Generator().manual_seed(5))


class Own(ELBO):
    """A loss of Pyro's kind, and one that can be captured."""

    _get_trace = None

    def differentiable_loss(self, model: Callable, guide: Callable, *args: Any) -> Tensor:
        drawn = poutine.trace(guide).get_trace(*args)
        return drawn.log_prob_sum() - poutine.trace(poutine.replay(model, drawn)).get_trace(*args).log_prob_sum()

    def loss(self, *args: Any) -> float:
        return self.differentiable_loss(*args).item()


# name -> (a new pair, the data, arguments of fit); every=5 divides neither the epoch of six batches nor the 23 steps
CASES: dict[str, tuple[Callable, Any, dict[str, Any]]] = {
    "plain": (modules, rows(), {}),
    "no average": (modules, rows(), {"ema": None, "schedule": "constant"}),
    "warm-up, weight decay": (modules, rows(), {"warmup": 9, "weight_decay": 0.1, "clip": 0.5}),
    "cyclic beta, schedule": (modules, rows(), {"beta": Cyclic(7), "schedule": Linear(STEPS, 1.0, 0.1)}),
    "particles, sampled": (modules, rows(), {"particles": 3, "analytic": False}),
    "accumulate": (modules, rows(), {"accumulate": 2}),
    "skip": (modules, rows(), {"skip": 2.6}),
    "validation": (modules, rows(), {"validation": rows(20, 2)}),
    "patience, stopped": (modules, rows(), {"validation": rows(20, 2), "patience": 1, "lr": 0.5, "every": 2}),
    "patience, not stopped": (modules, rows(), {"validation": rows(20, 2), "patience": 3, "lr": 0.05, "ema": None}),
    "dynamic data": (modules, grey(), {"validation": grey(20)}),
    "workers": (modules, grey(), {"workers": 2}),
    "running statistics": (lambda: modules(norm=True), rows(), {"validation": rows(20, 2)}),
    "double precision": (lambda: modules(double=True), rows().double(), {}),
    "bfloat16": (modules, rows(), {"precision": "bfloat16"}),
    "all rows a batch": (modules, rows(), {"batch_size": 500}),
    "every step": (modules, rows(), {"every": 1}),
    "epochs": (modules, rows(), {"steps": None, "epochs": 3.5, "every": None}),
    "free bits": (modules, rows(), {"objective": free_bits}),
    "a loss of Pyro's": (modules, rows(), {"loss": Trace_ELBO}),
    "a loss that runs the pair before": (modules, rows(), {"loss": TraceEnum_ELBO}),
    "a loss of a user's": (modules, rows(), {"loss": Own}),
    "param store": (functions, line(), {}),
    "param store, no average": (functions, line(), {"ema": None, "validation": line(9)}),
    "autoguide": (auto(AutoNormal), line(), {}),
    "low-rank autoguide": (auto(AutoLowRankMultivariateNormal), line(), {"accumulate": 2}),
}


def train(name: str, folder: Path | None, **more: Any) -> list[Any]:
    """Train the case from new objects; all that it leaves: values of the programs, history, notes."""
    make, data, arguments = CASES[name]
    pair = make()
    arguments = {"steps": STEPS, "batch_size": 8, "every": 5, "lr": 1e-2, "seed": 0, "progress": False, **arguments}
    if "loss" in arguments:
        arguments["loss"] = arguments["loss"]()  # which has not met the pair
    run = fit(*pair, data, **{**arguments, "folder": folder, "resume": True, **more})
    held = {f"{i}.{k}": v for i, p in enumerate(pair) if isinstance(p, nn.Module) for k, v in p.state_dict().items()}
    held |= {k: v.detach() for k, v in pyro.get_param_store().items()}
    return [{k: v.clone() for k, v in held.items()}, untimed(run.history), run.notes]


def assert_same(one: Path, other: Path) -> None:
    """Two checkpoints hold the same, but for the time that it took: weights, moments, averages, generators, order."""
    a, b = (read(folder / CHECKPOINT) for folder in (one, other))
    for mine, its in ((a.weights, b.weights), (a.training, b.training)):
        assert mine.keys() == its.keys()
        assert not [name for name in mine if not equal(mine[name], its[name])]
    assert records_of(one, a.about) == records_of(other, b.about)
    assert {**a.about, "seconds": 0} == {**b.about, "seconds": 0}


def equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def assert_equal(a: list[Any], b: list[Any]) -> None:
    assert a[0].keys() == b[0].keys() and not [k for k in a[0] if not equal(a[0][k], b[0][k])]
    assert a[1:] == b[1:]


# Where a training may end: an attribute that is called there, and whether the end comes before the call or after it.
PLACES = {
    "before a step": (Eager, "__call__", False),
    "after a step": (Eager, "__call__", True),
    "within a step": (Tensor, "backward", True),
    "taking a batch": (Batches, "__next__", True),
    "validation": (PyroEngine, "_bound", True),
    "before saving": (Loop, "_save", False),
    "writing": (os, "fsync", False),
    "keeping the previous one": (os, "link", True),
    "before renaming": (os, "replace", False),
    "after renaming": (os, "replace", True),
    "between the files": (history, "write_json", False),
    "after the lines": (History, "append", True),
    "after a record": (Loop, "_record", True),
}
# of the same names, where a step is compiled
COMPILED = {
    "before a step": (Compiled, "queue", False),
    "after a step": (Compiled, "queue", True),
    "within a step": (Compiled, "_take", False),
}
COMPILERS = False, "xla", "inductor"


def places(compile: Any) -> dict[str, tuple]:
    return {**PLACES, **COMPILED} if compile else PLACES


def killed_on_the_way(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, moments: random.Random, compile: Any
) -> list[str]:
    """Start the case and end it, at one place after the other, of four where it is compiled; where it did end.

    A training that never comes to a place, as to a validation where there is none, is put back to before it.
    """
    ended, known, before = [], places(compile), folder.with_name("before")
    for place in moments.sample(sorted(known), 4 if compile else len(known)):
        shutil.rmtree(before, ignore_errors=True)
        if folder.exists():
            shutil.copytree(folder, before)
        with monkeypatch.context() as patch:
            bomb(patch, *known[place], count=moments.randint(1, 3))
            try:
                train(name, folder, compile=compile)
            except Killed:
                ended.append(place)
            else:
                shutil.rmtree(folder)
                if before.exists():
                    before.rename(folder)
        torch.rand(3), random.random()  # whatever else goes on
    return ended


NEVER = "a loss of Pyro's", "a loss that runs the pair before"  # which no step can be captured with
OFTEN = {
    False: ("plain", "patience, not stopped", "running statistics", "a loss that runs the pair before"),
    True: ("dynamic data", "a loss of a user's"),
}


@pytest.mark.parametrize(
    ("name", "compile"),
    few(
        [(name, compile) for name in CASES for compile in COMPILERS if not (compile and name in NEVER)],
        lambda name, compile: name in OFTEN[bool(compile)] and compile != "inductor",
    ),
)
def test_ended_at_many_places_it_comes_to_the_same_end(name, compile, tmp_path, monkeypatch):
    """One training, ended at up to twelve places one after the other, against one that was left alone."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    want = train(name, whole, compile=compile)
    ended = killed_on_the_way(name, broken, monkeypatch, random.Random(name), compile)
    assert len(ended) >= (1 if compile else 2), ended
    assert_equal(want, train(name, broken, compile=compile))
    assert_same(whole, broken)
    assert {path.name for path in broken.iterdir()} == {CHECKPOINT, PREVIOUS, SHOWN, LINES}
    # without a folder nothing is different, and a run that is through is left as it is
    assert_equal(want, train(name, None, resume=False, compile=compile))
    before = {path.name: path.read_bytes() for path in broken.iterdir()}
    assert_equal(want, train(name, broken, compile=compile))
    assert before == {path.name: path.read_bytes() for path in broken.iterdir()}
    # what is loaded from the folder is what the pair was left with
    pair = CASES[name][0]()
    if all(isinstance(p, nn.Module) for p in pair) and not any("auto" in str(type(p)) for p in pair):
        load(broken / CHECKPOINT, {"model": pair[0], "guide": pair[1]})
        found = {f"{i}.{k}": v for i, p in enumerate(pair) for k, v in p.state_dict().items()}
        assert not [k for k in found if not equal(found[k], want[0][k])]


def test_the_cases_are_what_they_say(tmp_path):
    skipped = train("skip", None, resume=False)[1]
    assert 0 < sum(record["skipped"] for record in skipped) < STEPS, skipped
    stopped, whole = (train(f"patience, {how}", None, resume=False) for how in ("stopped", "not stopped"))
    assert stopped[1][-1]["step"] < STEPS and "the pair is left as it was then" in stopped[2][0] and not whole[2]
    valid = [record["valid"] for record in whole[1]]
    assert min(valid) < valid[-1], valid  # so the best is not the last


AMID = ("within a step", "validation", "writing", "between the files")


@pytest.mark.parametrize(
    ("compile", "count", "place"),
    few(
        [(compile, n, place) for compile in COMPILERS for n in (1, 2, 7) for place in PLACES],
        lambda compile, count, place: not compile and count == 2 and place in AMID,
    ),
)
def test_ended_once_at_each_place(place, count, compile, tmp_path, monkeypatch):
    want = train("validation", tmp_path / "whole", compile=compile)
    with monkeypatch.context() as patch:
        bomb(patch, *places(compile)[place], count=count)
        try:
            train("validation", tmp_path / "broken", compile=compile)
        except Killed:
            pass
        else:
            assert count == 7 and "step" not in place
    assert_equal(want, train("validation", tmp_path / "broken", compile=compile))
    assert_same(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.parametrize("compile", few(COMPILERS, lambda compile: not compile))
def test_a_callback_ends_or_fails_and_what_it_draws_and_adds_is_no_matter(compile, tmp_path):
    def noisy(run: Any) -> None:
        run.history[-1]["drawn"] = len(run.history)
        torch.rand(3), random.random()

    def failing(run: Any) -> None:
        noisy(run)
        if run.history[-1]["step"] == 15:
            raise Killed

    def last(run: Any) -> bool:
        noisy(run)
        return run.history[-1]["step"] == 15

    how = {"compile": compile}
    want = train("plain", tmp_path / "whole", callbacks=noisy, **how)
    with pytest.raises(Killed):
        train("plain", tmp_path / "broken", callbacks=failing, **how)
    assert read(tmp_path / "broken" / CHECKPOINT).about["step"] == 10
    assert_equal(want, train("plain", tmp_path / "broken", callbacks=noisy, **how))
    assert_same(tmp_path / "whole", tmp_path / "broken")
    assert [record["drawn"] for record in want[1]] == [1, 2, 3, 4, 5]
    plain = train("plain", None, resume=False, **how)
    assert not [k for k in plain[0] if not equal(plain[0][k], want[0][k])]
    # one that ended it has ended it: resuming changes nothing
    ended = train("plain", tmp_path / "ended", callbacks=last, **how)
    assert ended[1][-1]["step"] == 15 and "by the callback last" in ended[2][0]
    assert_equal(ended, train("plain", tmp_path / "ended", callbacks=last, **how))


@pytest.mark.parametrize("compile", few(COMPILERS, lambda compile: not compile))
def test_a_longer_training_goes_on_where_it_ended(compile, tmp_path):
    """With a constant rate, more steps are those of a run that was to be so long from the start."""
    for name in ("no average", "patience, not stopped"):
        more = {"schedule": "constant", "every": 4, "compile": compile}
        want = train(name, tmp_path / name / "long", steps=24, **more)
        train(name, tmp_path / name / "short", steps=12, **more)
        assert_equal(want, train(name, tmp_path / name / "short", steps=24, **more))


@pytest.mark.parametrize(
    ("first", "then"),
    few(itertools.permutations(COMPILERS, 2), lambda first, then: "inductor" not in (first, then)),
)
def test_by_another_compiler_it_goes_on_with_a_note(first, then, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        bomb(patch, Loop, "_save", True, 2)
        with pytest.raises(Killed):
            train("plain", tmp_path, compile=first)
    notes = train("plain", tmp_path, compile=then)[2]
    by = [f"steps compiled by {compile}" if compile else "eager steps" for compile in (first, then)]
    assert notes == [
        f"the run was started with {by[0]} and goes on with {by[1]}: its end will not be that of an uninterrupted one "
        "bit for bit"
    ]


@pytest.mark.parametrize("name", NEVER)
def test_steps_that_no_compiler_takes_are_told_of_in_one_line(name, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        bomb(patch, Loop, "_save", True, 2)
        with pytest.raises(Killed):
            train(name, tmp_path, compile=True, every=1)
    assert "compiler" not in read(tmp_path / PREVIOUS).about  # of the first step, after which nobody knows yet
    assert read(tmp_path / CHECKPOINT).about["compiler"] == "eager"
    for compile in (True, "xla"):
        (note,) = train(name, tmp_path, compile=compile, every=1)[2]
        assert note.startswith("steps run uncompiled: the value of a tensor is read")
        shutil.copy(tmp_path / PREVIOUS, tmp_path / CHECKPOINT)


# what cannot be resumed


@pytest.fixture
def begun(tmp_path, monkeypatch) -> Path:
    with monkeypatch.context() as patch:
        bomb(patch, *PLACES["after a step"], count=14)
        with pytest.raises(Killed):
            train("validation", tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"lr": 0.02}, r"found lr=0.02, but the run in this folder was started with 0.01; resume with the arguments"),
        ({"batch_size": 10}, "found batch_size=10, but .* started with 8"),
        ({"steps": 30}, "found steps=30, but .* started with 23"),
        ({"every": 3}, "found every=3, but .* started with 5"),
        ({"ema": None}, "found ema=None, but"),
        ({"accumulate": 2}, "found accumulate=2, but"),
        ({"particles": 2}, "found particles=2, but"),
        ({"objective": free_bits}, "found objective='free_bits', but .* with 'elbo'"),
        ({"beta": Cyclic(3)}, "found beta={.*Cyclic.*but .* with 1.0"),
        ({"skip": 3.0}, "found skip=3.0, but .* with None"),
        ({"precision": "bfloat16"}, "found precision='bfloat16', but"),
        ({"patience": 2}, "found patience=2, but"),
        ({"workers": 1}, "found the state of a run without workers, and workers now"),
        ({"data": rows(50, 4)}, "the data are not those that the run in .* was started with; resume with the same"),
        ({"data": rows(51)}, "the data are not those"),
        ({"validation": None}, "the validation data are not those that the run in .* was started with"),
        ({"validation": rows(20, 3)}, "the validation data are not those"),
        ({"make": lambda: (VAE(8, 2, hidden=4), Recognition())}, r"tensor 'model\..*' is .*, want .*; rebuild"),
        ({"make": lambda: modules(norm=True)}, r"lacks the tensor 'guide.norm.0"),
        ({"make": lambda: modules(double=True), "data": rows().double(), "validation": None}, "data are not those"),
    ],
)  # fmt: skip
def test_one_error_says_what_is_not_the_same(begun, monkeypatch, other, words):
    make, data, arguments = CASES["validation"]
    before = {path.name: path.read_bytes() for path in begun.iterdir()}
    options = {**other}
    other_case = options.pop("make", make), options.pop("data", data), {**arguments, **options}
    monkeypatch.setitem(CASES, "validation", other_case)
    with pytest.raises(ValueError, match=words) as caught:
        train("validation", begun)
    assert len(str(caught.value).splitlines()) == 1
    assert {path.name: path.read_bytes() for path in begun.iterdir()} == before
    with monkeypatch.context() as patch:
        patch.setitem(CASES, "validation", (make, data, arguments))
        train("validation", begun)


def test_as_many_processes(begun, monkeypatch):
    path = begun / CHECKPOINT
    real = engine.load_training

    def of_two(*given: Any) -> Any:
        state, about = real(*given)
        return state, {**about, "world": 2}

    monkeypatch.setattr(engine, "load_training", of_two)
    with pytest.raises(ValueError, match="found 1 processes, the run in .* was started with 2; resume with as many"):
        train("validation", begun)
    assert path.exists()


def test_a_folder_without_resume_is_left_alone(begun):
    with pytest.raises(ValueError, match=f"holds a {CHECKPOINT} already; choose another folder, move it away, or res"):
        train("validation", begun, resume=False)
    with pytest.raises(ValueError, match="found resume=True without a folder"):
        train("validation", None, resume=True)


@pytest.mark.parametrize("how", ["truncated", "changed", "empty", "gone"])
def test_of_a_damaged_checkpoint_the_previous_one_is_taken(how, begun, tmp_path):
    path, previous = begun / CHECKPOINT, begun / PREVIOUS
    want = train("validation", tmp_path / "whole")
    content = path.read_bytes()
    assert read(path).about["step"] == 10 and read(previous).about["step"] == 5
    changed = bytearray(content)
    changed[-100] ^= 1
    damaged = {"truncated": content[:-7], "changed": bytes(changed), "empty": b""}
    path.unlink() if how == "gone" else path.write_bytes(damaged[how])
    with pytest.raises(ValueError, match=re.escape(PREVIOUS)) as caught:
        train("validation", begun)
    assert "rename" in str(caught.value)
    previous.rename(path)
    assert_equal(want, train("validation", begun))
    assert_same(tmp_path / "whole", begun)


# processes that are killed

SCRIPT = """
import sys, warnings
sys.path.insert(0, {tests!r})
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "This DataLoader will create")
import torch
torch.set_num_threads(1)

if __name__ == "__main__":
    import test_resume
    test_resume.CASES["here"] = test_resume.CASES[{case!r}]
    print("begun", flush=True)
    test_resume.train("here", test_resume.Path({folder!r}), **{more!r})
    print("done", flush=True)
"""


def command(case: str, folder: Path, **more: Any) -> list[str]:
    """A process that trains a case in a folder, or goes on there."""
    code = SCRIPT.format(tests=str(Path(__file__).parent), case=case, folder=str(folder), more=more)
    script = folder.with_name(f"{folder.name}.py")
    script.write_text(textwrap.dedent(code))
    return [sys.executable, str(script)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def begin(words: list[str], **how: Any) -> subprocess.Popen:
    # a shell's background jobs ignore SIGINT and hand that on; one that has a handler starts anew
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(words, env=environment(), text=True, **pipes, **how)
    finally:
        signal.signal(signal.SIGINT, before)


def killings(case: str, tmp_path: Path, kills: int, seed: int, **more: Any) -> dict[str, Any]:
    """Kill a process at moments uniform over the time that a whole run takes, and go on, until it is through.

    A process that comes to its end before its moment has a new run begun, which is compared too; what is returned
    counts them: kills at the start-up, in a step or between, while files were being written.
    """
    start = time.perf_counter()
    want = train(case, tmp_path / "whole", **more)
    begun = time.perf_counter()
    process = begin(command(case, tmp_path / "timed", **more))
    said = process.communicate()
    took = time.perf_counter() - begun
    assert process.returncode == 0 and said[0].split() == ["begun", "done"], said[1]
    assert_same(tmp_path / "whole", tmp_path / "timed")
    moments, found = random.Random(seed), {"kills": 0, "runs": 0, "at start": 0, "amid files": 0, "steps": []}
    folder = tmp_path / "run0"
    while found["kills"] < kills:
        process = begin(command(case, folder, **more))
        try:
            process.wait(moments.uniform(0, took))
        except subprocess.TimeoutExpired:
            process.kill()
        _, errors = process.communicate()
        if process.returncode == 0:  # it was through before its moment
            assert_same(tmp_path / "whole", folder)
            found["runs"] += 1
            folder = tmp_path / f"run{found['runs']}"
            continue
        assert process.returncode == -signal.SIGKILL, errors
        found["kills"] += 1
        found["amid files"] += any(path.name.endswith(".tmp") for path in folder.glob(".*"))
        found["steps"].append(read(folder / CHECKPOINT).about["step"] if (folder / CHECKPOINT).exists() else 0)
        found["at start"] += found["steps"][-1] == 0
    assert_equal(want, train(case, folder, **more))
    assert_same(tmp_path / "whole", folder)
    assert {path.name for path in folder.iterdir()} == {CHECKPOINT, PREVIOUS, SHOWN, LINES}
    return {**found, "runs": found["runs"] + 1, "a run": took, "seconds": time.perf_counter() - start}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("compile", COMPILERS)
def test_killed_at_random_moments(compile, tmp_path):
    found = killings("dynamic data", tmp_path, 6, seed=0, steps=90, every=3, compile=compile)
    print(found)
    assert found["kills"] == 6


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("case", "every", "compile"),
    [
        ("dynamic data", 1, False),
        ("running statistics", 3, False),
        ("running statistics", 30, "xla"),
        ("dynamic data", 10, "inductor"),
    ],
)
def test_killed_at_thirty_random_moments(case, every, compile, tmp_path):
    found = killings(case, tmp_path, 30, seed=1, steps=150 * every, every=every, compile=compile)
    print(found)
    assert found["kills"] == 30 and max(found["steps"]) > 30 and found["at start"] < 30


# signals


def interrupted(words: list[str], number: int, folder: Path, cwd: Path | None = None) -> tuple[int, str, str]:
    """Exit code and what is said of a process that gets a signal once it has saved; every process of it gets Ctrl-C."""
    process = begin(words, cwd=cwd, start_new_session=True)
    while process.poll() is None and not (folder / CHECKPOINT).exists():
        time.sleep(0.01)
    time.sleep(0.1)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    said, errors = process.communicate()
    return process.returncode, said, errors


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize(
    ("number", "code", "compile"),
    few(
        [
            (*each, compile)
            for each in ((signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM))
            for compile in COMPILERS
        ],
        lambda number, code, compile: code < 0 and not compile,
    ),
)
def test_a_signal_saves_and_says_how_to_go_on(number, code, compile, tmp_path):
    """Between two steps, not at a record alone; workers hear Ctrl-C too."""
    more = {"steps": 4000, "every": 70, "schedule": "constant", "compile": compile}
    found, _, errors = interrupted(command("workers", tmp_path / "run", **more), number, tmp_path / "run")
    assert found == code, errors
    done = read(tmp_path / "run" / CHECKPOINT).about["step"]
    if number == signal.SIGINT:
        assert f"interrupted after step {done}, saved; go on with resume=True and {tmp_path / 'run'}" in errors
    end = (done // 70 + 1) * 70
    want = train("workers", tmp_path / "whole", **{**more, "steps": end})
    assert_equal(want, train("workers", tmp_path / "run", **{**more, "steps": end}))


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_command_line(number, code, tmp_path):
    line = "train vae -g mean-field -m hidden=8 -m latent=2 -g hidden=8 --epochs 40 --evaluate 0 --threads 1"
    words = [sys.executable, "-m", "ppl_models", *line.split()]
    found, said, errors = interrupted([*words, "--out", "run"], number, tmp_path / "run", tmp_path)
    assert found == code, errors
    done = read(tmp_path / "run" / CHECKPOINT).about["step"]
    assert 0 < done < 40 * 18 and f"interrupted after step {done}, saved" in errors
    assert "the last checkpoint before the end is kept in run" in said
    assert "go on from it with: ppl-models train --resume run" in said
    if number == signal.SIGINT:
        again = [*words[:3], "train", "--resume", "run", "--evaluate", "0", "--threads", "1", "-q"]
        for each in (again, [*words, "--out", "whole", "-q"]):
            subprocess.run(each, cwd=tmp_path, env=environment(), check=True, capture_output=True)
        assert_same(tmp_path / "whole", tmp_path / "run")


# TensorBoard


def test_tensorboard_is_an_option(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"TensorBoard: found no package .* pip install 'ppl-models\[tensorboard\]'"):
        TensorBoard(tmp_path)


def test_tensorboard_shows_every_number(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(Killed), pytest.MonkeyPatch.context() as patch:
        bomb(patch, *PLACES["before saving"], count=3)
        train("validation", tmp_path / "run", callbacks=TensorBoard(tmp_path / "curves"))
    history = train("validation", tmp_path / "run", callbacks=[TensorBoard(tmp_path / "curves")])[1]
    curves = EventAccumulator(str(tmp_path / "curves")).Reload()
    assert set(curves.Tags()["scalars"]) == {"loss", "negative_elbo", "valid", "seconds"}
    for name in ("loss", "negative_elbo", "valid"):
        found = [(event.step, event.value) for event in curves.Scalars(name)]
        assert found == [(record["step"], pytest.approx(record[name], rel=1e-6)) for record in history]
