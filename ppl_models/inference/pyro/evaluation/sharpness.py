"""`sharpness`: the mean squared Laplacian of images."""

from math import prod

from torch import Tensor

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Image


@checked
def sharpness(rows: Tensor, image: Image) -> float:
    """Mean squared discrete Laplacian of images: how much of them is edges and fine detail.

        mean (4 x_ij - x_{i-1,j} - x_{i+1,j} - x_{i,j-1} - x_{i,j+1})^2      over the pixels inside the border

    A blurred image, an average of several, has less of it than the images that it averages. It is in squared units of
    a pixel: compare it with that of the data, and remember that noise of pixels counts as detail.

    Args:
        rows: (*any, channels * height * width).
        image: (channels, height, width), at least 3 pixels high and wide.

    Raises:
        ValueError: smaller images, which have no inside; rows of another width.
    """
    if isinstance(image, int) or len(image) != 3 or min(image[1:]) < 3:
        want = "(channels, height, width), at least 3 pixels high and wide"
        raise ValueError(f"sharpness: found images {image}, want {want}")
    width = rows.shape[-1] if rows.dim() else 0
    if width != prod(image):
        raise ValueError(f"sharpness: found rows of {width} values, want {prod(image)} of images {tuple(image)}")
    x = rows.reshape(-1, *image)
    inside = 4 * x[..., 1:-1, 1:-1] - x[..., :-2, 1:-1] - x[..., 2:, 1:-1] - x[..., 1:-1, :-2] - x[..., 1:-1, 2:]
    return inside.square().mean().item()
