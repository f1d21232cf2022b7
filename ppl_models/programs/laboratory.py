"""What one run of a program shows: its sites, their values, and a signal of each that moves when its factor does.

Arrays are NumPy's here, whatever the program computes with.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Protocol

import numpy as np

FEW = 4  # a plate of at most so many copies is looked at whole, a larger one at its first, middle and last

Copy = tuple[int, ...]
Node = tuple[str, Copy]
Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Plate:
    """A plate around a site: its dim counts from the right, among the batch dims."""

    name: str
    dim: int
    size: int
    more: tuple[int, ...] = ()

    @property
    def indices(self) -> tuple[int, ...]:
        """The copies that are looked at: all of few, else the first, the middle, the last and what is in `more`."""
        few = self.size <= FEW
        return tuple(range(self.size)) if few else tuple(sorted({0, self.size // 2, self.size - 1, *self.more}))


@dataclass(frozen=True)
class Seen:
    """A site as one run met it.

    Args:
        name: of the site.
        kind: "latent", "observed", "factor" (observed, without a value), "determined" (a value without a density),
            "covariate" (an argument that is never observed) or "subsample".
        value: (*batch, *event).
        signal: the log density, masked and scaled, (*batch,); of a determined site its computed value.
        plates: around it, outermost first.
        event_dim: how many dims of `value` are the event's.
        fresh: draws another value from the site's own distribution.
        family: name of the distribution.
        auxiliary: whether the program says that the site is none of the model's.
        marginal: whether the site is to be summed out.
        mute: whether the signal has the event dims of a value, as no density was to be had.
        states: all values of a finite support, (K, 1, ..., 1, *event).
        joint: whether the entries of an event are bound to each other, as those of a simplex are.
    """

    name: str
    kind: str
    value: np.ndarray
    signal: np.ndarray
    plates: tuple[Plate, ...] = ()
    event_dim: int = 0
    fresh: Callable[[], np.ndarray] | None = None
    family: str = ""
    auxiliary: bool = False
    marginal: bool = False
    mute: bool = False
    states: Callable[[], np.ndarray] | None = None
    joint: bool = False

    @property
    def copies(self) -> list[Copy]:
        """The copies that are looked at: indices in each plate."""
        return list(product(*(plate.indices for plate in self.plates)))

    @property
    def nodes(self) -> list[Node]:
        """The site once for each copy."""
        return [(self.name, copy) for copy in self.copies]

    def at(self, array: np.ndarray, copy: Copy, event_dim: int) -> tuple:
        """The index of a copy in an array (*batch, *event dims)."""
        index: list[Any] = [slice(None)] * array.ndim
        for plate, i in zip(self.plates, copy, strict=True):
            axis = array.ndim + plate.dim - event_dim
            if axis >= 0 and array.shape[axis] == plate.size:
                index[axis] = i
        return tuple(index)

    @property
    def finite(self) -> bool:
        """Whether its signal is a number everywhere."""
        return bool(np.isfinite(self.signal).all())

    @property
    def signal_dim(self) -> int:
        """How many dims of `signal` are the event's."""
        return self.event_dim if self.mute or self.kind == "determined" else 0

    def _differs(self, other: "Seen", tolerance: float) -> np.ndarray:
        """Where the signal of another run, of the same shape, is not this one's."""
        old, new = self.signal, other.signal
        with np.errstate(invalid="ignore"):
            return (np.abs(new - old) > tolerance * (1 + np.abs(old))) | (np.isfinite(old) != np.isfinite(new))

    def moved(self, other: "Seen", tolerance: float) -> list[Copy]:
        """The copies at which the signal of another run differs from this one's."""
        if self.signal.shape != other.signal.shape:
            return self.copies
        differs = self._differs(other, tolerance)
        if not differs.any():
            return []
        return [copy for copy in self.copies if differs[self.at(differs, copy, self.signal_dim)].any()]

    def rows(self, other: "Seen", tolerance: float, plate: Plate) -> set[int]:
        """All indices in a plate, looked at or not, at which the signal of another run differs from this one's."""
        if self.signal.shape != other.signal.shape:
            return set()
        differs = self._differs(other, tolerance)
        axis = differs.ndim + plate.dim - self.signal_dim
        if axis < 0 or differs.shape[axis] != plate.size:
            return set()
        return set(np.flatnonzero(differs.any(tuple(i for i in range(differs.ndim) if i != axis))).tolist())

    def strays(self, other: "Seen", tolerance: float, own: Mapping[str, int]) -> str | None:
        """A large plate in which a copy moved that is neither looked at nor the own one, given as plate -> index."""
        for plate in self.plates:
            if plate.name not in own or plate.size <= FEW:
                continue
            if self.rows(other, tolerance, plate) - {*plate.indices, own[plate.name]}:
                return plate.name
        return None


@dataclass(frozen=True)
class Trial:
    """A run of a program: the sites in the order it met them."""

    sites: Mapping[str, Seen] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Seen:
        return self.sites[name]

    def __iter__(self) -> Iterator[Seen]:
        return iter(self.sites.values())

    def of(self, *kinds: str) -> list[Seen]:
        """The sites of these kinds."""
        return [seen for seen in self if seen.kind in kinds]


class Backend(Protocol):
    """How the programs of a language are run: one for Pyro, one for NumPyro."""

    tolerance: float
    leaves: list[np.ndarray]
    doubts: list[str]
    opaque: bool

    @property
    def remarks(self) -> list[str]:
        """What a reader should know of how the programs were run."""
        ...

    def names_for(self, program: Callable) -> list[str]:
        """A name for each leaf: the parameter of the program that it is passed as."""
        ...

    def protected(self, programs: Sequence[Callable]) -> AbstractContextManager[None]:
        """Whatever happens inside leaves parameters, random numbers and modes of the programs as they were."""
        ...

    def settle(self) -> None:
        """To be called after first runs, which may make parameters."""
        ...

    def jitter(self, seed: int | None) -> None:
        """Move all parameters a little, so that none is zero; the same seed moves them alike, None moves none."""
        ...

    def run(self, program: Callable, leaves: Sequence[np.ndarray], held: Values, seed: int = 0) -> Trial:
        """Run a program on arguments whose arrays are `leaves`, with the values of some sites held.

        A held latent stays latent, a held observation is replaced, a held determined site is overridden once it has
        been computed.
        """
        ...

    def tags(self, program: Callable, names: Sequence[frozenset[str]], seed: int = 0) -> dict[str, frozenset[str]]:
        """By provenance, the sites and data that each site may depend on: for most code never too few.

        Args:
            program: to be run.
            names: of the data in each of the leaves.
            seed: of the run.
        """
        ...
