"""Trainings that are ended at any moment and go on, and several processes of one machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ppl_models.inference.resuming.history import SHOWN, History

ROOT = Path(__file__).resolve().parents[2]


class Killed(BaseException):
    """The end of a process: nothing gets hold of it, and nothing is tidied up."""


def bomb(patch: pytest.MonkeyPatch, owner: Any, name: str, after: bool, count: int) -> None:
    """Let the count-th call of an attribute end the training, before the call or after it."""
    real, calls = getattr(owner, name), []

    def deadly(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == count and not after:
            raise Killed
        result = real(*args, **kwargs)
        if len(calls) == count:
            raise Killed
        return result

    patch.setattr(owner, name, deadly)


def untimed(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """The records of a training without the time that it took."""
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


def records_of(folder: Path, about: dict[str, Any]) -> list[dict[str, float]]:
    """The records that a checkpoint knows, which it is then without; history.json has the same."""
    found = History(folder).read(about.pop("history"))
    assert json.loads((folder / SHOWN).read_text()) == {"history": found}
    return untimed(found)


def torchrun(folder: Path, words: list[str], restarts: int = 0) -> subprocess.CompletedProcess[str]:
    """Two processes of one script on this machine."""
    held = {name: v for name, v in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    held |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launch += ["--max-restarts", str(restarts), *words]
    return subprocess.run(launch, cwd=folder, env=held, capture_output=True, text=True)
