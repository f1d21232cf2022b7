"""`read_file`: what a run's config.json holds, each field of the type that it is to be; `row_types`: of its columns."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import torch

from ppl_models import data as datasets

DEEPEST = 20  # lists in lists: a size is a number, a word, or a few of such
NUMBER = (int, float)
PROGRAM = {"name": str, "import": str, "sizes": dict}
DATA = {
    "name": str,
    "transform": str,
    "validation": bool,
    "image_size": (int, NoneType),
    "shape": [int],
    "levels": (int, NoneType),
    "range": [NUMBER],
    "example": int,
    "applied": dict,
}
FIELDS = {"model": PROGRAM, "guide": PROGRAM, "data": DATA, "training": dict, "seed": int}
COLUMN = {"shape": [int], "type": str}
TYPES = {str(t).removeprefix("torch."): t for t in vars(torch).values() if isinstance(t, torch.dtype)}
TRANSFORMS = {kind.__name__: kind for kind in get_args(datasets.Transform)}


def read_file(path: Path, form: str) -> dict[str, Any]:
    """The contents of a configuration file.

    Args:
        path: where it is.
        form: the value of its field "format".

    Raises:
        ValueError: no JSON, a file of another program, a field that it lacks or that is of another type.
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
        _check(found, FIELDS, "")
        data = found["data"]
        for name, column in dict(data.get("columns") or {}).items():
            _check(column, COLUMN, f"data.columns.{name}.")
            if column["type"] not in TYPES:
                raise ValueError(
                    f"found data.columns.{name}.type = {reprlib.repr(column['type'])}, want a type of torch's"
                )
        if data["example"] < 1 or len(data["range"]) != 2 or min(data["shape"], default=1) < 1:
            raise ValueError("found data.example, data.range or data.shape that are of no rows")
        transform(data["applied"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
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
    if not all(isinstance(value, (int, float, NoneType)) for value in options.values()):
        raise ValueError(f"found data.applied of {kind.__name__} with other values than numbers")
    return kind(**options)


def _check(found: Any, fields: Mapping[str, Any], where: str) -> None:
    """Raise ValueError for a field that is not there, or of another type."""
    if not isinstance(found, dict):
        raise ValueError(f"found {where.rstrip('.')} = {reprlib.repr(found)}, want a mapping")
    for key, want in fields.items():
        if key not in found:
            raise ValueError(f"it lacks {key!r}")
        value = found[key]
        if isinstance(want, dict):
            _check(value, want, f"{where}{key}.")
            continue
        (kinds,) = want if isinstance(want, list) else (want,)
        items = value if isinstance(want, list) and isinstance(value, list) else [value]
        good = isinstance(value, list) or not isinstance(want, list)
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        if not good or not all(isinstance(i, kinds) and (bool in kinds or not isinstance(i, bool)) for i in items):
            told = " or ".join("None" if kind is NoneType else kind.__name__ for kind in kinds)
            told = f"a list of {told}" if isinstance(want, list) else told
            raise ValueError(f"found {where}{key} = {reprlib.repr(value)}, want {told}")


def _check_depth(found: Any) -> None:
    """Raise ValueError for what is nested too deep to be a size."""
    level, depth = [found], 0
    while level := [
        i for v in level if isinstance(v, (dict, list)) for i in (v.values() if isinstance(v, dict) else v)
    ]:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"found values nested deeper than {DEEPEST} levels")
