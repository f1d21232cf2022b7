"""`carry_out(recipe, folder)`: train the runs of a recipe, ask what it asks of them, write results and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ppl_models.inference.storage.files import write_json

from ..backends import backend
from ..begun import carried_through, is_begun
from ..folders.configuration import Parts, configuration, load_for
from ..folders.loaded import LoadedRun
from ..machine import commit, machine
from ..naming import names, trust as trusted
from ..naming.options import Training
from ..pages.write import PAGE, PATIENCE, write_page
from .codes import FILE, TRANSFORM, unknown_codes, write_codes
from .experiments import Experiment, experiment_of
from .recipe import WEIGHTS, Recipe

RESULTS = "results.json"
CODES = "codes:"  # before the name of a run, in place of that of data


def carry_out(
    recipe: Recipe,
    folder: str | Path,
    device: str = "cpu",
    progress: bool = True,
    report: Callable[[str], None] = lambda line: None,
    trust: Iterable[str] = (),
    pages: bool = False,
) -> dict[str, Any]:
    """Train what a recipe trains, ask what it asks, and write results.json and pictures to a folder.

    Every pair to come is built before the first is trained, so that a mistake in the last costs no training. The same
    call again goes on with a recipe that was stopped: a run in the folder is taken, or resumed from its checkpoint.

    Args:
        recipe: of `recipe.read_recipe`.
        folder: where to write: a folder for each run in it.
        device, progress: as for `train`.
        report: is told what is done, line by line.
        trust: modules of yours whose programs the recipe may name, as for `load_run`.
        pages: write the page of each run that has none, report.html in its folder.

    Returns:
        What results.json holds: recipe, seed, for each run its command (paths are from the folder) and the seconds it
        took, the options of the analysis, the machine and the commit of the source, and rows, a mapping for each run or
        question.

    Raises:
        ValueError: a program that is not trusted; what the programs, the data or the experiment object to.
    """
    trusted.allow(trust)
    _check_trust(recipe)
    folder, experiment = Path(folder), experiment_of(recipe.experiment)
    if experiment.check is not None:
        experiment.check(recipe.runs, recipe.analysis)
    parts, plans = _planned(recipe, folder)
    runs: dict[str, LoadedRun] = {}
    for name, config in plans.items():
        if (source := _codes_of(recipe, name)) is not None:
            if not (path := folder / names.slug(source) / FILE).is_file():
                report(f"{recipe.name}: codes of {source}")
                write_codes(runs[source], path)
            parts[name], config = _plan(recipe, name, folder, {}, {})
        report(f"{recipe.name}: training {name}")
        runs[name] = _trained(recipe, config, parts[name], folder / names.slug(name), device, progress, experiment)
    report(f"{recipe.name}: looking at it")
    folder.mkdir(parents=True, exist_ok=True)
    rows = experiment.analyse(runs, recipe.analysis, folder, recipe.seed, report)
    results = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "commands": {name: run.config["command"].replace(f"{folder.resolve()}/", "") for name, run in runs.items()},
        "seconds": {name: run.history[-1]["seconds"] for name, run in runs.items()},
        "analysis": recipe.analysis,
        "machine": machine(device),
        "commit": commit(),
        "rows": rows,
    }
    write_json(folder / RESULTS, results)
    for name, run in runs.items() if pages else ():
        if not (run.folder / PAGE).exists():
            report(f"page {write_page([run], test=parts[name][-1], patience=PATIENCE)}")
    return results


def _check_trust(recipe: Recipe) -> None:
    """Raise ValueError for a program that a file may not name; nothing is imported before that."""
    for name, chosen in recipe.runs.items():
        for kind, program in names.programs_of(chosen).items():
            try:
                trusted.check(kind, names.import_string(kind, program["name"]))
            except ValueError as error:
                raise ValueError(f"recipe {recipe.name}, run {name!r}: {error}") from None


def _planned(recipe: Recipe, folder: Path) -> tuple[dict[str, Parts], dict[str, dict[str, Any]]]:
    """(data, configuration) of every run, of which each could be built, and none is in the folder as another."""
    loaded: dict[str, Parts] = {}
    found: dict[str, tuple[Parts, dict[str, Any]]] = {}
    for name in recipe.runs:
        found[name] = _plan(recipe, name, folder, loaded, found)
    return {name: parts for name, (parts, _) in found.items()}, {name: plan for name, (_, plan) in found.items()}


def _plan(
    recipe: Recipe,
    name: str,
    folder: Path,
    loaded: dict[str, Parts],
    before: Mapping[str, tuple[Parts, dict[str, Any]]],
) -> tuple[Parts, dict[str, Any]]:
    """(data, configuration) of a run that could be built; of codes that there are not yet, of data of their shape.

    Args:
        loaded: data that were read, which it adds to.
        before: what it gave of earlier runs.
    """
    chosen, where = recipe.runs[name], f"recipe {recipe.name}, run {name!r}"
    model, guide = names.tuples(chosen["model"]), names.tuples(chosen["guide"])
    data: dict[str, Any] = {"name": "", "transform": "default", "image_size": None, "validation": False}
    if others := [key for key in chosen["data"] if key not in data]:
        raise ValueError(f"recipe {recipe.name}: found data.{others[0]}, want {', '.join(data)}")
    source, transform, size, validation = tuple({**data, **chosen["data"]}.values())
    codes = _codes_of(recipe, name)
    if codes is not None:
        source, transform = str(folder.resolve() / names.slug(codes) / FILE), TRANSFORM
    key = repr((source, transform, size, validation, model["name"] if source.endswith(".npz") else ""))
    try:
        unknown = codes is not None and not Path(source).is_file()
        if unknown:
            rows, first = before[codes]
            pair = backend(first["backend"]).build(first, rows[0][: first["data"]["example"]], "cpu")
            parts: Parts = unknown_codes(*pair, len(rows[0]))
        else:
            if key not in loaded:
                how = {"validation": validation, "transform": transform, "size": size}
                loaded[key] = load_for(model["name"], "pyro", source, **how)
            parts = loaded[key]
        plan = configuration(
            model=(model.pop("name"), model),
            guide=guide and (guide.pop("name"), guide),
            data=source,
            parts=parts,
            training=Training(**chosen["training"]),
            seed=recipe.seed,
            transform=transform,
            validation=validation,
            image_size=size,
            weights=folder / names.slug(chosen[WEIGHTS]) if WEIGHTS in chosen else None,
        )
        if unknown or not is_begun(plan, folder / names.slug(name)):
            backend(plan["backend"]).build(plan, parts[0][: plan["data"]["example"]], "cpu")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return parts, plan


def _codes_of(recipe: Recipe, name: str) -> str | None:
    """The run whose codes are the data of this one, as `data.name = "codes:RUN"` says; None for other data.

    Raises:
        ValueError: no earlier run of that name.
    """
    source = str(recipe.runs[name]["data"]["name"])
    if not source.startswith(CODES):
        return None
    found, earlier = source.removeprefix(CODES), [*recipe.runs][: [*recipe.runs].index(name)]
    if found not in earlier:
        listed = ", ".join(map(repr, earlier)) or "none"
        raise ValueError(
            f"recipe {recipe.name}, run {name!r}: found data.name = {source!r}, want the codes of a run before it, of "
            f"which there are {listed}"
        )
    return found


def _trained(
    recipe: Recipe,
    config: dict[str, Any],
    parts: Parts,
    folder: Path,
    device: str,
    progress: bool,
    experiment: Experiment,
) -> LoadedRun:
    """The run of this configuration: begun, gone on with, or as it is."""

    def watch(model: Any, guide: Any) -> Any:
        return None if experiment.watch is None else experiment.watch(model, guide, parts, recipe.analysis)

    return carried_through(config, parts, folder, device, progress, watch)
