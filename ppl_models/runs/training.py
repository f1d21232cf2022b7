"""From a configuration to a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import nn

from ppl_models.data import Data
from ppl_models.inference import Evaluation, evaluate, fit, write_json

from . import names
from .build import build_pair
from .folder import LoadedRun, staged, write_start


def train(
    config: Mapping[str, Any],
    parts: tuple[Data, ...],
    folder: str | Path,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> LoadedRun:
    """Build the pair of a configuration, fit it, and leave configuration, history and checkpoint in a folder.

    Args:
        config: of `build.configuration`.
        parts: (train, test), or (train, validation, test).
        folder: must not exist, or be empty; it appears when there is a checkpoint.
        device: where to train.
        progress: show a bar.

    Raises:
        ValueError: what the programs, the data or `fit` object to.
    """
    pyro.set_rng_seed(config["seed"])
    example = parts[0][: config["data"]["example"]]
    with staged(Path(folder)) as staging:
        model, guide = build_pair(config, example, device)
        write_start(staging, config, example)
        result = fit(
            model,
            guide,
            parts[0].to(device),
            validation=parts[1].to(device) if len(parts) == 3 else None,
            folder=staging,
            seed=config["seed"],
            progress=progress,
            **config["training"],
        )
    for program in (model, guide):
        if isinstance(program, nn.Module):
            program.eval()
    return LoadedRun(model, guide, dict(config), Path(folder), example.to(device), result.seconds)


def evaluate_run(
    run: LoadedRun, test: Data, particles: int, seed: int = 0, other: str | None = None, progress: bool = True
) -> Evaluation:
    """Bound the log-likelihood of all of `test`, and write evaluation.json in the folder of the run.

    Args:
        run: the pair and its folder.
        test: data to evaluate on.
        particles: importance samples a datum.
        seed: of the draws.
        other: name of the data if they are not the run's own; the file is then evaluation_NAME.json.
        progress: show a bar.
    """
    found = evaluate(
        run.model, run.guide, test.to(run.example.device), particles=particles, seed=seed, progress=progress
    )
    foreign = other is not None and names.short(other) != names.short(run.config["data"]["name"])
    file = f"evaluation_{names.slug(names.short(other))}.json" if foreign else "evaluation.json"
    write_json(run.folder / file, {"data": test.name, "seed": seed, **found.to_dict()})
    return found
