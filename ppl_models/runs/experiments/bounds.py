"""Experiment "bounds": the ELBO and NLL of test data for every run, and pictures of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyro

from ..folder import LoadedRun
from ..pictures import picture_run
from ..training import evaluate_run

OPTIONS = {"data": None, "particles": 100}


def analyse(
    runs: Mapping[str, LoadedRun], analysis: Mapping[str, Any], folder: Path, seed: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """`evaluate` on the first `analysis.data` test rows with `analysis.particles` importance samples."""
    rows = {}
    for name, run in runs.items():
        test = run.load_data()[-1]
        count, particles = analysis["data"], analysis["particles"]
        found = evaluate_run(run, test.subset(slice(0, count)), particles, seed, progress=False)
        pyro.set_rng_seed(seed)
        for note in picture_run(run, test[:20]):
            report(f"{name}: {note}")
        rows[name] = found.to_dict()
        report(f"{name}: negative ELBO {-found.elbo:.2f}, NLL {found.nll:.2f} nats per datum")
    return rows
