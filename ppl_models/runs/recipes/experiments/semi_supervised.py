"""Experiment "semi-supervised": test errors of a classifier that a model of all data and few labels trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppl_models import SemiSupervisedVAE, data
from ppl_models.inference import fit, semi_supervised
from ppl_models.inference.pyro.passes.messengers import UntilDrawn

from ...folders.loaded import LoadedRun
from ...naming import names
from . import at_least

OPTIONS = {
    "data": "mnist",
    "few": 100,
    "many": 1000,
    "steps": 1500,
    "batch": 100,
    "latent": 50,
    "hidden": 256,
    "lr": 1e-3,
    "alpha": 5.0,
    "share": 0.2,
}
TRAINS = False  # the runs of a recipe have no labels


def check(runs: Mapping[str, Any], analysis: Mapping[str, Any]) -> None:
    """Raise ValueError unless labels can be of all classes, and leave rows without."""
    at_least(1, analysis, "few", "many", "steps", "batch")
    if not 0 < analysis["share"] < 1:
        raise ValueError(f"analysis.share: found {analysis['share']}, want a part of the rows, above 0 and below 1")


def chosen(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """So many rows, (count,), of each class as many as of any other, but for the rest; drawn with the generator."""
    order = torch.randperm(len(labels), generator=generator)
    classes = labels[order]
    turn = torch.zeros(len(labels), dtype=torch.long)
    for each in classes.unique():
        turn[classes == each] = torch.arange(int((classes == each).sum()))
    return order[torch.argsort(turn, stable=True)[:count]]


def rows_of(labels: Tensor, known: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """(indices of rows, their labels or -1): those that are known, again and again, then all others once."""
    others = torch.ones(len(labels), dtype=torch.bool)
    others[known] = False
    rest = others.nonzero()[:, 0]
    repeats = max(round(share / (1 - share) * len(rest) / len(known)), 1)
    index = torch.cat([known.repeat(repeats), rest])
    given = torch.cat([labels[known].repeat(repeats), torch.full_like(rest, -1)])
    return index, given


def error_of(guide: Callable, x: Tensor, labels: Tensor) -> float:
    """The part of rows of which q(y | x) finds another class likeliest than theirs."""
    wrong = 0
    for i in range(0, len(x), 1000):
        rows = x[i : i + 1000]
        with torch.no_grad():
            factor = UntilDrawn(["y"]).run(guide, (rows, torch.full((len(rows),), -1)))["y"]["fn"]
        wrong += int((factor.logits.argmax(-1) != labels[i : i + 1000]).sum())
    return wrong / len(x)


def analyse(
    runs: Mapping[str, LoadedRun], analysis: Mapping[str, Any], folder: Path, seed: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """For each number of labels the test error, and the bound on the training data with what labels add to it."""
    train, test = data.load(analysis["data"])[:2]
    if train.labels is None or test.labels is None:
        raise ValueError(f"experiment semi-supervised: found no labels in the data set {analysis['data']!r}, want some")
    structure = names.resolve("guide", "self-reflective")
    classes, rows = int(train.labels.max()) + 1, {}
    for count in (analysis["few"], analysis["many"]):
        torch.manual_seed(seed)
        known = chosen(train.labels, count, torch.Generator().manual_seed(seed))
        index, given = rows_of(train.labels, known, analysis["share"])
        seen = train.subset(index)
        sizes = {"latent": analysis["latent"], "hidden": analysis["hidden"]}
        model = SemiSupervisedVAE(event=seen.values.shape[1], classes=classes, **sizes)
        example = seen[:20], given[:20]
        guide = structure(model, *example, evidence=("x",), hidden=analysis["hidden"])
        options = {"steps": analysis["steps"], "batch_size": analysis["batch"], "lr": analysis["lr"], "clip": 100.0}
        objective = partial(semi_supervised, alpha=analysis["alpha"])
        run = fit(model, guide, (seen, given), objective=objective, seed=seed, progress=False, **options)
        torch.manual_seed(seed)
        model.eval(), guide.eval()
        error = error_of(guide, test[:], test.labels)
        bound = -run.history[-1]["negative_elbo"]
        rows[f"{count} labels"] = {"test error": error, "training ELBO": bound, "steps": analysis["steps"]}
        report(f"{count} labels: test error {100 * error:.2f} %, ELBO {bound:.2f} nats per datum in training")
    return rows
