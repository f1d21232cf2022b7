"""Figures of what a criterion does to codes: curves of information over a training, and maps of a plane of codes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Image

from .drawing import COLORS, DPI, INK, LABEL, array_of, images_of, mosaic, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@checked
def curves(
    records: Mapping[str, Sequence[Mapping[str, float]]],
    panels: Mapping[str, Sequence[str]],
    levels: Mapping[str, float] | None = None,
    title: str = "",
) -> Figure:
    """Numbers of several trainings over their steps, in panels side by side.

    Args:
        records: training -> its `Run.history`.
        panels: label of an axis -> keys of the records; the first is a line, a second one bounds a band with it.
        levels: label of an axis -> a level to mark in it, a ceiling.
        title: one line above.

    Raises:
        ValueError: a key that no record has.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(panels), 3.6), dpi=DPI, layout="constrained", facecolor="white")
    for axes, (label, keys) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for color, (name, history) in zip(_colors(len(records)), records.items(), strict=True):
            known = [record for record in history if keys[0] in record]
            if not known:
                raise ValueError(f"curves: found no {keys[0]!r} in the records of {name!r}; was its training watched?")
            steps = [record["step"] for record in known]
            lines = [np.array([record.get(key, math.nan) for record in known]) for key in keys]
            axes.plot(steps, lines[0], color=color, label=shown(name, LABEL), linewidth=1.8)
            if len(lines) > 1:
                axes.fill_between(steps, *lines[:2], color=color, alpha=0.2, linewidth=0)
        if levels and label in levels:
            axes.axhline(levels[label], color=INK, linewidth=0.8, linestyle=":")
        axes.set_xlabel("step")
        axes.set_ylabel(shown(label, LABEL))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e6e6", linewidth=0.8)
        axes.margins(x=0.01)
    figure.axes[0].legend(frameon=False, fontsize=9)
    if title:
        figure.suptitle(shown(title), x=0.01, ha="left", fontsize=11, color=INK)
    return figure


@checked
def latent_map(grid: Any, values: Any, images: Any, shape: Image, label: str = "", title: str = "") -> Figure:
    """A plane of codes: a number at each as colour, and beside it the images decoded on the same plane.

    Args:
        grid: (k,), the coordinates of rows and columns, ascending.
        values: (k, k), the number at (z_1 = grid[column], z_2 = grid[row]).
        images: (m * m, D) in [0, 1], decoded on a coarser grid over the same square, row by row from the lowest z_2.
        shape: (channels, height, width) of an image.
        label: of the colours; title: one line above.

    Raises:
        ValueError: values of another shape, or images that make no square.
    """
    from matplotlib.figure import Figure

    grid, values = array_of(grid), array_of(values)
    decoded = images_of(images, shape)
    side = math.isqrt(len(decoded))
    if values.shape != (len(grid), len(grid)) or side * side != len(decoded):
        raise ValueError(
            f"latent_map: found values {values.shape} and {len(decoded)} images, want ({len(grid)}, {len(grid)}) and a "
            "square number of images"
        )
    figure = Figure(figsize=(10.4, 4.9), dpi=DPI, layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    extent = (grid[0], grid[-1], grid[0], grid[-1])
    drawn = left.imshow(values, origin="lower", extent=extent, cmap="magma_r", interpolation="nearest")
    figure.colorbar(drawn, ax=left, label=shown(label, LABEL), shrink=0.85)
    upside = decoded.reshape(side, side, *decoded.shape[1:])[::-1].reshape(decoded.shape)  # z_2 upwards
    right.imshow(mosaic(upside, side), extent=extent, interpolation="nearest")
    for one, above in ((left, label), (right, "decoded")):
        one.set_xlabel("z1")
        one.set_ylabel("z2")
        one.set_title(shown(above), loc="left", fontsize=10, color=INK)
    if title:
        figure.suptitle(shown(title), x=0.01, ha="left", fontsize=11, color=INK)
    return figure


def _colors(count: int) -> list[str]:
    more = ("#8e4585", "#b03a2e", "#5d6d7e", "#b7950b", "#117a65")
    return [(*COLORS, *more)[i % (len(COLORS) + len(more))] for i in range(count)]
