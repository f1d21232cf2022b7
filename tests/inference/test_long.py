"""Many hours in short: a training that is killed again and again, on a disk that fills, with rivals for its folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_resume import assert_equal, assert_same, train

from ppl_models.inference.pyro.training.checkpoint import read
from ppl_models.inference.resuming.history import LINES, SHOWN
from ppl_models.inference.storage.checkpoint_file import CHECKPOINT, PREVIOUS

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import errno, os, sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import test_resume

calls, real, room = [], os.fsync, int(os.environ.get("ROOM", 0))
def fsync(descriptor):
    calls.append(1)
    if len(calls) > room:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    real(descriptor)
if room:
    os.fsync = fsync
test_resume.train("plain", test_resume.Path({folder!r}), **{how!r})
"""


def lines(folder: Path) -> int:
    path = folder / LINES
    return path.read_bytes().count(b"\n") if path.exists() else 0


def begin(words: list[str], room: int = 0) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ROOM": str(room)}
    return subprocess.Popen(words, env=env, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def header(folder: Path) -> int:
    with open(folder / CHECKPOINT, "rb") as file:
        return int.from_bytes(file.read(8), "little")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs signals")
@pytest.mark.parametrize("compile", [False, "xla", "inductor"])
@pytest.mark.parametrize(("steps", "every", "kills"), [(20_000, 10, 12)])
def test_the_end_is_that_of_a_quiet_run(steps, every, kills, compile, tmp_path):
    """20,000 steps with 2,000 records: killed at every 1/12 of the way, two full disks, two rivals."""
    how = {"steps": steps, "every": every, "compile": compile}
    want = train("plain", tmp_path / "whole", **how)
    folder, script, records = tmp_path / "run", tmp_path / "script.py", steps // every
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder), how=how))
    words, headers = [sys.executable, str(script)], []
    for k in range(1, kills + 1):
        full, rival = k in (3, 7), k in (5, 9)
        process, target = begin(words, room=100 if full else 0), k * records // (kills + 1)
        if full:  # after a hundred files or lines
            errors = process.communicate()[1]
            assert process.returncode == 1 and "No space left on device" in errors, errors
            continue
        while process.poll() is None and lines(folder) < target:
            time.sleep(0.01)
        if rival and process.poll() is None:
            process.send_signal(signal.SIGSTOP)  # the slower one
            second = begin(words)
            errors = second.communicate()[1]
            assert second.returncode == 1 and f"is in use: process {process.pid} on " in errors, errors
            process.send_signal(signal.SIGCONT)
        process.kill()
        errors = process.communicate()[1]
        assert process.returncode == -signal.SIGKILL, errors
        headers.append(header(folder))
        assert read(folder / CHECKPOINT).about["step"] >= (target - 1) * every
    process = begin(words)
    assert process.wait() == 0, process.communicate()[1]
    process.stderr.close()
    assert_same(tmp_path / "whole", folder)
    assert_equal(want, train("plain", folder, **how))
    assert {path.name for path in folder.iterdir()} == {CHECKPOINT, PREVIOUS, SHOWN, LINES}
    assert len(json.loads((folder / SHOWN).read_text())["history"]) == lines(folder) == records
    assert max(headers) - min(headers) < 100  # a checkpoint is no larger for more records
