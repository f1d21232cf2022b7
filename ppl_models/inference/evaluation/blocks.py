"""`Blocks`: rows of data that are made block by block, so that the noise of a row is the same in passes of any size."""

from collections.abc import Callable, Sequence
from typing import Any

BLOCK = 100  # rows


class Blocks:
    """Rows from one number to another, of blocks that are each made at once.

    Two evaluations are paired datum by datum if both see the same data. Noise of the data, as of dequantized levels, is
    therefore drawn for the block of a row, and not for a pass, whose rows depend on the pair.

    Args:
        n: rows of all the data.
        make: (number of a block, first row, row after the last) -> its rows, a tuple of arguments.
        join: what makes one array of several.
    """

    def __init__(
        self,
        n: int,
        make: Callable[[int, int, int], tuple[Any, ...]],
        join: Callable[[Sequence[Any]], Any],
    ) -> None:
        self.n, self.make, self.join = n, make, join
        self.last: tuple[int, tuple[Any, ...]] = -1, ()

    def __call__(self, start: int, stop: int) -> tuple[Any, ...]:
        """The rows from `start` to the one before `stop`, one array an argument.

        >>> import numpy as np
        >>> rows = Blocks(250, lambda k, first, last: (np.arange(first, last) + 1000 * k,), np.concatenate)
        >>> rows(98, 102)[0].tolist(), rows(249, 250)[0].tolist()
        ([98, 99, 1100, 1101], [2249])
        """
        first = start // BLOCK
        found = [self._block(k) for k in range(first, -(-stop // BLOCK))]
        own = slice(start - first * BLOCK, stop - first * BLOCK)
        return tuple(self.join(parts)[own] for parts in zip(*found, strict=True))

    def _block(self, k: int) -> tuple[Any, ...]:
        if self.last[0] != k:
            self.last = k, self.make(k, k * BLOCK, min((k + 1) * BLOCK, self.n))
        return self.last[1]
