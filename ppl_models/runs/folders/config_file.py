"""`read_file`: what a run's config.json holds, each field of its kind; `transform`: that of its data."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from math import prod
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import torch

from ppl_models import data as datasets
from ppl_models.data.transforms import Word
from ppl_models.parts.arguments.checked import check, declared
from ppl_models.parts.arguments.kinds import (
    LARGEST,
    Count,
    Entries,
    Exactly,
    Is,
    Items,
    Kind,
    Number,
    Seed,
    Threads,
    Whole,
    kind_of,
)
from ppl_models.programs.legible import listed

from ..backends import BACKENDS
from ..naming.options import Training

DEEPEST = 20  # lists in lists: a size is a number, a word, or a few of such
TYPES = {str(t).removeprefix("torch."): t for t in vars(torch).values() if isinstance(t, torch.dtype)}
TRANSFORMS = {kind.__name__: kind for kind in get_args(datasets.Transform)}


SHAPE = Annotated[list, Items("a list of sizes, each at least 1", Count)]
RANGE = Annotated[list, Items("two finite numbers", Annotated[float, Number()], 2)]
LEVELS = Annotated[int, Number(whole=True, least=2, most=256)]
PROGRAM = {"name": str, "import": str, "sizes": Mapping}
COLUMN = {
    "shape": SHAPE,
    "type": Is("the name of a type of torch's", lambda found: found in [*TYPES], error=ValueError),
}
FIELDS: Mapping[str, Any] = {
    "model": PROGRAM,
    "guide": PROGRAM,
    "data": {
        "name": str,
        "transform": Word,
        "validation": bool,
        "image_size": Count | None,
        "shape": SHAPE,
        "levels": LEVELS | None,
        "range": RANGE,
        "example": Count,
        "applied": Mapping,
    },
    "training": Mapping,
    "seed": Seed,
}
LATER: Mapping[str, Any] = {  # than the first run folders
    "backend": Exactly(BACKENDS),
    "refine": str,
    "weights": str,
    "command": str,
    "threads": Threads,
    "defaults": Count,
    "versions": Annotated[dict, Entries("a mapping to texts, or None", str | None)],
}
LATER_OF_DATA = {"rows": Annotated[dict, Entries("a mapping to numbers of rows", Whole)], "columns": Mapping | None}


def read_file(path: Path, form: str) -> dict[str, Any]:
    """The contents of a configuration file.

    Args:
        path: where it is.
        form: the value of its field "format".

    Raises:
        ValueError: no JSON, a file of another program, a field that it lacks or that is of another kind.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path} is truncated or no JSON ({error})") from None
    if not isinstance(found, dict) or found.get("format") != form:
        told = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise ValueError(f"{path} was not written by ppl-models: found format {reprlib.repr(told)}, want {form!r}")
    try:
        _check_depth(found)
        without = {"guide": Exactly((None,))} if found.get("guide", "") is None else {}  # of a model without latents
        _check(found, {**FIELDS, **without}, "", path)
        data, training = found["data"], found["training"]
        _check_known(found, LATER, "", path)
        _check_known(data, LATER_OF_DATA, "data.", path)
        _check_known(training, declared(Training), "training.", path)
        for name, column in dict(data.get("columns") or {}).items():
            _check(column, COLUMN, f"data.columns.{name}.", path)
        if any(prod(shape) * data["example"] > LARGEST for shape in _shapes(data)):
            raise ValueError("found data.example rows of data.shape, which no memory holds")
        transform(data["applied"])
    except (ValueError, TypeError) as error:
        told = str(error).removeprefix(_where(path)).removeprefix(": ")
        raise ValueError(f"{_where(path)}: {told}") from None
    return found


def transform(applied: Mapping[str, Any]) -> datasets.Transform:
    """The transform of a configuration's data, by the name of its class and its options.

    Raises:
        ValueError, TypeError: there is no such transform, or it does not take these options.
    """
    options = {key: value for key, value in applied.items() if key != "kind"}
    kind = TRANSFORMS.get(str(applied.get("kind")))
    if kind is None:
        raise ValueError(
            f"found data.applied.kind = {reprlib.repr(applied.get('kind'))}, want one of {', '.join(TRANSFORMS)}"
        )
    known = [each.name for each in fields(kind)]
    if "levels" in known and "levels" not in options or not options.keys() <= {*known}:
        raise ValueError(f"found data.applied of {kind.__name__} with {listed([*options])}, want {listed(known)}")
    return kind(**options)


def _where(path: Path) -> str:
    return f"{path} is damaged"


def _shapes(data: Mapping[str, Any]) -> Iterator[list[int]]:
    """Those of a row, of all columns where there are several."""
    columns = data.get("columns")
    yield from [column["shape"] for column in columns.values()] if columns else [data["shape"]]


def _check(found: Any, wanted: Mapping[str, Any], where: str, path: Path) -> None:
    """Raise ValueError for a field that is not there, or of another kind."""
    if not isinstance(found, dict):
        raise ValueError(f"found {where.rstrip('.')} = {reprlib.repr(found)}, want a mapping")
    for key, want in wanted.items():
        if key not in found:
            raise ValueError(f"it lacks {key!r}")
        if isinstance(want, dict):
            _check(found[key], want, f"{where}{key}.", path)
        else:
            _check_known(found, {key: want}, where, path)


def _check_known(found: dict[str, Any], wanted: Mapping[str, Any], where: str, path: Path) -> None:
    """Raise ValueError or TypeError for a field that is there, and of another kind; numbers become Python's own."""
    for key in found.keys() & wanted.keys():
        kind = wanted[key] if hasattr(wanted[key], "read") else kind_of(wanted[key])
        found[key] = check(_where(path), f"{where}{key}", found[key], cast(Kind, kind))


def _check_depth(found: Any) -> None:
    """Raise ValueError for what is nested too deep to be a size."""
    level, depth = [found], 0
    while level := [
        i for v in level if isinstance(v, (dict, list)) for i in (v.values() if isinstance(v, dict) else v)
    ]:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"found values nested deeper than {DEEPEST} levels")
