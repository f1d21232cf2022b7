"""`fit` by two processes that torchrun starts: one training on shared rows, ended and gone on with like any other."""

import json
import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_resume import Recognition, assert_same, rows
from torch import Tensor, nn

from ppl_models import VAE
from ppl_models.inference import Terms, elbo, fit
from ppl_models.inference.pyro.engine.step import Eager
from ppl_models.inference.pyro.feeding.distributed import current, shut_down
from ppl_models.inference.pyro.training.checkpoint import CHECKPOINT, PREVIOUS, read
from ppl_models.inference.pyro.training.engine import PyroEngine
from ppl_models.inference.resuming.history import LINES, SHOWN
from ppl_models.inference.training.loop import Loop
from ppl_models.runs import load_run
from tests.helpers.processes import Killed, bomb, torchrun, untimed
from tests.helpers.talking import talk

pytestmark = pytest.mark.slow

STEPS, SEEDS = 60, range(5)
SCRIPT = """
import sys, warnings
sys.path.insert(0, {tests!r})
warnings.simplefilter("error")
import torch
torch.set_num_threads(1)

if __name__ == "__main__":
    import test_data_parallel
    getattr(test_data_parallel, {work!r})(test_data_parallel.Path({folder!r}))
"""


def by_two(folder: Path, words: list[str], restarts: int = 0) -> subprocess.CompletedProcess[str]:
    """Two processes that come to a good end."""
    done = torchrun(folder, words, restarts)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def script(folder: Path, work: Callable) -> str:
    path = folder / f"{work.__name__}.py"
    path.write_text(SCRIPT.format(tests=str(Path(__file__).parent), work=work.__name__, folder=str(folder)))
    return str(path)


def train(folder: Path | None = None, norm: bool = True, **more: Any) -> tuple[list[dict], dict[str, Tensor]]:
    """(history, parameters and buffers) of a training by the processes that there are; the same pair for all seeds."""
    torch.manual_seed(11 + int(os.environ.get("RANK", 0)))  # each process begins with other weights: rank 0's count
    pair = VAE(8, 2, hidden=8), Recognition(norm)
    usual = {"steps": STEPS, "batch_size": 8, "every": 7, "lr": 1e-2, "seed": 0, "progress": False, "folder": folder}
    run = fit(*pair, rows(200), **{**usual, "resume": folder is not None, **more})
    return untimed(run.history), {f"{i}.{k}": v.clone() for i, p in enumerate(pair) for k, v in p.state_dict().items()}


def line(x: Tensor, y: Tensor) -> None:
    """No latent, so no noise but the order of the rows."""
    a, b = pyro.param("a", torch.zeros(())), pyro.param("b", torch.zeros(()))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(a + b * x, 1.0), obs=y)


def nothing(x: Tensor, y: Tensor) -> None:
    pass


class Remembering:
    """The ELBO, whose state is a mean of the log densities of the data over the last steps."""

    def init(self, terms: Terms, data_size: int | None = None) -> dict[str, Tensor]:
        return {"seen": 0 * terms.log_likelihood["y"].detach().mean()}

    def __call__(self, terms: Terms, beta: Any, data_size: int | None, state: Any) -> tuple[Tensor, dict[str, Tensor]]:
        seen = terms.log_likelihood["y"].detach().mean()
        return elbo(terms, beta, data_size), {"seen": 0.9 * state["seen"] + 0.1 * seen}


def fitted_line(batch_size: int, folder: Path) -> Tensor:
    pyro.clear_param_store()
    x = torch.linspace(-1, 1, 90)
    options = {"batch_size": batch_size, "lr": 0.05, "seed": 4, "progress": False, "folder": folder}
    fit(line, nothing, (x, x.sin() * 3), steps=40, objective=Remembering(), **options)
    return torch.stack([pyro.param("a"), pyro.param("b")]).detach()


def remembered(folder: Path) -> Tensor:
    return read(folder / CHECKPOINT).training["objective.seen"]


# what the two processes do


