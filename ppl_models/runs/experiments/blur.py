"""Why samples blur: a plane of codes, the variance of the data that share a code, and what the decoder makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppl_models.inference import mutual_information, reversal
from ppl_models.views import plots
from ppl_models.views.criteria import latent_map

from .. import names
from ..folder import LoadedRun
from ..pictures import decoded, to_unit

OPTIONS = {"limit": 3.0, "points": 41, "images": 15, "data": None, "left_out": 0.5, "least": 20}


def plane(limit: float, points: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(coordinates (points,), codes (points^2, 2), z_1 fastest) of the square from -limit to limit."""
    line = torch.linspace(-limit, limit, points, device=device)
    second, first = torch.meshgrid(line, line, indexing="ij")
    return line, torch.stack([first.flatten(), second.flatten()], -1)


def analyse(
    runs: Mapping[str, LoadedRun], analysis: Mapping[str, Any], folder: Path, seed: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """For each run of a model with one latent of size 2: a map, and the decoder's mean against the average of data."""
    rows = {}
    limit, points, fewer = (
        analysis["limit"],
        analysis["points"],
        analysis["images"],
    )
    for name, run in runs.items():
        train = run.load_data()[0]
        train = train.subset(slice(0, analysis["data"]))
        x = train[:].to(run.example.device)
        site = _plane_of(run, name)
        line, codes = plane(limit, points, x.device)
        found = reversal(run.model, run.guide, x, codes, seed=seed)
        means = decoded(run, {site: codes})
        spread = found.variance.sum(-1)
        # where codes of data are: what the decoder does elsewhere no datum has told it
        known = found.log_q > torch.quantile(found.log_q, analysis["left_out"])
        known &= found.effective > analysis["least"]
        total = (x - x.mean(0)).square().sum(-1).mean().item()
        distance = (means - found.mean).square().sum(-1)
        weights = found.log_q.exp() * known
        weights = weights / weights.sum()
        coarse = plane(limit, fewer, x.device)[1]
        figure = latent_map(
            line.cpu(),
            spread.reshape(points, points),
            to_unit(run.config, decoded(run, {site: coarse})),
            run.config["data"]["shape"],
            "sum over pixels of Var[x | z]",
            f"{name}: how unlike are the data that share a code",
        )
        plots.save_figure(figure, folder / f"{names.slug(name)}_map.png")
        information = mutual_information(run.model, run.guide, x, seed=seed)
        rows[name] = {
            "codes": int(known.sum()),
            "variance of the data": total,
            "variance given the code": (weights * spread).sum().item(),
            "squared distance of decoder and average": (weights * distance).sum().item(),
            "correlation of decoder and average": _correlation(means[known], found.mean[known], x.mean(0)),
            "data that share a code": (weights * found.effective).sum().item(),
            "information": [information.lower, information.upper],
        }
        for told, value in rows[name].items():
            report(f"{name}: {told} {value if isinstance(value, list) else f'{value:.4g}'}")
    return rows


def _plane_of(run: LoadedRun, name: str) -> str:
    sizes = getattr(run.model, "latent", None)
    if sizes not in (2, (2,)):
        raise ValueError(
            f"experiment blur: run {name!r} has latent={sizes}, want one latent of size 2: model.latent = 2"
        )
    return "z1"


def _correlation(a: Tensor, b: Tensor, center: Tensor) -> float:
    """Of two sets of images, about a common one."""
    a, b = (a - center).flatten(), (b - center).flatten()
    return (a @ b / (a.norm() * b.norm())).item()
