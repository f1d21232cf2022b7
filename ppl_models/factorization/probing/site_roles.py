"""What sites are to one another: functions, and data that are constants to a part of a guide."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from ppl_models.programs.laboratory import Node, Seen

from .probe import alike
from .inspection import Recovered


def agrees(found: Recovered, guide: Callable, name: str) -> bool:
    """Whether the guide computes a deterministic site as the model does; else it is a feature of the guide's own."""
    backend, point = found.backend, found.points(0)
    values = {k: v for k, v in point.values.items() if k not in found.plus}
    backend.jitter(point.jitter)
    one, two = (backend.run(program, backend.leaves, values, 0)[name].signal for program in (found.program, guide))
    same = one.shape == two.shape and np.allclose(one, two, rtol=1e-6, atol=1e-6)
    if not same:
        found.guide.notes.append(
            f"the guide's deterministic site {name!r} is not the model's, and left out as a feature of its own"
        )
    return same


def determined(found: Recovered, plus: tuple[str, ...]) -> dict[Node, frozenset[Node]]:
    """The deterministic nodes, with those of their parents that they determine once their other parents are known."""
    backend, point = found.backend, found.points(0)
    backend.jitter(point.jitter)
    result: dict[Node, frozenset[Node]] = {}
    for name in plus:
        for node in found.base[name].nodes:
            parents = found.model.parents.get(node, set())
            known = {u for u in parents if alike(found.base, u, node) and _invertible(found, u, node)}
            result[node] = frozenset(known)
    return result


def _invertible(found: Recovered, source: Node, target: Node) -> bool:
    """Whether the Jacobian of a deterministic node by one of its parents is a square matrix of full rank."""
    base, backend, point = found.base, found.backend, found.points(0)
    seen, image = base[source[0]], base[target[0]]
    at, out = seen.at(seen.value, source[1], seen.event_dim), image.at(image.signal, target[1], image.event_dim)
    n = seen.value[at].size
    if seen.kind != "latent" or seen.value.dtype.kind != "f" or image.signal[out].size != n or n > 128:
        return False
    columns = []
    for element in range(n):
        value = np.array(point.values[seen.name])
        part = value[at].reshape(-1)
        part[element] += 1e-4
        value[at] = part.reshape(value[at].shape)
        changed = backend.run(found.program, backend.leaves, {**point.values, seen.name: value}, point.seed)
        columns.append((changed[target[0]].signal[out] - image.signal[out]).reshape(-1) / 1e-4)
    return bool(np.linalg.matrix_rank(np.stack(columns), tol=1e-5) == n)


def constants(
    found: Recovered, guide: Callable, data: Mapping[Node, Any], computed: Collection[str]
) -> frozenset[Node]:
    """The latents to whose factor the data are a fixed set of numbers.

    Of those outside the plates of the data: all, if none of them reads any data. In the plates: each that reads none
    and has numbers of its own for each datum; those that the copies share are no free parameters, and data are missed.
    """
    around = {plate.name for s in found.base.of("observed") for plate in s.plates}
    sites = [found.base[name] for name in found.sampled if name not in found.plus]
    local = [seen for seen in sites if any(plate.name in around for plate in seen.plates)]
    reading = {s.name for s in sites if any(found.guide.parents.get(n, set()) & data.keys() for n in s.nodes)}
    others = [seen for seen in sites if seen.name not in {s.name for s in local}]
    fixed = [] if any(seen.name in reading for seen in others) else others
    blind = [seen for seen in local if seen.name not in reading]
    shared = _shared(found, guide, local, computed) if blind else set()
    # one copy cannot tell: what is alone in a guide without data is free, what stands among factors of data is not
    fixed += [s for s in blind if s.name not in shared or (len(s.copies) == 1 and len(blind) == len(local))]
    told = ", ".join(seen.name for seen in blind if seen.name not in {s.name for s in fixed})
    if told:
        found.guide.notes.append(f"the guide reads no data for {told}, and has the same numbers for every datum")
    return frozenset(node for seen in fixed for node in seen.nodes)


def _shared(found: Recovered, guide: Callable, sites: list[Seen], computed: Collection[str]) -> set[str]:
    """The sites whose copies, drawn apart, have equal densities at equal values: none has numbers of its own."""
    backend, point = found.backend, found.points(0)
    values = dict(point.values)
    for seen in sites:
        value = np.array(values[seen.name])
        first = np.array(value[seen.at(value, seen.copies[0], seen.event_dim)])
        for copy in seen.copies:
            value[seen.at(value, copy, seen.event_dim)] = first
        values[seen.name] = value
    backend.jitter(point.jitter)
    trial, shared = backend.run(guide, backend.leaves, values, point.seed), set()
    for seen in sites:
        mine = trial[seen.name]
        signals = [mine.signal[seen.at(mine.signal, copy, mine.signal_dim)] for copy in seen.copies]
        alike = all(np.allclose(signals[0], s, rtol=1e-9, atol=1e-9) for s in signals[1:])
        joint = any(u[0] == seen.name for node in seen.nodes for u in found.guide.parents.get(node, ()))
        if alike and not joint and seen.name not in computed:
            shared.add(seen.name)
    return shared