def all_of_it(folder: Path) -> None:
    """Talk, and several trainings; each rank leaves what it ended with in a file of its own."""
    talk(folder, "cpu")
    group, patch = current("cpu"), pytest.MonkeyPatch()
    found: dict[str, Tensor] = {}
    histories: dict[str, Any] = {}

    def note(name: str, result: tuple[Any, dict[str, Tensor]]) -> None:
        histories[name] = result[0]
        found.update({f"{name}.{k}": v for k, v in result[1].items()})

    drawn = []
    with patch.context() as context:
        real = Eager.__call__

        def listening(self: Eager, batches: Any, now: Any) -> Tensor:
            drawn.append(torch.cat([torch.get_rng_state()[:64].float(), batches[0][0].flatten()[:64]]))
            return real(self, batches, now)

        context.setattr(Eager, "__call__", listening)
        note("plain", train(folder / f"of_rank_{group.rank}", resume=False, validation=rows(31, 2), steps=20))
    found["drawn"] = torch.stack(drawn)

    note("whole", train(folder / "whole", validation=rows(31, 2)))
    for place, count in (
        ((Eager, "__call__", True), 17),
        ((PyroEngine, "_bound", True), 3),
        ((Loop, "_save", True), 2),
    ):
        with patch.context() as context:
            bomb(context, *place, count)
            with pytest.raises(Killed):
                train(folder / "broken", validation=rows(31, 2))
    note("broken", train(folder / "broken", validation=rows(31, 2)))
    stopped = {"validation": rows(31, 2), "patience": 2, "lr": 0.3, "every": 3}
    note("patience", train(folder / "patience", **stopped))
    note("finished", train(folder / "patience", **stopped))
    note("compiled", train(folder / "compiled", norm=False, steps=30, compile=True))
    note("uncompiled", train(None, norm=False, steps=30, compile=False))
    found["line"] = fitted_line(15, folder / "line")
    shut_down()
    shut_down()
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    (folder / f"threads_of_{group.rank}.json").write_text(json.dumps([name for name in threads if "gloo" in name]))
    save_file(found, folder / f"{group.rank}.safetensors")
    (folder / f"{group.rank}.json").write_text(json.dumps(histories))


def curves(folder: Path) -> None:
    """The records of one training for each seed, which rank 0 leaves in a file."""
    histories = [train(seed=seed, norm=False, steps=100, every=10)[0] for seed in SEEDS]
    if current("cpu").rank == 0:
        (folder / "curves.json").write_text(json.dumps(histories))
    shut_down()


def killed_once(folder: Path) -> None:
    """The training "whole", in which one process kills itself at one step, once."""
    moments = random.Random(3)
    rank, count = moments.randrange(2), moments.randint(10, STEPS - 5)
    patch = pytest.MonkeyPatch()
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and int(os.environ["RANK"]) == rank:
        deadly(patch, count)
    train(folder / "elastic", validation=rows(31, 2))
    shut_down()  # together: a process that leaves long before another may be taken for one that failed
    (folder / f"restarts{os.environ['RANK']}").write_text(os.environ["TORCHELASTIC_RESTART_COUNT"])


def deadly(patch: pytest.MonkeyPatch, count: int) -> None:
    real, calls = Eager.__call__, []

    def step(*args: Any) -> Tensor:
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)

    patch.setattr(Eager, "__call__", step)


COMMAND = (
    "train vae -g mean-field -m hidden=8 -m latent=2 -g hidden=8 --data digits --steps 60 --evaluate 4 --no-compile "
    "--validation --threads 1"
)


def command_line(folder: Path) -> None:
    """The command, in which rank 1 kills itself at a step in the first two starts."""
    from ppl_models.cli import app

    patch, count = pytest.MonkeyPatch(), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if count < 2 and os.environ["RANK"] == "1":
        deadly(patch, (5, 50)[count])
    app([*COMMAND.split(), "--out", "elastic", "-q"], prog_name="ppl-models")


@pytest.fixture(scope="module")
def done(two_processes) -> Path:
    return two_processes


@pytest.fixture(scope="module")
def ranks(done) -> list[dict[str, Tensor]]:
    return [load_file(done / f"{rank}.safetensors") for rank in range(2)]


@pytest.fixture(scope="module")
def histories(done) -> list[dict[str, Any]]:
    return [json.loads((done / f"{rank}.json").read_text()) for rank in range(2)]


def named(found: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k.partition(".")[2]: v for k, v in found.items() if k.startswith(f"{name}.")}


def test_both_end_with_the_same_bits(ranks, histories):
    assert histories[0] == histories[1]
    names = [name for name in ranks[0] if name != "drawn"]
    assert len(names) > 60 and not [name for name in names if not torch.equal(ranks[0][name], ranks[1][name])]


def test_rows_and_noise_are_each_ones_own(ranks):
    noise, taken = ([found["drawn"][:, part] for found in ranks] for part in (slice(None, 64), slice(64, None)))
    assert not any(torch.equal(a, b) for parts in (noise, taken) for a, b in zip(*parts, strict=True))


def test_rank_0_alone_writes(done):
    assert {path.name for path in (done / "of_rank_0").iterdir()} == {CHECKPOINT, PREVIOUS, SHOWN, LINES}
    assert not (done / "of_rank_1").exists()
    about = read(done / "of_rank_0" / CHECKPOINT)
    assert about.about["world"] == 2 and {"process.0", "process.1"} <= about.training.keys()


def test_no_thread_of_the_group_is_left_behind(done):
    """One that outlives the interpreter may abort the process as it ends, which torchrun takes for a failure."""
    assert [json.loads((done / f"threads_of_{rank}.json").read_text()) for rank in range(2)] == [[], []]


