"""`standing`: how far a run is; `prolonged`: its configuration for more steps; `like`: that of a new run like it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ppl_models.inference.resuming.training_record import check_training
from ppl_models.inference.storage.checkpoint_file import CHECKPOINT, verified
from ppl_models.inference.storage.files import write_json
from ppl_models.parts.arguments.kinds import Count

from ..backends import backend_of
from ..naming import names
from ..naming.options import Training
from .configuration import command
from .folder import CONFIG, as_written


@dataclass(frozen=True)
class Standing:
    """How far a training is.

    Attributes:
        step: steps that were taken.
        total: steps that were to be taken, None where its checkpoint does not say it: those of version 0.1.
        stopped: whether it has ended before those, by `patience` or a callback.
        processes: that train together.
    """

    step: int
    total: int | None
    stopped: bool
    processes: int = 1

    @property
    def over(self) -> bool:
        """Whether it is known that there is nothing left to do."""
        return self.stopped or (self.total is not None and self.step >= self.total)


def standing(folder: Path) -> Standing | None:
    """How far the run in a folder is by its checkpoint; None where there is none, or none that can be gone on from.

    Raises:
        ValueError: a checkpoint that no training wrote.
    """
    path = Path(folder) / CHECKPOINT
    try:
        about = verified(path)[1]
    except (OSError, ValueError):  # what reads it next says why
        return None
    if "settings" not in about:  # weights alone
        return None
    check_training(path, about, **({"world": Count} if "world" in about else {}))
    return Standing(about["step"], about.get("total"), about["stopped"], about.get("world", 1))


def is_bound(config: Mapping[str, Any]) -> bool:
    """Whether the learning rate of a run falls to zero at the end that the run was started with."""
    return str(config["training"].get("schedule", Training().schedule)).endswith("cosine")


def anew(folder: Path, config: Mapping[str, Any]) -> str:
    """The line for a shell that begins a new run with the weights of a run."""
    return command("train", "--weights", folder, config=config)


def prolonged(
    folder: Path, config: Mapping[str, Any], rows: int, processes: int, steps: int | None, epochs: float | None
) -> dict[str, Any]:
    """The configuration of a run that is to have so many steps, or epochs, in all.

    Args:
        folder, config: the run.
        rows: of its training data.
        processes: that train it.
        steps, epochs: one of them, or none to leave it as it is.

    Raises:
        ValueError: a learning rate that ends with the run, a training that was stopped, no more steps than it has.
    """
    if steps is None and epochs is None:
        return dict(config)
    flag, told = ("--steps", steps) if steps is not None else ("--epochs", epochs)
    training, at = Training(**config["training"]), standing(folder)
    longer = replace(training, steps=steps, epochs=epochs)
    total = longer.total(rows, processes)
    if at is not None and at.processes != processes:
        raise ValueError(
            f"{flag} {told}: found {processes} processes, the run in {folder} was started with {at.processes}; resume "
            "with as many"
        )
    if at is not None and at.stopped:
        raise ValueError(
            f"{flag} {told}: the run in {folder} was stopped at step {at.step}, by its patience or a callback, and its "
            f"weights are those of its end; begin a new one with them: {anew(folder, config)}"
        )
    if is_bound(config) and total != training.total(rows, processes):
        raise ValueError(
            f"{flag} {told}: the learning rate of the run in {folder} is {training.schedule!r}, which falls to zero at "
            f"the {training.total(rows, processes)} steps that it was started with, so its end is fixed; begin a new "
            f"run with its weights: {anew(folder, config)} {flag} {told}"
        )
    if at is not None and total < at.step:
        raise ValueError(f"{flag} {told}: the run in {folder} has {at.step} steps already, want more of them")
    words, kept = iter(shlex.split(config.get("command", ""))), []
    for word in words:
        if word in ("--steps", "--epochs", "--warmup"):
            next(words, None)
        else:
            kept.append(word)
    line = [*kept, flag, str(told), "--warmup", str(longer.warmup)]  # which would be another one by default
    return {**config, "training": asdict(longer), **({"command": shlex.join(line)} if kept else {})}


@contextmanager
def written(folder: Path, config: Mapping[str, Any], longer: Mapping[str, Any]) -> Iterator[None]:
    """Inside, the folder has the configuration of a longer run; after an error its own, if nothing came of it."""
    before = standing(folder)
    write_json(folder / CONFIG, longer)
    try:
        yield
    except BaseException:
        if standing(folder) == before:
            write_json(folder / CONFIG, config)
        raise


def like(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `configuration` for a run with the pair, data and options of another one.

    Its programs are taken for trusted: the configuration is that of `folder.opened`.
    """
    whole, found = as_written(config), {"guide": None}
    for kind, chosen in names.programs_of(whole).items():
        found[kind] = _named(kind, chosen, backend_of(config)), chosen["sizes"]
    data = {key: config["data"][key] for key in ("transform", "validation", "image_size")}
    more = {"seed": config["seed"], "backend": backend_of(config), "refine": config.get("refine")}
    return {**found, "data": config["data"]["name"], **data, **more, "training": Training(**config["training"])}


def _named(kind: str, chosen: Mapping[str, Any], backend: str) -> str:
    """The name of a program in a file, if it is that of what the file imports, else its import string."""
    try:
        same = names.import_string(kind, chosen["name"], backend) == chosen["import"]
    except ValueError:
        same = False
    return chosen["name"] if same else chosen["import"]
