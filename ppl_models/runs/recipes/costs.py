"""`costs()`: what the systems of the recipes cost, as `benchmarks.cost` has measured it, by system."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .recipe import HOME

PLACE = HOME / "costs"
FILES = "images-28", "cifar10"
HEADINGS = "system", "sizes", "weights, model + guide", "a step", "1000 samples", "IWAE-1000 of 1000 images"
ABOUT = """Printed from `ppl_models/recipes/costs`, measured by `python -m benchmarks.cost` at the sizes of the recipes,
on one thread; seconds are of the processor. A step is of 128 rows, compiled by XLA; samples are by `ancestral` and the
bound of 1000 importance samples by `evaluate`, scaled from fewer images where the files say so."""


def costs() -> dict[str, Mapping[str, Any]]:
    """System -> what it costs, those of grey images before those of colour."""
    files = [json.loads((PLACE / f"{name}.json").read_text()) for name in FILES]
    return {name: row for file in files for name, row in file["systems"].items()}


def cells(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row in words, see `HEADINGS`."""
    weights = f"{row['model_weights'] / 1e6:.2f} + {row['guide_weights'] / 1e6:.2f} M"
    samples = "not timed" if row["samples_s"] is None else f"{row['samples_s']:.3g} s"
    exact = "" if row["guide_weights"] else ", exact"
    return name, row["about"], weights, f"{row['step_ms']:.0f} ms", samples, f"{row['bound_s']:.3g} s{exact}"
