"""What sites are to one another: functions, and data that are constants to a part of a guide."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from .probe import alike
from .recovered import Recovered
from .trial import Node, Seen


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
    """The latents to which the data are a fixed set of numbers: those of a part of the guide that reads none of them.

    A guide has two parts: what it draws in the plates of the data, and the rest. Numbers that the copies in a plate
    share are not free parameters of each datum: there the data are missed.
    """
    around = {plate.name for s in found.base.of("observed") for plate in s.plates}
    parts: dict[bool, list[Seen]] = {}
    for name in found.sampled:
        seen = found.base[name]
        if name not in found.plus:
            parts.setdefault(any(plate.name in around for plate in seen.plates), []).append(seen)
    fixed: set[Node] = set()
    for local, sites in parts.items():
        nodes = [node for seen in sites for node in seen.nodes]
        if any(found.guide.parents.get(node, set()) & data.keys() for node in nodes):
            continue
        if local and not computed and _shared(found, guide, sites):
            names = ", ".join(seen.name for seen in sites)
            found.guide.notes.append(f"the guide reads no data for {names}, and has the same numbers for every datum")
            continue
        fixed.update(nodes)
    return frozenset(fixed)


def _shared(found: Recovered, guide: Callable, sites: list[Seen]) -> bool:
    """Whether equal values in all copies have equal densities in all copies: then no copy has numbers of its own."""
    if all(len(seen.copies) < 2 for seen in sites):
        return False
    backend, point = found.backend, found.points(0)
    values = dict(point.values)
    for seen in sites:
        value = np.array(values[seen.name])
        first = seen.at(value, seen.copies[0], seen.event_dim)
        for copy in seen.copies:
            value[seen.at(value, copy, seen.event_dim)] = value[first]
        values[seen.name] = value
    backend.jitter(point.jitter)
    trial = backend.run(guide, backend.leaves, values, point.seed)
    for seen in (trial[s.name] for s in sites):
        extra = seen.event_dim if seen.mute or seen.kind == "determined" else 0
        signals = [seen.signal[seen.at(seen.signal, copy, extra)] for copy in seen.copies]
        if not all(np.allclose(signals[0], s, rtol=1e-9, atol=1e-9) for s in signals[1:]):
            return False
    return True
