"""`machine(device)` and `commit()`: what computed a number: processor, versions, and the state of the source."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from ppl_models.inference.resuming.identity import versions


def machine(device: str = "cpu") -> dict[str, str]:
    """What ran it: processor, device, and the versions of Python and of what this library requires and finds."""
    about = {"processor": processor(), "cores": str(os.cpu_count())}
    if device.startswith("cuda"):
        import torch

        about["device"] = torch.cuda.get_device_name(device)
    required = [each.partition(">")[0] for each in requires("ppl-models") or () if "'dev'" not in each]
    return about | {name: found for name, found in versions(required).items() if found is not None}


def processor() -> str:
    """The processor by name, as Linux tells it, else as Python does."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str:
    """The version of this library: the commit of a checkout, with "+" where files differ from it, else the number."""
    home = Path(__file__).resolve().parents[2]
    try:
        if not (home / ".git").exists():  # an installed copy within another checkout
            return version("ppl-models")
        head, changed = _git(home, "rev-parse", "--short=12", "HEAD"), _git(home, "status", "--porcelain", "-uno")
    except (OSError, subprocess.SubprocessError, PackageNotFoundError):
        return "unknown"
    return head + ("+" if changed else "")


def _git(home: Path, *words: str) -> str:
    line = ["git", "-C", str(home), *words]
    return subprocess.run(line, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
