"""`priced`: the figure of the demo; graphs of guides with what they lack, its price, and what training has measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .drawing import COLORS, INK, SOFT, tidy_axes
from .structures import above, draw_bounds, label_lines, write_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Edge = tuple[str, str]
RED, NODE = "#c0392b", 0.17  # of what is missing; the radius of a node
LINE, LOWER, HEAD, FOOT = 0.92, 0.6, 0.95, 0.65  # inches: of a guide above and below, and around each half


def priced(
    guides: Mapping[str, Mapping[str, Any]],
    model: Sequence[Edge],
    places: Mapping[str, tuple[float, float]],
    learned: Mapping[str, Mapping[str, Any]],
    titles: tuple[str, str],
) -> Figure:
    """Above, guides for a model that is given: what each lacks, the price of that, and how far its bound came to lie.

    Below, guides with which a model was learned, as in `structures.ablation`.

    Args:
        guides: name -> {"note": said below it, "edges", "missing": (parent, site) pairs, "price": nats, "measured":
            (nats, standard error)}.
        model: the edges of the model, drawn at the left.
        places: node -> (x, y) in [0, 1]; those of data are filled.
        learned: rows of `structures.ablation`.
        titles: a line above each half.
    """
    from matplotlib.figure import Figure

    up, down = LINE * len(guides), LOWER * len(learned)
    height = HEAD + up + FOOT + HEAD + down + FOOT
    figure = Figure(figsize=(11.5, height), dpi=100, facecolor="white")

    def box(left: float, top: float, width: float, tall: float) -> tuple[float, float, float, float]:
        return left, 1 - (top + tall) / height, width, tall / height

    nodes = figure.add_axes(box(0.01, HEAD + up / 2 - 0.75 * LINE, 0.17, 1.5 * LINE))
    _draw_graph(nodes, places, model, ())
    nodes.set_title("the model", fontsize=10, color=INK)
    for i, row in enumerate(guides.values()):
        own = figure.add_axes(box(0.2, HEAD + i * LINE + 0.01, 0.17, LINE - 0.02))
        _draw_graph(own, places, row["edges"], row["missing"])
        if not i:
            own.set_title("guides; what they lack in red", fontsize=10, color=INK)
    axes = figure.add_axes(box(0.585, HEAD, 0.4, up))
    _draw_prices(axes, guides)
    top = HEAD + up + FOOT + HEAD
    draw_bounds(figure.add_axes(box(0.26, top, 0.32, down)), figure.add_axes(box(0.65, top, 0.33, down)), learned)
    for title, at in zip(titles, (0.28, top - HEAD + 0.28), strict=True):
        figure.text(0.015, 1 - at / height, title, fontsize=11, color=INK, va="center")
    return figure


def _draw_prices(axes: Axes, guides: Mapping[str, Mapping[str, Any]]) -> None:
    """The price of each structure as a bar, and what was measured as a point on it."""
    tidy_axes(axes)
    label_lines(axes, {name: row["note"] for name, row in guides.items()})
    place = np.arange(len(guides))
    prices = [row["price"] for row in guides.values()]
    axes.barh(place, prices, height=0.42, color="#e9c9a4", label="price, by the inspector before training")
    values, errors = np.array([row["measured"] for row in guides.values()]).T
    how = {"fmt": "o", "color": COLORS[0], "capsize": 3, "ms": 6, "lw": 1.2}
    axes.errorbar(values, place, xerr=errors, label="measured: evidence minus ELBO after training", **how)
    for at, (price, value, error) in enumerate(zip(prices, values, errors, strict=True)):
        write_beside(axes, f"price {price:.3f}, measured {value:.3f} ± {error:.3f}", max(price, value), at, INK)
    axes.set_xlim(0, 2 * max(*prices, *values))
    axes.set_xlabel("nats per datum that the structure costs (less is better)", fontsize=9)
    above(axes, -0.42)


def _draw_graph(
    axes: Axes, places: Mapping[str, tuple[float, float]], edges: Sequence[Edge], missing: Sequence[Edge]
) -> None:
    """A directed graph; missing edges dashed in red, those from data faint."""
    from matplotlib.patches import Circle, FancyArrowPatch

    sources = {u for u, _ in edges}
    data = {name for name in places if name.startswith("x")}
    for (u, v), lacks in [*((edge, False) for edge in edges), *((edge, True) for edge in missing)]:
        color = RED if lacks else "#c9c9c9" if u in data else INK
        how = {"arrowstyle": "-|>", "mutation_scale": 9, "shrinkA": 9, "shrinkB": 9, "lw": 1.5 if lacks else 1.1}
        bend = "arc3,rad=0.18" if u in data and v in sources else "arc3"
        line = "--" if lacks else "-"
        axes.add_patch(FancyArrowPatch(places[u], places[v], color=color, linestyle=line, connectionstyle=bend, **how))
    for name, place in places.items():
        face = "#dfe7ee" if name in data else "white"
        axes.add_patch(Circle(place, NODE, facecolor=face, edgecolor=SOFT, lw=1, zorder=3))
        axes.text(*place, name, ha="center", va="center", fontsize=8, color=INK, zorder=4)
    axes.set_xlim(-0.3, 2.3)
    axes.set_ylim(-0.3, 1.3)
    axes.set_aspect("equal")
    axes.set_axis_off()
