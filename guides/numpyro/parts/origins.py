"""`origins`: where observed values come from, read off the program, since JAX has no views whose memory would tell."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

from ...parts.evidence import Origin

# operations whose result lies in the memory of what they are given, in torch: each element keeps its value
VIEWS = ("broadcast_in_dim", "copy", "reshape", "slice", "split", "squeeze", "stop_gradient", "transpose")


def origins(observe: Callable[..., Mapping[str, Array]], arrays: Mapping[int, Array]) -> dict[str, Origin] | None:
    """The origin of each value that `observe` returns, by name; None if it cannot be traced.

    A value is part of an argument if nothing but `VIEWS` lies between.

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
        jaxpr = jax.make_jaxpr(program)(*arrays.values()).jaxpr
    except Exception:  # noqa: BLE001 (a program may branch on its data)
        return None
    given = [Origin(frozenset({i}), np.arange(a.size, dtype=np.int32).reshape(a.shape)) for i, a in arrays.items()]
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
            results = jax.jit(partial(eqn.primitive.bind, **eqn.params))(inputs[0].places)
            results = results if eqn.primitive.multiple_results else [results]
            outputs = [Origin(arguments, np.asarray(result)) for result in results]
        elif eqn.primitive.name in ("jit", "pjit"):
            outputs = _follow(eqn.params["jaxpr"].jaxpr, inputs)
        known |= dict(zip(eqn.outvars, outputs, strict=True))
    return [of(atom) for atom in jaxpr.outvars]
