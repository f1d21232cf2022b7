"""Drawing tools of figures: images as arrays, pages of them, and axes as all figures here have them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_models.parts.arguments.checked import told
from ppl_models.programs.legible import legible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
LONGEST, LABEL = 200, 40  # characters of a title, and of a label
GAP, PAPER, MARGIN, LINE = 1, 1.0, 12, 26  # between images, in their pixels; its grey; around and above them, in dots
INK, SOFT = "#222222", "#8a8a8a"
COLORS = ("#1b6ca8", "#d9822b", "#4c9f70")


def array_of(values: Any) -> np.ndarray:
    """Numbers as an array; TypeError for what makes none."""
    try:
        return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=float)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise TypeError(f"figure: found {told(values)}, want an array of numbers") from None


def images_of(values: Any, shape: Sequence[int]) -> np.ndarray:
    """(N, height, width, 3) in [0, 1]."""
    values, shape = array_of(values), tuple(shape)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(f"images: found shape {shape}, want (channels, height, width) with 1 or 3 channels")
    if values.ndim != 2 or len(values) == 0 or values.shape[1] != math.prod(shape):
        raise ValueError(f"images: found values {values.shape}, want (N, {math.prod(shape)}) for {shape}, N at least 1")
    images = np.clip(np.nan_to_num(values), 0, 1).reshape(-1, *shape).transpose(0, 2, 3, 1)
    return np.broadcast_to(images, (*images.shape[:3], 3))


def mosaic(images: np.ndarray, columns: int) -> np.ndarray:
    """Images in lines of `columns`, a thin gap between them."""
    n, height, width, _ = images.shape
    lines = math.ceil(n / columns)
    page = np.full((lines * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), PAPER)
    for i, image in enumerate(images):
        top, left = i // columns * (height + GAP), i % columns * (width + GAP)
        page[top : top + height, left : left + width] = image
    return page


def lines_of(rows: Mapping[str, np.ndarray], columns: int) -> tuple[np.ndarray, list[tuple[str, float]]]:
    """A page in which lines of every row follow each other, and (label, middle) of each line."""
    images, labels = [], []
    count, (height, width) = len(next(iter(rows.values()))), next(iter(rows.values())).shape[1:3]
    for start in range(0, count, columns):
        for label, row in rows.items():
            part = row[start : start + columns]
            images += [part, np.full((columns - len(part), height, width, 3), PAPER)]
            labels.append((label, len(labels) * (height + GAP) + height / 2 - 0.5))
    return mosaic(np.concatenate(images), columns), labels


def pictures(rows: Mapping[str, np.ndarray], columns: int, title: str, target: int) -> Figure:
    """A figure of nothing but images, about `target` dots wide, with labels on the left if there are any."""
    from matplotlib.figure import Figure

    title = shown(title)
    page, labels = lines_of(rows, min(columns, len(next(iter(rows.values())))))
    scale = max(1, round(target / page.shape[1]))
    left = 64 if any(label.strip() for label, _ in labels) else MARGIN
    top = MARGIN + LINE if title else MARGIN
    across, down = page.shape[1] * scale, page.shape[0] * scale
    width = max(across, round(6.4 * len(title))) + left + MARGIN  # room for the title
    height = down + top + MARGIN
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((left / width, MARGIN / height, across / width, down / height))
    show_page(axes, page, labels, 8 / scale)
    if title:
        figure.text(left / width, 1 - (top / 2) / height, title, fontsize=10, color=INK, va="center")
    return figure


def shown(text: str, most: int = LONGEST) -> str:
    r"""A text of a user's as matplotlib shows it as it stands: no mathematics, nothing that does not print, no page.

    >>> shown("$5\x1b"), len(shown("x" * 5000))
    ('\\$5\\x1b', 203)
    """
    text = text if len(text) <= most else f"{text[:most]}..."
    return legible(text).replace("$", r"\$")


def show_page(axes: Axes, page: np.ndarray, labels: Sequence[tuple[str, float]], offset: float) -> None:
    axes.imshow(page, interpolation="nearest")
    axes.set_axis_off()
    for label, middle in labels:
        axes.text(-0.5 - offset, middle, shown(label, LABEL), ha="right", va="center", fontsize=10, color=INK)


def plain_axes(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    tidy_axes(axes)
    return figure, axes


def tidy_axes(axes: Axes) -> None:
    """Give axes the look of all figures here."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
