"""Roles of sites: which are functions of others, and to which part of a guide the data are constants."""

from collections.abc import Collection, Iterable, Set

import numpy as np

from ppl_models.programs.laboratory import Node, SiteRecord

from .inspection import Inspection, ModelInspection
from .probe import ProbeResult
from .values.baselines import Baseline


def agrees(model: ModelInspection, guide: ProbeResult, name: str) -> bool:
    """Whether the guide computes a deterministic site as the model does; else it is a feature of the guide's own."""
    baseline = model.baselines(0)
    values = {k: v for k, v in baseline.values.items() if k not in model.plus}
    experiments = model.probed.experiment, guide.experiment
    one, two = (experiment.run(values, jitter=baseline.jitter)[name].signal for experiment in experiments)
    same = one.shape == two.shape and np.allclose(one, two, rtol=1e-6, atol=1e-6)
    if not same:
        guide.notes.append(
            f"the guide's deterministic site {name!r} is not the model's, and left out as a feature of its own"
        )
    return same


def determined(model: ProbeResult, baseline: Baseline, plus: Iterable[str]) -> dict[Node, frozenset[Node]]:
    """The deterministic nodes, with those of their parents that they determine once their other parents are known."""
    return {
        node: frozenset(
            u
            for u in model.parents.get(node, ())
            if model.base.alike(u, node) and _invertible(model, baseline, u, node)
        )
        for node in model.base.nodes(plus)
    }


def _invertible(model: ProbeResult, baseline: Baseline, source: Node, target: Node) -> bool:
    """Whether the Jacobian of a deterministic node by one of its parents is a square matrix of full rank."""
    record, image = model.base[source[0]], model.base[target[0]]
    at, out = record.at(record.value, source[1]), image.at(image.signal, target[1])
    n = record.value[at].size
    if record.kind != "latent" or record.value.dtype.kind != "f" or image.signal[out].size != n or n > 128:
        return False
    columns = []
    for element in range(n):
        value = np.array(baseline.values[record.name])
        part = value[at].reshape(-1)
        part[element] += 1e-4
        value[at] = part.reshape(value[at].shape)
        changed = baseline.holding(record.name, value).run(model.experiment)
        columns.append((changed[target[0]].signal[out] - image.signal[out]).reshape(-1) / 1e-4)
    return bool(np.linalg.matrix_rank(np.stack(columns), tol=1e-5) == n)


def constants(inspection: Inspection, data: Set[Node], computed: Collection[str]) -> frozenset[Node]:
    """The latents to whose factor the data are a fixed set of numbers, because it reads none and is free.

    Of those in no plate at all: each, if none of them reads any data. In plates: each that has numbers of its own for
    each copy; those that the copies share are no free parameters, and data are missed. In plates that are not around
    the data (the effects of groups) that takes, besides, that none in no plate reads data.
    """
    base, guide, local = inspection.base, inspection.guide, inspection.local
    reading = {node[0] for node in base.nodes(inspection.latents) if guide.parents.get(node, set()) & data}
    blind = [name for name in inspection.latents if name not in reading]
    single = [name for name in inspection.latents if name not in local and len(base[name].copies) == 1]
    groups = [name for name in blind if name not in local and name not in single]
    free, apart = [], [name for name in blind if name in local]
    if not reading & {*single}:
        free, apart = [name for name in blind if name in single], [*groups, *apart]
    mine = [base[name] for name in inspection.latents if name not in single]
    shared = _shared(inspection, mine, computed) if apart else set()
    if inspection.model.baselines(0).jitter is None:  # then what is free may start alike
        shared -= {*groups}
    # one copy cannot tell: what is alone in a guide without data is free, what stands among factors of data is not
    alone = not reading & {*local}
    free += [name for name in apart if name not in shared or (len(base[name].copies) == 1 and alone)]
    alike = [name for name in blind if name in shared and name not in free]
    inspection.untold = {name: found for name, found in inspection.untold.items() if name not in alike}
    if told := ", ".join(n for n in blind if n not in (*free, *single, *inspection.untold)):
        guide.notes.append(f"the guide reads no data for {told}, and has the same numbers for every datum")
    return frozenset(base.nodes(name for name in free if not _is_told(inspection, name)))


def _is_told(inspection: Inspection, name: str) -> bool:
    """Whether the factor of a site reads what may be data, and is no index by which it looks up its own numbers."""
    alignment, plates = inspection.model.alignment, inspection.base[name].plates
    sizes, untold = [plate.size for plate in plates], inspection.untold.get(name, ())
    return not all(a in alignment.free and _is_index(alignment.leaves[alignment.free[a]], sizes) for a in untold)


def _is_index(leaf: np.ndarray, sizes: Collection[int]) -> bool:
    """Whether an argument gives each copy in a plate a whole number of its own."""
    return leaf.dtype.kind in "iu" and leaf.ndim == 1 and len(leaf) in sizes and len(np.unique(leaf)) == len(leaf)


def _shared(inspection: Inspection, records: list[SiteRecord], computed: Collection[str]) -> set[str]:
    """The sites whose copies, drawn apart, have equal densities at equal values: none has numbers of its own."""
    baseline, guide = inspection.model.baselines(0), inspection.guide
    for record in records:
        value = np.array(baseline.values[record.name])
        first = np.array(value[record.at(value, record.copies[0])])
        for copy in record.copies:
            value[record.at(value, copy)] = first
        baseline = baseline.holding(record.name, value)
    run, shared = baseline.run(guide.experiment), set()
    for record in records:
        mine = run[record.name]
        signals = [mine.signal[record.at(mine.signal, copy, mine.signal_dim)] for copy in record.copies]
        alike = all(np.allclose(signals[0], s, rtol=1e-9, atol=1e-9) for s in signals[1:])
        joint = any(u[0] == record.name for node in record.nodes for u in guide.parents.get(node, ()))
        if alike and not joint and record.name not in computed:
            shared.add(record.name)
    return shared
