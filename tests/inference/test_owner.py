"""One process at a time in a folder; never an earlier step over a later one; what killed processes have left."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import modules, rows

from ppl_models.inference import fit
from ppl_models.inference.pyro.feeding import distributed
from ppl_models.inference.pyro.feeding.distributed import Group
from ppl_models.inference.pyro.training.checkpoint import read, save
from ppl_models.inference.resuming import owner
from ppl_models.inference.resuming.history import LINES
from ppl_models.inference.resuming.owner import LOCK, owned
from ppl_models.inference.storage.checkpoint_file import CHECKPOINT, prepared, refuse_earlier
from ppl_models.inference.storage.files import remove_stale

HOLD = """
import sys
from pathlib import Path
from ppl_models.inference.resuming.owner import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def rival(tmp_path):
    words, how = (
        [sys.executable, "-c", HOLD, str(tmp_path)],
        {"text": True, "env": {**os.environ, "PYTHONPATH": str(ROOT)}},
    )
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **how)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.skipif(owner.fcntl is None, reason="needs flock")
def test_another_process_is_refused_until_it_is_gone(tmp_path, rival):
    told = f"in use: process {rival.pid} on {socket.gethostname()} trains in it; wait"
    with pytest.raises(ValueError, match=told):
        with prepared(tmp_path, resume=True):
            raise AssertionError
    rival.send_signal(signal.SIGKILL)
    rival.wait()
    assert (tmp_path / LOCK).exists()  # a killed process leaves the file, and the kernel drops the lock
    with prepared(tmp_path, resume=True) as notes:
        assert notes == [] and (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(owner.fcntl is None, reason="needs flock")
def test_the_same_process_is_refused_too(tmp_path):
    with owned(tmp_path):
        with pytest.raises(ValueError, match=f"process {os.getpid()} on "):
            with owned(tmp_path):
                raise AssertionError


FORK = """
import os, sys
from pathlib import Path
from ppl_models.inference.resuming.owner import owned
folder = Path(sys.argv[1])
heard, sent = os.pipe()
with owned(folder):
    child = os.fork()
    if child == 0:  # it lives on when its parent has let go
        os.close(sent)
        os.read(heard, 1)
        os._exit(0)
with owned(folder):
    print("again")
os.close(sent)
os.waitpid(child, 0)
"""


@pytest.mark.skipif(owner.fcntl is None, reason="needs flock")
def test_a_fork_holds_nothing(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", FORK, str(tmp_path)], capture_output=True, text=True, env=env)
    assert done.stdout == "again\n", done.stderr


@pytest.mark.skipif(owner.fcntl is None, reason="needs flock")
@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK, errno.EINVAL])
def test_file_systems_without_locks_are_told(tmp_path, monkeypatch, number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(owner.fcntl, "flock", refuse)
    with prepared(tmp_path) as notes:
        assert len(notes) == 1 and "knows no locks: see that no second process trains there" in notes[0]
    assert not list(tmp_path.iterdir())


def test_systems_without_locks_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "fcntl", None)
    with prepared(tmp_path) as notes:
        assert "knows no locks" in notes[0]


def test_an_earlier_step_is_no_successor_of_a_later_one(tmp_path):
    path = tmp_path / CHECKPOINT
    refuse_earlier(path, 0)
    save(path, {"model": {"w": torch.zeros(2)}}, about={"step": 9})
    refuse_earlier(path, 9)
    with pytest.raises(ValueError, match="is of a later step than 8, .*another process has gone on with the run"):
        refuse_earlier(path, 8)
    path.write_bytes(path.read_bytes()[:40])  # nothing is known of a damaged one
    refuse_earlier(path, 8)


def test_a_process_whose_torchrun_is_gone_knows(monkeypatch):
    group = Group(0, 2, torch.device("cpu"))
    for parent, orphaned in ((None, False), (os.getppid(), False), (os.getppid() + 1, True)):
        monkeypatch.setattr(distributed, "_PARENT", parent)
        assert group.orphaned == orphaned


def test_what_was_left_of_lines_goes_too(tmp_path):
    (tmp_path / ".history.jsonl.999999999.tmp").touch()
    remove_stale(tmp_path, "history.jsonl")
    assert not list(tmp_path.iterdir())


def test_of_two_processes_the_one_that_is_behind_stops(tmp_path, monkeypatch):
    """Where there are no locks: what is further on stays as it is."""
    monkeypatch.setattr(owner, "fcntl", None)

    def overtaken(run: Any) -> None:
        if len(run.history) == 2:
            save(tmp_path / CHECKPOINT, {"model": {"w": torch.zeros(2)}}, about={"step": 99})

    how = {"steps": 8, "every": 2, "batch_size": 8, "seed": 0, "progress": False}
    with pytest.raises(ValueError, match="of a later step than 4, where this training is"):
        fit(*modules(), rows(), **how, folder=tmp_path, callbacks=overtaken)
    assert read(tmp_path / CHECKPOINT).about == {"step": 99}
    assert (tmp_path / LINES).read_text().count("\n") == 1


def test_lost_records_are_told(tmp_path):
    how = {"every": 2, "batch_size": 8, "seed": 0, "progress": False, "schedule": "constant", "folder": tmp_path}
    fit(*modules(), rows(), steps=4, **how)
    (tmp_path / LINES).unlink()
    run = fit(*modules(), rows(), steps=8, **how, resume=True)
    assert [record["step"] for record in run.history] == [6, 8]
    assert len(run.notes) == 1 and "history.jsonl is lost, with the records up to step 4" in run.notes[0]
    again = fit(*modules(), rows(), steps=8, **how, resume=True)
    assert again.history == run.history and not again.notes
