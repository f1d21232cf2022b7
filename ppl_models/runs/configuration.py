"""From a configuration to a pair: the exact choices of a run as JSON, and the model and guide they stand for."""

from __future__ import annotations

import inspect
import json
import platform
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor, nn

from ppl_models import data as datasets
from ppl_models.data import Data

from . import names
from .objectives import objective_of

FORMAT = "ppl-models run 1"
EXAMPLE_ROWS = 3


@dataclass(frozen=True)
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
    model: str,
    model_sizes: Mapping[str, Any],
    guide: str,
    guide_sizes: Mapping[str, Any],
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

    Raises:
        ValueError: unknown names or sizes, or patience without validation data.
    """
    if training.patience is not None and not validation:
        raise ValueError(
            f"found patience={training.patience} without validation data, want some to judge by; add --validation"
        )
    train = parts[0]
    sizes = {"model": dict(model_sizes), "guide": dict(guide_sizes)}
    programs = {"model": names.resolve("model", model, backend), "guide": names.resolve("guide", guide, backend)}
    shape = list(train.shape) if len(train.shape) == 3 else None
    told = _of_data(train, programs["model"], sizes["model"])
    objective_of(training.objective)  # an unknown one is told now
    if training.objective.partition(":")[0] == "unregularized" and training.beta != 1.0:
        raise ValueError(f"found beta={training.beta} with the objective 'unregularized', want none: it weighs nothing")
    for kind, (given, found) in {"model": (0, told), "guide": (2, {"image": shape})}.items():
        label = f"{kind} {model if kind == 'model' else guide!r}"
        names.check_sizes(label, programs[kind], sizes[kind], given)
        if inspect.isclass(programs[kind]):
            known = names.sizes_of(programs[kind], given)
            defaults = {k: v for k, v in known.items() if v is not inspect.Parameter.empty and _is_json(v)}
            found = {k: v for k, v in found.items() if k in known and v is not None}
            sizes[kind] = {**defaults, **found, **sizes[kind]}
    low, high = (float(train.values.min()), float(train.values.max())) if train.levels is None else (0.0, 1.0)
    kind = type(train.transform).__name__
    words = _command(model, model_sizes, guide, guide_sizes, data, training, seed, transform, validation, image_size)
    words = [*launcher(processes), *words, *(["--backend", backend] if backend != "pyro" else [])]
    return {
        "format": FORMAT,
        "command": shlex.join(words),
        "backend": backend,
        "model": {"name": model, "import": names.import_string("model", model, backend), "sizes": sizes["model"]},
        "guide": {"name": guide, "import": names.import_string("guide", guide, backend), "sizes": sizes["guide"]},
        "data": {
            "name": _absolute(data),
            "transform": transform,
            "applied": {"kind": kind, **asdict(train.transform)},
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


def build_pair(config: Mapping[str, Any], example: Tensor, device: str | torch.device = "cpu") -> tuple[Any, Any]:
    """The untrained (model, guide) of a configuration; the seed makes their first weights repeatable.

    Args:
        config: of `configuration`; its backend is that of the pair.
        example: rows of data.
        device: where to have it.

    Raises:
        ValueError: code that is not there, sizes that do not fit, a device that is not there.
    """
    if backend_of(config) == "numpyro":
        from . import numpyro as ports

        return ports.build_pair(config, example, device)
    try:
        example = example.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from None
    pyro.set_rng_seed(config["seed"])
    model = _program("model", config["model"], (), device)
    return model, _program("guide", config["guide"], (model, example), device)


def backend_of(config: Mapping[str, Any]) -> str:
    """ "pyro" or "numpyro"; runs from before there was a choice are Pyro's."""
    return config.get("backend", "pyro")


def in_backend(config: Mapping[str, Any], backend: str | None) -> dict[str, Any]:
    """The configuration with the same programs of another backend; as it is for None or its own.

    Raises:
        ValueError: a backend that is none, or programs whose ports are not known.
    """
    if backend not in (None, *names.BACKENDS):
        raise ValueError(f"found backend {backend!r}, want {' or '.join(names.BACKENDS)}")
    if backend in (None, backend_of(config)):
        return dict(config)
    pair = {}
    for kind in ("model", "guide"):
        pair[kind] = {**config[kind], "import": names.translated(kind, config[kind]["import"], backend)}
    return {**config, "backend": backend, **pair}


def load_parts(config: Mapping[str, Any], name: str | None = None) -> tuple[Data, ...]:
    """The data of a configuration, or others by name under the same transform."""
    chosen = config["data"]
    size = chosen["image_size"] if name is None or name.startswith("folder:") else None
    validation = chosen["validation"] and name is None
    return datasets.load(name or chosen["name"], validation=validation, transform=chosen["transform"], size=size)


def _program(kind: str, chosen: Mapping[str, Any], args: tuple[Any, ...], device: str | torch.device) -> Callable:
    label = f"{kind} {chosen['name']!r}"
    found = names.resolve(kind, chosen["import"])
    names.check_sizes(label, found, chosen["sizes"], len(args))
    if inspect.isclass(found):
        args = args[:1] if issubclass(found, AutoGuide) else args  # Pyro's own look at the data when first called
        found = names.build(label, found, args, names.tuples(chosen["sizes"]))
    return found.to(device) if isinstance(found, nn.Module) else found


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


def _command(
    model: str,
    model_sizes: Mapping[str, Any],
    guide: str,
    guide_sizes: Mapping[str, Any],
    data: str,
    training: Training,
    seed: int,
    transform: str,
    validation: bool,
    image_size: int | None,
) -> list[str]:
    """The words that make this run again; what is as by default is left out."""
    words = ["train", model, "-g", guide, "--data", _absolute(data)]
    for option, sizes in (("-m", model_sizes), ("-g", guide_sizes)):
        for key, value in sizes.items():
            words += [option, f"{key}={value if isinstance(value, str) else repr(value)}"]
    usual = asdict(Training())
    for key, value in asdict(training).items():
        if key in ("epochs", "steps") and value is None:
            continue
        if value != usual[key]:
            option = key.replace("_", "-")
            flag = [f"--{option}" if value else f"--no-{option}"]
            words += flag if isinstance(value, bool) else [f"--{option}", str(0 if value is None else value)]
    words += ["--transform", transform] if transform != "default" else []
    words += ["--validation"] if validation else []
    words += ["--image-size", str(image_size)] if image_size is not None else []
    return [*words, "--seed", str(seed)]


def _absolute(name: str) -> str:
    """A path of the user's own data does not depend on where the run is loaded."""
    if name.startswith("folder:"):
        return f"folder:{Path(name.removeprefix('folder:')).expanduser().resolve()}"
    return str(Path(name).expanduser().resolve()) if name.endswith((".npy", ".npz")) else name


def _versions(backend: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("pyro-ppl", "ppl-models") if backend == "pyro" else ("jax", "numpyro", "equinox", "ppl-models"):
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
