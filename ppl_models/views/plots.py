"""Figures of images and trainings: pure functions of arrays; no pyplot, no display, no state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_models.inference.display.figures import limits
from ppl_models.inference.results import as_records
from ppl_models.inference.storage.files import write_atomically
from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count, Image, Place

from .drawing import COLORS, DPI, INK, array_of, images_of, pictures, plain_axes, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@checked
def image_grid(values: Any, shape: Image, columns: Count | None = None, title: str = "") -> Figure:
    """Images side by side, every pixel of them the same whole number of dots.

    Args:
        values: (N, D) in [0, 1], a tensor or an array; what lies outside is cut off.
        shape: (channels, height, width) of a row, with 1 or 3 channels.
        columns: images in a row of the grid; about as many as rows by default.
        title: one line above.

    Raises:
        ValueError: no images, or rows that are not of this shape.
    """
    images = images_of(values, shape)
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    return pictures({"": images}, columns, title, target=720)


@checked
def reconstructions(x: Any, means: Any, shape: Image, columns: Count = 10, title: str = "") -> Figure:
    """Data, and under each datum what the model makes of its inferred latents.

    Args:
        x, means: (N, D) in [0, 1].
        shape, title: as for `image_grid`.
        columns: data in a line; a further line is begun after them.
    """
    return pictures({"data": images_of(x, shape), "model": images_of(means, shape)}, columns, title, target=900)


@checked
def film_strip(states: Any, shape: Image, labels: Sequence[str] = (), title: str = "") -> Figure:
    """Images step by step: a line for each of them, a column for each step.

    Args:
        states: (steps, n, D) in [0, 1]: of a chain, or the images of a `SequentialVAE`.
        shape, title: as for `image_grid`.
        labels: a name for each line.

    Raises:
        ValueError: states of another rank, as many labels as there are no lines for; see `image_grid`.
    """
    states = array_of(states)
    if states.ndim != 3 or len(labels) not in (0, states.shape[1]):
        raise ValueError(
            f"film_strip: found states {states.shape} and {len(labels)} labels, want (steps, n, D) and n labels or none"
        )
    if len(set(labels)) < len(labels) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"film_strip: found labels {list(labels)}, want words, each once")
    names = labels or [" " * i for i in range(states.shape[1])]
    rows = {name: images_of(states[:, i], shape) for i, name in enumerate(names)}
    return pictures(rows, len(states), title, target=900)


@checked
def history(records: Sequence[Mapping[str, float]], title: str = "") -> Figure:
    """The bound on the negative log-likelihood over the steps of a training, in nats per datum.

    Args:
        records: of `ppl_models.inference.Run.history`: step, negative_elbo, and valid where there are validation data.
            The loss is drawn where it is another number (a warm-up).
        title: one line above.
    """
    figure, axes = plain_axes(7.2, 4.0)
    records = as_records(records)
    step = [record["step"] for record in records]
    curves = {"training bound": "negative_elbo", "validation bound": "valid", "loss (with warm-up)": "loss"}
    drawn = []
    for (label, key), color, style in zip(curves.items(), COLORS, ("-", "-", ":"), strict=True):
        line = [record.get(key, math.nan) for record in records]
        if key == "loss" and np.allclose(
            line, [record["negative_elbo"] for record in records], rtol=1e-3, equal_nan=True
        ):
            continue
        if not np.isfinite(line).any():
            continue
        dots = {"marker": "o", "markersize": 4} if len(step) < 12 else {}
        axes.plot(step, line, style, color=color, label=label, linewidth=1.8, **dots)
        drawn += line if key != "loss" else []
    if (between := limits(drawn)) is not None:
        axes.set_ylim(*between)
    axes.set_xlabel("step")
    axes.set_ylabel("negative ELBO (nats per datum)")
    axes.set_title(shown(title), loc="left", fontsize=11, color=INK)
    axes.legend(frameon=False)
    axes.margins(x=0.01)
    return figure


@checked
def save_figure(figure: Figure, path: Place) -> Path:
    """Write a figure to a file, whole or not at all, in the format of its name (.png, .svg, .pdf)."""
    path = Path(path)
    kind = path.suffix.removeprefix(".").lower() or "png"
    if kind not in (known := figure.canvas.get_supported_filetypes()):
        raise ValueError(f"figure {path}: found the ending {path.suffix!r}, want one of {', '.join(sorted(known))}")
    write_atomically(path, lambda file: figure.savefig(file, format=kind, dpi=DPI))
    return path
