"""Figures of what the structure of a guide is worth: `ablation`, the bounds of one model with several guides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_models.parts.checked import checked

from .drawing import COLORS, INK, LABEL, SOFT, plain_axes, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = {"negative_elbo": ("negative ELBO", COLORS[1], "D"), "nll": ("importance-weighted NLL", COLORS[0], "o")}
NOTE = 60  # characters below a label
APART = 0.13  # of the two bounds of a guide, in lines


@checked
def ablation(rows: Mapping[str, Mapping[str, Any]], title: str = "") -> Figure:
    """Bounds of one model with several guides, and their differences from those of the first.

    Args:
        rows: guide -> {"note": what is said below its name; "negative_elbo", "nll": nats per datum, one a seed; and of
            all but the first "minus": {"negative_elbo", "nll": (difference, standard error)}}.
        title: one line above.
    """
    figure, bounds = plain_axes(11.5, 1.5 + 0.62 * len(rows))
    figure.set_layout_engine(None)
    bounds.set_position((0.24, 0.21, 0.34, 0.58))
    minus = figure.add_axes((0.63, 0.21, 0.34, 0.58))
    _like(bounds, minus)
    for place, row in enumerate(rows.values()):
        for key, (_, color, mark) in KINDS.items():
            at, values = place + (APART if key == "nll" else -APART), np.atleast_1d(row[key])
            bounds.plot(values, np.full(len(values), at), mark, color=color, alpha=0.35, markersize=5, mew=0)
            bounds.plot(values.mean(), at, mark, color=color, markersize=7)
            bounds.annotate(
                f"{values.mean():.2f}", (values.mean(), at), (7, 0), textcoords="offset points", va="center",
                color=color, fontsize=8,
            )  # fmt: skip
            if key in (found := row.get("minus", {})):
                value, error = found[key]
                minus.errorbar(value, at, xerr=error, fmt=mark, color=color, capsize=3, lw=1.2, ms=6)
    label_lines(bounds, {name: row["note"] for name, row in rows.items()})
    minus.axvline(0, color=SOFT, linewidth=1)
    minus.set_ylim(bounds.get_ylim())
    minus.set_yticks(bounds.get_yticks(), [])
    bounds.margins(x=0.2)
    minus.margins(x=0.15)
    bounds.set_xlabel("nats per datum (less is better)", fontsize=9)
    first = shown(next(iter(rows), ""), LABEL)
    minus.set_xlabel(f"minus {first}, paired by datum: nats per datum ± standard error", fontsize=9)
    for name, color, mark in KINDS.values():
        bounds.plot([], [], mark, color=color, label=name)
    bounds.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.1)
    if title:
        figure.suptitle(shown(title), x=0.01, ha="left", fontsize=11, color=INK)
    return figure


def label_lines(axes: Axes, notes: Mapping[str, str]) -> None:
    """Write a name at each line of axes, from the top down, and below it a note in grey."""
    axes.set_ylim(len(notes) - 0.5, -0.5)
    axes.set_yticks(range(len(notes)), [""] * len(notes))
    axes.grid(False, axis="y")
    for place, (name, note) in enumerate(notes.items()):
        for text, up, size, color in ((shown(name, LABEL), 6, 10, INK), (shown(note, NOTE), -6, 8, SOFT)):
            axes.annotate(
                text, (0, place), (-8, up), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
                va="center", fontsize=size, color=color,
            )  # fmt: skip


def _like(axes: Axes, other: Axes) -> None:
    """Give other axes the look of these."""
    other.spines[["top", "right"]].set_visible(False)
    other.spines[["left", "bottom"]].set_color(SOFT)
    other.tick_params(colors=INK, labelsize=9)
    other.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    other.set_axisbelow(True)
