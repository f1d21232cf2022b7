"""States of discrete latents, in neither language: `states_of` bits, and checks of labels and of programs with bits."""

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from .checks import Arrays

MOST_BITS = 16  # over whose states sums are taken


def states_of(bits: int) -> np.ndarray:
    """All values of so many bits, (2^bits, bits), zeros and ones in the order of binary numbers.

    Raises:
        ValueError: more than 16 bits.

    >>> states_of(2).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    if bits > MOST_BITS:
        raise ValueError(
            f"BitVAE: found {bits} bits, want at most {MOST_BITS} for a sum over all states; try "
            "evaluate(Discretized(model), Discretized(guide), x)"
        )
    return np.arange(2**bits)[:, None] >> np.arange(bits)[::-1] & 1


def refuse_discretized(names: Sequence[str]) -> NoReturn:
    """Raise ValueError for a program without relaxed bits, which draws its latents from something else."""
    raise ValueError(
        f"Discretized: found no relaxed bits (the program draws {', '.join(map(repr, names)) or 'nothing'} from other "
        "distributions), want some; try a BitVAE, and for its guide family='bits' or 'autoregressive-bits'"
    )


def check_labels(arrays: Arrays, labels: Any, n: int) -> None:
    """Raise TypeError or ValueError unless `labels` are whole numbers, one of each of n rows.

    Args:
        arrays: of the language.
        labels: of the rows, -1 for a row without.
        n: how many rows there are.
    """
    if not isinstance(labels, arrays.types):
        found = type(labels).__name__
        raise TypeError(f"labels: found a {found}, want a {arrays.called} of whole numbers, -1 for a row without")
    if arrays.is_floating(labels):
        raise TypeError(f"labels: found dtype {labels.dtype}, want whole numbers, -1 for a row without")
    if tuple(labels.shape) != (n,):
        raise ValueError(f"labels: found shape {tuple(labels.shape)}, want ({n},), one of each row; try -1 for none")


def check_classes(bad: Sequence[Any], classes: int) -> None:
    """Raise ValueError for the first of the labels that are of no class, if there are any."""
    if len(bad):
        raise ValueError(f"labels: found {int(bad[0])}, want 0 to {classes - 1}, or -1 for a row without")
