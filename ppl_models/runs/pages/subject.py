"""`Subject`: a run that a page is about, with its test rows, codes and files, looked up when they are needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
import torch

from ppl_models.data import Data, Table

from ..backends import backend
from ..folders.loaded import LoadedRun
from .html import missing
from .pictures import to_unit

FEW, SOME = 8, 200  # rows that are shown, and rows whose codes tell which units are active


@dataclass
class Subject:
    """A run on a page.

    Attributes:
        run: the pair with its folder.
        name: what it is called where there are two.
        patience: seconds after which what is drawn of the model is left out; None for as long as it takes.
        test: rows of data, where they are at hand.
    """

    run: LoadedRun
    name: str
    patience: float | None = None
    test: Data | Table | None = None

    def __post_init__(self) -> None:
        self.spent = 0.0

    @cached_property
    def rows(self) -> Any:
        """The first test rows of a single column, as a model takes them, by the seed of the run."""
        data = self.run.load_data()[-1] if self.test is None else self.test
        if not isinstance(data, Data):
            columns = ", ".join(data.columns)
            raise ValueError(f"the data are the arguments {columns} of the model, and no rows of one")
        with torch.random.fork_rng([]):  # a transform may draw, as that of binarized images does
            torch.default_generator.manual_seed(self.run.config["seed"])
            return data[: min(SOME, len(data))]

    @cached_property
    def few(self) -> Any:
        """Those that are shown."""
        return self.rows[:FEW]

    @cached_property
    def latents(self) -> list[str]:
        """Their names in the order in which the model draws them.

        Raises:
            ValueError: there are none.
        """
        found = backend(self.run.backend).latents(self.run.model, self.run.example)
        if not found:
            raise ValueError("the model has no latents")
        return found

    @cached_property
    def codes(self) -> dict[str, Any]:
        """Means of the latents of the test rows."""
        return self.run.encode(self.rows)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of an image; None where the rows are none."""
        shape = tuple(self.run.config["data"]["shape"])
        return shape if len(shape) == 3 and shape[0] in (1, 3) else None

    def values(self, y: Any) -> np.ndarray:
        """Rows (..., D) as they are shown, (..., D): images as grey levels in [0, 1]."""
        found = torch.from_numpy(np.array(y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else y))
        flat = found.reshape(-1, self.few[0].numel())
        shown = to_unit(self.run.config, flat) if self.shape else flat
        return shown.reshape(*found.shape[: found.dim() - self.few.dim() + 1], -1).numpy()

    def evaluations(self) -> dict[str, dict[str, Any]]:
        """File name without its ending -> what the evaluations of the run have written."""
        found = {}
        for path in sorted(self.run.folder.glob("evaluation*.json")):
            try:
                read = json.loads(path.read_text(encoding="utf-8"))
            except (ValueError, OSError, RecursionError):
                continue
            if isinstance(read, dict):
                found[path.stem] = read
        return found

    def attempt(self, draw: Callable[[Subject], str], costly: bool = False) -> str:
        """What a section shows of this run, or why it does not: a page is worth having without one of its parts."""
        if costly and self.patience is not None and self.spent > self.patience:
            return missing(f"what stands above took {self.spent:.0f} s; `ppl-models report RUN` draws all of it")
        began = perf_counter()
        try:
            return draw(self)
        except Exception as error:  # noqa: BLE001 (of a program of anyone's)
            return missing(" ".join(str(error).split()) or type(error).__name__)
        finally:
            self.spent += perf_counter() - began
