"""Figures of structures: every guide by name and with its note, bounds and differences where they belong."""

import numpy as np

from ppl_models.views.plots import save_figure
from ppl_models.views.priced import priced
from ppl_models.views.structures import ablation

ROWS = {
    "mean-field": {"note": "unfaithful: lacks z1→z2", "negative_elbo": [3.0, 3.2], "nll": [2.9, 2.9], "minus": {}},
    "$5": {
        "note": "faithful",
        "negative_elbo": [2.5, 2.6],
        "nll": [2.4, 2.5],
        "minus": {"negative_elbo": (-0.55, 0.05), "nll": (-0.45, float("nan"))},
    },
}


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_bounds_and_differences_stand_at_the_lines_of_their_guides(tmp_path):
    figure = ablation(ROWS, "title")
    bounds, minus = figure.axes
    assert texts(bounds)[:6] == ["mean-field", "unfaithful: lacks z1→z2", r"\$5", "faithful", "3.10", "2.90"]
    assert texts(minus) == ["-0.55", "-0.45"] and bounds.get_ylim() == minus.get_ylim() == (1.5, -0.5)
    points = np.concatenate([line.get_xydata() for line in bounds.lines if len(line.get_xdata())])
    assert {(round(x, 2), round(y)) for x, y in points} == {
        *((x, 0) for x in (3.0, 3.2, 3.1, 2.9)),
        *((x, 1) for x in (2.5, 2.6, 2.55, 2.4, 2.45)),
    }
    assert save_figure(figure, tmp_path / "ablation.svg").stat().st_size > 1000


def test_prices_are_bars_and_measurements_points_on_them(tmp_path):
    guides = {
        "mean field": {"note": "unfaithful", "edges": [("x", "z1")], "missing": [("z1", "z2")], "price": 2.0},
        "faithful": {"note": "perfect", "edges": [("x", "z1"), ("z1", "z2")], "missing": [], "price": 0.0},
    }
    for row, measured in zip(guides.values(), ((2.1, 0.05), (0.01, 0.001)), strict=True):
        row["measured"] = measured
    places = {"z1": (0.0, 1.0), "z2": (1.0, 1.0), "x": (0.5, 0.0)}
    figure = priced(guides, [("z1", "z2"), ("z2", "x")], places, ROWS, ("above", "below"))
    model, first, second, bars, *_ = figure.axes
    arrows = [[patch for patch in axes.patches if hasattr(patch, "get_arrowstyle")] for axes in (model, first, second)]
    assert [len(found) for found in arrows] == [2, 2, 2]
    assert [[arrow.get_linestyle() for arrow in found].count("--") for found in arrows] == [0, 1, 0]
    assert [bar.get_width() for bar in bars.patches] == [2.0, 0.0]
    assert "price 2.000, measured 2.100 ± 0.050" in texts(bars) and "mean field" in texts(bars)
    assert {text.get_text() for text in figure.texts} == {"above", "below"} and len(figure.axes) == 6
    assert save_figure(figure, tmp_path / "demo.png").stat().st_size > 1000
