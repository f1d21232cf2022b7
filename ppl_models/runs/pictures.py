"""What a pair makes of images: samples and reconstructions of any two programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, get_args

import torch
from pyro import poutine
from torch import Tensor

from ppl_models import data as datasets
from ppl_models.inference.single_pass import traces
from ppl_models.views import plots

from . import names
from .folder import LoadedRun


def generate(run: LoadedRun, n: int, draws: bool = False) -> Tensor:
    """Rows of n data drawn from the model of a run: all its sites are drawn, whatever it observes.

    Args:
        run: its model takes one argument; its example rows give the number and the width of the data alone.
        n: how many.
        draws: values of the observed sites instead of the means of their distributions.

    Returns:
        (n, D). Where the data are several sites, they follow each other (or are joined by `model.join`).
    """
    if run.backend == "numpyro":
        from . import numpyro as ports

        return _rows(run, ports.generated(run, n, draws))
    x = run.example[torch.arange(n, device=run.example.device) % len(run.example)]
    with torch.no_grad():
        trace = poutine.trace(poutine.uncondition(run.model)).get_trace(x)
    found = {name: node for name, node in trace.nodes.items() if node["type"] == "sample"}
    return _rows(run, _parts({n: v for n, v in found.items() if v["infer"].get("was_observed")}, len(x), draws))


def reconstruct(run: LoadedRun, x: Tensor) -> Tensor:
    """Means of the data given latents drawn by the guide, (n, D); what reads other data reads the observed ones."""
    if run.backend == "numpyro":
        from . import numpyro as ports

        return _rows(run, ports.reconstructed(run, x))
    with torch.no_grad():
        trace, _, _ = traces(run.model, run.guide, (x,), {})
    observed = {n: v for n, v in trace.nodes.items() if v["type"] == "sample" and v["is_observed"]}
    return _rows(run, _parts(observed, len(x), draws=False))


def is_image(config: Mapping[str, Any]) -> bool:
    """Whether a row of the data can be shown."""
    shape = config["data"]["shape"]
    return len(shape) == 3 and shape[0] in (1, 3)


def to_unit(config: Mapping[str, Any], y: Tensor) -> Tensor:
    """Transformed data as grey levels in [0, 1]; real data by their range in the training set."""
    applied = dict(config["data"]["applied"])
    kinds = {kind.__name__: kind for kind in get_args(datasets.Transform)}
    transform = kinds[applied.pop("kind")](**applied)
    low, high = config["data"]["range"]
    return ((transform.to_unit(y) - low) / max(high - low, 1e-12)).clamp(0, 1)


def picture_samples(run: LoadedRun, n: int, path: Path, draws: bool = False) -> Path:
    """Write a grid of n samples.

    Raises:
        ValueError: data that are no images, or a program whose data are no rows of such.
    """
    if not is_image(run.config):
        raise ValueError(_no_image(run.config))
    rows = generate(run, n, draws)
    above = f"{title(run)}: samples ({'draws' if draws else 'means'})"
    figure = plots.image_grid(to_unit(run.config, rows), run.config["data"]["shape"], title=above)
    return plots.save_figure(figure, path)


def picture_run(run: LoadedRun, x: Tensor) -> list[str]:
    """Write samples.png, reconstructions.png (of the rows x) and history.png to the folder of a run.

    Returns:
        A line for each picture that cannot be made, with the reason.
    """
    shape = run.config["data"]["shape"]

    def reconstructions() -> None:
        means = reconstruct(run, x)
        above = f"{title(run)}: reconstructions of test data"
        figure = plots.reconstructions(to_unit(run.config, x), to_unit(run.config, means), shape, title=above)
        plots.save_figure(figure, run.folder / "reconstructions.png")

    def history() -> None:
        plots.save_figure(plots.history(run.history, title(run)), run.folder / "history.png")

    tasks: dict[str, Callable[[], Any]] = {"history.png": history}
    notes = []
    if is_image(run.config):
        tasks |= {
            "samples.png": lambda: picture_samples(run, 64, run.folder / "samples.png"),
            "reconstructions.png": reconstructions,
        }
    else:
        notes.append(_no_image(run.config))
    for name, task in tasks.items():
        try:
            task()
        except Exception as error:  # noqa: BLE001 (a trained run is worth keeping, whatever its program cannot do)
            notes.append(f"no {name}: {' '.join(str(error).split()) or type(error).__name__}")
    return notes


def title(run: LoadedRun) -> str:
    """model, guide and data of a run, in short."""
    pair = [run.config[kind]["name"].rpartition(":")[2] for kind in ("model", "guide")]
    return f"{', '.join(pair)}, {names.short(run.config['data']['name'])}"


def _no_image(config: Mapping[str, Any]) -> str:
    shape = tuple(config["data"]["shape"])
    return f"no pictures of the data: a row has shape {shape}, an image is (1 or 3, height, width)"


def _parts(nodes: Mapping[str, Any], n: int, draws: bool) -> dict[str, Tensor]:
    """Values or means of those of the data's sites that have a row for each of n data."""
    parts: dict[str, Tensor] = {}
    for name, node in nodes.items():
        if node["value"].numel() and node["value"].dim() and len(node["value"]) == n:
            value = node["value"] if draws else _mean(node["fn"])
            parts[name] = value.expand(node["value"].shape).reshape(n, -1)
    return parts


def _rows(run: LoadedRun, parts: Mapping[str, Tensor]) -> Tensor:
    """The sites' values as rows of the width of the data."""
    width = prod(run.example.shape[1:])
    for part in parts.values():
        if part.shape[1] == width:
            return part
    if sum(part.shape[1] for part in parts.values()) != width:
        found = ", ".join(f"{name} {tuple(part.shape[1:])}" for name, part in parts.items())
        raise ValueError(f"the observed sites ({found or 'none of them local'}) do not make rows of {width} values")
    if not hasattr(run.model, "join"):
        return torch.cat(list(parts.values()), -1)
    if run.backend == "numpyro":
        from . import numpyro as ports

        return ports.joined(run.model, list(parts.values()))
    return run.model.join(list(parts.values()))


def _mean(distribution: Any) -> Tensor:
    """The mean of a distribution, or one draw of one that has none."""
    try:
        return distribution.mean
    except NotImplementedError:
        return distribution.sample()
