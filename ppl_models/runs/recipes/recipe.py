"""`read_recipe(name, settings)`: a recipe's TOML file as a `Recipe`, checked before anything is trained."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from ppl_models.parts.arguments.checked import check, declared
from ppl_models.parts.arguments.kinds import Kind, Seed, kind_of
from ppl_models.programs.legible import quoted

from ..naming import names
from ..naming.options import Training
from .experiments import experiment_of

HOME = files("ppl_models") / "recipes"
OF_RUN = ("data", "model", "guide", "training")
WEIGHTS = "weights"  # of a run: the one before it whose weights are its first ones
SECTIONS = dict.fromkeys(("data", "model", "guide", "training", "runs", "analysis", "published"), dict)
PUBLISHED = {"nll": float, "elbo": float, "bits_per_dim": float, "protocol": str}
WORDS = {"title": str, "about": str, "source": str, "experiment": str, "seed": int}


@dataclass(frozen=True)
class Recipe:
    """Contents of a TOML file.

    Attributes:
        name: of the file.
        title, about, source: for people.
        experiment: what is asked of the runs, a name of `experiments`.
        seed: of every training and of the analysis.
        runs: run -> {data, model, guide, training}: the sections of the file, overruled by those of the run; and
            weights, the run before it whose weights are its first ones, where it has such.
        analysis: what the experiment is told: its options, with those of the file.
        published: run -> {nll, elbo or bits_per_dim: the number, protocol: how it was had}, of runs that have one.
    """

    name: str
    title: str
    about: str
    source: str
    experiment: str
    seed: int
    runs: dict[str, dict[str, Any]]
    analysis: dict[str, Any]
    published: dict[str, dict[str, Any]]


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
            raise ValueError(
                f"recipe {quoted(str(name))}: there is no such file; `ppl-models recipe` lists those that are here"
            )
        content, short = path.read_bytes(), path.stem
    elif str(name) in recipe_names():
        content, short = (HOME / f"{name}.toml").read_bytes(), str(name)
    else:
        near = names.nearest(str(name), recipe_names())
        hint = f"did you mean {near!r}? " if near else ""
        told = f"recipe {quoted(str(name))} is unknown; {hint}`ppl-models recipe` lists those that are here"
        raise ValueError(f"{told}; a file of your own ends in .toml")
    try:
        found = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"recipe {short}: it is no TOML: {error}") from None
    for key, value in (settings or {}).items():
        _set(found, key, value, short)
    _checked(found, short)
    shared = {section: found.get(section, {}) for section in OF_RUN}
    runs = {run: _merged(shared, own) for run, own in found.get("runs", {}).items()}
    texts = {word: " ".join(str(found.get(word, "")).split()) for word in ("title", "about", "source")}
    experiment = experiment_of(found["experiment"])
    try:
        analysis = experiment.settled(found.get("analysis", {}))
    except ValueError as error:
        raise ValueError(f"recipe {short}: {error}") from None
    if experiment.trains != bool(runs):
        told = "no [runs.NAME], want one at least" if experiment.trains else "runs, want none: it trains nothing"
        raise ValueError(f"recipe {short}: experiment {found['experiment']}: found {told}")
    published = found.get("published", {})
    return Recipe(short, *texts.values(), found["experiment"], found.get("seed", 0), runs, analysis, published)


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of the file, overruled by those of a run, whose epochs take the place of steps and so do steps."""
    merged = deepcopy(dict(shared))
    for section, values in ((section, own[section]) for section in OF_RUN if section in own):
        kept = {key: value for key, value in merged[section].items() if _instead(section, key) not in values}
        merged[section] = {**kept, **values}
    weights = {WEIGHTS: own[WEIGHTS]} if WEIGHTS in own else {}
    return {**merged, "guide": merged["guide"] or None, **weights}


def _instead(section: str, key: str) -> str | None:
    """Of the two words that say how long a training is, the other one."""
    return {"steps": "epochs", "epochs": "steps"}.get(key) if section == "training" else None


