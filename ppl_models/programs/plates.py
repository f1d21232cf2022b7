"""`data_plate`: the plate that enumerates the data of a run, by one rule for both languages."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from .places import elements
from .record import Plate, Run, Site


def data_plate(run: Run, first: Any = None, values: Callable[[], Mapping[str, Any]] | None = None) -> Plate | None:
    """The plate that enumerates the data, or None: then nothing is local to a datum.

    It is around every observed site that is in a plate at all, and its size (or full size, if it subsamples) is the
    number of rows of the first argument. Of several such plates it is the one named "data", else the one along which
    most observed values step through the rows of that argument, else the one that holds most latents, else the one
    further left. Where the rows are unknown or no plate has their number, it is the plate named "data" or the only one
    there is; of others one cannot know, and none is taken.

    Numbers are read only where several plates have as many rows, so find the plate once, before a training. Those that
    cannot be read (of the meta device, of a value that is being traced) leave the choice to the latents.

    Args:
        run: of the model.
        first: the first argument of the run, an array of rows or anything else with a length; None if unknown.
        values: gives the values of observed and subsample sites by name, for a run that holds shapes alone.

    >>> import numpy as np
    >>> people, items = Plate("people", -1, 3, 3), Plate("items", -2, 3, 3)
    >>> x = np.arange(9.0).reshape(3, 3)
    >>> run = Run([Site(name="x", kind="observed", shape=(3, 3), plates=(items, people), value=x.T)])
    >>> data_plate(run, x).name, data_plate(run, x.T).name
    ('people', 'items')
    """
    stacks = [site.plates for site in run.observed.values() if site.plates]
    common = [p for p in stacks[0] if all(p.name in {q.name for q in s} for s in stacks)] if stacks else []
    rows = len(first) if hasattr(first, "__len__") and getattr(first, "ndim", 1) else None
    found = [p for p in common if rows is not None and rows in (p.size, p.full_size)]
    found = found or [p for p in common if p.name == "data" or len(common) == 1]
    found = [p for p in found if p.name == "data"] or found
    if len(found) < 2:
        return next(iter(found), None)
    known = values() if values else {name: site.value for name, site in run.of("observed", "subsample").items()}
    steps = _steps(run, found, first, {name: run.to_numpy(value) for name, value in known.items()})
    held = {p.name: sum(is_local(site, p) for site in run.latents.values()) for p in found}
    return max(found, key=lambda p: (steps[p.name], held[p.name], -p.dim))


def sized(sites: Iterable[Site]) -> list[Site]:
    """The sites of one run, plates that were given no size (`full_size` 0) with that of the values there.

    It is that of the first site with several. One that has a single value, or another number, is outside of such a
    plate: nothing repeats it.

    >>> inside = lambda n: Site(name="z", kind="latent", shape=(n,), plates=(Plate("data", -1, n, 0),))
    >>> [site.plates for site in sized([inside(1), inside(3)])]
    [(), (Plate(name='data', dim=-1, size=3, full_size=3),)]
    """
    sites = list(sites)
    known = {p.name: 1 for site in sites for p in site.plates if not p.full_size}
    if not known:
        return sites
    for site in reversed(sites):
        if site.kind != "deterministic":  # whose event dims one can but guess
            known |= {p.name: p.size for p in site.plates if not p.full_size and p.size > 1}

    def settled(plates: tuple[Plate, ...]) -> tuple[Plate, ...]:
        inside = (p for p in plates if p.full_size or p.size == known[p.name])
        return tuple(p if p.full_size else replace(p, full_size=p.size) for p in inside)

    return [replace(site, plates=settled(site.plates)) for site in sites]


def is_local(site: Site, plate: Plate | None) -> bool:
    """Whether a site has a value for each index of a plate."""
    return plate is not None and site.plate(plate.name) is not None


def check_local(asks: str, sites: Iterable[Site], plate: Plate | None, why: str) -> None:
    """Raise ValueError for the first of some latents that has no value for each datum.

    Args:
        asks: what the message starts with.
        sites: the latents, and the `plate` of the data.
        why: it must have one.
    """
    for site in sites:
        if not is_local(site, plate):
            raise ValueError(
                f"{asks}: the latent {site.name!r} is outside the plate of the data, want a value for each datum; {why}"
            )


def is_scaled(site: Site, to_numpy: Callable[[Any], Any]) -> bool:
    """Whether a program gives the log density of a site another weight than plates that subsample do.

    Args:
        site: the site.
        to_numpy: an array of the language as NumPy's, None where it cannot be read: it was put there, and counts.
    """
    expected = prod(plate.full_size / plate.size for plate in site.plates)
    scale = site.scale if isinstance(site.scale, (int, float)) else to_numpy(site.scale)
    return scale is None or bool((np.abs(np.asarray(scale) / expected - 1) >= 1e-4).any())


def subsampled(run: Run) -> list[Plate]:
    """The plates of a run that drew some of their copies only."""
    return [plate for plate in run.plates.values() if plate.size != plate.full_size]


def _steps(run: Run, plates: list[Plate], first: Any, values: Mapping[str, Any]) -> dict[str, int]:
    """Plate -> how many observed values have the elements of row i of `first` at index i of the plate."""
    argument, found = run.to_numpy(first), dict.fromkeys([plate.name for plate in plates], 0)
    if argument is None:
        return found
    for plate in plates:
        rows = values.get(plate.name)  # of a plate that subsamples
        for name, site in run.observed.items():
            if values.get(name) is not None and is_local(site, plate):
                place = elements(values[name], plate.dim - site.event_dim, argument, rows)
                found[plate.name] += place is not None
    return found
