"""Run folders with company: two processes, threads, leftovers of killed ones, and a configuration that vanishes."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import ppl_models.runs.backends
from ppl_models.cli import app
from ppl_models.inference.resuming import owner
from ppl_models.inference.resuming.owner import LOCK, owned
from ppl_models.runs import load_run
from ppl_models.runs.folders.folder import staged

SMALL = "train vae -g mean-field -m latent=2 -m hidden=2 -g hidden=2 --steps 2 --evaluate 0 -q"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def call(line: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, shlex.split(line))
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


@pytest.mark.skipif(owner.fcntl is None, reason="needs flock")
def test_a_run_that_is_trained_is_not_resumed_by_another(monkeypatch):
    call(f"{SMALL} --schedule constant --out run")
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()}
    with owned(Path("run")):
        told = call("train --resume run --steps 3 --evaluate 0 -q", code=1).stderr
        assert f"error: run is in use: process {os.getpid()} on " in " ".join(told.split()).replace(
            f"{Path.cwd()}/", ""
        )
    assert {path.name: path.read_bytes() for path in Path("run").iterdir()} == before

    def fit(*pair, folder, **how):  # another process takes the folder before this one has got so far
        with owned(folder):
            call("train --resume begun --evaluate 0 -q", code=1)
            (folder / "notes.txt").touch()
            raise ValueError("of the first")

    monkeypatch.setattr(ppl_models.runs.backends.pyro, "fit", fit)
    assert "of the first" in call(f"{SMALL} --out begun", code=1).stderr
    assert [path.name for path in Path("begun").iterdir()] == ["notes.txt"]


def test_what_another_process_goes_on_with_is_not_removed(monkeypatch):
    """It has resumed the run before its first checkpoint; the first process is then refused, and leaves it alone."""
    rivals = []

    def fit(*pair, folder, **how):
        rivals.append(owned(folder))
        rivals[0].__enter__()
        raise ValueError("refused")

    monkeypatch.setattr(ppl_models.runs.backends.pyro, "fit", fit)
    call(f"{SMALL} --out run", code=1)
    assert {path.name for path in Path("run").iterdir()} == {"config.json", "example.safetensors", LOCK}
    rivals[0].__exit__(None, None, None)


def test_a_run_goes_on_with_its_own_threads():
    before = torch.get_num_threads()
    try:
        call(f"{SMALL} --schedule constant --out run --threads 2")
        assert json.loads(Path("run/config.json").read_text())["threads"] == 2
        for words, threads in (("--steps 3", 2), ("--steps 4 --threads 1", 1)):
            torch.set_num_threads(1)
            call(f"train --resume run --evaluate 0 -q {words}")
            assert torch.get_num_threads() == threads
        config = json.loads(Path("run/config.json").read_text())
        for odd in (0, -1, "two", 2.5, 10**9, True):
            Path("run/config.json").write_text(json.dumps({**config, "threads": odd}))
            told = call("train --resume run --evaluate 0 -q", code=1).stderr
            assert f"config.json is damaged: found threads={odd!r}, want an integer" in told
    finally:
        torch.set_num_threads(before)


def test_a_run_whose_configuration_vanished_says_so(monkeypatch):
    fit = ppl_models.runs.backends.pyro.fit

    def losing(*args, folder, **how):
        (folder / "config.json").unlink()
        return fit(*args, folder=folder, **how)

    monkeypatch.setattr(ppl_models.runs.backends.pyro, "fit", losing)
    told = call(f"{SMALL} --out run", code=1).stderr
    assert "run has lost its config.json while it was trained" in told and "ppl-models train vae -g mean-field" in told
    assert Path("run/checkpoint.safetensors").exists()
    assert "run is no run folder: it has no config.json" in call("train --resume run", code=1).stderr


def test_hidden_folders_of_killed_processes_are_removed_by_the_next():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    stale = [f".a.{gone.pid}.partial", f".b.c.{gone.pid}.partial", f".run.{os.getpid()}.partial"]
    kept = [f".a.{os.getppid()}.partial", ".a.partial", f"a.{gone.pid}.partial", f".written-to.{gone.pid}.partial"]
    for name in (*stale, *kept):
        Path(name, "inner").mkdir(parents=True)
    with owned(Path(kept[-1])) if owner.fcntl else staged(Path("other")):
        with staged(Path("run")) as staging:
            assert not any(Path(name).exists() and Path(name) != staging for name in stale)
            assert all(Path(name).exists() for name in kept[: 4 if owner.fcntl else 3])
            (staging / "checkpoint.safetensors").touch()
    assert [path.name for path in Path("run").iterdir()] == ["checkpoint.safetensors"]


def test_a_name_that_another_process_takes_meanwhile():
    with pytest.raises(ValueError, match="run exists already"):
        with staged(Path("run")) as staging:
            (staging / "checkpoint.safetensors").touch()
            Path("run/of_another").mkdir(parents=True)
    assert [path.name for path in Path().iterdir()] == ["run"]


def test_the_records_of_a_run_are_its_lines():
    call(f"{SMALL} --out run --every 1")
    Path("run/history.json").write_text('{"history": []}')
    assert [record["step"] for record in load_run("run").history] == [1, 2]
