"""Experiment "relaxed-bits": bounds of the relaxed model, and beside them those of the bits themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ppl_models.inference import evaluate
from ppl_models.parts import Discretized

from ...folders.loaded import LoadedRun
from . import spread

OPTIONS = {"data": None, "particles": 1000}


def analyse(
    runs: Mapping[str, LoadedRun], analysis: Mapping[str, Any], folder: Path, seed: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """`evaluate` on `analysis.data` test rows (`spread`) of each pair, and of both of its programs `Discretized`.

    The two are bounds of two models with the same weights. Only those of the bits are comparable with bounds of other
    models of bits, and those of the relaxed model with none of these.
    """
    rows = {}
    for name, run in runs.items():
        x = spread(run.load_data()[-1], analysis["data"])
        pairs = {
            "relaxed": (run.model, run.guide),
            "bits": (Discretized(run.model), Discretized(run.guide)),
        }
        how = {"particles": analysis["particles"], "seed": seed, "progress": False}
        found = {kind: evaluate(*pair, x, **how) for kind, pair in pairs.items()}
        rows[name] = {kind: each.to_dict() for kind, each in found.items()}
        for kind, each in found.items():
            report(f"{name}, {kind}: negative ELBO {-each.elbo:.2f}, NLL {each.nll:.2f} nats per datum")
    return rows
