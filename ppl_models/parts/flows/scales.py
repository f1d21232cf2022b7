"""`plan`, `slots`, `levels_of_image`: flows of images in scales, as tables of places in a flat row."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Literal

import numpy as np

Style = Literal["real-nvp", "glow"]


def plan(image: Sequence[int], style: Style, levels: int, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """The steps of a `MultiScale`: where in a row the entries of each are, (channels, height, width), and which change.

    The second is None for a map of channels, which changes all.

    >>> [(places.shape, changed is None) for places, changed in plan((1, 2, 2), "glow", 1, steps=1)]
    [((4, 1, 1), True), ((4, 1, 1), False)]
    """
    places = np.arange(prod(image)).reshape(*image)
    for level in range(levels):
        if style == "real-nvp":
            for i in range(3):
                yield places, checkerboard(places, i)
            places = squeezed(places)
            for i in range(3):
                yield places, halves(places, i)
        else:
            places = squeezed(places)
            for _ in range(steps):
                yield places, None
                yield places, halves(places)
            if level + 1 < levels:
                yield places, halves(places)
        if style == "real-nvp" or level + 1 < levels:
            places = places[: len(places) // 2]
    for i in range(4 if style == "real-nvp" else 0):
        yield places, checkerboard(places, i)


def slots(size: int, places: np.ndarray) -> np.ndarray:
    """Where the numbers of each entry of a row are among those of some places; beyond their end for the other entries.

    >>> slots(4, np.array([3, 1])).tolist()
    [2, 1, 2, 0]
    """
    at = np.full(size, places.size)
    at[places.ravel()] = np.arange(places.size)
    return at


def squeezed(places: np.ndarray) -> np.ndarray:
    """(channels, height, width) -> (4 channels, height / 2, width / 2)."""
    return np.concatenate([places[:, i::2, j::2] for i, j in ((0, 0), (1, 1), (0, 1), (1, 0))])


def checkerboard(places: np.ndarray, parity: int) -> np.ndarray:
    """Whether an entry is on a field of one color."""
    rows, columns = (np.arange(side) for side in places.shape[1:])
    return np.broadcast_to((rows[:, None] + columns + parity) % 2 == 1, places.shape)


def halves(places: np.ndarray, parity: int = 0) -> np.ndarray:
    """Whether an entry is of the second half of the channels, or for an odd parity of the first."""
    second = np.arange(len(places)) >= len(places) // 2
    return np.broadcast_to((second ^ bool(parity % 2))[:, None, None], places.shape)


def levels_of_image(owner: str, image: Sequence[int], levels: int | None, least: int) -> int:
    """How often images are squeezed: as given, or until a side would be below 4 or odd, but `least` times.

    Raises:
        ValueError: sides that cannot be halved so often.

    >>> levels_of_image("RealNVP", (1, 28, 28), None, 0), levels_of_image("RealNVP", (3, 32, 32), None, 0)
    (2, 3)
    """
    sides = image[1:]
    if levels is None:
        levels = 0
        while all(side % 2 ** (levels + 1) == 0 and side >= 2 ** (levels + 3) for side in sides):
            levels += 1
        levels = max(levels, least)
    if any(side % 2**levels for side in sides):
        times = f"{levels} times" if levels > 1 else "once"
        raise ValueError(f"{owner}: found an image {tuple(image)}, want sides that can be halved {times}; pad it")
    return levels
