"""Figure of a simulation-based calibration: the ECDF of the ranks of each quantity, in its simultaneous band."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from ppl_models.inference.evaluation.calibration.result import Calibration
from ppl_models.parts.arguments.checked import checked, told
from ppl_models.parts.arguments.kinds import Is

from .drawing import COLORS, DPI, INK, LABEL, SOFT, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST, ACROSS = 12, 4  # panels, and panels in a line
NAMES = Is("a sequence of quantities, or None", lambda found: isinstance(found, Sequence), error=ValueError)


@checked
def rank_ecdfs(found: Calibration, names: Annotated[Any, NAMES] | None = None, title: str = "") -> Figure:
    """ECDF of ranks less that of uniform ones, one panel a quantity, in the band that all of a right guide's are in.

    A curve over the band at the left and under it at the right is a guide too narrow, the other way round one too wide;
    all over it: draws too high. The band is the exact one of `Calibration`, so that a curve that leaves it is one that
    the text calls outside. ArviZ 0.x draws one quantity by `az.plot_ecdf(found.ranks[name], cdf=...)`, with its own
    band.

    Args:
        found: of `ppl_models.inference.sbc`.
        names: quantities, in order; by default the least even numbers of codes, and all joint ones.
        title: one line above.

    Raises:
        ValueError: names of what was not ranked.
    """
    from matplotlib.figure import Figure

    if names is None:
        joint = [name for name in found.joint if name in found.ranks]
        least = sorted(found.marginal, key=lambda name: found.p_values[name])[: MOST - len(joint)]
        names = [*(name for name in found.marginal if name in least), *joint]
    if not len(names) or not all(isinstance(name, str) and name in found.ranks for name in names):
        raise ValueError(f"rank_ecdfs: found names {told(names)}, want some of {', '.join(found.ranks)}"[:480])
    across = min(ACROSS, len(names))
    down = ceil(len(names) / across)
    figure = Figure(figsize=(2.9 * across + 0.4, 2.4 * down + 0.5), dpi=DPI, layout="constrained", facecolor="white")
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    shares, low, high = found.band()
    at = np.concatenate([[0.0], shares, [1.0]])
    for i, axes in enumerate(panels.flat):
        if i >= len(names):
            axes.set_axis_off()
            continue
        name, outside = names[i], names[i] in found.outside
        axes.fill_between(at, *(np.pad(b - shares, 1) for b in (low, high)), color=SOFT, alpha=0.25, linewidth=0)
        axes.plot(at, np.pad(found.ecdf(name) - shares, 1), color=COLORS[1] if outside else COLORS[0], linewidth=1.6)
        axes.set_title(shown(f"{name}{': outside' if outside else ''}", LABEL), loc="left", fontsize=10, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelbottom=i + across >= len(names))  # of panels with none below them, too
        axes.grid(color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
    figure.supxlabel("normalized rank of the truth among the guide's draws", fontsize=10, color=INK)
    figure.supylabel("ECDF - uniform", fontsize=10, color=INK)
    if title:
        figure.suptitle(shown(title), x=0.01, ha="left", fontsize=11, color=INK)
    return figure
