"""`picture_run`, `picture_samples`, `picture_chain`: samples, reconstructions and chains of a run as pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppl_models.inference import markov_chain
from ppl_models.views import plots
from ppl_models.views.chains import mixing

from ..backends import backend
from ..folders.config_file import transform
from ..folders.loaded import LoadedRun


def generate(run: LoadedRun, n: int, draws: bool = False) -> Tensor:
    """Rows of n data drawn from the model of a run, (n, D): means of their distributions, or draws of these.

    Where the data are several sites, they follow each other (or are joined by `model.join`).
    """
    return backend(run.backend).sample(run.model, run.example, n, draws)


def reconstruct(run: LoadedRun, x: Tensor) -> Tensor:
    """Means of the data given latents drawn by the guide, (n, D); what reads other data reads the observed ones."""
    return backend(run.backend).reconstruct((run.model, run.guide), run.example, x)


def to_unit(config: Mapping[str, Any], y: Tensor) -> Tensor:
    """Transformed data as grey levels in [0, 1]; real data by their range in the training set."""
    low, high = config["data"]["range"]
    return ((transform(config["data"]["applied"]).to_unit(y) - low) / max(high - low, 1e-12)).clamp(0, 1)


def picture_samples(run: LoadedRun, n: int, path: Path, draws: bool = False) -> Path:
    """Write a grid of n samples.

    Raises:
        ValueError: data that are no images, or a program whose data are no rows of such.
    """
    _check_image(run.config)
    rows = generate(run, n, draws)
    above = f"{run.title}: samples ({'draws' if draws else 'means'})"
    return plots.save_figure(
        plots.image_grid(to_unit(run.config, rows), run.config["data"]["shape"], title=above), path
    )


def noise(run: LoadedRun, n: int, seed: int) -> Tensor:
    """Rows of noise where a chain may begin, (n, D): fair coins for zeros and ones, else uniform over the levels."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(n, prod(run.example.shape[1:]), generator=generator)
    levels = 2 if run.config["data"]["applied"]["kind"] == "Binarize" else run.config["data"]["levels"]
    if run.config["data"]["applied"]["kind"] in ("Binarize", "Scale"):
        drawn = (drawn * levels).floor() / (levels - 1)
    elif levels is None:
        low, high = run.config["data"]["range"]
        drawn = low + (high - low) * drawn
    return drawn.to(run.example.device)


def picture_chain(run: LoadedRun, n: int, steps: int, path: Path, seed: int) -> tuple[Path, str]:
    """Write a film strip of eight of n chains from noise; the path, and what is to be said of their mixing.

    Raises:
        ValueError: data that are no images, a NumPyro run; see `ppl_models.inference.markov_chain`.
    """
    _check_image(run.config)
    backend(run.backend).check("chain")
    chain = markov_chain(run.model, run.guide, noise(run, n, seed), steps, seed=seed)
    picture_strip(run, chain.states[:, :8], path, f"{run.title}: chains from noise")
    if n < 2 or steps < 8:
        return path, "no diagnosis of the mixing: it wants at least 2 chains of 8 transitions"
    return path, str(mixing(chain, burn=steps // 2))


def picture_strip(run: LoadedRun, states: Tensor, path: Path, above: str) -> Path:
    """Write a film strip of states (steps, n, D), at most about 20 of the steps."""
    every = max((len(states) - 1) // 20, 1)
    shown = states[::every]
    unit = to_unit(run.config, shown.flatten(0, 1)).reshape(shown.shape)
    told = above if every == 1 else f"{above}, every {every} transitions"
    return plots.save_figure(plots.film_strip(unit, run.config["data"]["shape"], title=told), path)


def missing_pictures(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """The names of those of `picture_run` that are not in the folder of a run."""
    names = ["history.png"]
    if not _no_image(config):
        names += ["samples.png", *(["reconstructions.png"] if config["guide"] else [])]
    return [name for name in names if not (folder / name).exists()]


def picture_run(run: LoadedRun, x: Tensor, again: bool = True) -> list[str]:
    """Write samples.png, history.png and, of a pair, reconstructions.png (of the rows x) to the folder of a run.

    Args:
        run: a trained run.
        x: rows of its data.
        again: also those that are there already.

    Returns:
        A line for each picture that cannot be made, with the reason.
    """

    def reconstructions(path: Path) -> None:
        rows, means = (to_unit(run.config, each) for each in (x, reconstruct(run, x)))
        above = f"{run.title}: reconstructions of test data"
        plots.save_figure(plots.reconstructions(rows, means, run.config["data"]["shape"], title=above), path)

    tasks: dict[str, Callable[[Path], Any]] = {
        "history.png": lambda path: plots.save_figure(plots.history(run.history, run.title), path)
    }
    notes = [told] if (told := _no_image(run.config)) else []
    if not notes:
        tasks |= {"samples.png": lambda path: picture_samples(run, 64, path)}
        tasks |= {"reconstructions.png": reconstructions} if run.config["guide"] else {}
    for name in tasks if again else missing_pictures(run.folder, run.config):
        try:
            tasks[name](run.folder / name)
        except Exception as error:  # noqa: BLE001 (a trained run is worth keeping, whatever its program cannot do)
            notes.append(f"no {name}: {' '.join(str(error).split()) or type(error).__name__}")
    return notes


def _no_image(config: Mapping[str, Any]) -> str:
    """The reason why rows of the data cannot be shown; nothing for images."""
    if columns := config["data"].get("columns"):
        return f"no pictures of the data: they are the arguments {', '.join(columns)} of the model"
    shape = tuple(config["data"]["shape"])
    if len(shape) == 3 and shape[0] in (1, 3):
        return ""
    return f"no pictures of the data: a row has shape {shape}, an image is (1 or 3, height, width)"


def _check_image(config: Mapping[str, Any]) -> None:
    """Raise ValueError for data whose rows cannot be shown."""
    if told := _no_image(config):
        raise ValueError(told)
