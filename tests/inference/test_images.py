"""Sharpness: the mean squared Laplacian, on images of which it is known."""

import pytest
import torch

from ppl_models.inference import sharpness


def test_planes_have_none_and_a_chessboard_has_sixteen():
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    assert sharpness((3 * rows - 2 * columns + 7).reshape(1, -1), (1, 5, 6)) == 0
    assert sharpness(((rows + columns) % 2).reshape(1, -1), (1, 5, 6)) == 16  # (4 * 1 - 0)^2 and (4 * 0 - 4)^2
    assert sharpness(rows.square().reshape(1, -1), (1, 5, 6)) == 4  # second difference 2


def test_each_channel_counts_by_itself_and_all_axes_before_are_images():
    x = torch.rand(2, 3, 3 * 4 * 5, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    single = [sharpness(x.view(2, 3, 3, 20)[i, j, c], (1, 4, 5)) for i in range(2) for j in range(3) for c in range(3)]
    assert abs(sharpness(x, (3, 4, 5)) - sum(single) / len(single)) < 1e-12


def test_an_average_is_less_sharp_than_what_it_averages():
    x = torch.rand(50, 64, generator=torch.Generator().manual_seed(0))
    assert sharpness(x.mean(0), (1, 8, 8)) < 0.1 * sharpness(x, (1, 8, 8))


@pytest.mark.parametrize(
    ("width", "image", "told"),
    [
        (4, (1, 2, 2), r"found images \(1, 2, 2\), want \(channels, height, width\), at least 3 pixels high"),
        (64, (8, 8), r"found images \(8, 8\), want \(channels, height, width\)"),
        (60, (1, 8, 8), r"found rows of 60 values, want 64 of images \(1, 8, 8\)"),
    ],
)
def test_what_are_no_images_is_refused(width, image, told):
    with pytest.raises(ValueError, match=told):
        sharpness(torch.zeros(3, width), image)
