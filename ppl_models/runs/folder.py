"""Run folders: whole or not there, and rebuilt by `load_run` without a pickle."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ppl_models.data import Data
from ppl_models.inference import CHECKPOINT, contents, load, save, write_json

from .build import FORMAT, build_pair, load_parts

CONFIG, EXAMPLE, HISTORY = "config.json", "example.safetensors", "history.json"


@dataclass
class LoadedRun:
    """A trained pair with the configuration it was built from.

    Attributes:
        model, guide: the programs, in evaluation mode where they are modules.
        config: what `config.json` holds.
        folder: where it lies.
        example: the rows of data that the guide was built on.
        seconds: how long the training took, where it has just taken place.
    """

    model: Callable
    guide: Callable
    config: dict[str, Any]
    folder: Path
    example: Tensor = field(repr=False)
    seconds: float | None = None

    def load_data(self, name: str | None = None) -> tuple[Data, ...]:
        """The data it was trained on, (train, test) or (train, validation, test), or another set by name."""
        return load_parts(self.config, name)

    @property
    def history(self) -> list[dict[str, float]]:
        """The records of the training."""
        return json.loads((self.folder / HISTORY).read_text())["history"]


def load_run(folder: str | Path, device: str | torch.device = "cpu") -> LoadedRun:
    """Rebuild the pair of a run from its folder alone: neither data nor the arguments of the training are needed.

    The model and guide named in its configuration are imported (yours must be importable), built with the sizes that
    are written there, and given the tensors of the checkpoint. Nothing is unpickled.

    Raises:
        ValueError: no run folder, or one that is truncated, damaged or of code that is not there any more; the message
            names the file.
    """
    folder = Path(folder)
    config = _config(folder)
    try:
        width, count = prod(config["data"]["shape"]), config["data"]["example"]
        rows = _Rows(torch.zeros(count, width))
        load(folder / EXAMPLE, {"example": rows})
        model, guide = build_pair(config, rows.rows, device)
        load(folder / CHECKPOINT, contents(model, guide, (rows.rows.to(device),)))
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is no whole run: {error}") from None
    except KeyError as error:
        raise ValueError(f"{folder / CONFIG} is damaged: it lacks {error}") from None
    except (TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{folder / CONFIG} is damaged: {error}") from error
    for program in (model, guide):
        if isinstance(program, nn.Module):
            program.eval()
    return LoadedRun(model, guide, config, folder, rows.rows.to(device))


def write_start(folder: Path, config: Mapping[str, Any], example: Tensor) -> None:
    """Write what is known before the training: the configuration and the example rows."""
    save(folder / EXAMPLE, {"example": _Rows(example)})
    write_json(folder / CONFIG, config)


@contextmanager
def staged(folder: Path, proof: str = CHECKPOINT) -> Iterator[Path]:
    """A hidden folder beside `folder` to write to, renamed to it at the end if it holds the file `proof` by then.

    So a run that failed or was interrupted before its first checkpoint leaves nothing, and one that has a checkpoint is
    kept, whatever ended it. A killed process leaves the hidden folder.

    Raises:
        ValueError: there is something at `folder` already.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists already; choose another folder (--out) or remove it")
    made = [parent for parent in (folder.absolute().parent, *folder.absolute().parents) if not parent.exists()]
    staging = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    staging.mkdir(parents=True)
    try:
        yield staging
    finally:
        if (staging / proof).is_file():
            os.replace(staging, folder)
        else:
            shutil.rmtree(staging)
            for parent in dict.fromkeys(made):
                if not any(parent.iterdir()):
                    parent.rmdir()


class _Rows(nn.Module):
    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not folder.is_dir():
        raise ValueError(f"there is no run folder {folder}")
    if not path.is_file():
        raise ValueError(f"{folder} is no run folder: it has no {CONFIG}")
    try:
        config = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is truncated or no JSON ({error})") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise ValueError(f"{path} is none of ours: found format {found!r}, want {FORMAT!r}")
    return config
