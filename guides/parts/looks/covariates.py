"""`Covariate`: an argument, or the part of one, that nothing observes, as guides read it; `covariates_of` finds all."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from ppl_models.factorization import Factorization
from ppl_models.programs.record import Plate, Run, Site
from ppl_models.programs.state.reach import named_leaves

from .evidence import Array, Elements, Evidence, Origin, Shape

UNKNOWN: Elements = frozenset()  # of an argument of which one cannot tell yet what nothing observes


@dataclass(frozen=True, eq=False)
class Covariate:
    """An argument, or the part of one, that nothing observes. Whatever its entries are, they are read as numbers.

    Its leading dims are those of plates where their sizes are: a row for each datum, or for each datum and time. One
    without such dims is a vector for all data, which each datum reads.

    Attributes:
        index: of the argument.
        argument: the name of the parameter that it is passed as.
        name: as reports call it.
        shape: of the argument on the example.
        plates: along its leading dims.
        leading: the number of these.
        first: the dim, from the right, at which the leftmost of them is among batch dims.
        free: the elements of what follows them that nothing observes, None for all.
    """

    index: int
    argument: str
    name: str
    shape: tuple[int, ...]
    plates: tuple[Plate, ...]
    leading: int
    first: int
    free: Elements = None

    @property
    def example(self) -> Evidence:
        """Its evidence on the example, less the numbers."""
        shape = list(self.shape)
        for plate in self.plates:
            shape[plate.dim - self.first] = plate.size  # of which a subsample takes part
        return self._evidence(Shape(self._by_plates(shape)), prod(self.shape[self.leading :]))

    def read(self, value: Array, subsamples: Mapping[str, tuple[Array, int]]) -> Evidence:
        """Its evidence in a run: of the rows that plates took, where it has one for each that they might have taken.

        Args:
            value: of the argument, in floating-point numbers.
            subsamples: by plate the indices that it took, and of how many.
        """
        for plate in self.plates:
            index, full = subsamples.get(plate.name, (None, 0))
            axis = plate.dim - self.first
            if index is not None and value.shape[axis] == full:
                value = value[(*[slice(None)] * axis, index)]
        return self._evidence(value.reshape(self._by_plates(value.shape)), prod(value.shape[self.leading :]))

    def _by_plates(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape with each leading dim at that of its plate, and one vector behind them."""
        return (*shape[: self.leading], *[1] * (-self.first - self.leading), prod(shape[self.leading :]))

    def _evidence(self, value: Array | Shape, width: int) -> Evidence:
        inside: tuple[tuple[str, Elements], ...] = ((self.name, self.free),)
        if self.free is not None:
            inside = (*inside, ("", frozenset(range(width)) - self.free))
        return Evidence(value, 1, self.plates, inside, everywhere=True)


def check_rows(guide: str, argument: str, found: Evidence, sizes: Mapping[str, int]) -> None:
    """Raise ValueError for a covariate that has other numbers of rows than what is observed in the same plates."""
    for plate in found.plates:
        size = found.value.shape[plate.dim - 1]
        if size not in (1, sizes.get(plate.name, size)):
            raise ValueError(
                f"guide {guide}: found {size} rows of the argument {argument!r} in the plate {plate.name!r}, want "
                f"{sizes[plate.name]} as of what is observed, for on the example both had as many; if it is one vector "
                "for all data, build the guide on another number of rows"
            )


def arguments_of(model: Any, args: Sequence[Any], is_array: Sequence[bool]) -> dict[int, str]:
    """The names of those arguments that are arrays, by index: of the parameters that they are passed as."""
    where = [i for i, array in enumerate(is_array) if array]
    return dict(zip(where, named_leaves(model, args, {}, where, lambda value: 1), strict=True))


