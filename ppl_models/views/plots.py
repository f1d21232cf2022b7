"""Figures of images, trainings and bounds: pure functions of arrays; no pyplot, no display, no state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_models.inference.checkpoint import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
GAP, PAPER, MARGIN, LINE = 1, 1.0, 12, 26  # between images, in their pixels; its grey; around and above them, in dots
INK, SOFT = "#222222", "#8a8a8a"
COLORS = ("#1b6ca8", "#d9822b", "#4c9f70")


def image_grid(values: Any, shape: Sequence[int], columns: int | None = None, title: str = "") -> Figure:
    """Images side by side, every pixel of them the same whole number of dots.

    Args:
        values: (N, D) in [0, 1], a tensor or an array; what lies outside is cut off.
        shape: (channels, height, width) of a row, with 1 or 3 channels.
        columns: images in a row of the grid; about as many as rows by default.
        title: one line above.

    Raises:
        ValueError: no images, or rows that are not of this shape.
    """
    images = _images(values, shape)
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    return _pictures({"": images}, columns, title, target=720)


def reconstructions(x: Any, means: Any, shape: Sequence[int], columns: int = 10, title: str = "") -> Figure:
    """Data, and under each datum what the model makes of its inferred latents.

    Args:
        x, means: (N, D) in [0, 1].
        shape, title: as for `image_grid`.
        columns: data in a line; a further line is begun after them.
    """
    return _pictures({"data": _images(x, shape), "model": _images(means, shape)}, columns, title, target=900)


def film_strip(states: Any, shape: Sequence[int], labels: Sequence[str] = (), title: str = "") -> Figure:
    """What becomes of images step by step: a line for each of them, a column for each step.

    Args:
        states: (steps, n, D) in [0, 1]: of a chain, or the images of a `SequentialVAE`.
        shape, title: as for `image_grid`.
        labels: a name for each line.

    Raises:
        ValueError: states of another rank, as many labels as there are no lines for; see `image_grid`.
    """
    states = _array(states)
    if states.ndim != 3 or len(labels) not in (0, states.shape[1]):
        raise ValueError(
            f"film_strip: found states {states.shape} and {len(labels)} labels, want (steps, n, D) and n labels or none"
        )
    names = labels or [" " * i for i in range(states.shape[1])]
    rows = {name: _images(states[:, i], shape) for i, name in enumerate(names)}
    return _pictures(rows, len(states), title, target=900)


def history(records: Sequence[Mapping[str, float]], title: str = "") -> Figure:
    """The bound on the negative log-likelihood over the steps of a training, in nats per datum.

    Args:
        records: of `ppl_models.inference.Run.history`: step, nll, and valid where there are validation data. The loss
            is drawn where it is another number (a warm-up).
        title: one line above.
    """
    figure, axes = _axes(7.2, 4.0)
    step = [record["step"] for record in records]
    curves = {"training bound": "nll", "validation bound": "valid", "loss (with warm-up)": "loss"}
    drawn = []
    for (label, key), color, style in zip(curves.items(), COLORS, ("-", "-", ":"), strict=True):
        line = [record.get(key, math.nan) for record in records]
        if key == "loss" and np.allclose(line, [record["nll"] for record in records], rtol=1e-3, equal_nan=True):
            continue
        if not np.isfinite(line).any():
            continue
        dots = {"marker": "o", "markersize": 4} if len(step) < 12 else {}
        axes.plot(step, line, style, color=color, label=label, linewidth=1.8, **dots)
        drawn += line if key != "loss" else []
    shown = np.asarray([v for v in drawn if math.isfinite(v)])
    if len(shown) > 3:  # the first records are often far above all others
        usual = np.quantile(shown, [0.1, 0.9])
        low, high = shown.min(), min(shown.max(), usual[1] + 1.5 * np.ptp(usual))
        pad = 0.05 * max(high - low, 1e-3)
        axes.set_ylim(low - pad, high + pad)
    axes.set_xlabel("step")
    axes.set_ylabel("negative ELBO (nats per datum)")
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.legend(frameon=False)
    axes.margins(x=0.01)
    return figure


def comparison(
    bounds: Mapping[str, Mapping[str, float]], rows: Mapping[str, Any], shape: Sequence[int] | None, title: str = ""
) -> Figure:
    """Bounds on the log-likelihood of several pairs, and beside them rows of images under the same names.

    Args:
        bounds: pair -> {"elbo": nats, "nll": nats, "nll_error": nats}, means over the data.
        rows: label -> (N, D) in [0, 1], one row of images each.
        shape: (channels, height, width); None to draw the bounds alone.
        title: one line above.
    """
    figure, axes = _axes(11.5 if shape else 6.4, 1.2 + 0.75 * max(len(bounds), len(rows) if shape else 0))
    if shape:
        figure.set_layout_engine(None)
        axes.set_position((0.115, 0.16, 0.37, 0.68))
        side = figure.add_axes((0.575, 0.05, 0.42, 0.84))
        images = {label: _images(values, shape) for label, values in rows.items()}
        page, labels = _lines(images, min(map(len, images.values())))
        _show(side, page, labels, 0.02 * page.shape[1])
        side.set_anchor("W")
    names = list(bounds)
    place = np.arange(len(names))
    elbo, nll = ([-bounds[n]["elbo"] for n in names], [bounds[n]["nll"] for n in names])
    error = [bounds[n]["nll_error"] for n in names]
    axes.hlines(place, nll, elbo, color="#c3d7e6", linewidth=4, zorder=1)
    axes.errorbar(
        nll, place, xerr=error, fmt="o", color=COLORS[0], capsize=3, lw=1, ms=8, label="importance-weighted NLL"
    )
    axes.plot(
        elbo, place, "D", color="white", markeredgecolor=COLORS[1], markeredgewidth=2, ms=7, label="negative ELBO"
    )
    for values, color, up in ((nll, COLORS[0], 11), (elbo, COLORS[1], -17)):
        for value, at in zip(values, place, strict=True):
            axes.annotate(
                f"{value:.2f}", (value, at), (0, up), textcoords="offset points", ha="center", color=color, fontsize=9
            )
    axes.set_yticks(place, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.set_xlabel("nats per datum (less is better)")
    axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.1)
    axes.grid(False, axis="y")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    return figure


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure to a file, whole or not at all, in the format of its name (.png, .svg, .pdf)."""
    path = Path(path)
    kind = path.suffix.removeprefix(".").lower() or "png"
    if kind not in (known := figure.canvas.get_supported_filetypes()):
        raise ValueError(f"figure {path}: found the ending {path.suffix!r}, want one of {', '.join(sorted(known))}")
    write_atomically(path, lambda file: figure.savefig(file, format=kind, dpi=DPI))
    return path


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=float)


