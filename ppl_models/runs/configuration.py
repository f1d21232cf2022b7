"""`configuration`: everything that a run depends on, as JSON."""

from __future__ import annotations

import inspect
import json
import platform
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ppl_models import data as datasets
from ppl_models.data import Data

from . import backends, names
from .options import Training

FORMAT = "ppl-models run 1"
EXAMPLE_ROWS = 3
Chosen = tuple[str, Mapping[str, Any]]


def configuration(
    *,
    model: Chosen,
    guide: Chosen,
    data: str,
    parts: tuple[Data, ...],
    training: Training,
    seed: int,
    transform: str = "default",
    validation: bool = False,
    image_size: int | None = None,
    processes: int = 1,
    backend: str = "pyro",
) -> dict[str, Any]:
    """Everything a run depends on, as JSON: sizes include those taken from the data and the defaults of the classes.

    Args:
        model, guide: (short name or import string, sizes) of each.
        data: name of the data, loaded as `parts`; transform, validation and image_size are arguments of `data.load`.
        training: how the pair is to be trained, by so many processes.
        seed: of weights, noise and shuffling.
        backend: language of the pair.

    Raises:
        ValueError: unknown names or sizes, or patience without validation data.
    """
    if training.patience is not None and not validation:
        told = f"found patience={training.patience} without validation data"
        raise ValueError(f"{told}, want some to judge by; add --validation")
    train, chosen = parts[0], {"model": model, "guide": guide}
    programs = {kind: names.resolve(kind, name, backend) for kind, (name, _) in chosen.items()}
    image = list(train.shape) if len(train.shape) == 3 else None
    known = {"model": _of_data(train, programs["model"], model[1]), "guide": {"image": image}}
    if training.objective.partition(":")[0] == "unregularized" and training.beta != 1.0:
        raise ValueError(f"found beta={training.beta} with the objective 'unregularized', want none: it weighs nothing")
    pair = {}
    for kind, (name, sizes) in chosen.items():
        given = 0 if kind == "model" else 2
        names.check_sizes(f"{kind} {name!r}", programs[kind], sizes, given)
        if inspect.isclass(programs[kind]):
            usual = names.sizes_of(programs[kind], given)
            found = {key: value for key, value in known[kind].items() if key in usual and value is not None}
            usual = {key: v for key, v in usual.items() if v is not inspect.Parameter.empty and _is_json(v)}
            sizes = {**usual, **found, **sizes}
        pair[kind] = {"name": name, "import": names.import_string(kind, name, backend), "sizes": dict(sizes)}
    low, high = (float(train.values.min()), float(train.values.max())) if train.levels is None else (0.0, 1.0)
    words = ["train", model[0], "-g", guide[0], "--data", _absolute(data)]
    for option, (_, sizes) in (("-m", model), ("-g", guide)):
        for key, value in sizes.items():
            words += [option, f"{key}={value if isinstance(value, str) else repr(value)}"]
    words += training.words()
    words += ["--transform", transform] if transform != "default" else []
    words += ["--validation"] if validation else []
    words += ["--image-size", str(image_size)] if image_size is not None else []
    words += ["--seed", str(seed), *(["--backend", backend] if backend != "pyro" else [])]
    return {
        "format": FORMAT,
        "command": shlex.join([*launcher(processes), *words]),
        "backend": backend,
        **pair,
        "data": {
            "name": _absolute(data),
            "transform": transform,
            "applied": {"kind": type(train.transform).__name__, **asdict(train.transform)},
            "validation": validation,
            "image_size": image_size,
            "shape": list(train.shape),
            "levels": train.levels,
            "range": [low, high],
            "example": min(EXAMPLE_ROWS, len(train)),
            "rows": {part.name.rpartition(" ")[2]: len(part) for part in parts},
        },
        "training": asdict(training.settled(len(train), processes)),
        "seed": seed,
        "versions": _versions(backend),
    }


def load_parts(config: Mapping[str, Any], name: str | None = None) -> tuple[Data, ...]:
    """The data of a configuration, or others by name under the same transform."""
    chosen = config["data"]
    size = chosen["image_size"] if name is None or name.startswith("folder:") else None
    validation = chosen["validation"] and name is None
    return datasets.load(name or chosen["name"], validation=validation, transform=chosen["transform"], size=size)


def _of_data(data: Data, model: Any, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of a model that follow from its data: event and likelihood."""
    image = sizes.get("network") == "conv" or getattr(model, "wants_image", False)
    event = list(data.shape) if image and len(data.shape) == 3 else data.values.shape[1]
    return {"event": event, "likelihood": likelihood_of(data)}


def likelihood_of(data: Data) -> str:
    """ "bernoulli" for zeros and ones, "logistic:LEVELS" for grey levels as they are, "gaussian" for real numbers."""
    transform = type(data.transform).__name__
    if transform == "Binarize" or data.levels == 2 and transform == "Scale":
        return "bernoulli"
    if transform == "Scale":
        return f"logistic:{data.levels}"
    if transform == "Identity" and bool(((data.values == 0) | (data.values == 1)).all()):
        return "bernoulli"
    return "gaussian"


def launcher(processes: int) -> list[str]:
    """Start of a command: the program itself, or torchrun with so many processes."""
    many = ["torchrun", "--nproc-per-node", str(processes), "-m", "ppl_models"]
    return many if processes > 1 else ["ppl-models"]


def _absolute(name: str) -> str:
    """A path of the user's own data does not depend on where the run is loaded."""
    if name.startswith("folder:"):
        return f"folder:{Path(name.removeprefix('folder:')).expanduser().resolve()}"
    return str(Path(name).expanduser().resolve()) if name.endswith((".npy", ".npz")) else name


def _versions(backend: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version(), "torch": torch.__version__}
    for package in backends.backend(backend).packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that is not installed
            found[package] = None
    return found


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
