"""`carried_through`: the run of a configuration in a folder, begun or gone on with; `is_begun`: is it this one?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .backends import Device
from .folders.configuration import Parts
from .folders.folder import CONFIG, LoadedRun, read_config
from .naming.options import Training
from .training import Watch, resume, train


def carried_through(
    config: Mapping[str, Any],
    parts: Parts,
    folder: Path,
    device: Device = "cpu",
    progress: bool = True,
    watch: Watch | None = None,
) -> LoadedRun:
    """The run of a configuration in a folder: begun, gone on with, or as it is if it is done.

    Args:
        config, parts, folder, device, progress, watch: see `train`; the folder may hold this run.
    """
    if (folder / CONFIG).is_file():
        return resume(folder, device, progress, watch)
    return train(config, parts, folder, device, progress, watch)


def is_begun(config: Mapping[str, Any], folder: Path) -> bool:
    """Whether the folder holds this run, begun or done.

    Raises:
        ValueError: it holds another one.
    """
    if not (folder / CONFIG).is_file():
        return False
    before, now = read_config(folder), json.loads(json.dumps(config))
    before["training"] = {**asdict(Training()), **before.get("training", {})}  # options that there were not yet
    for section in ("model", "guide", "data", "training", "seed"):
        if before.get(section) != now[section]:
            told = f"found {_differing(section, before.get(section), now[section])}"
            raise ValueError(f"{folder} holds another run: {told}; choose another --out")
    return True


def _differing(section: str, before: Any, now: Any) -> str:
    """The first entry that is not the same, as it was and as it is wanted."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in now:
            if before.get(key) != now[key]:
                return _differing(f"{section}.{key}", before.get(key), now[key])
    return f"{section} = {before!r}, want {now!r}"
