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


def history(records: Sequence[Mapping[str, float]], title: str = "") -> Figure:
    """The bound on the negative log-likelihood over the steps of a training, in nats per datum.

    Args:
        records: of `ppl_models.inference.Run.history`: step, nll, and valid where there are validation data. The loss is
            drawn where it is another number (a warm-up).
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
        axes.plot(step, line, style, color=color, label=label, linewidth=1.8, marker="o" if len(step) < 12 else None, markersize=4)
        drawn += line if key != "loss" else []
    shown = np.asarray([v for v in drawn if math.isfinite(v)])
    if len(shown) > 3:  # the first records are often far above all others
        low, high = shown.min(), min(shown.max(), np.quantile(shown, 0.9) + 1.5 * np.ptp(np.quantile(shown, [0.1, 0.9])))
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
        axes.set_position((0.115, 0.17, 0.36, 0.7))
        side = figure.add_axes((0.575, 0.05, 0.42, 0.84))
        _rows({label: _images(values, shape) for label, values in rows.items()}, side, fontsize=10)
    names = list(bounds)
    place = np.arange(len(names))
    elbo, nll = ([-bounds[n]["elbo"] for n in names], [bounds[n]["nll"] for n in names])
    axes.barh(place - 0.19, elbo, 0.36, color="#c3d7e6", label="negative ELBO")
    axes.barh(place + 0.19, nll, 0.36, color=COLORS[0], label="importance-weighted NLL")
    axes.errorbar(nll, place + 0.19, xerr=[bounds[n]["nll_error"] for n in names], fmt="none", ecolor=INK, capsize=2, lw=1)
    span = max(elbo + nll) - min(elbo + nll)
    for value, at in [*zip(elbo, place - 0.19, strict=True), *zip(nll, place + 0.19, strict=True)]:
        axes.annotate(f"{value:.2f}", (max(value, 0), at), (8, 0), textcoords="offset points", va="center", fontsize=8)
    low = max(min(elbo + nll) - 1.2 * span - 1, 0)
    axes.set_xlim(low, max(elbo + nll) + 0.35 * (max(elbo + nll) - low))
    axes.set_yticks(place, names)
    axes.invert_yaxis()
    axes.set_xlabel("nats per datum (less is better)" + ("; the axis does not start at 0" if low else ""))
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    axes.grid(False, axis="y")
    if title:
        figure.suptitle(title, x=0.01, y=0.985, ha="left", fontsize=11, color=INK)
    return figure


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure to a file, whole or not at all, in the format of its name (.png, .svg, .pdf)."""
    path = Path(path)
    kind = path.suffix.removeprefix(".").lower() or "png"
    if kind not in (known := figure.canvas.get_supported_filetypes()):
        raise ValueError(f"figure {path}: found the ending {path.suffix!r}, want one of .{', .'.join(sorted(known))}; try .png")
    write_atomically(path, lambda file: figure.savefig(file, format=kind, dpi=DPI))
    return path


def _images(values: Any, shape: Sequence[int]) -> np.ndarray:
    """(N, height, width, 3) in [0, 1]."""
    values = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=float)
    shape = tuple(shape)
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


def _pictures(rows: Mapping[str, np.ndarray], columns: int, title: str, target: int) -> Figure:
    """Lines of images, those of the same place in every row together; labels on the left if there are any."""
    from matplotlib.figure import Figure

    count = len(next(iter(rows.values())))
    columns = min(columns, count)
    labels, parts = [], []
    for start in range(0, count, columns):
        for label, images in rows.items():
            part = images[start : start + columns]
            if label == "":
                part = images
            parts.append(_mosaic(part, columns))
            labels.append(label)
        if "" in rows:
            break
        parts.append(None)  # a wider gap before the next line
    blank = np.full((2 * GAP, parts[0].shape[1], 3), PAPER)
    thin = blank[:GAP]
    page, at, y = [], [], 0
    for i, part in enumerate(parts):
        if part is None:
            page, y = ([*page, blank], y + len(blank)) if i + 1 < len(parts) else (page, y)
            continue
        page += [part, thin] if i + 1 < len(parts) and parts[i + 1] is not None else [part]
        at.append(y + len(part) / 2)
        y += sum(map(len, page[-1:])) + (len(part) if page[-1] is thin else 0)
    page = np.concatenate(page)
    scale = max(1, round(target / page.shape[1]))
    left = MARGIN if not any(labels) else 64
    top = MARGIN if not title else MARGIN + LINE
    width, height = page.shape[1] * scale + left + MARGIN, page.shape[0] * scale + top + MARGIN
    width = max(width, left + round(6.2 * len(title)) + MARGIN)  # room for the title
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((left / width, MARGIN / height, page.shape[1] * scale / width, page.shape[0] * scale / height))
    axes.imshow(page, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    for label, middle in zip(labels, at, strict=True):
        axes.text(-8 / scale, middle - 0.5, label, ha="right", va="center", fontsize=10, color=INK)
    if title:
        figure.text(left / width, 1 - (MARGIN + LINE / 2 - 4) / height, title, fontsize=10, color=INK, va="center")
    return figure


def _rows(rows: Mapping[str, np.ndarray], axes: Axes, fontsize: int) -> None:
    """One line of images a row, labelled, in axes that are given."""
    columns = min(map(len, rows.values()))
    height = next(iter(rows.values())).shape[1]
    page = _mosaic(np.concatenate([images[:columns] for images in rows.values()]), columns)
    axes.imshow(page, interpolation="nearest")
    axes.set_anchor("W")
    axes.set_axis_off()
    for i, label in enumerate(rows):
        middle = i * (height + GAP) + height / 2
        axes.text(-0.02 * page.shape[1], middle, label, ha="right", va="center", fontsize=fontsize, color=INK)


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
