"""`look_again`: looks at dependences that no probe has seen, from places where units do not saturate (`VANTAGES`)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ppl_models.programs.laboratory import Leaves, Node, ProgramRun, SiteRecord
from ppl_models.programs.state.jitter import Jitter

from ..probe import Probe
from ..values.baselines import Baseline

FAR = (1e3, -1e3, 1e9, -1e9, 1e30, -1e30)
TOLERANCE = 1e-9  # of signals: more than elsewhere, as these looks are at extreme places


@dataclass(frozen=True)
class Vantage:
    """A place to look at a program from: other parameters and, of arguments and latents, values nearer to zero.

    Data in raw units (a year, an income) drive a tanh, a softmax or a ReLU of most weights to where it is flat. A
    column v of an argument, or of a latent, whose size is above `size` becomes (v - c) size / (size of v - c), so that
    the numbers of all columns are of one size, and keep their signs where c is 0. Zeros stay: those of a design matrix
    say that a row has no part in an effect. Whole numbers by type, which may be indices, stay between zero and the
    largest of them.

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
        moved = (array - centre) / np.maximum(spread / self.size, 1.0)
        return np.where(array == 0, 0, moved).reshape(array.shape).astype(array.dtype)


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


def look_again(role: str, probe: Probe, leaves: Leaves, counts: Callable[[str, str], bool]) -> tuple[bool, list[str]]:
    """Look for what provenance allows and no probe has seen: adds to what has moved.

    What moves at no place and not far away either is inert (0 * a); what moves far away alone is a doubt.

    Args:
        role: "model", "guide" or "program".
        probe: of it, that has run.
        leaves: the arguments as they were given.
        counts: whether a source of one name may be a parent of a site of another.

    Returns:
        Whether anything was found, and doubts about what was not.
    """
    seen = {site for source, nodes in probe.moved.items() for site, _ in nodes if site != source[0]}
    silent = {*probe.targets} - seen  # code that provenance cannot follow may read what saturates it
    found = ((source, _unseen(role, probe, source, counts, silent)) for source in probe.sources)
    suspects = {source: nodes for source, nodes in found if nodes}
    if suspects:
        _keep_reached(probe, leaves, suspects)
    before = sum(map(len, suspects.values()))
    for k, vantage in enumerate(VANTAGES):
        if not suspects:
            break
        _look(probe, leaves, vantage, k % 2, suspects)
    more = sum(map(len, suspects.values())) < before
    far = {(s[0], t) for s, nodes in suspects.items() for t in _far(probe, leaves, s, nodes)}
    return more, [_doubt(role, *pair) for pair in sorted(far)]


def _doubt(role: str, source: str, target: str) -> str:
    return (
        f"the {role} computes {target!r} from {source!r}, which moves it only far from where it was looked at: its "
        "units saturate; bring the data to one scale (standardize them), or pass others"
    )


def _far(probe: Probe, leaves: Leaves, source: Node, nodes: set[Node]) -> set[str]:
    """The sites among some nodes that a source moves when its numbers are huge."""
    baseline, found = probe.baselines(0), set()
    start, changed = baseline.run(probe.experiment), probe.sources[source](baseline)
    for number in FAR:
        there = _filled(baseline, changed, leaves, number)
        if there is None or not _supported(probe.base.get(source[0]), there):
            continue
        try:
            other = there.run(probe.experiment)
        except Exception:  # noqa: BLE001 (no number that the program takes)
            continue
        for site in {name for name, _ in nodes} & {*other}:
            if other[site].finite and nodes & _moved(probe, site, start, other):
                found.add(site)
    return found


def _supported(record: SiteRecord | None, there: Baseline) -> bool:
    """Whether what a baseline holds of a latent is a value of it: the numbers of a simplex add up to one."""
    if record is None or record.name not in there.values:
        return True
    value = there.values[record.name]
    return not record.joint and (record.contains is None or record.contains(value))


def _unseen(role: str, probe: Probe, source: Node, counts: Callable[[str, str], bool], silent: set[str]) -> set[Node]:
    """The nodes of its own copies that a source may move, as far as provenance knows, and was not seen to move."""
    found: set[Node] = set()
    for site in probe.targets:
        unknown = probe.upper is None or (site in silent and (role != "model" or probe.base[site].kind != "latent"))
        if site != source[0] and counts(source[0], site) and (unknown or source[0] in probe.upper.get(site, ())):
            found.update(node for node in probe.base[site].nodes if probe.base.alike(source, node))
    return found - probe.moved[source]


def _keep_reached(probe: Probe, leaves: Leaves, suspects: dict[Node, set[Node]]) -> None:
    """Drop the nodes that a source does not reach when it is no number: this passes through whatever saturates."""
    baseline = probe.baselines(0)
    start = baseline.run(probe.experiment)
    for source, nodes in [*suspects.items()]:
        there = _filled(baseline, probe.sources[source](baseline), leaves, np.nan)
        if there is None:
            continue
        try:
            other = there.run(probe.experiment)
        except Exception:  # noqa: BLE001 (a factor of what is no number, say)
            continue
        reached = set().union(*(_moved(probe, site, start, other) for site in {name for name, _ in nodes}))
        suspects[source] = nodes & reached
        if not suspects[source]:
            del suspects[source]


def _filled(baseline: Baseline, changed: Baseline, given: Leaves, number: float) -> Baseline | None:
    """A baseline with a number wherever another differs from it; None where those are no real numbers."""
    values = {name: np.asarray(value) for name, value in changed.values.items()}
    old = [np.asarray(baseline.values.get(name, value)) for name, value in values.items()]
    leaves = [*(given if changed.leaves is None else changed.leaves)]
    new = [*values.values(), *leaves]
    differs = [a != b for a, b in zip([*old, *given], new, strict=True)]
    if any(where.any() and array.dtype.kind != "f" for where, array in zip(differs, new, strict=True)):
        return None
    filled = [np.where(d, number, a).astype(a.dtype) if d.any() else a for d, a in zip(differs, new, strict=True)]
    return replace(changed, values=dict(zip(values, filled, strict=False)), leaves=filled[len(values) :])


def _look(probe: Probe, leaves: Leaves, vantage: Vantage, r: int, suspects: dict[Node, set[Node]]) -> None:
    """Look from one place at each suspect, and strike those off that are seen."""
    baseline = probe.baselines(r)

    def run(there: Baseline) -> ProgramRun:
        return vantage.seen_from(there, probe.base, leaves).run(probe.experiment)

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
