"""`origins`: where observed values come from, read off the program, since JAX has no views whose memory would tell."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import jaxpr_as_fun

from guides.parts.looks.evidence import Origin

# operations whose result lies in the memory of what they are given, in torch: each element keeps its value
VIEWS = ("broadcast_in_dim", "copy", "reshape", "slice", "split", "squeeze", "stop_gradient", "transpose")
CALLS = ("jit", "pjit")
JOINS = ("concatenate", "stack")
COPIES = (*JOINS, "dynamic_slice", "gather", "rev", "unstack")  # whose elements are those of what they are given, too


def origins(observe: Callable[..., Mapping[str, Array]], arrays: Mapping[int, Array]) -> dict[str, Origin] | None:
    """The origin of each value that `observe` returns, by name; None if it cannot be traced.

    A value is part of an argument if nothing but `VIEWS`, `COPIES` and casts to floating numbers lies between.

    Args:
        observe: a function of arrays by the index of the argument.
        arrays: those of the example.
    """
    names: list[str] = []

    def program(*given: Array) -> list[Array]:
        found = observe(dict(zip(arrays, given, strict=True)))
        names.extend(found)
        return list(found.values())

    try:
        closed = jax.make_jaxpr(program)(*arrays.values())
    except Exception:  # noqa: BLE001 (a program may branch on its data)
        return None
    places = {i: np.arange(a.size, dtype=np.int32).reshape(a.shape) for i, a in arrays.items()}
    given = [Origin(frozenset({i}), place, frozenset({"numpyro"})) for i, place in places.items()]
    found = dict(zip(names, _follow(closed, given, [None] * len(given)), strict=True))
    # torch had them in the memory of the argument where they are a regular part of it
    return {n: o._replace(before=o.before | {"pyro"}) if _strided(o.places) else o for n, o in found.items()}


def _follow(closed: Any, given: Sequence[Origin], values: Sequence[Callable[[], Array] | None]) -> list[Origin]:
    """The origins of the results of a jaxpr, from those of its inputs, and from the values of those that are fixed."""
    jaxpr, nothing = closed.jaxpr, Origin(frozenset())
    known = dict(zip(jaxpr.invars, given, strict=True))
    fixed = {v: f for v, f in zip(jaxpr.invars, values, strict=True) if f is not None}
    fixed |= {v: lambda c=c: c for v, c in zip(jaxpr.constvars, closed.consts, strict=True)}

    def of(atom: Any) -> Origin:
        return nothing if hasattr(atom, "val") else known.get(atom, nothing)

    def value(atom: Any) -> Array:
        return atom.val if hasattr(atom, "val") else fixed[atom]()

    for eqn in jaxpr.eqns:
        inputs, name = [of(atom) for atom in eqn.invars], eqn.primitive.name
        arguments = frozenset().union(*(each.arguments for each in inputs))
        if not arguments:  # computed only if it turns out to be an index

            def results(eqn: Any = eqn) -> list[Array]:
                return _bound(eqn, [value(atom) for atom in eqn.invars])

            fixed |= {v: lambda k=k, results=results: results()[k] for k, v in enumerate(eqn.outvars)}
            continue
        outputs = [Origin(arguments)] * len(eqn.outvars)
        moved = inputs if name in JOINS else inputs[:1]
        whole = len(arguments) == 1 and all(each.places is not None for each in moved)
        rest = [each for each in inputs[len(moved) :] if each.arguments]
        if name == "convert_element_type" and whole and _kept(eqn.invars[0].aval.dtype, eqn.params["new_dtype"]):
            outputs = [Origin(arguments, inputs[0].places, cast=True)]
        elif name in (*VIEWS, *COPIES) and whole and not rest:
            before = inputs[0].before if name in VIEWS else frozenset()
            places = [each.places for each in moved]
            with jax.ensure_compile_time_eval():
                found = _bound(eqn, [*places, *(value(atom) for atom in eqn.invars[len(moved) :])])
            cast = any(each.cast for each in moved)
            outputs = [Origin(arguments, np.asarray(result), before, cast) for result in found]
        elif name in CALLS:
            inner = zip(inputs, eqn.invars, strict=True)
            inner = [None if each.arguments else partial(value, atom) for each, atom in inner]
            outputs = _follow(eqn.params["jaxpr"], inputs, inner)
        known |= dict(zip(eqn.outvars, outputs, strict=True))
    return [of(atom) for atom in jaxpr.outvars]


def _bound(eqn: Any, inputs: Sequence[Any]) -> list[Array]:
    """The results of an equation of a jaxpr."""
    if eqn.primitive.name in CALLS:
        return jaxpr_as_fun(eqn.params["jaxpr"])(*inputs)
    found = jax.jit(partial(eqn.primitive.bind, **eqn.params))(*inputs)
    return found if eqn.primitive.multiple_results else [found]


def _kept(before: Any, after: Any) -> bool:
    """Whether a cast keeps what is in a row, but for its precision."""
    return jnp.issubdtype(after, jnp.floating) or before == after or before == jnp.bool_


def _strided(places: np.ndarray | None) -> bool:
    """Whether the place of each element is an offset and steps forward along each dim."""
    if places is None or not places.size:
        return False
    steps = [places.take(1, d).flat[0] - places.flat[0] if n > 1 else 0 for d, n in enumerate(places.shape)]
    if min(steps, default=0) < 0:
        return False
    grid = zip(steps, np.indices(places.shape, sparse=True), strict=True)
    return bool((places.flat[0] + sum(step * at for step, at in grid) == places).all())
