"""How programs are run for an inspection: one file a language, imported when one is inspected."""

import sys
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any


def leaf_names(
    program: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    where: Sequence[int],
    flatten: Callable[[Any], list[int]],
) -> list[str]:
    """A name for each array among the arguments: the parameter that it is passed as, or is part of.

    Args:
        program: whose parameters they are.
        args, kwargs: with the place of each leaf instead of it.
        where: the places that hold arrays.
        flatten: a value as its leaves.
    """
    try:
        bound = signature(getattr(program, "forward", program)).bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        bound = {f"arg{i}": arg for i, arg in enumerate((*args, *kwargs.values()))}
    names: dict[int, str] = {}
    for name, value in bound.items():
        inside = [i for i in flatten(value) if i in where]
        names |= {i: name if len(inside) == 1 else f"{name}.{k}" for k, i in enumerate(inside)}
    return [names.get(i, f"arg{i}") for i in where]


def choose(programs: Sequence[Callable], args: Sequence[Any], kwargs: Mapping[str, Any]) -> type:
    """The backend for some programs: NumPyro's if it is loaded and one of them is written in it, else Pyro's."""
    if "numpyro" in sys.modules:
        from .numpyro_laboratory import NumPyroBackend, speaks

        if speaks(programs, args, kwargs):
            return NumPyroBackend
    from .pyro_laboratory import PyroBackend

    return PyroBackend