def covariates_of(
    args: Sequence[Any],
    names: Mapping[int, str],
    origins: Mapping[str, Origin],
    whole: Iterable[int],
    run: Run,
    sites: Mapping[str, Site],
    rows: Plate | None,
) -> dict[int, Covariate]:
    """The covariates that there may be, by index: arguments, and elements of them, that no site observes.

    Of an argument that is observed in a computed form it is not told here which elements are free: see `settled`.

    Args:
        args: the example.
        names: of the arguments that are arrays.
        origins: of what sites observe.
        whole: arguments whose rows are read as evidence, less nothing.
        run: of the model, for names that are taken.
        sites: observed, those that belong to a datum.
        rows: the plate that enumerates the data.
    """
    plates = {plate.dim: plate for site in sites.values() for plate in site.plates}
    plates = {**plates, **({} if rows is None else {rows.dim: rows})}
    found = {}
    for i, name in names.items():
        shape = tuple(args[i].shape)
        made = [origin for origin in origins.values() if i in origin.arguments]
        if i in whole or not prod(shape):
            continue
        inside, leading, first = _placed(shape, plates, rows)
        width, free = prod(shape[leading:]), None
        if any(origin.places is None for origin in made):
            free = UNKNOWN
        elif made:
            seen = frozenset().union(*((origin.places % width).flatten().tolist() for origin in made))
            free = frozenset(range(width)) - seen
            if not free:
                continue
        told = f"{name} (not observed)" if made or name in run else name
        found[i] = Covariate(i, name, told, shape, inside, leading, first, free)
    return found


def settled(
    found: Mapping[int, Covariate], model: Factorization, unobserved: Callable[[], Mapping[str, np.ndarray]]
) -> tuple[dict[int, Covariate], Factorization]:
    """The covariates of which one knows what is free, and the factorization of the model with no others.

    Args:
        found: by `covariates_of`.
        model: its factorization, in which those that sites read are given.
        unobserved: finds, at some cost, the elements of each argument that no observed value is made of.
    """
    doubtful = {i for i, each in found.items() if each.free == UNKNOWN}
    masks: Mapping[str, np.ndarray] = {}
    if any(found[i].name in model.given for i in doubtful):
        try:
            masks = unobserved()
        except Exception:  # noqa: BLE001, S110 (a program may do anything on other values than the example's)
            pass
    known = {i: each for i, each in found.items() if i not in doubtful}
    for i in doubtful:
        mask = masks.get(found[i].argument)
        if mask is not None and mask.shape == found[i].shape and not mask.all():
            free = mask.reshape(-1, prod(mask.shape[found[i].leading :])).all(0)
            if free.any():
                known[i] = replace(found[i], free=frozenset(np.flatnonzero(free).tolist()))
    known = {i: known[i] for i in found if i in known}
    lost = {found[i].name for i in doubtful - known.keys()}
    parents = {site: tuple(u for u in parents if u not in lost) for site, parents in model.items()}
    given = tuple(name for name in model.given if name not in lost)
    return known, replace(model, parents=parents, given=given) if lost else model


def _placed(
    shape: tuple[int, ...], plates: Mapping[int, Plate], rows: Plate | None
) -> tuple[tuple[Plate, ...], int, int]:
    """(plates along the leading dims of an argument, how many these are, the dim of the leftmost)."""

    def along(leading: int) -> tuple[Plate, ...]:
        dims = [(plates.get(i - leading), size) for i, size in enumerate(shape[:leading])]
        fit = all(plate is not None and size in (plate.size, plate.full_size) for plate, size in dims)
        return tuple(plate for plate, _ in dims if plate is not None) if fit else ()

    counts = range(len(shape), 0, -1)
    for leading in counts if rows is not None else ():
        if rows in (inside := along(leading)):
            return inside, leading, -leading
    if rows is not None and shape and shape[0] in (rows.size, rows.full_size):
        return (rows,), 1, rows.dim
    for leading in counts if rows is not None else ():
        if inside := along(leading):
            return inside, leading, -leading
    return (), 0, 0
