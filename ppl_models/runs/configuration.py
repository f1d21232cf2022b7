"""`configuration`: everything that a run depends on, as JSON; `Training`: how its pair is trained."""

from __future__ import annotations

import inspect
import json
import platform
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ppl_models import data as datasets
from ppl_models.data import Data

from . import backends, names
from .objectives import objective_of

FORMAT = "ppl-models run 1"
EXAMPLE_ROWS = 3
Chosen = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long, how fast and by what: the arguments of `ppl_models.inference.fit`, with the command line's defaults.

    Exactly one of epochs and steps. `warmup=None` is 4000 steps, at most a quarter of all, in which the weight of the
    divergences rises to `beta`. `objective` is a text, see `objectives.objective_of`. `tensorboard` writes curves to
    the folder of that name in the run's.
    """

    epochs: float | None = None
    steps: int | None = None
    batch_size: int = 64
    lr: float = 1.5e-3
    schedule: str = "cosine"
    weight_decay: float = 1e-3
    warmup: int | None = None
    clip: float | None = 100.0
    ema: float | None = 0.999
    particles: int = 1
    accumulate: int = 1
    skip: float | None = None
    precision: str = "float32"
    compile: bool | str = "auto"
    workers: int = 0
    patience: int | None = None
    tensorboard: bool = False
    objective: str = "elbo"
    beta: float = 1.0
    every: int | None = None

    def settled(self, size: int, processes: int = 1) -> Training:
        """The same with every open choice made, for `size` rows of training data."""
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"found epochs={self.epochs} and steps={self.steps}, want one of them")
        rows = max(min(self.batch_size, size // processes), 1) * processes
        total = self.steps if self.epochs is None else round(self.epochs * (size // rows) / self.accumulate)
        return replace(self, warmup=min(4000, total // 4) if self.warmup is None else self.warmup)


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
        raise ValueError(
            f"found patience={training.patience} without validation data, want some to judge by; add --validation"
        )
    train, chosen = parts[0], {"model": model, "guide": guide}
    programs = {kind: names.resolve(kind, name, backend) for kind, (name, _) in chosen.items()}
    image = list(train.shape) if len(train.shape) == 3 else None
    known = {"model": _of_data(train, programs["model"], model[1]), "guide": {"image": image}}
    objective_of(training.objective)  # an unknown one is told now
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
    words += _options(asdict(training), asdict(Training()))
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
    """What a model of images has to be told about them: event and likelihood."""
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
    """How a command starts: the program itself, or torchrun with so many processes."""
    many = ["torchrun", "--nproc-per-node", str(processes), "-m", "ppl_models"]
    return many if processes > 1 else ["ppl-models"]


def _options(chosen: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    """The words of a command line for the options of a training; those that are as usual are left out."""
    words = []
    for key, value in chosen.items():
        if value == usual[key]:
            continue
        option = key.replace("_", "-")
        flag = [f"--{option}" if value else f"--no-{option}"]
        words += flag if isinstance(value, bool) else [f"--{option}", str(0 if value is None else value)]
    return words


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
