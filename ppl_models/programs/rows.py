"""`fits`, `rows_taken`, `refuse_rows`: pairs made for one number of rows; `starts`, `AsTheyCome`: looks at many."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from .pairs import DENSE
from .record import Run


def fits(runs: Iterable[Run], rows: int | None) -> bool:
    """Whether each plate of some runs has as many copies as what is in it has values, and no more than there are.

    One value may stand for all copies, unless it is all that there is of so many `rows` of data, one.
    """
    for site in (site for run in runs for site in run.of(*DENSE).values()):
        for plate in site.plates:
            dim = plate.dim - site.event_dim
            size = site.shape[dim] if len(site.shape) >= -dim else None
            one = size is None or (size == 1 and not (rows == 1 and site.kind == "observed"))
            if not (one or size == plate.size) or plate.size > plate.full_size:
                return False
    return True


def rows_in(args: Sequence[Any]) -> int | None:
    """The number of rows in the first of some arguments, None where it is no array of rows."""
    return len(args[0]) if args and getattr(args[0], "ndim", 0) else None


def refuse_rows(asks: str, found: int, whose: str, made: int) -> NoReturn:
    """Raise ValueError for a number of rows that a pair does not take, as "model" or "guide" was made for another."""
    instead = {
        "guide": "take a guide that reads its rows (MeanField, BottomUp), or train another one on these",
        "model": "write its plate for any number of rows, with len(x)",
    }
    once = f" in one batch (batch_size={made})" if asks == "fit" else ""
    raise ValueError(
        f"{asks}: found {found} row{'s' * (found != 1)}, want the {made} that the {whose} was made for, as it has a "
        f"plate or a value for each of them; pass those{once}, or {instead[whose]}"
    )


def rows_taken(
    found: int, sizes: Iterable[int], runs: Callable[[int, int, bool], bool], most: int = 8
) -> tuple[str, int] | None:
    """(program, number of rows) for a pair that does not run on the rows found, but on another number of them.

    Args:
        found: the number of rows on which it failed.
        sizes: of plates, then of parameters, among which the number is looked for.
        runs: (rows, of how many, alone) -> whether so many run through the pair, or through the model alone; they are
            the first ones again and again, so that none is among them that was not before.
        most: how many sizes are tried.
    """
    for size in [size for size in dict.fromkeys(sizes) if size > 0 and size != found][:most]:
        if runs(size, size, False) and not runs(size + 1, size, False):  # else it takes many a number
            return "guide" if runs(found, size, True) else "model", size
    return None


def starts(size: int, chunk: int, most: int) -> list[int]:
    """The first rows of chunks of data: of all of it, or evenly spaced from its start to its end, `most` rows in all.

    >>> starts(25, 10, 100), starts(1000, 10, 30)
    ([0, 10, 20], [0, 495, 990])
    """
    if size <= most:
        return list(range(0, size, chunk))
    count = max(most // chunk, 2)
    return [i * (size - chunk) // (count - 1) for i in range(count)]


class AsTheyCome:
    """A look at the batches of the first epoch as they come to be used, some together.

    Args:
        look: at batches that were gathered.
        rows: that are gathered for a look.
        batches: after how many batches each row has come once; 0 where nothing is to be looked at.

    >>> come = AsTheyCome(print, rows=2, batches=3)
    >>> for number, batch in enumerate(([[1]], [[2]], [[3]], [[1]])):
    ...     come(batch, number)
    [[[1]], [[2]]]
    [[[3]]]
    """

    def __init__(self, look: Callable[[list[Any]], object], rows: int, batches: int) -> None:
        self.look, self.rows, self.batches, self.held = look, rows, batches, []

    def __call__(self, batch: Sequence[Any], number: int) -> None:
        """Take a look at a batch, its arguments or the indices of its rows, by its number from 0, or keep it for later.

        Raises:
            ValueError: what the look finds.
        """
        if number >= self.batches:
            return
        self.held.append(batch)
        if sum(len(each[0]) for each in self.held) < self.rows and number + 1 < self.batches:
            return
        held, self.held = self.held, []
        self.look(held)
