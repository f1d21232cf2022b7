"""What a latent reads of the data: observed values, or elements of the rows of arguments, as one feature array."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ...parts.readings import Plate, Reading, kept_elements
from .sites import Site, features

# operations whose result lies in the memory of what they are given, in torch: each element keeps its value
VIEWS = ("broadcast_in_dim", "copy", "reshape", "slice", "split", "squeeze", "stop_gradient", "transpose")


class Taken(NamedTuple):
    """Observed values: those of a site, or the rows of an argument whose elements (`inside`, by site) are observed."""

    value: Array
    event_dim: int
    site: Site
    inside: tuple[tuple[str, frozenset[int]], ...] | None = None


class Origin(NamedTuple):
    """Where a value comes from: the arguments it is made of, and the place of each element if it is a part of one."""

    arguments: frozenset[int]
    places: Array | None = None


def is_array(value: Any) -> bool:
    """Whether a value is data: a JAX or NumPy array of numbers, no random key."""
    return isinstance(value, (jax.Array, np.ndarray)) and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def is_floating(value: Any) -> bool:
    """Whether an array holds floating-point numbers, in JAX's sense."""
    return jnp.issubdtype(value.dtype, jnp.floating)


def gather(taken: Sequence[Taken], readings: Iterable[Reading]) -> dict[Reading, Array]:
    """Observed values as one feature array, (*kept plates, features), for each reading that finds any."""
    gathered = {}
    for reading in readings:
        parts = []
        for each in taken:
            if reading.keep and reading.keep.isdisjoint(plate.name for plate in each.site.plates):
                continue  # observed in other plates than this latent's
            value, event_dim = _read(each, reading.sites)
            if value is None:
                continue
            part = features(value, event_dim, each.site.plates, reading.keep)
            parts.append(part if is_floating(part) else part.astype(jnp.result_type(float)))
        if parts:
            shape = jnp.broadcast_shapes(*(p.shape[:-1] for p in parts))
            parts = [jnp.broadcast_to(p, (*shape, p.shape[-1])) for p in parts]
            gathered[reading] = jnp.concatenate(parts, -1) if len(parts) > 1 else parts[0]
    return gathered


def covariate(name: str, value: Array, rows: Plate | None, index: Array | None) -> Taken:
    """An argument that nothing observes, one row a datum (of those at `index` of a subsample), as evidence.

    Without a plate of `rows` all of it belongs to the one datum there is.
    """
    value = jnp.asarray(value)
    if rows is None:
        return Taken(value.reshape(-1), 1, Site(name, (), None, ()))
    value = value if index is None else value[index]
    return Taken(value.reshape(len(value), *[1] * (-rows.dim - 1), -1), 1, Site(name, (), None, (rows,)))


def _read(taken: Taken, sites: tuple[str, ...]) -> tuple[Array | None, int]:
    """(value, event dims) without what only sites other than `sites` observe; no value if nothing is left."""
    value, event_dim, site, inside = taken
    if inside is None:
        return (value if site.name in sites else None), event_dim
    if all(name in sites for name, _ in inside):
        return value, event_dim
    value = jnp.asarray(value)
    row = value.reshape(*value.shape[: value.ndim - event_dim], -1) if event_dim else value[..., None]
    kept = kept_elements(row.shape[-1], inside, sites)
    if isinstance(kept, list):  # no index in JAX
        kept = np.array(kept)
    return None if kept is None else row[..., kept], 1


def elements(places: np.ndarray, batch: tuple[int, ...], argument: tuple[int, ...]) -> frozenset[int] | None:
    """Which elements of its row a value is made of, None unless row i of it lies inside row i of the argument.

    Args:
        places: of each element of the value in the argument.
        batch: the dims of the value that enumerate rows.
        argument: shape of the argument.
    """
    k = len(batch)
    if places.shape[:k] != batch or argument[:k] != batch:
        return None
    width = int(np.prod(argument[k:]))
    rows = np.arange(int(np.prod(batch))).reshape((*batch, *[1] * (places.ndim - k)))
    return frozenset(np.unique(places % width).tolist()) if (places // width == rows).all() else None


def origins(observe: Callable[..., Mapping[str, Any]], args: Sequence[Any]) -> dict[str, Origin] | None:
    """Where each of the values that `observe(*args)` returns by name comes from; None if it cannot be traced.

    JAX has no views, so that the program is read: a value is part of an argument if nothing but `VIEWS` lies between.
    """
    data = {i: a for i, a in enumerate(args) if is_array(a)}
    names: list[str] = []

    def program(*arrays: Array) -> list[Any]:
        found = observe(*({**dict(enumerate(args)), **dict(zip(data, arrays, strict=True))}.values()))
        names.extend(found)
        return list(found.values())

    try:
        jaxpr = jax.make_jaxpr(program)(*data.values()).jaxpr
    except Exception:  # noqa: BLE001 (a program may branch on its data)
        return None
    given = [Origin(frozenset({i}), np.arange(a.size, dtype=np.int32).reshape(a.shape)) for i, a in data.items()]
    return dict(zip(names, _follow(jaxpr, given), strict=True))


def _follow(jaxpr: Any, given: Sequence[Origin]) -> list[Origin]:
    """The origins of the results of a jaxpr, from those of its inputs."""
    known = dict(zip(jaxpr.invars, given, strict=True))
    nothing = Origin(frozenset())

    def of(atom: Any) -> Origin:
        return nothing if hasattr(atom, "val") else known.get(atom, nothing)

    for eqn in jaxpr.eqns:
        inputs = [of(atom) for atom in eqn.invars]
        arguments = frozenset().union(*(each.arguments for each in inputs))
        if not arguments:
            continue
        outputs = [Origin(arguments)] * len(eqn.outvars)
        if eqn.primitive.name in VIEWS and len(inputs) == 1 and inputs[0].places is not None:
            apply = jax.jit(partial(eqn.primitive.bind, **eqn.params))
            results = apply(inputs[0].places)
            results = results if eqn.primitive.multiple_results else [results]
            outputs = [Origin(arguments, np.asarray(result)) for result in results]
        elif eqn.primitive.name in ("jit", "pjit"):
            outputs = _follow(eqn.params["jaxpr"].jaxpr, inputs)
        known |= dict(zip(eqn.outvars, outputs, strict=True))
    return [of(atom) for atom in jaxpr.outvars]
