"""`lines`: curves with axes as an SVG element for an HTML page or a notebook, in the colour of the text around it."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ppl_models.programs.legible import cut, legible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"  # becomes the colour of the text around the picture
# on white and on black alike at least three to one
COLORS = "#3b82c4", "#c8701a", "#35935f", "#9a6fd0", "#cc4f5f", "#16909c", "#9c7440", "#7d8590"
DASHES = "-", "--", "-.", ":"
SIZE = 4.6, 2.9  # inches: as wide as a narrow screen, where the text has its own size then
NAMED = 8  # curves that a legend has room for; beyond, the first, some between, and the last
LABEL = 28  # characters of a name in a legend


def lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    *,
    title: str,
    dashed: Sequence[str] = (),
    whole: bool = False,
    ordered: bool = False,
) -> str:
    """Curves (places, values) by their names, as one `<svg>` element.

    Args:
        curves: name -> places and values; what is not finite is left out.
        x, y: what the axes show, with its unit.
        title: what the picture shows, for those who do not see it.
        dashed: names of curves that are told apart by dashes, too.
        ordered: whether the order of the curves means something, as their colours then do.
        whole: show all values; else those that a few far ones, as at the start of a training, do not squeeze.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color=INK, alpha=0.12, linewidth=0.8)
    many = ordered or len(curves) > len(COLORS)
    colors = [to_hex(colormaps["viridis"](0.2 + 0.6 * i / max(len(curves) - 1, 1))) for i in range(len(curves))]
    named = {round(i) for i in np.linspace(0, len(curves) - 1, min(NAMED, max(len(curves), 1)))}
    for i, (name, (places, values)) in enumerate(curves.items()):
        style = DASHES[1 + [*dashed].index(name) % 3] if name in dashed else "-"
        marker = "o" if len(places) < 12 else ""
        told = cut(legible(name), LABEL).replace("$", r"\$")
        label = f" {told}" if told.startswith("_") else told  # matplotlib leaves names with an underscore out
        color = colors[i] if many else COLORS[i]
        shown = label if i in named else None
        axes.plot(places, values, style, color=color, linewidth=1.6, label=shown, marker=marker, markersize=3)
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    if not whole and (between := limits([v for _, values in curves.values() for v in values])):
        axes.set_ylim(*between)
    axes.margins(x=0.02)
    if len(curves) > 1:
        longest = min(max(map(len, curves)), LABEL)
        where = {"loc": "outside upper left", "ncols": max(1, min(4, 60 // (longest + 8))), "borderaxespad": 0.1}
        figure.legend(frameon=False, fontsize=8.5, labelcolor=INK, columnspacing=1.2, **where)
    return _element(figure, title)


def limits(values: Sequence[float]) -> tuple[float, float] | None:
    """The ends of an axis: all values but the largest, where these are far above all others; None for a few.

    >>> limits([1e6, 3.0, 2.0, 1.0, 1.0, 1.0]) is not None, limits([1.0, 2.0])
    (True, None)
    """
    finite = np.asarray([v for v in values if v is not None and math.isfinite(v)])
    if len(finite) <= 3:
        return None
    usual = np.quantile(finite, [0.1, 0.9])  # the first records are often far above all others
    low, high = finite.min(), min(finite.max(), usual[1] + 1.5 * np.ptp(usual))
    pad = 0.05 * max(high - low, 1e-3)
    return float(low - pad), float(high + pad)


def _element(figure: "Figure", title: str) -> str:
    """A figure as an element that fills its place, with ids that no other picture of a page has."""
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "ppl-models", "font.family": ["sans-serif"]}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    mark = f"f{sha256(text.encode()).hexdigest()[:8]}-"
    used = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", text))
    names = {name for pair in used for name in pair if name}
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{mark}{m[1]}"' if m[1] in names else "", text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{mark}", text).replace(INK, "currentColor")
    text = re.sub(r'font: (\S+) [^;"]*|; font-family: [^;"]*', lambda m: f"font-size: {m[1]}" if m[1] else "", text)
    width, height = (72 * inches for inches in SIZE)
    start = (
        f'<svg role="img" viewBox="0 0 {width:g} {height:g}" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" style="width:100%;max-width:{1.5 * width:g}px;height:auto">'
        f"<title>{escape(legible(title))}</title>"
    )
    return re.sub(r"<svg[^>]*>", lambda _: start, text, count=1).strip()
