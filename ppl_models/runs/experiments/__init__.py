"""What recipes ask of their runs: one experiment a file, with a function `analyse` and perhaps a callback `watch`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import names

if TYPE_CHECKING:
    from ..folder import LoadedRun

    Analyse = Callable[[Mapping[str, LoadedRun], Mapping[str, Any], Path, int, Callable[[str], None]], dict[str, Any]]

EXPERIMENTS = {
    "bounds": "bounds",
    "blur": "blur",
    "discrete": "discrete",
    "information-preference": "preference",
    "sequential": "sequential",
}


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        analyse: (runs, analysis, folder, seed, report) -> rows by name; it writes pictures to the folder.
        watch: (model, guide, parts, analysis) -> a callback of the training, or None.
    """

    analyse: Analyse
    watch: Callable[..., Any] | None = None


def experiment_of(name: str) -> Experiment:
    """An experiment by name.

    Raises:
        ValueError: an unknown one.
    """
    if name not in EXPERIMENTS:
        near = names.nearest(name, EXPERIMENTS)
        raise ValueError(
            f"experiment {name!r} is unknown; want one of {', '.join(EXPERIMENTS)}"
            + (f"; did you mean {near!r}?" if near else "")
        )
    module = importlib.import_module(f"{__name__}.{EXPERIMENTS[name]}")
    return Experiment(module.analyse, getattr(module, "watch", None))


def option(analysis: Mapping[str, Any], name: str, usual: Any) -> Any:
    """What a recipe says in its section [analysis], of the type of the usual value.

    Raises:
        ValueError: a value of another type.
    """
    value = analysis.get(name, usual)
    if usual is not None and not isinstance(value, type(usual)):
        raise ValueError(f"analysis.{name}: found {value!r}, want a value like {usual!r}")
    return value
