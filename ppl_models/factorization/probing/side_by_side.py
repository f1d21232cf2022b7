"""`side_by_side`: many changes in one run, each in rows of its own of the plate that everything is in."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ppl_models.programs.laboratory import FEW, Experiment, ProgramRun, SiteRecord
from ppl_models.programs.record import Plate

from .values.baselines import Baseline

ROWS = 128  # of the plate in one run
LEAST = 5  # changes that two runs on more rows have to stand for


def side_by_side(
    experiment: Experiment, baseline: Baseline, changed: Sequence[Baseline], sites: Sequence[str]
) -> list[tuple[ProgramRun, ProgramRun]] | None:
    """For each changed baseline what (before, after) shows of some sites; None where one run cannot show it.

    The rows of one plate are repeated, as often as there are changes, in one run as they are and in another as each
    change has them; all else is the same. Unchanged rows have to come out as they do alone, wherever they stand. This
    is no test of whether the rows touch each other: that has been seen by then.

    Args:
        experiment: the program.
        baseline: before.
        changed: baselines, each with some rows of values or arguments changed.
        sites: which are looked at.
    """
    start = baseline.run(experiment)
    plate = _plate_of(start, sites)
    if plate is None or not experiment.laboratory.resizes or len(changed) < LEAST:
        return None
    found: list[tuple[ProgramRun, ProgramRun]] = []
    tolerance, most = experiment.laboratory.tolerance, ROWS // plate.size
    for first in range(0, len(changed), most):
        parts = changed[first : first + most]
        befores = _run([baseline] * len(parts), experiment, start, plate, sites) or []
        same = not any(start[site].moved(start[site], run[site], tolerance) for run in befores for site in sites)
        afters = _run(parts, experiment, start, plate, sites) if befores and same else None
        if afters is None:
            return None
        found += zip(befores, afters, strict=True)
    return found


def _plate_of(start: ProgramRun, sites: Sequence[str]) -> Plate | None:
    """The one plate that all sites are in, with few rows and all of them."""
    if not sites or any(site not in start for site in sites):
        return None
    common = set.intersection(*({*start[site].plates} for site in sites))
    fitting = [plate for plate in common if 1 < plate.size <= FEW and plate.size == plate.full_size]
    return fitting[0] if len(common) == len(fitting) == 1 else None


def _run(
    parts: Sequence[Baseline], experiment: Experiment, start: ProgramRun, plate: Plate, sites: Sequence[str]
) -> list[ProgramRun] | None:
    """A run of all parts, cut into theirs again; None where it fails, or what has no rows would have to differ."""
    values: dict[str, np.ndarray] = {}
    try:
        for name in parts[0].values.keys() - {plate.name}:  # the indices of its rows
            record, held = start.get(name), [np.asarray(part.values[name]) for part in parts]
            axis = _axis(record, plate, held[0].ndim, record.site.event_dim) if record else None
            values[name] = _joined(held, plate.size, axis)
        leaves = []
        for k, leaf in enumerate(experiment.laboratory.leaves):
            axis = 0 if leaf.ndim and len(leaf) == plate.size else None
            leaves.append(
                _joined([leaf if part.leaves is None else part.leaves[k] for part in parts], plate.size, axis)
            )
        whole = Baseline(values, {}, parts[0].seed, parts[0].jitter, leaves).run(experiment)
    except Exception:  # noqa: BLE001 (a program may take no other number of rows)
        return None
    cut: list[list[SiteRecord]] = [[] for _ in parts]
    for site in sites:
        if site not in whole or whole[site].signal.ndim != start[site].signal.ndim:
            return None
        signal = whole[site].signal
        axis = _axis(start[site], plate, signal.ndim, start[site].signal_dim)
        if axis is None or signal.shape[axis] != plate.size * len(parts):
            return None
        for records, part in zip(cut, np.split(signal, len(parts), axis), strict=True):
            records.append(replace(start[site], signal=part))
    return [*map(ProgramRun, cut)]


def _axis(record: SiteRecord, plate: Plate, ndim: int, events: int) -> int | None:
    """The axis of a plate in an array of a site with so many dims, `events` of them of the event."""
    axis = ndim + plate.dim - events
    return axis if plate in record.plates and axis >= 0 else None


def _joined(arrays: Sequence[np.ndarray], size: int, axis: int | None) -> np.ndarray:
    """Arrays end to end along the axis of the rows; the first of those that have no rows, if all are alike."""
    if axis is not None and arrays[0].shape[axis] == size:
        return np.concatenate(arrays, axis)
    if not all(array is arrays[0] or np.array_equal(array, arrays[0]) for array in arrays):
        raise ValueError("what has no rows is to differ between them")
    return arrays[0]
