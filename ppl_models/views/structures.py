"""Figures of what the structure of a guide is worth: `ablation`, the bounds of one model with several guides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_models.parts.arguments.checked import checked

from .drawing import COLORS, INK, LABEL, SOFT, shown, tidy_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Mapping[str, Mapping[str, Any]]
KINDS = {"negative_elbo": ("negative ELBO", COLORS[1], "D"), "nll": ("importance-weighted NLL", COLORS[0], "o")}
NOTE = 60  # characters below a label
APART = 0.14  # of the two bounds of a guide, in lines
LINE, ABOVE, BELOW = 0.55, 0.75, 0.6  # inches: of a guide, and around all of them


@checked
def ablation(rows: Mapping[str, Any], title: str = "") -> Figure:
    """Bounds of one model with several guides, and their differences from those of the first.

    Args:
        rows: guide -> {"note": what is said below its name; "negative_elbo", "nll": nats per datum, one a seed; and of
            all but the first "minus": {"negative_elbo", "nll": (difference, standard error)}}.
        title: one line above.
    """
    from matplotlib.figure import Figure

    height = ABOVE + LINE * len(rows) + BELOW
    figure = Figure(figsize=(11.5, height), dpi=100, facecolor="white")
    low, high = BELOW / height, LINE * len(rows) / height
    draw_bounds(figure.add_axes((0.24, low, 0.34, high)), figure.add_axes((0.64, low, 0.34, high)), rows)
    if title:
        figure.text(0.01, 1 - 0.2 / height, shown(title), fontsize=11, color=INK, va="center")
    return figure


def draw_bounds(bounds: Axes, minus: Axes, rows: Rows) -> None:
    """Draw what `ablation` shows of its rows: the bounds, seed by seed, and the differences from the first guide."""
    for axes in (bounds, minus):
        tidy_axes(axes)
        label_lines(axes, {name: row["note"] if axes is bounds else None for name, row in rows.items()})
    for place, row in enumerate(rows.values()):
        for key, (_, color, mark) in KINDS.items():
            at, values = place + (APART if key == "nll" else -APART), np.atleast_1d(row[key])
            bounds.plot(values, np.full(len(values), at), mark, color=color, alpha=0.35, markersize=5, mew=0)
            bounds.plot(values.mean(), at, mark, color=color, markersize=7)
            write_beside(bounds, f"{values.mean():.2f}", values.max(), at, color)
            if key in (found := row.get("minus", {})):
                value, error = found[key]
                minus.errorbar(value, at, xerr=error, fmt=mark, color=color, capsize=3, lw=1.2, ms=5)
                write_beside(minus, f"{value:+.2f}", value + (error if error == error else 0), at, color)
    minus.axvline(0, color=SOFT, linewidth=1)
    bounds.margins(x=0.2)
    minus.margins(x=0.2)
    bounds.set_xlabel("nats per datum (less is better)", fontsize=9)
    first = shown(next(iter(rows), ""), LABEL)
    minus.set_xlabel(f"nats per datum minus {first}, paired ± s.e.", fontsize=9)
    for name, color, mark in KINDS.values():
        bounds.plot([], [], mark, color=color, label=name)
    above(bounds)


def label_lines(axes: Axes, notes: Mapping[str, str | None]) -> None:
    """Write a name at each line of axes, from the top down, and below it a note in grey; nothing where it is None."""
    axes.set_ylim(len(notes) - 0.5, -0.5)
    axes.set_yticks([])
    for place, (name, note) in enumerate(notes.items()):
        texts = () if note is None else ((shown(name, LABEL), 6, 10, INK), (shown(note, NOTE), -7, 8, SOFT))
        for text, up, size, color in texts:
            where = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
            axes.annotate(text, (0, place), (-8, up), va="center", fontsize=size, color=color, **where)


def write_beside(axes: Axes, text: str, value: float, place: float, color: str) -> None:
    """Write a number to the right of its mark."""
    axes.annotate(text, (value, place), (8, 0), textcoords="offset points", va="center", color=color, fontsize=8)


def above(axes: Axes, left: float = 0.0) -> None:
    """The legend of axes, above them, from `left` of their width on."""
    axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(left, 1), ncols=2, borderaxespad=0.1)
