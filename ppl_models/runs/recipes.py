"""Recipes: results that anyone can make again, each a TOML file of the trainings it takes and what is asked of them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from ppl_models import data as datasets
from ppl_models.inference import write_json

from . import names
from .build import Training, configuration
from .experiments import Experiment, experiment_of
from .folder import CONFIG, LoadedRun, read_config
from .training import resume, train

HOME = files("ppl_models") / "recipes"
RESULTS = "results.json"
SECTIONS = {"data": dict, "model": dict, "guide": dict, "training": dict, "runs": dict, "analysis": dict}
WORDS = {"title": str, "about": str, "source": str, "experiment": str, "seed": int}


@dataclass(frozen=True)
class Recipe:
    """What a TOML file says.

    Attributes:
        name: of the file.
        title, about, source: for people.
        experiment: what is asked of the runs, a name of `experiments`.
        seed: of every training and of the analysis.
        runs: run -> {data, model, guide, training}: the sections of the file, overruled by those of the run.
        analysis: what the experiment is told: its options, with those of the file.
    """

    name: str
    title: str
    about: str
    source: str
    experiment: str
    seed: int
    runs: dict[str, dict[str, Any]]
    analysis: dict[str, Any]


def recipe_names() -> list[str]:
    """The recipes of the collection."""
    return sorted(entry.name.removesuffix(".toml") for entry in HOME.iterdir() if entry.name.endswith(".toml"))


def read_recipe(name: str | Path, settings: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe of the collection by name, or of a file of one's own that ends in .toml.

    Args:
        name: which.
        settings: what to change in it, by dotted keys: {"training.steps": 100, "analysis.data": 500}.

    Raises:
        ValueError: an unknown name; a file that is no TOML; sections, words or settings that a recipe does not have.

    >>> read_recipe("discrete").experiment
    'discrete'
    """
    if str(name).endswith(".toml"):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ValueError(f"recipe {str(name)!r}: there is no such file; of the collection: {_listed()}")
        text, short = path.read_text(), path.stem
    elif str(name) in recipe_names():
        text, short = (HOME / f"{name}.toml").read_text(), str(name)
    else:
        near = names.nearest(str(name), recipe_names())
        hint = f"did you mean {near!r}? " if near else ""
        raise ValueError(f"recipe {str(name)!r} is unknown; {hint}There are {_listed()}, and files ending in .toml")
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"recipe {short}: it is no TOML: {error}") from None
    for key, value in (settings or {}).items():
        _set(found, key, value, short)
    _checked(found, short)
    shared = {section: found.get(section, {}) for section in ("data", "model", "guide", "training")}
    runs = {run: _merged(shared, own) for run, own in found.get("runs", {}).items()}
    texts = {word: " ".join(str(found.get(word, "")).split()) for word in ("title", "about", "source")}
    experiment = found["experiment"]
    try:
        analysis = experiment_of(experiment).settled(found.get("analysis", {}))
    except ValueError as error:
        raise ValueError(f"recipe {short}: {error}") from None
    return Recipe(short, *texts.values(), experiment, found.get("seed", 0), runs, analysis)


