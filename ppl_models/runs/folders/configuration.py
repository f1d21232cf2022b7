"""`configuration`: everything that a run depends on, as JSON."""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppl_models import data as datasets
from ppl_models.data import Data, Table
from ppl_models.inference.resuming.identity import versions
from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count, Place, Seed

from .. import backends
from ..naming import names, trust
from ..naming.options import Training
from ..naming.refinement import refinement

FORMAT = "ppl-models run 1"
DEFAULTS = 4  # which ones a configuration means where it is silent: those of today; without a number the first
# Sizes that are told only where they are not as by default, as they came with later defaults.
LATER = (
    "base",
    "bijection",
    "coupling",
    "discrete",
    "evidence",
    "feedback",
    "init_loc_fn",
    "init_scale",
    "mean",
    "prior",
)
EXAMPLE_ROWS = 3
Chosen = tuple[str, Mapping[str, Any]]
Parts = tuple[Data, ...] | tuple[Table, ...]


@checked
def configuration(
    *,
    model: Chosen,
    guide: Chosen | None,
    data: str,
    parts: Parts,
    training: Training,
    seed: Seed,
    transform: str = "default",
    validation: bool = False,
    image_size: Count | None = None,
    processes: Count = 1,
    backend: str = "pyro",
    refine: str | None = None,
    weights: Place | None = None,
) -> dict[str, Any]:
    """Everything a run depends on, as JSON: sizes include those taken from the data and the defaults of the classes.

    Args:
        model, guide: (short name or import string, sizes) of each; files may name them from now on (see `trust`). None
            for the guide of a model without latents.
        data: name of the data, loaded as `parts`; transform, validation and image_size are arguments of `data.load`.
        training: how the pair is to be trained, by so many processes.
        seed: of weights, noise and shuffling.
        backend: language of the pair.
        refine: how the guide's draws go on, "dais:steps=8" (`refinement.refined`); None for as they are.
        weights: the folder of a run of the same pair, whose weights are to be the first ones.

    Raises:
        ValueError: unknown names or sizes, or patience without validation data.
    """
    if training.patience is not None and not validation:
        told = f"found patience={training.patience} without validation data"
        raise ValueError(f"{told}, want some to judge by; add --validation")
    train, language = parts[0], backends.backend(backend)
    chosen = names.programs_of({"model": model, "guide": guide})
    trust.received(*(name for name, _ in chosen.values()))
    programs = {kind: names.resolve(kind, name, backend) for kind, (name, _) in chosen.items()}
    known = {"model": {}, "guide": {}} if isinstance(train, Table) else _of_data(train, programs["model"], model[1])
    count = len(train.columns) if isinstance(train, Table) else 1
    if training.objective.partition(":")[0] == "unregularized" and training.beta != 1.0:
        raise ValueError(f"found beta={training.beta} with the objective 'unregularized', want none: it weighs nothing")
    if refine is not None:
        refinement(refine, backend)
        if guide is None:
            raise ValueError(f"found refine={refine!r} for {model[0]}, which has no latents to move; leave it out")
    pair: dict[str, Any] = {"model": None, "guide": None}
    for kind, (name, sizes) in chosen.items():
        given = 0 if kind == "model" else 1 + count
        names.check_sizes(f"{kind} {name!r}", programs[kind], sizes, given)
        if inspect.isclass(programs[kind]):
            usual = names.sizes_of(programs[kind], given)
            found = {key: value for key, value in known[kind].items() if key in usual and value is not None}
            told = {key: v for key, v in usual.items() if v is not inspect.Parameter.empty and key not in LATER}
            usual = {key: v for key, v in told.items() if _is_json(v)}
            sizes = {**usual, **found, **sizes}
        pair[kind] = {"name": name, "import": names.import_string(kind, name, backend), "sizes": dict(sizes)}
    words = _words_of_pair(model, guide, refine) if weights is None else ["--weights", _absolute(Path(weights))]
    words = ["train", *words, "--data", _absolute(data), *training.words()]
    words += ["--transform", transform] if transform != "default" else []
    words += ["--validation"] if validation else []
    words += ["--image-size", str(image_size)] if image_size is not None else []
    words += ["--seed", str(seed), *(["--backend", backend] if backend != "pyro" and weights is None else [])]
    config = {
        "format": FORMAT,
        "defaults": DEFAULTS,
        "command": shlex.join([*launcher(processes), *words]),
        "backend": backend,
        **pair,
        **({} if refine is None else {"refine": refine}),
        **({} if weights is None else {"weights": _absolute(Path(weights))}),
        "data": {
            "name": _absolute(data),
            "transform": transform,
            "validation": validation,
            "image_size": image_size,
            **_meaning(train),
            "example": min(EXAMPLE_ROWS, len(train)),
            "rows": {part.name.rpartition(" ")[2]: len(part) for part in parts},
        },
        "training": asdict(training.settled(len(train), processes)),
        "seed": seed,
        "threads": language.threads(),
        "versions": {"torch": torch.__version__, **versions(language.packages)},
    }
    config["data"]["example"] = _example_rows(config, train)
    return config


def _words_of_pair(model: Chosen, guide: Chosen | None, refine: str | None) -> list[str]:
    """The words of a command line that choose a pair."""
    words = [model[0], *(["-g", guide[0]] if guide else [])]
    for option, chosen in (("-m", model), ("-g", guide)):
        for key, value in chosen[1].items() if chosen else ():
            words += [option, f"{key}={value if isinstance(value, str) else repr(value)}"]
    return words + (["--refine", refine] if refine is not None else [])


