"""Experiment "two-stage": what a second model of codes adds to the samples of the first (Dai & Wipf 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ppl_models.inference import ancestral, encode
from ppl_models.parts import Composite
from ppl_models.views import plots

from ...folders.loaded import LoadedRun
from ...naming import names
from ...pages.pictures import to_unit
from ..codes import FILE
from ..energy import energy_distance
from . import spread

OPTIONS = {"data": 2000}
ACTIVE = 1e-2  # the variance of a code's mean over data, above which its unit is active (Burda et al. 2016)


def stages(runs: Mapping[str, LoadedRun]) -> dict[str, str]:
    """Run -> the run whose codes are its data, of those that have such.

    Raises:
        ValueError: there is none.
    """
    folders = {run.folder.resolve(): name for name, run in runs.items()}
    homes = {name: Path(run.config["data"]["name"]) for name, run in runs.items()}
    found = {name: folders[home.parent] for name, home in homes.items() if home.name == FILE and home.parent in folders}
    if not found:
        raise ValueError('experiment two-stage: no run has the codes of another, want data.name = "codes:RUN" of one')
    return found


def check(runs: Mapping[str, Any], analysis: Mapping[str, Any]) -> None:
    """Raise ValueError unless the data of some run are the codes of another."""
    if not any(str(chosen["data"]["name"]).startswith("codes:") for chosen in runs.values()):
        raise ValueError('experiment two-stage: found no run with data.name = "codes:RUN", want one')


def analyse(
    runs: Mapping[str, LoadedRun], analysis: Mapping[str, Any], folder: Path, seed: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """For each run gamma and its active units; for each second stage the distances that it is there for.

    Energy distances (zero for equal distributions, unbiased): of codes, those of the test data from the prior's and
    from the second model's; of images, the means that either prior's codes decode to from the test data.
    """
    rows: dict[str, dict[str, Any]] = {}
    above = stages(runs)
    for name, run in runs.items():
        x = spread(run.load_data()[-1], analysis["data"])[:].to(run.example.device)
        means = torch.cat([mean.flatten(1) for mean in encode(run.model, run.guide, x).values()], -1)
        rows[name] = {"active units": int((means.var(0) > ACTIVE).sum()), "latents": means.shape[1]}
        if hasattr(getattr(run.model, "likelihood", None), "log_scale"):
            rows[name]["gamma"] = run.model.likelihood.log_scale.exp().item()
    for name, below in above.items():
        first, second = runs[below], runs[name]
        x = spread(first.load_data()[-1], analysis["data"])[:].to(first.example.device)
        codes = spread(second.load_data()[-1], analysis["data"])[:].to(x)
        both = Composite(first.model, second.model)
        samples = {below: ancestral(first.model, x, draws=False, seed=seed)}
        samples[name] = ancestral(both, x, draws=False, seed=seed)
        rows[below]["distance of codes"] = energy_distance(codes, torch.randn_like(codes))
        rows[name]["distance of codes"] = energy_distance(codes, ancestral(second.model, codes, seed=seed))
        for stage, images in samples.items():
            rows[stage]["distance of samples"] = energy_distance(x, images)
            if len(shape := first.config["data"]["shape"]) == 3:
                figure = plots.image_grid(to_unit(first.config, images[:64]), shape, title=f"{first.title}, {stage}")
                plots.save_figure(figure, folder / f"{names.slug(stage)}_samples.png")
    for name, row in rows.items():
        report(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
    return rows
