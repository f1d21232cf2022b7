"""Experiment "bounds": the ELBO and NLL of test data for every run, their differences, and pictures of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyro

from ppl_models.inference import Evaluation

from ...evaluating import evaluate_run
from ...folders.loaded import LoadedRun
from ...pages.pictures import picture_run
from . import spread

OPTIONS = {"data": None, "particles": 100}


def analyse(
    runs: Mapping[str, LoadedRun], analysis: Mapping[str, Any], folder: Path, seed: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """`evaluate` on `analysis.data` test rows (`spread`) with `analysis.particles` importance samples.

    The row of a run has "minus": for each run before it that is of the same data, the difference of the two NLLs over
    the same rows, in nats per datum, and its standard error (`Difference`).
    """
    rows: dict[str, dict[str, Any]] = {}
    evaluations: dict[str, Evaluation] = {}
    for name, run in runs.items():
        test = run.load_data()[-1]
        count, particles = analysis["data"], analysis["particles"]
        found = evaluate_run(run, spread(test, count), particles, seed, progress=False)
        pyro.set_rng_seed(seed)
        for note in picture_run(run, test[:20]):
            report(f"{name}: {note}")
        rows[name] = {**found.to_dict(), "minus": {}}
        report(f"{name}: negative ELBO {-found.elbo:.2f}, NLL {found.nll:.2f} nats per datum")
        for other, before in evaluations.items():
            same = runs[other].config["data"] == run.config["data"]
            if same and found.nlls is not None and before.nlls is not None:
                difference = found - before
                rows[name]["minus"][other] = [difference.nll, difference.error]
                report(f"{name} minus {other}: {difference}")
        evaluations[name] = found
    return rows
