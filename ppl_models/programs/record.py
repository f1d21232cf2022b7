"""`Run`, `Site`, `Plate`, `Layers`: what one run of a user's program shows, in whichever language it is written.

Names, kinds, shapes and plates are neutral; values and distributions stay the objects of the language, on their device
and with their gradients. `programs.pyro` and `programs.numpyro` make these records, and nothing else reads a trace.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

Kind = Literal["latent", "observed", "factor", "deterministic", "point", "subsample", "covariate"]
COMPUTED = "deterministic", "point"  # kinds of sites whose value the program computes: neither drawn nor measured


@dataclass(frozen=True)
class Plate:
    """A plate around a site.

    Attributes:
        name: of the plate; two plates may use one dim in turn, so that plates are told apart by name.
        dim: its dim, negative, counted from the right of the batch dims.
        size: how many copies there are in this run.
        full_size: how many there are in all; larger than `size` where the plate subsamples. Of a site alone, in a plate
            that was given no size, 0: then `size` is what the site has there, and `plates.sized` tells the rest.
    """

    name: str
    dim: int
    size: int
    full_size: int


@dataclass(frozen=True, kw_only=True)
class Site:
    """One site of a run.

    Attributes:
        name: of the site.
        kind: "latent" (drawn), "observed" (measured), "factor" (a density without a value), "deterministic" (a value
            without a density), "point" (a computed value that is observed under a point mass, whose density counts),
            "subsample" (the indices that a plate drew) or, of an inspection alone, "covariate" (an argument that no
            site observes).
        shape: of the value, (*batch, *event).
        event_dim: how many dims of the value, from the right, are those of one event.
        plates: around it, outermost first, less the plate of the particles.
        family: name of the distribution, without what only wraps it (independent dims, masks, expansions).
        reparametrized: whether gradients go through a draw.
        auxiliary: whether the program says that the site is none of the model's.
        enumerated: whether the site is to be summed out.
        scanned: whether it is in a `scan` of NumPyro's, where nothing takes the place of its distribution.
        scale: of the log density, by subsampling or by the program, a number or the language's own array.
        mask: of the entries of the value that count, False or the language's own array, which broadcasts to the value;
            None where all do.
        value: the language's own array.
        fn: the language's own distribution.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    event_dim: int = 0
    plates: tuple[Plate, ...] = ()
    family: str = ""
    reparametrized: bool = True
    auxiliary: bool = False
    enumerated: bool = False
    scanned: bool = False
    scale: Any = field(default=1.0, repr=False, compare=False)
    mask: Any = field(default=None, repr=False, compare=False)
    value: Any = field(default=None, repr=False, compare=False)
    fn: Any = field(default=None, repr=False, compare=False)

    @cached_property
    def event_shape(self) -> tuple[int, ...]:
        """The rightmost dims of the value, those of one event."""
        return self.shape[len(self.shape) - self.event_dim :]

    @cached_property
    def batch_shape(self) -> tuple[int, ...]:
        """The dims of the value left of those of one event."""
        return self.shape[: len(self.shape) - self.event_dim]

    @cached_property
    def rank(self) -> int:
        """The number of batch dims that its plates take, gaps included."""
        return max((-plate.dim for plate in self.plates), default=0)

    def plate(self, name: str) -> Plate | None:
        """The plate of this name around the site, None if there is none."""
        return next((plate for plate in self.plates if plate.name == name), None)


def is_masked_out(site: Site, counts: bool) -> bool:
    """Whether a mask hides a site, as no copy counts in a run. A latent that is muted for good is not hidden."""
    return site.mask is not None and not counts and (site.mask is not False or site.kind != "latent")


class Mask(NamedTuple):
    """A mask inside of a distribution.

    Attributes:
        kept: of the copies that count, True or False or an array of their shape.
        events: how many of its dims, from the right, are those of an event of the whole distribution.
        above: how many transforms are around it.
    """

    kept: Any
    events: int
    above: int


class Layers(NamedTuple):
    """A distribution and what it was wrapped in, in whatever order.

    Attributes:
        base: the distribution inside.
        shape: of its copies: its batch shape, expansions and all.
        events: how many dims of this shape, from the right, are those of an event of the whole.
        transforms: which its draws go through, the first first.
        masks: the outermost first.
    """

    base: Any
    shape: tuple[int, ...]
    events: int
    transforms: list[Any]
    masks: list[Mask]


class Wrappers(NamedTuple):
    """The classes of a language by which a distribution is wrapped.

    Attributes:
        independent, masked, expanded: of copies taken for one event, of masks, and of repeated copies.
        pushes: whether a distribution is another one pushed through bijections, and nothing else.
    """

    independent: type
    masked: type
    expanded: type
    pushes: Callable[[Any], bool]

    def layers(self, fn: Any, transforms: bool) -> Layers:
        """A distribution without what only wraps it, and what that was; bijections are taken off if asked for."""
        shape, events = fn.batch_shape, 0
        through: list[Any] = []
        masks: list[Mask] = []
        while True:
            if isinstance(fn, self.independent):
                dims, inner = fn.reinterpreted_batch_ndims, fn.base_dist.batch_shape
                shape, events = shape + inner[len(inner) - dims :], events + dims
            elif isinstance(fn, self.masked):
                masks.append(Mask(fn._mask, events, len(through)))
            elif transforms and self.pushes(fn):
                through = [*fn.transforms, *through]
            elif not isinstance(fn, self.expanded):
                return Layers(fn, shape, events, through, masks)
            fn = fn.base_dist


class Run(Mapping[str, Site]):
    """The sites of one run by name, in the order in which the program met them.

    Args:
        sites: of the run.
        to_numpy: an array of the language as NumPy's, None where it holds no numbers that can be read.
    """

    def __init__(self, sites: Iterable[Site], to_numpy: Callable[[Any], np.ndarray | None] = np.asarray) -> None:
        self._sites = {site.name: site for site in sites}
        self.to_numpy = to_numpy

    def __getitem__(self, name: str) -> Site:
        return self._sites[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def __repr__(self) -> str:
        return f"Run({', '.join(f'{site.name}: {site.kind}' for site in self.values())})"

    def of(self, *kinds: Kind) -> dict[str, Site]:
        """The sites of these kinds, by name."""
        return {name: site for name, site in self.items() if site.kind in kinds}

    @cached_property
    def latents(self) -> dict[str, Site]:
        """The sites that were drawn."""
        return self.of("latent")

    @cached_property
    def observed(self) -> dict[str, Site]:
        """The sites that were measured: neither factors nor computed values."""
        return self.of("observed")

    @cached_property
    def computed(self) -> dict[str, Site]:
        """The sites whose value the program computes from others."""
        return self.of(*COMPUTED)

    @cached_property
    def plates(self) -> dict[str, Plate]:
        """Every plate around a site, by name, outermost first."""
        return {plate.name: plate for site in self.values() for plate in site.plates}