def carry_out(
    recipe: Recipe,
    folder: str | Path,
    device: str = "cpu",
    progress: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train what a recipe trains, ask what it asks, and write results.json and pictures to a folder.

    A run that is there already goes on from its checkpoint, or is taken as it is where it is done: a recipe that was
    stopped is started again by the same call.

    Args:
        recipe: of `read_recipe`.
        folder: where to write: a folder for each run in it.
        device: where to train.
        progress: show bars.
        report: is told what is done, line by line.

    Returns:
        What results.json holds: recipe, seed, settings, and rows, a mapping for each run or question.

    Raises:
        ValueError: what the programs, the data or the experiment object to.
    """
    folder, experiment = Path(folder), experiment_of(recipe.experiment)
    if experiment.check is not None:
        experiment.check(recipe.runs, recipe.analysis)
    runs: dict[str, LoadedRun] = {}
    for name, chosen in recipe.runs.items():
        report(f"{recipe.name}: training {name}")
        runs[name] = _trained(recipe, name, chosen, folder / names.slug(name), device, progress, experiment)
    report(f"{recipe.name}: looking at it")
    folder.mkdir(parents=True, exist_ok=True)
    rows = experiment.analyse(runs, recipe.analysis, folder, recipe.seed, report)
    results = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "commands": {name: run.config["command"] for name, run in runs.items()},
        "seconds": {name: run.history[-1]["seconds"] for name, run in runs.items()},
        "analysis": recipe.analysis,
        "rows": rows,
    }
    write_json(folder / RESULTS, results)
    return results


def _trained(
    recipe: Recipe,
    name: str,
    chosen: Mapping[str, Any],
    folder: Path,
    device: str,
    progress: bool,
    experiment: Experiment,
) -> LoadedRun:
    """The run of this name: begun, gone on with, or as it is."""
    data, model, guide = dict(chosen["data"]), dict(chosen["model"]), dict(chosen["guide"])
    source, transform, size = data.pop("name"), data.pop("transform", "default"), data.pop("image_size", None)
    validation = data.pop("validation", False)
    if data:
        raise ValueError(f"recipe {recipe.name}: found data.{next(iter(data))}, want name, transform, image_size")
    parts = datasets.load(source, validation=validation, transform=transform, size=size)

    def watch(model: Any, guide: Any) -> Any:
        return None if experiment.watch is None else experiment.watch(model, guide, parts, recipe.analysis)

    config = configuration(
        *(model.pop("name"), names.tuples(model), guide.pop("name"), names.tuples(guide), source, parts),
        *(Training(**chosen["training"]), recipe.seed, transform, validation, size),
    )
    if not (folder / CONFIG).is_file():
        return train(config, parts, folder, device, progress, watch)
    before, now = read_config(folder), json.loads(json.dumps(config))
    for section in ("model", "guide", "data", "training", "seed"):
        if before.get(section) != now[section]:
            told = f"found {_difference(section, before.get(section), now[section])}"
            raise ValueError(f"recipe {recipe.name}: {folder} holds another run: {told}; choose another --out")
    return resume(folder, device, progress, watch)


def _difference(section: str, before: Any, now: Any) -> str:
    """The first entry that is not the same, as it was and as it is wanted."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in now:
            if before.get(key) != now[key]:
                return _difference(f"{section}.{key}", before.get(key), now[key])
    return f"{section} = {before!r}, want {now!r}"


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = deepcopy(dict(shared))
    for section, values in own.items():
        merged[section] = {**merged[section], **values}
    return merged


def _checked(found: Mapping[str, Any], name: str) -> None:
    """Raise ValueError for what a recipe does not have."""
    kinds = WORDS | SECTIONS
    for key, value in found.items():
        if key not in kinds or not isinstance(value, kinds[key]):
            raise ValueError(
                f"recipe {name}: found {key} = {value!r}, want {', '.join(WORDS)} and [{'], ['.join(SECTIONS)}]"
            )
    experiment_of(found.get("experiment", ""))
    known = {field.name for field in fields(Training)}
    for run, own in [("", found), *found.get("runs", {}).items()]:
        if not isinstance(own, dict):
            raise ValueError(f"recipe {name}: found {own!r} for the run {run!r}, want a section [runs.{run}]")
        for section in own if run else ():
            if section not in ("data", "model", "guide", "training") or not isinstance(own[section], dict):
                raise ValueError(
                    f"recipe {name}: found {section!r} in the run {run!r}, want data, model, guide or training"
                )
        for key in own.get("training", {}):
            if key not in known:
                raise ValueError(f"recipe {name}: found training.{key}, want some of {', '.join(sorted(known))}")
    slugs = [names.slug(run) for run in found.get("runs", {})]
    for run, own in found.get("runs", {}).items():
        if slugs.count(names.slug(run)) > 1:
            raise ValueError(f"recipe {name}: the runs of the folder {names.slug(run)!r} are several; rename {run!r}")
        for section in ("data", "model", "guide"):
            if "name" not in {**found.get(section, {}), **own.get(section, {})}:
                raise ValueError(f"recipe {name}: found no {section}.name for run {run!r}, want one")


def _set(found: dict[str, Any], key: str, value: Any, name: str) -> None:
    """Put a value where a dotted key says."""
    *path, last = key.split(".")
    other = {"steps": "epochs", "epochs": "steps"}.get(last) if path == ["training"] else None
    for section in [found, *(run for run in found.get("runs", {}).values() if isinstance(run, dict))]:
        if other and isinstance(section.get("training"), dict):  # one of them says how long
            section["training"].pop(other, None)
    place = found
    for part in path:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise ValueError(
                f"recipe {name}: found the setting {key!r}, but {part} is no section; want section.key=value"
            )
    if not path and last not in WORDS:
        raise ValueError(f"recipe {name}: found the setting {key!r}, want section.key=value, training.steps=100")
    place[last] = value


def _listed() -> str:
    return ", ".join(recipe_names())
