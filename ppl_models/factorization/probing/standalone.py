"""The factorization of one program by itself."""

from collections.abc import Callable

import numpy as np

from ppl_models.programs.laboratory import Backend, Node

from ..graph import Factorization
from .alternatives import another
from .inspect_model import inspect_model
from .probe import Point, Troubles, changes, probe


def inspect_alone(backend: Backend, program: Callable) -> tuple[Factorization, tuple[str, ...]]:
    """p of a program that observes something; else q of its latents given the arguments that it reads. And doubts.

    Raises:
        ValueError: a program without sample sites.
    """
    first = backend.run(program, backend.leaves, {})
    if first.of("observed", "factor"):
        found = inspect_model(backend, program, jitter=True)
        return found.sites("model"), found.doubts
    if not first.of("latent", "determined"):
        raise ValueError("the program drew nothing and observed nothing; is it a Pyro or NumPyro program?")
    backend.settle()
    latents = [s.name for s in first.of("latent")]
    names = backend.names_for(program)
    cache: dict[int, Point] = {}

    def points(r: int) -> Point:
        if r not in cache:
            backend.jitter(r)
            trial = backend.run(program, backend.leaves, {}, r)
            held = {s.name: s.value for s in trial.of("latent", "subsample")}
            cache[r] = Point(r, r, held, {name: another(trial[name]) for name in latents})
        return cache[r]

    arguments: dict[Node, Callable] = {
        (name, ()): lambda point, k=k: (_other(backend.leaves, k, point.seed), point.values)
        for k, name in enumerate(names)
        if backend.leaves[k].size
    }
    sources = {**changes(first, latents, backend.leaves), **arguments}
    troubles = Troubles()
    moved = probe(backend, program, first, points, sources, latents, backend.leaves, troubles=troubles)
    parents: dict[str, set[str]] = {name: set() for name in latents}
    for (source, _), nodes in moved.items():
        for name, _ in nodes:
            if source not in latents or latents.index(source) < latents.index(name):
                parents[name].add(source)
    read = [name for name in names if any(name in found for found in parents.values())]
    order = [*latents, *read]
    ordered = {name: tuple(sorted(found, key=order.index)) for name, found in parents.items()}
    found = Factorization(ordered, given=tuple(read), letter="q" if read else "p")
    return found, tuple(troubles.told("program", but=names))


def _other(leaves: list[np.ndarray], k: int, seed: int) -> list[np.ndarray]:
    """The leaves with other values in one: its own in another order, or moved where they are all alike."""
    changed, leaf = list(leaves), leaves[k]
    rng = np.random.default_rng(seed)
    changed[k] = rng.permutation(leaf.reshape(-1)).reshape(leaf.shape)
    if np.array_equal(changed[k], leaf) and leaf.dtype.kind == "f":
        changed[k] = leaf + rng.standard_normal(leaf.shape).astype(leaf.dtype)
    return changed