def test_ended_and_gone_on_it_is_the_same(done, ranks, histories):
    assert_same(done / "whole", done / "broken")
    for found, told in zip(ranks, histories, strict=True):
        one, other = named(found, "whole"), named(found, "broken")
        assert one and not [name for name in one if not torch.equal(one[name], other[name])]
        assert told["whole"] == told["broken"] and "valid" in told["whole"][0]
        one, other = named(found, "patience"), named(found, "finished")
        assert one and not [name for name in one if not torch.equal(one[name], other[name])]
        assert told["patience"] == told["finished"] and told["patience"][-1]["step"] < STEPS


def test_compiled_steps_are_the_same_up_to_rounding(ranks):
    one, other = named(ranks[0], "compiled"), named(ranks[0], "uncompiled")
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-4)


def test_without_noise_two_processes_are_one_with_twice_the_batch(done, ranks, tmp_path):
    """Rank 0 draws the order as one process does, so the rows of a step are the same ones; a state is their mean."""
    alone = fitted_line(30, tmp_path)
    assert alone[1] > 0.5
    torch.testing.assert_close(ranks[0]["line"], alone, rtol=1e-5, atol=1e-6)
    assert remembered(tmp_path) < -0.5
    torch.testing.assert_close(remembered(done / "line"), remembered(tmp_path), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_loss_curve_is_that_of_twice_the_batch(tmp_path):
    """Means over five seeds at each of ten records differ by less than 5 of their standard errors, and 0.15 nats."""
    by_two(tmp_path, [script(tmp_path, curves)])
    two = json.loads((tmp_path / "curves.json").read_text())
    two = torch.tensor([[r["negative_elbo"] for r in history] for history in two])
    one = [train(seed=seed, norm=False, steps=100, every=10, batch_size=16)[0] for seed in SEEDS]
    one = torch.tensor([[r["negative_elbo"] for r in history] for history in one])
    assert one.shape == two.shape == (5, 10)
    gap = two.mean(0) - one.mean(0)
    error = ((one.var(0) + two.var(0)) / len(SEEDS)).sqrt()
    assert (gap.abs() < 5 * error + 1e-3).all() and (gap.abs() < 0.15).all(), (gap, error)
    assert one[:, -1].mean() < one[:, 0].mean() - 0.2  # they do learn


def test_as_many_processes_as_began(done):
    with pytest.raises(ValueError, match="found 1 processes, the run in .* was started with 2; resume with as many"):
        train(done / "whole", validation=rows(31, 2))


@pytest.mark.slow
def test_torchrun_starts_again_and_the_end_is_the_same(done):
    by_two(done, [script(done, killed_once)], restarts=2)
    told = {(done / f"restarts{rank}").read_text() for rank in range(2)}
    assert len(told) == 1 and told <= {"1", "2"}  # torchrun may start a finished training once more
    assert_same(done / "whole", done / "elastic")


@pytest.fixture(scope="module")
def commanded(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("commanded")
    return folder, by_two(folder, ["-m", "ppl_models", *COMMAND.split()]).stdout


FILES = {
    *("config.json", SHOWN, LINES, CHECKPOINT, PREVIOUS, "example.safetensors", "evaluation.json"),
    *("samples.png", "reconstructions.png", "history.png"),
}


@pytest.mark.slow
def test_the_command_line_by_two_processes(commanded):
    """Only rank 0 prints and writes, into one folder."""
    folder, said = commanded
    (run,) = (folder / "runs").iterdir()
    assert {path.name for path in run.iterdir()} == FILES
    assert sum(text.startswith("run ") for text in said.splitlines()) == 1 and said.count("seed 0;") == 1
    config = json.loads((run / "config.json").read_text())
    assert config["command"].startswith("torchrun --nproc-per-node 2 -m ppl_models train vae -g mean-field")
    assert read(run / CHECKPOINT).about["world"] == 2
    assert isinstance(load_run(run).model, nn.Module)


@pytest.mark.slow
def test_the_command_line_goes_on_by_itself(commanded):
    folder, _ = commanded
    told = by_two(folder, [script(folder, command_line)], restarts=2)
    assert sum(text.startswith("run ") for text in told.stdout.splitlines()) == 1
    (run,) = (folder / "runs").iterdir()
    assert_same(run, folder / "elastic")
    assert {path.name for path in (folder / "elastic").iterdir()} == FILES
    assert (run / "evaluation.json").read_text() == (folder / "elastic" / "evaluation.json").read_text()
    # and in its own words
    words = ["-m", "ppl_models", "train", "--resume", "elastic", "--evaluate", "4", "-q"]
    assert by_two(folder, words).stdout.count("run  elastic") == 1
    assert_same(run, folder / "elastic")
