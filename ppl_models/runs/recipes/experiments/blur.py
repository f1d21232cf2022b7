"""Experiment "blur": the variance of the data that share a code, on a plane of codes, and the images decoded there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppl_models.inference import decode, mutual_information, reversal
from ppl_models.inference.pyro.evaluation.densities import looking
from ppl_models.inference.pyro.passes.messengers import UntilDrawn
from ppl_models.views import plots
from ppl_models.views.criteria import latent_map

from ...folders.loaded import LoadedRun
from ...naming import names
from ...pages.pictures import to_unit

OPTIONS = {"limit": 3.0, "points": 41, "images": 15, "data": None, "drawn": 2000, "least": 20}
SITE = "z1"


def plane(limit: float, points: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(coordinates (points,), codes (points^2, 2), z_1 fastest) of the square from -limit to limit."""
    line = torch.linspace(-limit, limit, points, device=device)
    second, first = torch.meshgrid(line, line, indexing="ij")
    return line, torch.stack([first.flatten(), second.flatten()], -1)


def check(runs: Mapping[str, Any], analysis: Mapping[str, Any]) -> None:
    """Raise ValueError unless every model has a plane of codes, as far as its sizes say."""
    for name, chosen in runs.items():
        latent = chosen["model"].get("latent")
        if latent != 2:
            told = f"experiment blur: run {name!r} has model.latent = {latent}"
            raise ValueError(f"{told}, want 2, one latent of that size")


def analyse(
    runs: Mapping[str, LoadedRun], analysis: Mapping[str, Any], folder: Path, seed: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """For each run of a model with one latent of size 2: a map, and what codes of the data leave to be explained.

    The map is over a square of codes. The numbers are means over `analysis.drawn` codes z ~ q(z), of which the variance
    given the code and the variance of its mean add up to that of the data, up to the error of the draws. Where at least
    `analysis.least` data share a code, the decoder's image is held against their average.
    """
    rows = {}
    limit, points, fewer = (analysis[name] for name in ("limit", "points", "images"))
    for name, run in runs.items():
        train = run.load_data()[0]
        x = train.subset(slice(0, analysis["data"]))[:].to(run.example.device)
        line, codes = plane(limit, points, x.device)
        spread = reversal(run.model, run.guide, x, codes, seed=seed).variance.sum(-1)
        coarse = decode(run.model, {SITE: plane(limit, fewer, x.device)[1]}, run.example)
        figure = latent_map(
            line,
            spread.reshape(points, points),
            to_unit(run.config, coarse),
            run.config["data"]["shape"],
            "sum over pixels of Var[x | z]",
            f"{name}: how unlike are the data that share a code",
        )
        plots.save_figure(figure, folder / f"{names.slug(name)}_map.png")
        rows[name] = _of_data(run, x, analysis, seed)
        for told, value in rows[name].items():
            report(f"{name}: {told} {value if isinstance(value, list) else f'{value:.4g}'}")
    return rows


def _of_data(run: LoadedRun, x: Tensor, analysis: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The numbers at codes of data, a random part of them."""
    generator = torch.Generator().manual_seed(seed)
    some = x[torch.randperm(len(x), generator=generator)[: analysis["drawn"]].to(x.device)]
    with looking(run.model, run.guide, seed, x):
        codes = UntilDrawn([SITE]).run(run.guide, (some,))[SITE]["value"]
    found = reversal(run.model, run.guide, x, codes, seed=seed)
    center = x.mean(0)
    shared = found.effective >= analysis["least"]
    if not shared.any():
        raise ValueError(
            f"experiment blur: no code is shared by analysis.least = {analysis['least']} of {len(x)} data, the most by "
            f"{found.effective.max():.1f}; want a smaller one, or a wider likelihood"
        )
    means = decode(run.model, {SITE: codes}, run.example)
    information = mutual_information(run.model, run.guide, x, seed=seed)
    return {
        "variance of the data": (x - center).square().sum(-1).mean().item(),
        "variance given the code": found.variance.sum(-1).mean().item(),
        "variance of the mean given the code": (found.mean - center).square().sum(-1).mean().item(),
        "squared error of the decoder": (means - some).square().sum(-1).mean().item(),
        "data that share a code": found.effective.mean().item(),
        "codes that enough data share": int(shared.sum()),
        "squared distance of decoder and average there": (means - found.mean)[shared].square().sum(-1).mean().item(),
        "correlation of decoder and average there": _correlation(means[shared], found.mean[shared], center),
        "information": [information.lower, information.upper],
    }


def _correlation(a: Tensor, b: Tensor, center: Tensor) -> float:
    """Of two sets of images, about a common one."""
    a, b = (a - center).flatten(), (b - center).flatten()
    return (a @ b / (a.norm() * b.norm())).item()
