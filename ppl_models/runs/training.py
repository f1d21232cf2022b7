"""`train`, `resume`: train the pair of a configuration into a run folder, or go on with it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import pyro
import torch

from ppl_models.inference import (
    Callback,
    TensorBoard,
)
from ppl_models.inference.display.progress import waiting
from ppl_models.inference.pyro.feeding import distributed
from ppl_models.inference.storage.checkpoint_file import CHECKPOINT
from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import LARGEST, Count, Number, Place, Threads

from .backends import Device, backend, backend_of
from .folders.configuration import Parts, load_parts
from .folders.continuing import prolonged, written
from .folders.folder import CONFIG, START, as_written, config_errors, opened, read_config, read_example, started
from .folders.loaded import LoadedRun
from .naming import names, trust as trusted
from .naming.options import Training

BUILDING = "building model and guide"
Watch = Callable[[Any, Any], Callback | None]


@checked
def train(
    config: Mapping[str, Any],
    parts: Parts,
    folder: Place,
    device: Device = "cpu",
    progress: bool = True,
    watch: Watch | None = None,
) -> LoadedRun:
    """Build the pair of a configuration, fit it, and leave configuration, history and checkpoint in a folder.

    Under torchrun every process calls it alike, and that of rank 0 alone writes. Started once more by torchrun
    (`--max-restarts`), it goes on with the run in the folder, if that has the same configuration.

    Args:
        config: of `configuration`; files may name its programs from now on (see `trust`).
        parts: (train, test), or (train, validation, test).
        folder: must not exist, or be empty; it appears at once, and goes if there is an error before a checkpoint.
        device: where to train.
        progress: show a bar.
        watch: given the pair, makes a callback for the training, or none.

    Raises:
        ValueError: what the programs, the data or `fit` object to.
    """
    trusted.received(*(chosen["import"] for chosen in names.programs_of(config).values()))
    folder, language = Path(folder), backend(backend_of(config))
    group = distributed.current(device)
    language.check("train", 1 if group is None else group.world)
    if group is not None and group.agreed(restarted(folder, config)):
        return resume(folder, device, progress, watch)
    device = device if group is None else group.device
    pyro.set_rng_seed(config["seed"])
    rows = parts[0][: config["data"]["example"]]
    with started(folder, config, rows) if group is None or group.is_main else nullcontext():
        with waiting(BUILDING, progress):
            built = language.build(config, rows, device)
        built = _begun(built, config, folder)
        return _fitted(built, config, parts, folder, device, Training(**config["training"]), progress, watch)


def _begun(built: tuple[Any, Any, Any], config: Mapping[str, Any], folder: Path) -> tuple[Any, Any, Any]:
    """A pair with its example rows, and with the weights of the run that its training is to begin with, if any."""
    if "weights" not in config:
        return built
    model, guide, example = built
    return *backend(backend_of(config)).load(folder / START, (model, guide), example), example


def restarted(folder: str | Path, config: Mapping[str, Any]) -> bool:
    """Whether torchrun has started this process once more, and the folder holds what the time before began."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) < 1 or not (Path(folder) / CONFIG).is_file():
        return False
    return read_config(Path(folder)) == json.loads(json.dumps(config))


@checked
def resume(
    folder: Place,
    device: Device = "cpu",
    progress: bool = True,
    watch: Watch | None = None,
    threads: Threads | None = None,
    trust: Iterable[str] = (),
    steps: Count | None = None,
    epochs: Annotated[float, Number(above=0, most=LARGEST)] | None = None,
) -> LoadedRun:
    """Go on with a run from its last checkpoint to the end, as if it had never stopped; without one, from the start.

    Data, pair and all arguments are those that its configuration names, which is written anew for another length. On a
    CPU of the same kind, with the same versions and as many threads, the result is that of the uninterrupted run, bit
    for bit; notes tell what differs. Under torchrun every process calls it alike, as many as began.

    Args:
        folder, device, progress, watch: see `train`.
        threads: of the CPU, from now on; None for those of the run.
        trust: modules of yours whose programs the folder may name, as for `load_run`.
        steps, epochs: how long the whole training is to be; None as it was started. It can go on for longer where its
            learning rate does not fall to zero at its end (`schedule="constant"`), else `--weights` begins a new one.

    Raises:
        ValueError: no run folder, a program that is not trusted, a damaged file in it (the message names it, and offers
            the previous checkpoint), data that are not there or not the same any more, a length that the run cannot
            have, and what `fit` objects to.
    """
    folder = Path(folder)
    config, group = opened(folder, trust), distributed.current(device)
    device, language = device if group is None else group.device, backend(backend_of(config))
    language.check("train", 1 if group is None else group.world)
    with config_errors(folder):
        if (threads := threads or config.get("threads")) is not None:
            language.set_threads(threads)
        parts = load_parts(config)
        with waiting(BUILDING, progress):
            built = language.build(as_written(config), read_example(folder, config), device)
            built = _begun(built, config, folder)
        training = Training(**config["training"])
        training.settled(len(parts[0]))  # which says how long, or raises
    longer = prolonged(folder, config, len(parts[0]), 1 if group is None else group.world, steps, epochs)
    training = Training(**longer["training"])
    changes = longer != config and (group is None or group.is_main)
    with written(folder, config, longer) if changes else nullcontext():
        return _fitted(built, longer, parts, folder, device, training, progress, watch, resume=True)


def _fitted(
    built: tuple[Any, Any, Any],
    config: Mapping[str, Any],
    parts: Parts,
    folder: Path,
    device: str | torch.device,
    training: Training,
    progress: bool,
    watch: Watch | None,
    resume: bool = False,
) -> LoadedRun:
    """The pair once `fit` is done with it, as a run."""
    model, guide, example = built
    curves = TensorBoard(folder / "tensorboard") if training.tensorboard else None
    called = [None if watch is None else watch(model, guide), curves]
    model, guide, seconds = backend(backend_of(config)).train(
        (model, guide),
        parts[0],
        device,
        config=training.config(config["seed"]),
        validation=parts[1] if len(parts) == 3 else None,
        callbacks=[callback for callback in called if callback is not None],
        folder=folder,
        resume=resume,
        workers=training.workers,
        progress=progress,
    )
    if not (folder / CONFIG).is_file():
        raise ValueError(
            f"{folder} has lost its {CONFIG} while it was trained, by which alone it is rebuilt; the weights are in "
            f"{CHECKPOINT}: put the file back, or train anew with {config['command']}"
        )
    return LoadedRun(model, guide, dict(config), folder, example, seconds)
