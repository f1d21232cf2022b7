"""`Fingerprint`: a digest of data, of all rows where that takes a second at most, else of evenly spaced ones."""

from collections.abc import Callable
from functools import cached_property

MOST = 2**28  # bytes that are read
LEAST = 1000  # rows that are read of larger ones; files that say no number have read so many


class Fingerprint:
    """What a checkpoint says of data, to tell on resume whether they are others.

    Args:
        size: rows.
        row: bytes of one; 0 where the values are not at hand, and type and length alone can be compared.
        digest: of so many rows, evenly spaced, the first and the last among them, and of types and shapes.
    """

    def __init__(self, size: int, row: int, digest: Callable[[int], str]) -> None:
        self.size, self.known, self._digest = size, row > 0, digest
        self.count = min(size, max(MOST // max(row, 1), LEAST))

    @cached_property
    def text(self) -> str:
        """How many rows were read, and the digest."""
        return f"{self.count} of {self.size} rows {self._digest(self.count)}"

    def matches(self, then: str | None) -> bool:
        """Whether data of then, by their text, are these, as far as can be told."""
        if then is not None and " " not in then:  # an older file
            return then == self._digest(min(self.size, LEAST))
        return then == self.text

    def note(self, name: str, then: str | None) -> list[str]:
        """What one should know of the comparison of these data with those of then."""
        if not self.known:
            return [f"the {name} were compared by their type and length alone: they make their rows themselves"]
        count = min(self.size, LEAST) if then is not None and " " not in then else self.count
        return [f"the {name} were compared by {count} of {self.size} rows, evenly spaced"] if count < self.size else []


def spaced(size: int, count: int) -> list[int]:
    """So many evenly spaced rows, the first and the last among them."""
    return sorted({i * (size - 1) // max(count - 1, 1) for i in range(count)})
