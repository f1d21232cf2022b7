"""Runs that are finished, that go on for longer, and new ones that begin with the weights of others."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner, Result

from ppl_models.cli import app
from ppl_models.inference.pyro.training.checkpoint import read, save
from ppl_models.inference.storage.weights_file import copy_weights
from ppl_models.runs import load_run
from ppl_models.runs.folders.continuing import Standing, standing

SMALL = "train vae -g mean-field -m latent=2 -m hidden=8 -g hidden=8 --batch-size 400 --no-compile --evaluate 2 -q"
CONSTANT = f"{SMALL} --schedule constant --warmup 1"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def unpictured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures, which take longer than the trainings."""
    monkeypatch.setattr("ppl_models.runs.pages.pictures.picture_run", lambda *args: [])


def call(line: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, shlex.split(line))
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def complaint(line: str) -> str:
    (text,) = call(line, code=1).stderr.splitlines()
    return text


def state(folder: str) -> dict[str, tuple[int, bytes]]:
    """Every file of a folder, with the time at which it was written."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in Path(folder).iterdir()}


def config(folder: str) -> dict:
    return json.loads(Path(folder, "config.json").read_text())


def assert_same_weights(one: str, two: str) -> None:
    first, second = (read(Path(folder, "checkpoint.safetensors")).weights for folder in (one, two))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def refuse(*args: object, **kwargs: object) -> None:
    raise AssertionError("it is done again")


def test_a_finished_run_is_left_alone_but_for_what_it_lacks(monkeypatch):
    call(f"{SMALL} --steps 3 --out run")
    before = state("run")
    with monkeypatch.context() as patch:
        patch.setattr("ppl_models.runs.evaluating.evaluate_run", refuse)
        patch.setattr("ppl_models.runs.pages.pictures.picture_run", refuse)
        patch.setattr("ppl_models.runs.training.resume", refuse)
        said = call("train --resume run --evaluate 100").stdout
    assert state("run") == before
    assert "the run in run is finished: 3 steps" in said and "ppl-models train --weights run" in said
    for name in ("evaluation.json", "samples.png"):  # as if it had been killed before these
        Path("run", name).unlink()
    call("train --resume run --evaluate 2 -q")
    after = state("run")
    assert {name for name in after if after[name] != before[name]} == {"evaluation.json", "samples.png"}
    assert after["evaluation.json"][1] == before["evaluation.json"][1]


@pytest.mark.usefixtures("unpictured")
def test_a_checkpoint_that_does_not_say_its_end_is_left_alone_too():
    """Those of version 0.1 know how far they are, not how far they were to come."""
    call(f"{SMALL} --steps 3 --out run")
    path = Path("run/checkpoint.safetensors")
    found = read(path)
    about = {key: value for key, value in found.about.items() if key != "total"}
    modules = {label: {} for label in ("model", "guide")}
    for name, tensor in found.weights.items():
        label, _, key = name.partition(".")
        modules[label][key] = tensor
    save(path, modules, found.training, about)
    assert standing(Path("run")) == Standing(3, None, False) and not standing(Path("run")).over
    before = state("run")
    assert "is finished: 3 steps" in call("train --resume run -q").stdout
    kept = "evaluation.json", "checkpoint.safetensors", "config.json", "history.jsonl"
    assert {name: state("run")[name] for name in kept} == {name: before[name] for name in kept}


@pytest.mark.usefixtures("unpictured")
def test_a_constant_rate_goes_on_for_longer_to_the_same_end():
    call(f"{CONSTANT} --steps 6 --out whole")
    call(f"{CONSTANT} --steps 2 --out run")
    call("train --resume run --steps 6 --evaluate 2 -q")
    assert_same_weights("whole", "run")
    assert config("run")["training"] == config("whole")["training"]
    assert Path("run/evaluation.json").read_bytes() == Path("whole/evaluation.json").read_bytes()
    # and its command says what it has become
    call(f"{config('run')['command'].removeprefix('ppl-models ')} --evaluate 0 --out again -q")
    assert_same_weights("whole", "again")
    assert "want more of them" in complaint("train --resume run --steps 5 -q")
    assert "ppl-models train --resume run --steps N" in call("train --resume run").stdout


@pytest.mark.usefixtures("unpictured")
def test_a_rate_that_ends_is_not_prolonged_but_its_weights_begin_a_new_run():
    call(f"{SMALL} --steps 3 --out run")
    before = state("run")
    told = complaint("train --resume run --steps 9 -q")
    assert "'warm-cosine', which falls to zero at the 3 steps" in told and state("run") == before
    assert "--epochs 9.0: the learning rate" in complaint("train --resume run --epochs 9 -q")
    line = told.rpartition(": ppl-models ")[2]
    assert line == "train --weights run --steps 9"
    call(f"{line} --lr 1e-30 --evaluate 0 --out next -q")
    assert all(
        torch.allclose(a, b) for a, b in zip(*(load_run(f).model.parameters() for f in ("run", "next")), strict=True)
    )
    new, old = config("next"), config("run")
    assert {key: new[key] for key in ("model", "guide", "data", "seed")} == {
        key: old[key] for key in ("model", "guide", "data", "seed")
    }
    changed = {key for key in old["training"] if old["training"][key] != new["training"][key]}
    assert changed == {"steps", "lr"} and new["training"]["warmup"] == 0


@pytest.mark.usefixtures("unpictured")
def test_a_run_that_is_not_prolonged_after_all_keeps_its_configuration(monkeypatch):
    call(f"{CONSTANT} --steps 2 --evaluate 0 --out run")
    before = state("run")

    def failed(*args, **kwargs):
        assert config("run")["training"]["steps"] == 6
        raise ValueError("no")

    with monkeypatch.context() as patch:
        patch.setattr("ppl_models.runs.backends.pyro.fit", failed)
        assert complaint("train --resume run --steps 6 -q").endswith("no")
    after = state("run")
    assert after.keys() == before.keys() and all(after[name][1] == before[name][1] for name in before)
    found = {"world": 2, "step": 2, "total": 2, "stopped": False, "settings": {}}
    monkeypatch.setattr("ppl_models.runs.folders.continuing.verified", lambda path: (b"", found))
    monkeypatch.setattr("ppl_models.runs.folders.continuing.check_training", lambda *args, **kwargs: None)
    assert "found 1 processes, the run in run was started with 2" in complaint("train --resume run --steps 6 -q")
    said = call("train --resume run --evaluate 0").stdout
    assert "torchrun --nproc-per-node 2 -m ppl_models train --resume run --steps N" in said


@pytest.mark.slow
@pytest.mark.usefixtures("unpictured")
def test_a_run_from_weights_that_was_killed_begins_with_them_again():
    call(f"{SMALL} --steps 3 --out run")
    call("train --weights run --steps 2 --evaluate 0 --out whole -q")
    Path("part").mkdir()
    for name in ("config.json", "example.safetensors", "start.safetensors"):  # as it is before the first checkpoint
        Path(f"part/{name}").write_bytes(Path(f"whole/{name}").read_bytes())
    Path("run").rename("gone")
    call("train --resume part --evaluate 0 -q")
    assert_same_weights("whole", "part")
    with safe_open("part/start.safetensors", "pt") as file:
        assert not [name for name in file.keys() if name.startswith("training.")]


@pytest.mark.usefixtures("unpictured")
def test_a_stopped_run_is_over():
    """The rate that its validation bound does not bear up to is one of a run that patience stops."""
    call(f"{CONSTANT} --steps 9 --every 1 --validation --patience 1 --lr 1 --out run")
    at = standing(Path("run"))
    assert at.stopped and at.over and at.step < at.total == 9
    assert f"finished: {at.step} steps" in call("train --resume run -q").stdout
    assert f"was stopped at step {at.step}, by its patience" in complaint("train --resume run --steps 20 -q")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --weights nowhere", "there is no run folder nowhere"),
        ("train vae --weights run", "--weights: found MODEL too, but run says it; leave it out"),
        ("train --weights run -g hidden=3 -m latent=3", "--weights: found -g, -m too"),
        ("train --weights run --resume run", "--resume: found --weights too"),
        ("train", "train: found no MODEL, no --resume RUN and no --weights RUN"),
        ("train --resume run --lr 0.1", "--resume: found --lr too"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(line, message):
    Path("run").mkdir()
    assert message in complaint(f"{line} -q")


def test_weights_are_copied_without_the_state_of_their_training(tmp_path):
    tensors = {"a": torch.randn(3, 2), "b": torch.arange(3), "c": torch.tensor(True), "d": torch.ones(2).bfloat16()}
    state = {"exp_avg": torch.ones(5), "step": torch.tensor(3, dtype=torch.uint8)}
    save(tmp_path / "whole.safetensors", {"model": tensors}, state, {"step": 3, "settings": {"lr": 1.0}})
    assert copy_weights(tmp_path / "whole.safetensors", tmp_path / "part.safetensors") == {"step": 3}
    found = read(tmp_path / "part.safetensors")
    assert not found.training and found.about == {"step": 3}
    assert found.weights.keys() == {f"model.{name}" for name in tensors}
    assert all(torch.equal(found.weights[f"model.{name}"], value) for name, value in tensors.items())
    damaged = (tmp_path / "whole.safetensors").read_bytes()[:-1]
    (tmp_path / "whole.safetensors").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"whole\.safetensors is truncated"):
        copy_weights(tmp_path / "whole.safetensors", tmp_path / "other.safetensors")
    assert not (tmp_path / "other.safetensors").exists()
    with pytest.raises(ValueError, match="no file at"):
        copy_weights(tmp_path / "none.safetensors", tmp_path / "other.safetensors")
