"""`Backend`: what a run asks of the language of its pair, and `backend(name)`, which gives that of "pyro" or "numpyro".

Here, and nowhere else under `runs` and `cli`, is it known which languages there are.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ppl_models.data import Data
from ppl_models.inference import Evaluation

from .. import names

BACKENDS = ("pyro", "numpyro")
Device = str | torch.device
Pair = tuple[Any, Any]


class Backend(Protocol):
    """One language: a module of this folder. Programs and arrays are the language's, `Data` and `Tensor` are torch's.

    Attributes:
        packages: those whose versions a run writes down.
    """

    packages: tuple[str, ...]

    def check(self, task: str, processes: int = 1) -> None:
        """Raise ValueError for a task that the language cannot do: "train" with processes, "information", "chain"."""

    def set_threads(self, threads: int) -> None:
        """Compute on so many CPU threads."""

    def build(self, config: Mapping[str, Any], rows: Tensor, device: Device) -> tuple[Any, Any, Any]:
        """(model, guide, rows as its arrays), untrained: the seed of a configuration makes first weights repeatable."""

    def train(
        self, pair: Pair, data: Data, device: Device, validation: Data | None, **how: Any
    ) -> tuple[Any, Any, float]:
        """(model, guide, seconds) after a training: `how` are arguments of `ppl_models.inference.fit`."""

    def load(self, path: Path, pair: Pair, example: Any) -> Pair:
        """The pair with the weights of a checkpoint, which either language may have written."""

    def evaluate(self, pair: Pair, example: Any, data: Data, **how: Any) -> Evaluation:
        """See `ppl_models.inference.evaluate`; on the device of the example."""

    def sample(self, model: Any, example: Any, n: int, draws: bool) -> Tensor:
        """(n, D): n data that a model draws (or means of their distributions), whatever it observes."""

    def reconstruct(self, pair: Pair, example: Any, x: Tensor) -> Tensor:
        """(n, D): the means of the data given latents that the guide draws for x."""


def backend(name: str) -> Backend:
    """The language of this name, imported when it is asked for.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in BACKENDS:
        raise ValueError(f"found backend {name!r}, want {' or '.join(BACKENDS)}")
    return importlib.import_module(f"{__name__}.{name}")


def backend_of(config: Mapping[str, Any]) -> str:
    """The name of a configuration's language; runs from before there was a choice are Pyro's."""
    return config.get("backend", "pyro")


def in_backend(config: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    """The configuration with the same programs in another language; as it is for None or its own.

    Raises:
        ValueError: a language that there is not, or programs whose ports are not known.
    """
    if name is None or name == backend_of(config):
        return dict(config)
    backend(name)
    pair = {}
    for kind in ("model", "guide"):
        pair[kind] = {**config[kind], "import": translated(kind, config[kind]["import"], name)}
    return {**config, "backend": name, **pair}


def translated(kind: str, string: str, name: str) -> str:
    """The import string of the same program in another language.

    Raises:
        ValueError: a program that is not of the collection: only its author knows its port.

    >>> translated("guide", "guides:Ladder", "numpyro"), translated("model", "ppl_models.numpyro:VAE", "pyro")
    ('guides.numpyro:Ladder', 'ppl_models:VAE')
    """
    package, _, path = string.partition(":")
    if package not in {names.package_of(kind, known) for known in BACKENDS}:
        raise ValueError(
            f"{kind} {string!r}: found a program of your own, want one of the collection, whose port in {name} is "
            f"known; try the backend that the run was trained with"
        )
    return f"{names.package_of(kind, name)}:{path}"
