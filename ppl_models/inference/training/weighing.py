"""`Weighing`: who weighs a batch of the data against what all data share, the program, its plate, or the objective."""

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from ppl_models.programs.pairs import Pair


@dataclass(frozen=True)
class Weighing:
    """How a pass over a batch is to be weighed, in either language.

    Our objectives divide terms by the size of a batch and shared ones by that of the data, so that a program must not
    scale its batch as well. Losses of Pyro's and NumPyro's are sums, in which a batch must stand for all the data.

    Attributes:
        plate: name of the data plate, "" where there is none.
        size: number of all the data, 1 where no site is in the data plate; None where it is not known.
        full_size: of a data plate that subsamples, before it does; else None.
        scales: what the programs scale themselves, so that a batch weighs as one of `size` data (`Pair.scales`).
        shared: whether they have sites outside the data plate.
    """

    plate: str = ""
    size: int | None = None
    full_size: int | None = None
    scales: Literal["", "data", "shared"] = ""
    shared: bool = False

    @classmethod
    def of(cls, pair: Pair, rows: int | None) -> Self:
        """That of a pair, of which a run saw a batch of so many rows of data."""
        data = pair.data
        full = None if data is None or data.full_size == data.size else data.full_size
        return cls(pair.plate, pair.units(rows) if rows else None, full, pair.scales(rows), bool(pair.shared))

    def among(self, rows: int) -> Self:
        """The same for batches of other data, so many rows; programs that scale go on to scale to what they know."""
        return replace(self, size=rows) if self.plate and not self.scales else self

    def factors(self, seen: int, loss: Any = None) -> tuple[float, float]:
        """What a pass over so many data multiplies the scales by: (those of the data plate, those of all else).

        Args:
            seen: size of the data plate.
            loss: that of Pyro or NumPyro which is computed; None for one of our objectives.
        """
        if not self.plate or not self.size:
            return 1.0, 1.0
        up = self.size / seen
        if loss is None:
            return (1 / up if self.scales == "data" else 1.0), (up if self.scales == "shared" else 1.0)
        return (up if self._raises(loss) else 1.0), 1.0

    def factor(self, frame: Any, rows: int, loss: Any = None) -> float:
        """That of a site in this frame of the data plate (None outside), in a pass over so many rows; see `factors`."""
        return self.factors(rows if frame is None else frame.size, loss)[frame is None]

    def _raises(self, loss: Any) -> bool:
        """Whether a batch must be raised to all the data for a loss, as nothing else does it."""
        known = self.scales or self.full_size is not None or getattr(loss, "data_size", None) is not None
        return bool(self.plate and self.size) and self.shared and not known

    def counted(self, loss: Any, rows: int) -> int:
        """The number of data that a loss of Pyro's or NumPyro's on so many rows is the sum over."""
        if not self.plate:
            return self.size or rows
        raised = (self.scales == "data" and getattr(loss, "data_size", None) is None) or self._raises(loss)
        return self.full_size or (self.size if self.size and raised else rows)

    def notes(self, rows: int, batch: int) -> list[str]:
        """What one should know of a training in such batches of so many rows."""
        if self.size == 1 and rows > 1 and not self.plate:
            apart = f"; each batch of {batch} of {rows} rows is one: try a plate around them, or batch_size={rows}"
            return ["no plate around the data: they count as one datum" + (apart if batch < rows else "")]
        if self.scales:
            what = "a batch up" if self.scales == "data" else "what all data share down"
            return [f"the programs scale {what} by {rows} / {batch} themselves, which is not done a second time"]
        return []