def _images(values: Any, shape: Sequence[int]) -> np.ndarray:
    """(N, height, width, 3) in [0, 1]."""
    values, shape = _array(values), tuple(shape)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(f"images: found shape {shape}, want (channels, height, width) with 1 or 3 channels")
    if values.ndim != 2 or len(values) == 0 or values.shape[1] != math.prod(shape):
        raise ValueError(f"images: found values {values.shape}, want (N, {math.prod(shape)}) for {shape}, N at least 1")
    images = np.clip(np.nan_to_num(values), 0, 1).reshape(-1, *shape).transpose(0, 2, 3, 1)
    return np.broadcast_to(images, (*images.shape[:3], 3))


def _mosaic(images: np.ndarray, columns: int) -> np.ndarray:
    """Images in lines of `columns`, a thin gap between them."""
    n, height, width, _ = images.shape
    lines = math.ceil(n / columns)
    page = np.full((lines * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), PAPER)
    for i, image in enumerate(images):
        top, left = i // columns * (height + GAP), i % columns * (width + GAP)
        page[top : top + height, left : left + width] = image
    return page


def _lines(rows: Mapping[str, np.ndarray], columns: int) -> tuple[np.ndarray, list[tuple[str, float]]]:
    """A page in which lines of every row follow each other, and (label, middle) of each line."""
    images, labels = [], []
    count, (height, width) = len(next(iter(rows.values()))), next(iter(rows.values())).shape[1:3]
    for start in range(0, count, columns):
        for label, row in rows.items():
            part = row[start : start + columns]
            images += [part, np.full((columns - len(part), height, width, 3), PAPER)]
            labels.append((label, len(labels) * (height + GAP) + height / 2 - 0.5))
    return _mosaic(np.concatenate(images), columns), labels


def _pictures(rows: Mapping[str, np.ndarray], columns: int, title: str, target: int) -> Figure:
    """A figure of nothing but images, about `target` dots wide, with labels on the left if there are any."""
    from matplotlib.figure import Figure

    page, labels = _lines(rows, min(columns, len(next(iter(rows.values())))))
    scale = max(1, round(target / page.shape[1]))
    left = 64 if any(label.strip() for label, _ in labels) else MARGIN
    top = MARGIN + LINE if title else MARGIN
    across, down = page.shape[1] * scale, page.shape[0] * scale
    width = max(across, round(6.4 * len(title))) + left + MARGIN  # room for the title
    height = down + top + MARGIN
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((left / width, MARGIN / height, across / width, down / height))
    _show(axes, page, labels, 8 / scale)
    if title:
        figure.text(left / width, 1 - (top / 2) / height, title, fontsize=10, color=INK, va="center")
    return figure


def _show(axes: Axes, page: np.ndarray, labels: Sequence[tuple[str, float]], offset: float) -> None:
    axes.imshow(page, interpolation="nearest")
    axes.set_axis_off()
    for label, middle in labels:
        axes.text(-0.5 - offset, middle, label, ha="right", va="center", fontsize=10, color=INK)


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes
