"""Signals: between two steps, answered while a step takes its time, and the second one ends it with its compilers."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ppl_models.inference.display import progress
from ppl_models.inference.display.progress import Progress, waiting
from ppl_models.inference.training import interrupts as module
from ppl_models.inference.training.interrupts import abandoned, interrupts

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals")


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_the_first_is_answered_and_the_second_one_raises(number, kind, monkeypatch):
    monkeypatch.setattr(module, "GRACE", 0.0)
    handlers, answered = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)], threading.Event()
    with pytest.raises(kind):
        with interrupts(True, answered.set) as asked:
            os.kill(os.getpid(), number)
            answered.wait()  # by another thread, whatever this one does
            assert [type(end) for end in asked] == [kind]
            os.kill(os.getpid(), number)
            signal.pause()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_step_that_ends_at_once_is_not_talked_of(monkeypatch):
    monkeypatch.setattr(module, "GRACE", 1e6)
    said = []
    with interrupts(True, lambda: said.append(1)) as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked
    assert not said


DEAF = """
import hashlib, os, signal, sys, threading
from ppl_models.inference.training import interrupts as module
module.GRACE, module.LAST = 0.0, 0.0
def answer():
    print("answered", flush=True)
with module.interrupts(True, answer):
    print("deaf", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # a call in which no handler of Python's runs
"""


def test_the_second_ends_a_process_whose_main_thread_hears_nothing():
    how = {"stdout": subprocess.PIPE, "text": True, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    process = subprocess.Popen([sys.executable, "-c", DEAF], **how)
    assert process.stdout.readline() == "deaf\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "answered\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    process.stdout.close()


BUSY = """
import signal, threading
from ppl_models.inference.training.interrupts import abandoned
threading.Thread(target=threading.Event().wait).start()  # which the interpreter would wait for, without an end
with abandoned():
    {raised}
"""


@pytest.mark.parametrize(("raised", "code"), [("raise KeyboardInterrupt", 130), ("raise SystemExit(143)", 143)])
def test_a_process_that_a_compilation_was_broken_off_in_waits_for_nobody(raised, code):
    how = {"capture_output": True, "text": True, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    ended = subprocess.run([sys.executable, "-c", BUSY.format(raised=raised)], **how)
    assert ended.returncode == code and ("KeyboardInterrupt" in ended.stderr) == (code == 130)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_a_compilation_that_is_broken_off_leaves_no_compiler(monkeypatch):
    monkeypatch.setattr(module, "SWEEP", 0.0)
    monkeypatch.setattr(module, "at_exit", lambda leave: None)
    kept = subprocess.Popen(["sleep", "1000"])
    try:
        with pytest.raises(KeyboardInterrupt), abandoned():
            begun = subprocess.Popen(["sh", "-c", "sleep 1000; true"])
            raise KeyboardInterrupt
        assert begun.wait() == -signal.SIGKILL and kept.poll() is None
        with pytest.raises(ValueError), abandoned():  # one that fails has ended its own
            raise ValueError
    finally:
        kept.kill()
        kept.wait()


POOL = """
import subprocess, sys
from ppl_models.inference.training.interrupts import _descendants, abandoned
again = "import subprocess\\nfor _ in range(99): subprocess.Popen(['sh', '-c', 'sleep {mark}; true']).wait()"
with abandoned():
    subprocess.Popen([sys.executable, "-c", again, "torch/_inductor/compile_worker/__main__.py"])
    subprocess.Popen(["sh", "-c", "for i in $(seq 99); do sh -c 'sleep {mark}; true' & sleep 0.01; done"])
    while len(_descendants()) < 9:
        pass
    raise KeyboardInterrupt
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_compilers_that_start_others_leave_none_behind():
    """A pool whose workers go on with the next job, and a driver that is starting a part of itself just now."""
    mark = f"1000.{os.getpid()}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # no pipe that one of them would hold open
    how = {**quiet, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    code = subprocess.run([sys.executable, "-c", POOL.replace("{mark}", mark)], **how).returncode
    left = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if mark in command_of(pid)]
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    assert code == 130 and not left


COMPILING = """
import torch
from guides import SelfReflective
from ppl_models import SeReVAE
from ppl_models.inference import fit, progress
progress.SILENCE = 0.0
torch.set_num_threads(1)
x, model = torch.ones(20, 12), SeReVAE(12, 10, 2, 8)
fit(model, SelfReflective(model, x, hidden=8), x, steps=9, compile={compile!r})
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
@pytest.mark.parametrize("delay", [0.5, 5.0])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("compile", ["xla", "inductor"])
def test_two_signals_while_a_step_compiles_end_it_with_all_its_processes(compile, number, delay, tmp_path):
    caches = {name: str(tmp_path) for name in ("JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")}
    how = {"stderr": subprocess.PIPE, "text": True, "env": {**os.environ, **caches, "PYTHONPATH": str(ROOT)}}
    process = subprocess.Popen([sys.executable, "-c", COMPILING.format(compile=compile)], **how, start_new_session=True)
    heard: list[str] = []
    for sought in ("compiling the step ...", "interrupted: compiling the step, "):
        while sought not in (heard[-1:] or [""])[0]:
            heard.append(process.stderr.readline())
            assert heard[-1], heard
        time.sleep(delay)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 128 + number, (process.returncode, errors)
    left = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if session_of(pid) == process.pid]
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    assert not left


def session_of(pid: str) -> int:
    """The session of a process that runs."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    except OSError:
        return 0


def command_of(pid: str) -> str:
    """The command line of a process that runs."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_what_takes_its_time_is_shown_with_its_seconds(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    shown = threading.Event()
    monkeypatch.setattr(progress, "Timer", lambda seconds, begin: threading.Timer(0, lambda: (begin(), shown.set())))
    with waiting("looking"):
        shown.wait()
    shown.clear()
    with Progress(3) as bar, bar.busy("compiling the step"):
        shown.wait()
        assert bar.doing().startswith("compiling the step, ")
        bar.answer()
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == ["looking ...", "looking: 0 s", "compiling the step ..."]
    assert lines[3].startswith("interrupted: compiling the step, 0 s; that ends first, then all is saved; once more")
    assert lines[4] == "compiling the step: 0 s" and not Progress(3).doing()
    with waiting("looking", enabled=False), Progress(3, enabled=False) as bar, bar.busy("compiling the step"):
        bar.answer()  # to the user's own signal there is an answer, whatever else is shown
    assert len(capsys.readouterr().err.splitlines()) == 1
