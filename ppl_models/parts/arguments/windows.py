"""`first_window(image, size)`: where a window over an image starts, for the numbers that place it in both languages."""

from collections.abc import Sequence
from math import log


def first_window(image: Sequence[int], size: int) -> tuple[float, float]:
    """(log s^2, log d~) of a grid of filters that lies over the middle half of an image, each half a stride wide.

    Args:
        image: (channels, height, width).
        size: filters a side.
    """
    stride = (max(image[1:]) - 1) / (size - 1) / 2
    return 2 * log(stride / 2), log(1 / 2)
