"""`evaluate_run`: the bounds of a run on data, written into its folder; and what else is asked of a run there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ppl_models.data import Data, Table
from ppl_models.inference import ActiveUnits, Calibration, Evaluation, MutualInformation, Probe, mutual_information
from ppl_models.inference.evaluation.probes import check_labels, labelled
from ppl_models.inference.storage.files import write_json

from .backends import backend, backend_of, columns, given
from .folders.configuration import Parts
from .folders.folder import read_config
from .folders.loaded import LoadedRun
from .naming import names


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


def check_guided(run: LoadedRun, option: str, wanted: str) -> None:
    """Raise ValueError for a run of a model without latents, of which an option asks something, before it is done."""
    if run.config["guide"] is None:
        raise ValueError(f"{option}: found {run.config['model']['name']}, which has no latents, want {wanted}")


def check_probe(run: LoadedRun, parts: Parts, labels: int) -> None:
    """Raise ValueError for a model without latents, or data without labels or with too few, before anything is done."""
    check_guided(run, "--probe", "codes to read")
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
    _write(_named("probe", run, other), run, test, seed, found)
    return found


def units_run(run: LoadedRun, test: Data | Table, rows: int, seed: int = 0, other: str | None = None) -> ActiveUnits:
    """Count the active units over the first rows of data; write units.json in the run's folder.

    The arguments are those of `evaluate_run`, which names its file alike.

    Raises:
        ValueError: what `ppl_models.inference.active_units` objects to.
    """
    found = _of_rows("active_units", run, test, rows, seed=seed)
    _write(_named("units", run, other), run, test, seed, found)
    return found


def calibrate_run(
    run: LoadedRun, test: Data | Table, simulations: int, seed: int = 0, other: str | None = None, progress: bool = True
) -> Calibration:
    """Calibrate the guide on so many data of the model's own; write calibration.json in the run's folder.

    Args:
        run: the pair with its folder.
        test: data, of which shapes are read, and arguments that the model does not observe.
        simulations: how many data.
        seed, other, progress: see `evaluate_run`, which names its file alike.

    Raises:
        ValueError: what `ppl_models.inference.sbc` objects to.
    """
    found = _of_rows("sbc", run, test, simulations, simulations=simulations, seed=seed, progress=progress)
    _write(_named("calibration", run, other), run, test, seed, found)
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
    _write(name, run, test, seed, found)
    return found


def _of_rows(tool: str, run: LoadedRun, test: Data | Table, count: int, **how: Any) -> Any:
    """What a function of the run's language says of the pair on the first rows of data."""
    language = backend(run.backend)
    rows = tuple(language.rows(run.example, column) for column in columns(test[:count]))
    return language.call(tool, run.example, run.model, run.guide, rows, **how)


def _write(name: str, run: LoadedRun, test: Data | Table, seed: int, found: Any) -> None:
    """Write what was found into NAME.json of the run's folder, with what it was found on."""
    about = {"data": test.name, "seed": seed, "backend": run.backend}
    write_json(run.folder / f"{name}.json", {**about, **found.to_dict()})


def _named(word: str, run: LoadedRun, other: str | None) -> str:
    """The word, with the data and the backend where they are not those of the training."""
    words = [word]
    if other is not None and names.short(other) != names.short(run.config["data"]["name"]):
        words.append(names.slug(names.short(other)))
    if run.backend != backend_of(read_config(run.folder)):
        words.append(run.backend)
    return "_".join(words)
