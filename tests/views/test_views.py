"""Figures: the right pixels in the right place, whole files, and a word on what cannot be drawn."""

import matplotlib.image
import numpy as np
import pytest
import torch

from ppl_models.views import history, image_grid, reconstructions, save_figure
from ppl_models.views.criteria import curves


def pixels(figure) -> np.ndarray:
    """What a figure of images shows, in pixels of the images."""
    (axes,) = figure.axes
    return np.asarray(axes.images[0].get_array())


def test_grid_holds_every_pixel_in_its_place():
    values = torch.rand(5, 6)
    page = pixels(image_grid(values, (1, 2, 3), columns=3))
    assert page.shape == (5, 11, 3)  # two lines of two pixels and a gap; three times three pixels and two gaps
    np.testing.assert_allclose(page[3:5, 4:7, 0], values[4].reshape(2, 3), rtol=1e-6)
    assert (page[2] == 1).all() and (page[3:5, 8:] == 1).all()  # the gap, and the place of the sixth image


def test_colour_images_keep_their_channels():
    values = torch.rand(1, 3 * 4 * 2)
    np.testing.assert_allclose(
        pixels(image_grid(values, (3, 4, 2))), values.reshape(3, 4, 2).permute(1, 2, 0), rtol=1e-6
    )


def test_values_outside_the_unit_interval_are_cut_off():
    page = pixels(image_grid(torch.tensor([[-1.0, 2.0, float("nan"), 0.5]]), (1, 2, 2)))
    assert page[..., 0].tolist() == [[0, 1], [0, 0.5]]


def test_every_pixel_is_a_whole_number_of_dots(tmp_path):
    path = save_figure(
        image_grid(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), (1, 1, 2), title="two"), tmp_path / "grid.png"
    )
    shown = matplotlib.image.imread(path)[..., 0]
    line = shown[-40]  # crosses both images
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[1], line, [1]]) < 0.5)))
    assert shown.shape[0] > 60 and set(np.unique(line.round(3))) == {0.0, 1.0} and len(runs) > 0


def test_reconstructions_alternate_with_the_data():
    x, means = torch.zeros(3, 4), torch.full((3, 4), 0.5)
    figure = reconstructions(x, means, (1, 2, 2), columns=2)
    page = pixels(figure)
    assert [page[i, 0, 0] for i in (0, 3, 6, 9)] == [0, 0.5, 0, 0.5]
    assert [text.get_text() for text in figure.axes[0].texts] == ["data", "model"] * 2


def test_history_draws_validation_and_warm_up_where_there_are_any():
    plain = [{"step": i, "loss": 10.0 - i, "negative_elbo": 10.0 - i, "seconds": 1.0} for i in range(5)]
    rich = [{**record, "loss": record["loss"] - 3, "valid": record["negative_elbo"] + 1} for record in plain]
    old = [{name.replace("negative_elbo", "nll"): v for name, v in record.items()} for record in plain]
    assert [line.get_label() for line in history(plain).axes[0].lines] == ["training bound"]
    assert [line.get_label() for line in history(old).axes[0].lines] == ["training bound"]  # of files of version 0.1
    labels = [line.get_label() for line in history(rich, "title").axes[0].lines]
    assert labels == ["training bound", "validation bound", "loss (with warm-up)"]


def test_a_figure_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="found the ending '.bmp', want one of"):
        save_figure(image_grid(torch.rand(1, 4), (1, 2, 2)), tmp_path / "grid.bmp")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "shape", "message"),
    [
        (torch.rand(2, 4), (4,), "want .channels, height, width. with 1 or 3 channels"),
        (torch.rand(2, 8), (2, 2, 2), "with 1 or 3 channels"),
        (torch.rand(2, 5), (1, 2, 2), r"found values \(2, 5\), want \(N, 4\)"),
        (torch.rand(0, 4), (1, 2, 2), "N at least 1"),
    ],
)
def test_what_is_no_image_is_refused(values, shape, message):
    with pytest.raises(ValueError, match=message):
        image_grid(values, shape)


@pytest.mark.parametrize("name", ["$", "$5 and $x^2$", "a$b_{", "x" * 5000, "\x1b[2J"])
def test_names_are_drawn_as_they_stand(name, tmp_path):
    """No mathematics, no control characters, and no picture as wide as a street."""
    records = [{"step": 1, "loss": 1.0, "negative_elbo": 1.0}, {"step": 2, "loss": 1.0, "negative_elbo": 0.5}]
    figures = [
        history(records, name),
        curves({name: records}, {name: ("loss",)}, title=name),
        image_grid(np.zeros((2, 16)), (1, 4, 4), title=name),
    ]
    for i, figure in enumerate(figures):
        assert matplotlib.image.imread(save_figure(figure, tmp_path / f"{i}.png")).shape[1] < 3000