def _checked(found: Mapping[str, Any], name: str) -> None:
    """Raise ValueError for what a recipe does not have."""
    kinds = WORDS | SECTIONS
    for key, value in found.items():
        if key not in kinds or not isinstance(value, kinds[key]):
            raise ValueError(
                f"recipe {name}: found {key} = {value!r}, want {', '.join(WORDS)} and [{'], ['.join(SECTIONS)}]"
            )
    seed, runs = found.get("seed", 0), found.get("runs", {})
    check(f"recipe {name}", "seed", seed, cast(Kind, kind_of(Seed)))
    experiment_of(found.get("experiment", ""))
    for run, own in [("", found), *runs.items()]:
        if not isinstance(own, dict):
            raise ValueError(f"recipe {name}: found {own!r} for the run {run!r}, want a section [runs.{run}]")
        for section in (section for section in own if run and section != WEIGHTS):
            if section not in OF_RUN or not isinstance(own[section], dict):
                told = f"recipe {name}: found {section!r} in the run {run!r}"
                raise ValueError(f"{told}, want data, model, guide, training or {WEIGHTS}")
        if run and WEIGHTS in own:
            _check_weights(run, found, name)
        _checked_training(own.get("training", {}), f"recipe {name}")
    for run, number in found.get("published", {}).items():
        kinds_of = {key: type(value) for key, value in number.items()} if isinstance(number, dict) else {}
        if (
            run not in runs
            or len(kinds_of) != 2
            or not kinds_of.items() <= PUBLISHED.items()
            or "protocol" not in number
        ):
            raise ValueError(
                f"recipe {name}: found published {run!r} = {number!r}, want of a run its nll, elbo or bits_per_dim, "
                'and the protocol: nll = 82.38, protocol = "5000 samples"'
            )
    folders = [names.slug(run).lower() for run in runs]
    for run, own in runs.items():
        if folders.count(names.slug(run).lower()) > 1:
            raise ValueError(f"recipe {name}: the runs of the folder {names.slug(run)!r} are several; rename {run!r}")
        for section in ("data", "model", "guide"):
            said = {**found.get(section, {}), **own.get(section, {})}
            called = said.get("name", None if said or section != "guide" else "")  # of a model without latents
            if not isinstance(called, str):
                told = f"no {section}.name" if called is None else f"{section}.name = {called!r}"
                raise ValueError(f"recipe {name}: found {told} for run {run!r}, want one")


def _check_weights(run: str, found: Mapping[str, Any], name: str) -> None:
    """Raise ValueError unless a run begins with the weights of a run before it, which has its model and guide."""
    runs = found["runs"]
    first, earlier = runs[run][WEIGHTS], [*runs][: [*runs].index(run)]
    told = f"recipe {name}: found {WEIGHTS} = {first!r} in the run {run!r}, want"
    if first not in earlier:
        raise ValueError(f"{told} a run before it, of which there are {', '.join(map(repr, earlier)) or 'none'}")
    shared = {section: found.get(section, {}) for section in OF_RUN}
    one, other = (_merged(shared, runs[chosen]) for chosen in (first, run))
    if differing := [kind for kind in ("model", "guide") if one[kind] != other[kind]]:
        raise ValueError(f"{told} one with its {differing[0]}, {one[differing[0]]}")


def _checked_training(training: Mapping[str, Any], where: str) -> None:
    """Raise ValueError for what is no argument of a training, or of another kind."""
    known = declared(Training)
    for key, value in training.items():
        if key not in known:
            raise ValueError(f"{where}: found training.{key}, want some of {', '.join(sorted(known))}")
        check(where, f"training.{key}", value, known[key])


def _set(found: dict[str, Any], key: str, value: Any, name: str) -> None:
    """Put a value where a dotted key says.

    Raises:
        ValueError: a place that there is not, or one that the runs do not read: they have a value of their own.
    """
    told, runs = f"recipe {name}: found the setting {key!r}", found.get("runs", {})
    place: Any = found
    if key.startswith("runs."):
        known = [run for run in runs if key.startswith(f"runs.{run}.")]  # a name may hold dots
        if not known:
            near = names.nearest(key.split(".")[1], runs)
            hint = f"; did you mean runs.{near}.section.key?" if near else ""
            raise ValueError(f"{told}, want runs.NAME.section.key of a run {', '.join(map(repr, runs))}{hint}")
        run = max(known, key=len)
        place, rest = runs[run], key.removeprefix(f"runs.{run}.")
    else:
        rest = key
        own = [run for run, sections in runs.items() if _reads_own(sections, key)]
        if own:
            listed = ", ".join(map(repr, own))
            raise ValueError(f"{told}, but of that these runs have their own: {listed}; set runs.{own[0]}.{key}")
    *path, last = rest.split(".")
    if not path and (place is not found or last not in WORDS):
        raise ValueError(f"{told}, want section.key=value, training.steps=100")
    for part in path:
        place = place.setdefault(part, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise ValueError(f"{told}, but {part} is no section; want section.key=value")
    place.pop(_instead(path[-1] if path else "", last), None)
    place[last] = value


def _reads_own(sections: Any, key: str) -> bool:
    """Whether a run says itself what a key of the file says."""
    section, _, last = key.partition(".")
    own = sections.get(section, {}) if isinstance(sections, dict) else {}
    return isinstance(own, dict) and bool({last, _instead(section, last)} & own.keys())