def _example_rows(config: Mapping[str, Any], train: Data | Table) -> int:
    """The number of rows that a guide is built on: a few, or all where a pair takes all and not a few."""
    few, collection = config["data"]["example"], {names.package_of(kind, config["backend"]) for kind in names.PACKAGES}
    if {chosen["import"].partition(":")[0] for chosen in names.programs_of(config).values()} <= collection:
        return few
    takes = backends.backend(config["backend"]).takes
    if len(train) <= few + 1 or takes(config, train[: few + 1], few) or not takes(config, train[:], len(train)):
        return few
    return len(train)


def load_for(model: str, backend: str, data: str, **how: Any) -> Parts:
    """The data of this name (`how` as for `data.load`); arrays of a .npz file as the arguments of a model, by name."""
    arguments = names.arguments_of(names.resolve("model", model, backend)) if data.endswith(".npz") else ()
    size = how.pop("size", None)
    table = datasets.load_table(data, arguments, **how) if size is None else None
    return table or datasets.load(data, size=size, arguments=arguments, **how)


def load_parts(config: Mapping[str, Any], name: str | None = None) -> Parts:
    """The data of a configuration, or others by name under the same transform.

    Raises:
        ValueError: data of the configuration's name that are not of its shape and levels any more.
    """
    chosen = config["data"]
    size = chosen["image_size"] if name is None or name.startswith("folder:") else None
    how = {"transform": chosen["transform"], "size": size, "validation": chosen["validation"] and name is None}
    where = chosen["name"] if name is None else name
    parts = load_for(config["model"]["import"], backends.backend_of(config), where, **how)
    kept = [key for key in ("columns", "shape", "levels") if key in chosen or key == "columns"]
    found, wanted = ({key: about.get(key) for key in kept} for about in (_meaning(parts[0]), chosen))
    if name is None and found != wanted:
        differs = next(key for key in kept if found[key] != wanted[key])
        raise ValueError(
            f"{where}: found {differs} {found[differs]}, the run was trained on {wanted[differs]}, by version "
            f"{config.get('versions', {}).get('ppl-models')}; is the file another one? If that version read it "
            "otherwise (images with channels first, zeros and ones in uint8), train anew"
        )
    return parts


def _meaning(data: Data | Table) -> dict[str, Any]:
    """The kind of rows that data are; an entry for each column where they are several arguments."""
    if isinstance(data, Table):
        columns = {name: _kind(column) for name, column in data.columns.items()}
        plain = {"applied": {"kind": "Identity"}, "shape": [], "levels": None, "range": [0.0, 1.0]}
        return {**plain, "columns": columns}
    real = data.levels is None
    return {
        "applied": {"kind": type(data.transform).__name__, **asdict(data.transform)},
        "shape": list(data.shape),
        "levels": data.levels,
        "range": [float(data.values.min()), float(data.values.max())] if real else [0.0, 1.0],
    }


def _kind(column: Tensor) -> dict[str, Any]:
    """The shape of a row, and the type of its entries."""
    return {"shape": list(column.shape[1:]), "type": str(column.dtype).removeprefix("torch.")}


def _of_data(data: Data, model: Any, sizes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Sizes that follow from the data: of a model its event and likelihood, of a guide the shape of an image."""
    image = list(data.shape) if len(data.shape) == 3 else None
    wanted = sizes.get("network") == "conv" or getattr(model, "wants_image", False)
    event = image if wanted and image else prod(data.shape)
    return {"model": {"event": event, "likelihood": likelihood_of(data)}, "guide": {"image": image}}


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


def command(*words: object, config: Mapping[str, Any], processes: int = 1) -> str:
    """A line for a shell that goes on with a run: words, and the trust in its programs that another process needs.

    Brackets in a path are shown as they are, which is how a shell takes them where no file matches.
    """
    found = [*launcher(processes), *map(str, words)]
    for name in dict.fromkeys(_distrusted(kind, config) for kind in names.programs_of(config)):
        found += ["--trust", name] if name is not None else []
    plain = [word.replace("[", "").replace("]", "") for word in found]
    return " ".join(w if shlex.quote(p) == p else shlex.quote(w) for w, p in zip(found, plain, strict=True))


def _distrusted(kind: str, config: Mapping[str, Any]) -> str | None:
    """The name by which a file's program is to be trusted; None for one that every process knows."""
    string, sizes = config[kind]["import"], config[kind]["sizes"]
    try:
        program = names.resolve(kind, string, backends.backend_of(config))
    except Exception:  # noqa: BLE001 (code that is gone, or fails; the line is told all the same)
        return string.partition(":")[0]
    extra = inspect.isclass(program) and not set(sizes) <= set(inspect.signature(program).parameters)
    return string if extra and trust.is_known(string) else trust.needed(string, program)


def _absolute(name: str | Path) -> str:
    """A path of the user's own does not depend on where the run is loaded; other names of data stay."""
    if isinstance(name, str) and name.startswith("folder:"):
        return f"folder:{Path(name.removeprefix('folder:')).expanduser().resolve()}"
    path = isinstance(name, Path) or name.endswith((".npy", ".npz"))
    return str(Path(name).expanduser().resolve()) if path else name


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
