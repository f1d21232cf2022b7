"""`experiment_of(name)`: an analysis of the runs of a recipe; each is a file with a function `analyse` and more."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from ppl_models.parts.arguments.checked import check
from ppl_models.parts.arguments.kinds import Number, Text

from ...naming import names

if TYPE_CHECKING:
    from ppl_models.data import Data

    from ...folders.loaded import LoadedRun

    Analyse = Callable[[Mapping[str, LoadedRun], Mapping[str, Any], Path, int, Callable[[str], None]], dict[str, Any]]

EXPERIMENTS = {
    "bounds": "bounds",
    "blur": "blur",
    "discrete": "discrete",
    "information-preference": "preference",
    "semi-supervised": "semi_supervised",
    "relaxed-bits": "relaxed_bits",
    "sequential": "sequential",
    "two-stage": "two_stage",
}


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        analyse: (runs, analysis, folder, seed, report) -> rows by name; it writes pictures to the folder.
        options: what may be in the section [analysis], with the usual values; None stands for all that there is.
        watch: (model, guide, parts, analysis) -> a callback of the training, or None.
        check: (runs as the recipe has them, analysis), before anything is trained; raises ValueError.
        trains: whether it asks something of runs; one that does not takes none.
    """

    analyse: Analyse
    options: Mapping[str, Any]
    watch: Callable[..., Any] | None = None
    check: Callable[..., None] | None = None
    trains: bool = True

    def settled(self, analysis: Mapping[str, Any]) -> dict[str, Any]:
        """The options with the values of a recipe.

        Raises:
            ValueError: an option that there is not, or a value of another kind than the usual one.
        """
        for name, value in analysis.items():
            if name not in self.options:
                raise ValueError(f"analysis.{name}: want some of {', '.join(self.options)}")
            usual = self.options[name]
            whole = Number(whole=True, least=1)
            kind = {str: Text, float: Number(least=0), NoneType: whole}.get(type(usual), whole)
            check(f"analysis.{name}", name, value, kind, Parameter.empty if usual is None else usual)
        return {**self.options, **analysis}


def at_least(least: int, analysis: Mapping[str, Any], *options: str) -> None:
    """Raise ValueError if an option is less; None stands for all that there is."""
    for name in options:
        if analysis[name] is not None and analysis[name] < least:
            raise ValueError(f"analysis.{name}: found {analysis[name]}, want at least {least}")


def spread(part: Data, count: int | None) -> Data:
    """So many rows of data, evenly spaced, or all for None: in some files the first rows are not like the rest.

    (An image of the first 2000 test rows of static MNIST has 100 changes from pixel to pixel, one of all rows 114.)
    """
    return part if count is None or count >= len(part) else part.subset([k * len(part) // count for k in range(count)])


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
    more = (getattr(module, name, None) for name in ("watch", "check"))
    return Experiment(module.analyse, module.OPTIONS, *more, getattr(module, "TRAINS", True))
