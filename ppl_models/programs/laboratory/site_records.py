"""`SiteRecord`, `ProgramRun`: what a controlled run of a program shows, in NumPy's arrays whatever it computes with."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from ..record import Kind, Plate, Site

FEW = 4  # a plate of at most so many copies is looked at whole, a larger one at its first, middle and last

Copy = tuple[int, ...]
Node = tuple[str, Copy]


@dataclass(frozen=True, kw_only=True)
class SiteRecord:
    """A site of a controlled run, with a signal that moves when its factor does.

    Attributes:
        site: as the run shows it, its value in NumPy; without a density it is "deterministic". Its mask is False where
            no copy counts in the first run: the signal then lacks it, and is 1 more where one does.
        signal: the log density, masked and scaled, (*batch,); of a deterministic site its computed value.
        fresh: draws another value from the site's own distribution.
        states: all values of a finite support, (K, 1, ..., 1, *event), or None where copies have different ones.
        contains: whether values are in the support of the site's distribution, as far as its language minds.
        mute: whether the signal has the event dims of a value, as no density was to be had.
        joint: whether the entries of an event are bound to each other, as those of a simplex are.
        more, base: by plate further copies that are looked at; gives what coupling transforms make the value of.
        stretch: log |det dz/de|, of a site of value z whose base e was held; the signal is then that of e.
    """

    site: Site
    signal: np.ndarray = field(default_factory=lambda: np.zeros(()))
    fresh: Callable[[], np.ndarray] | None = None
    states: Callable[[], np.ndarray | None] | None = None
    contains: Callable[[np.ndarray], bool] | None = None
    mute: bool = False
    joint: bool = False
    more: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    base: Callable[[], np.ndarray] | None = None
    stretch: np.ndarray | None = None

    @property
    def name(self) -> str:
        """Of the site."""
        return self.site.name

    @property
    def kind(self) -> Kind:
        """Of the site."""
        return self.site.kind

    @property
    def value(self) -> np.ndarray:
        """Of the site, (*batch, *event)."""
        return self.site.value

    @property
    def plates(self) -> tuple[Plate, ...]:
        """Around the site, outermost first."""
        return self.site.plates

    def indices(self, plate: Plate) -> tuple[int, ...]:
        """The copies in a plate that are looked at: all of few, else the first, the middle, the last and `more`."""
        few, more = plate.size <= FEW, self.more.get(plate.name, ())
        return tuple(range(plate.size)) if few else tuple(sorted({0, plate.size // 2, plate.size - 1, *more}))

    @property
    def copies(self) -> list[Copy]:
        """The copies that are looked at: indices in each plate."""
        return list(product(*map(self.indices, self.plates)))

    @property
    def nodes(self) -> list[Node]:
        """The site once for each copy."""
        return [(self.name, copy) for copy in self.copies]

    def at(self, array: np.ndarray, copy: Sequence[Any], event_dim: int | None = None) -> tuple:
        """The index of a copy in an array (*batch, *event dims), by default one of the value's shape."""
        index: list[Any] = [slice(None)] * array.ndim
        for plate, i in zip(self.plates, copy, strict=True):
            axis = array.ndim + plate.dim - (self.site.event_dim if event_dim is None else event_dim)
            if axis >= 0 and array.shape[axis] == plate.size:
                index[axis] = i
        return tuple(index)

    @property
    def finite(self) -> bool:
        """Whether its signal is a number everywhere."""
        return bool(np.isfinite(self.signal).all())

    @property
    def signal_dim(self) -> int:
        """The number of dims of `signal` that are the event's."""
        return self.site.event_dim if self.mute or self.kind == "deterministic" else 0

    def moved(self, before: "SiteRecord", after: "SiteRecord", tolerance: float) -> list[Copy]:
        """The copies of this record at which the signals of two runs differ."""
        if before.signal.shape != after.signal.shape:
            return self.copies
        differs = _differs(before.signal, after.signal, tolerance)
        if not differs.any():
            return []
        return [copy for copy in self.copies if differs[self.at(differs, copy, before.signal_dim)].any()]


def rows(before: SiteRecord, after: SiteRecord, tolerance: float, plate: Plate) -> set[int]:
    """All indices in a plate, looked at or not, at which the signals of two runs differ."""
    if before.signal.shape != after.signal.shape:
        return set()
    differs = _differs(before.signal, after.signal, tolerance)
    axis = differs.ndim + plate.dim - before.signal_dim
    if axis < 0 or differs.shape[axis] != plate.size:
        return set()
    return set(np.flatnonzero(differs.any(tuple(i for i in range(differs.ndim) if i != axis))).tolist())


def _differs(old: np.ndarray, new: np.ndarray, tolerance: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (np.abs(new - old) > tolerance * (1 + np.abs(old))) | (np.isfinite(old) != np.isfinite(new))


class ProgramRun(Mapping[str, SiteRecord]):
    """The records of one run by name, in the order in which the program met the sites.

    Args:
        records: of the sites.
        drew: whether the program may have drawn random numbers, so that another seed may change something.
    """

    def __init__(self, records: Iterable[SiteRecord] = (), drew: bool = True) -> None:
        self._records, self.drew = {record.name: record for record in records}, drew

    def __getitem__(self, name: str) -> SiteRecord:
        return self._records[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def of(self, *kinds: Kind) -> dict[str, SiteRecord]:
        """The sites of these kinds, by name."""
        return {name: record for name, record in self.items() if record.kind in kinds}

    def nodes(self, names: Iterable[str]) -> list[Node]:
        """Each copy that is looked at of some sites."""
        return [node for name in names for node in self[name].nodes]

    def indices(self, node: Node) -> dict[str, int]:
        """The index of a node in each of its plates."""
        record = self.get(node[0])
        return {} if record is None else dict(zip((p.name for p in record.plates), node[1], strict=True))

    def alike(self, a: Node, b: Node) -> bool:
        """Whether two nodes belong to the same copy: equal indices in every plate they share."""
        first, second = self.indices(a), self.indices(b)
        return all(first[name] == second[name] for name in first.keys() & second.keys())
