"""`look_again`: looks at dependences that no probe has seen, from places where units do not saturate (`VANTAGES`)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ppl_models.programs.jitter import Jitter
from ppl_models.programs.laboratory import Leaves, Node, ProgramRun

from .alignment import Alignment
from .baselines import Baseline
from .probe import Probe

TOLERANCE = 1e-9  # of signals: more than elsewhere, as these looks are at extreme places


@dataclass(frozen=True)
class Vantage:
    """A place to look at a program from: other parameters and, of arguments and latents, values nearer to zero.

    Data in raw units (a year, an income) drive a tanh, a softmax or a ReLU of most weights to where it is flat. A
    column v of an argument, or of a latent, whose size is above `size` becomes (v - c) size / (size of v - c), so that
    the numbers of all columns are of one size, and keep their signs where c is 0. Whole numbers by type, which may be
    indices, stay between zero and the largest of them.

    Args:
        size: of values, root mean square; None leaves them as they are.
        centred: whether c is the mean of a column, else 0.
        shrink, flips: see `Jitter`.
    """

    size: float | None = None
    centred: bool = False
    shrink: float = 1.0
    flips: bool = False

    def seen_from(self, baseline: Baseline, base: ProgramRun, leaves: Leaves) -> Baseline:
        """A baseline, changed or not, as it is from here.

        Args:
            baseline: of which nothing but values, arguments and the seed are taken.
            base: the run that tells which sites can be moved.
            leaves: the arguments as they were given.
        """
        jitter = Jitter(baseline.seed, self.shrink, self.flips)
        given = leaves if baseline.leaves is None else baseline.leaves
        moved = [self._moved(leaf, own) for leaf, own in zip(given, leaves, strict=True)]
        values = {
            name: self._moved(value, base[name].value) if name in base and _free(base, name) else value
            for name, value in baseline.values.items()
        }
        return replace(baseline, jitter=jitter, values=values, leaves=moved)

    def _moved(self, array: np.ndarray, own: np.ndarray) -> np.ndarray:
        if self.size is None or not own.size:
            return array
        if array.dtype.kind in "iu" and self.centred:
            return array - own.min()
        if array.dtype.kind != "f":
            return array
        over = 0 if own.ndim > 1 and len(own) > 1 else None
        centre = own.mean(over, keepdims=True) if self.centred else 0.0
        spread = np.sqrt(np.square(own - centre).mean(over, keepdims=True))
        return ((array - centre) / np.maximum(spread / self.size, 1.0)).reshape(array.shape).astype(array.dtype)


def _free(base: ProgramRun, name: str) -> bool:
    """Whether the values of a site are real numbers that can be moved one by one."""
    record = base[name]
    return record.kind == "latent" and not record.joint and record.states is None


VANTAGES = (
    Vantage(size=1.0),
    Vantage(shrink=1e-2, flips=True),
    Vantage(size=1.0, centred=True, flips=True),
    Vantage(size=0.1),
    Vantage(shrink=1e-3),
    Vantage(size=1.0, shrink=0.3, flips=True),
    Vantage(size=1.0, centred=True, shrink=0.1, flips=True),
    Vantage(shrink=1e-3, flips=True),
    Vantage(size=0.1, centred=True, flips=True),
    Vantage(shrink=0.1, flips=True),
    Vantage(size=1.0, centred=True, flips=True),
    Vantage(size=0.1, shrink=0.1, flips=True),
)


def look_again(probe: Probe, alignment: Alignment, counts: Callable[[str, str], bool]) -> bool:
    """Look for what provenance allows and no probe has seen: adds to what has moved. Gives whether it has found any.

    Args:
        probe: that has run.
        alignment: of the arguments.
        counts: whether a source of one name may be a parent of a site of another.
    """
    suspects = {source: nodes for source in probe.sources if (nodes := _unseen(probe, source, counts))}
    if suspects:
        _keep_reached(probe, alignment, suspects)
    before = sum(map(len, suspects.values()))
    for k, vantage in enumerate(VANTAGES):
        if not suspects:
            break
        _look(probe, alignment, vantage, k % 2, suspects)
    return sum(map(len, suspects.values())) < before


def _unseen(probe: Probe, source: Node, counts: Callable[[str, str], bool]) -> set[Node]:
    """The nodes of its own copies that a source may move, by provenance, and was not seen to move."""
    found: set[Node] = set()
    for site in probe.targets:
        if site != source[0] and counts(source[0], site) and source[0] in (probe.upper or {}).get(site, ()):
            found.update(node for node in probe.base[site].nodes if probe.base.alike(source, node))
    return found - probe.moved[source]


def _keep_reached(probe: Probe, alignment: Alignment, suspects: dict[Node, set[Node]]) -> None:
    """Drop the nodes that a source does not reach when it is no number: this passes through whatever saturates."""
    baseline = probe.baselines(0)
    start = baseline.run(probe.experiment)
    for source, nodes in [*suspects.items()]:
        blotted = _blotted(baseline, probe.sources[source](baseline), alignment)
        if blotted is None:
            continue
        try:
            other = blotted.run(probe.experiment)
        except Exception:  # noqa: BLE001 (a factor of what is no number, say)
            continue
        reached = set().union(*(_moved(probe, site, start, other) for site in {name for name, _ in nodes}))
        suspects[source] = nodes & reached
        if not suspects[source]:
            del suspects[source]


def _blotted(baseline: Baseline, changed: Baseline, alignment: Alignment) -> Baseline | None:
    """A baseline with nan wherever another differs from it; None where nan is no value of its type."""

    def blot(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        differs = old != new
        if differs.any() and new.dtype.kind != "f":
            raise TypeError
        return np.where(differs, np.nan, new).astype(new.dtype) if differs.any() else new

    try:
        values = {
            k: blot(np.asarray(baseline.values[k]), np.asarray(v))
            for k, v in changed.values.items()
            if k in baseline.values
        }
        new = alignment.leaves if changed.leaves is None else changed.leaves
        leaves = [blot(a, b) for a, b in zip(alignment.leaves, new, strict=True)]
    except TypeError:
        return None
    return replace(changed, values={**changed.values, **values}, leaves=leaves)


def _look(probe: Probe, alignment: Alignment, vantage: Vantage, r: int, suspects: dict[Node, set[Node]]) -> None:
    """Look from one place at each suspect, and strike those off that are seen."""
    baseline = probe.baselines(r)

    def run(there: Baseline) -> ProgramRun:
        return vantage.seen_from(there, probe.base, alignment.leaves).run(probe.experiment)

    try:
        start = run(baseline)
    except Exception:  # noqa: BLE001 (a program may not run there)
        return
    for source, nodes in [*suspects.items()]:
        try:
            other = run(probe.sources[source](baseline))
        except Exception:  # noqa: BLE001
            continue
        for site in {name for name, _ in nodes}:
            if site in start and site in other and start[site].finite and other[site].finite:
                seen = _moved(probe, site, start, other)
                probe.moved[source] |= seen
                suspects[source] = suspects[source] - seen
        if not suspects[source]:
            del suspects[source]


def _moved(probe: Probe, site: str, start: ProgramRun, other: ProgramRun) -> set[Node]:
    if site not in start or site not in other:
        return set()
    tolerance = max(TOLERANCE, probe.experiment.laboratory.tolerance)
    return {(site, copy) for copy in probe.base[site].moved(start[site], other[site], tolerance)}
