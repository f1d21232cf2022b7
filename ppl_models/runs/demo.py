"""`demo(folder)`: one generative model, three guides; what the structure of a guide is worth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro

from ppl_models import data as datasets
from ppl_models.inference import evaluate
from ppl_models.inference.files import write_json
from ppl_models.views import plots

from .configuration import configuration
from .folder import staged
from .options import Training
from .pictures import picture_run, reconstruct, to_unit
from .training import train

MODEL = ("sere-vae", {"layers": 4, "latent": 8, "hidden": 64})
GUIDES = {"mean-field": {"hidden": 64}, "ladder": {"hidden": 64}, "self-reflective": {"hidden": 64}}
STEPS = 1500
PARTICLES = 200
BOUNDS, COMPARISON = "bounds.json", "comparison.png"


def demo(
    folder: str | Path,
    steps: int | None = None,
    seed: int = 0,
    progress: bool = True,
    report: Callable[[str, dict[str, Any]], None] = lambda name, row: None,
) -> dict[str, dict[str, Any]]:
    """Train the same SeRe-VAE, from the same weights, with each guide on `digits`; write runs, bounds and pictures.

    Args:
        folder: must not exist, or be empty; each guide gets a run folder in it.
        steps, seed, progress: of each training.
        report: called with a guide's name and its row, once it is done.

    Returns:
        guide -> {"elbo", "nll", "nll_error", "kl" (sum over layers), "seconds"}, nats per test datum.
    """
    folder = Path(folder)
    parts = datasets.load("digits")
    rows: dict[str, dict[str, Any]] = {}
    shown = {"data": parts[-1][:10]}
    training = Training(steps=steps or STEPS, batch_size=64, lr=5e-3, warmup=2 * (steps or STEPS) // 3)
    with staged(folder, proof=BOUNDS) as staging:
        for guide, guide_sizes in GUIDES.items():
            chosen = guide, guide_sizes
            config = configuration(model=MODEL, guide=chosen, data="digits", parts=parts, training=training, seed=seed)
            run = train(config, parts, staging / guide, progress=progress)
            found = evaluate(run.model, run.guide, parts[-1], particles=PARTICLES, seed=seed, progress=False)
            write_json(run.folder / "evaluation.json", {"data": "digits", **found.to_dict()})
            pyro.set_rng_seed(seed)
            picture_run(run, parts[-1][:20])
            shown[guide] = reconstruct(run, parts[-1][:10])
            bounds = {"elbo": found.elbo, "nll": found.nll, "nll_error": found.nll_error}
            rows[guide] = {**bounds, "kl": sum(found.kl.values()), "seconds": run.seconds}
            report(guide, rows[guide])
        images = {label: to_unit(run.config, x) for label, x in shown.items()}
        figure = plots.comparison(
            rows, images, run.config["data"]["shape"], f"{MODEL[0]} on digits: one model, {len(rows)} guides"
        )
        plots.save_figure(figure, staging / COMPARISON)
        write_json(staging / BOUNDS, {"particles": PARTICLES, "seed": seed, "guides": rows})
    return rows
