"""`train`, `resume`: train the pair of a configuration into a run folder; `evaluate_run`: its bounds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pyro
import torch

from ppl_models.data import Data, Table
from ppl_models.inference import (
    ActiveUnits,
    Callback,
    Evaluation,
    MutualInformation,
    Probe,
    TensorBoard,
    mutual_information,
)
from ppl_models.inference.checkpoint_file import CHECKPOINT
from ppl_models.inference.files import write_json
from ppl_models.inference.probes import check_labels, labelled
from ppl_models.inference.progress import waiting
from ppl_models.inference.pyro.feeding import distributed
from ppl_models.parts.checked import checked
from ppl_models.parts.kinds import LARGEST, Count, Number, Place, Threads

from . import names, trust as trusted
from .backends import Device, backend, backend_of, columns, given
from .configuration import Parts, load_parts
from .continuing import prolonged, written
from .folder import CONFIG, START, as_written, config_errors, opened, read_config, read_example, started
from .loaded import LoadedRun
from .options import Training

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


def check_informative(name: str, rows: int) -> None:
    """Raise ValueError for what `inform_run` cannot do: a backend without it, a single row."""
    backend(name).check("information")
    if rows < 2:
        raise ValueError(f"information: found {rows} rows, want 2 at least: codes are told apart by others")


def inform_run(
    run: LoadedRun, test: Data | Table, rows: int, seed: int = 0, other: str | None = None, progress: bool = True
) -> MutualInformation:
    """Bracket the mutual information of codes and the first rows of data; write information.json in the run's folder.

    The arguments are those of `evaluate_run`, which names its file alike.

    Raises:
        ValueError: what `check_informative` and `ppl_models.inference.mutual_information` object to.
    """
    check_informative(run.backend, rows)
    data = given(test.to(columns(run.example)[0].device))
    found = mutual_information(run.model, run.guide, data, rows=rows, seed=seed, progress=progress)
    path = run.folder / f"{_named('information', run, other)}.json"
    write_json(path, {"data": test.name, "seed": seed, **asdict(found)})
    return found


def check_probe(run: LoadedRun, parts: Parts, labels: int) -> None:
    """Raise ValueError for a model without latents, or data without labels or with too few, before anything is done."""
    if run.config["guide"] is None:
        raise ValueError(f"--probe: found {run.config['model']['name']}, which has no latents, want codes to read")
    for part in (parts[0], parts[-1]):
        if getattr(part, "labels", None) is None:
            raise ValueError(f"--probe: found no labels in {part.name}, want data that have some, as digits and mnist")
    check_labels(labelled(parts[0], "probe")[1], [labels])


def probe_run(run: LoadedRun, parts: Parts, labels: int, seed: int = 0, other: str | None = None) -> Probe:
    """Read labels off the codes of test data; write probe.json in the run's folder.

    Args:
        run: the pair with its folder.
        parts: data with labels, of which the first part trains the classifiers and the last one tries them.
        labels: how many rows are labelled.
        seed, other: see `evaluate_run`, which names its file alike.

    Raises:
        ValueError: what `ppl_models.inference.probe` objects to.
    """
    train, test = parts[0], parts[-1]
    found = backend(run.backend).probe((run.model, run.guide), run.example, train, test, labels=labels, seed=seed)
    path = run.folder / f"{_named('probe', run, other)}.json"
    write_json(path, {"data": test.name, "seed": seed, "backend": run.backend, **found.to_dict()})
    return found


def units_run(run: LoadedRun, test: Data | Table, rows: int, seed: int = 0, other: str | None = None) -> ActiveUnits:
    """Count the active units over the first rows of data; write units.json in the run's folder.

    The arguments are those of `evaluate_run`, which names its file alike.

    Raises:
        ValueError: a model without latents; what `ppl_models.inference.active_units` objects to.
    """
    if run.config["guide"] is None:
        raise ValueError(f"--units: found {run.config['model']['name']}, which has no latents, want units to count")
    language = backend(run.backend)
    few = tuple(language.rows(run.example, column) for column in columns(test[:rows]))
    found = language.call("active_units", run.example, run.model, run.guide, few, seed=seed)
    path = run.folder / f"{_named('units', run, other)}.json"
    write_json(path, {"data": test.name, "seed": seed, "backend": run.backend, **found.to_dict()})
    return found


def evaluate_run(
    run: LoadedRun,
    test: Data | Table,
    particles: int,
    seed: int = 0,
    other: str | None = None,
    progress: bool = True,
    refine: int = 0,
) -> Evaluation:
    """Bound the log-likelihood of all of `test`, and write evaluation.json in the folder of the run.

    One that was stopped goes on where it was, from a file in the folder.

    Args:
        run, test: the pair with its folder, and data.
        particles: importance samples a datum.
        seed: of the draws.
        other: name of the data if they are not the run's own; the file is then evaluation_NAME.json, and likewise
            evaluation_BACKEND.json in another backend than that of the training.
        progress: show a bar.
        refine: Hamiltonian steps after each draw, with nothing learned (`ppl_models.inference.evaluate`), which the
            name of the file then tells, evaluation_refined-8.json.
    """
    name = _named("evaluation", run, other) + (f"_refined-{refine}" if refine else "")
    how = {"particles": particles, "seed": seed, "progress": progress, "refine": refine}
    file = run.folder / f"{name}.unfinished.npz"
    found = backend(run.backend).evaluate((run.model, run.guide), run.example, test, resume=file, **how)
    about = {"data": test.name, "seed": seed, "backend": run.backend}
    write_json(run.folder / f"{name}.json", {**about, **found.to_dict()})
    return found


def _named(word: str, run: LoadedRun, other: str | None) -> str:
    """The word, with the data and the backend where they are not those of the training."""
    words = [word]
    if other is not None and names.short(other) != names.short(run.config["data"]["name"]):
        words.append(names.slug(names.short(other)))
    if run.backend != backend_of(read_config(run.folder)):
        words.append(run.backend)
    return "_".join(words)
