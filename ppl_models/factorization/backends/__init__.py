"""How programs are run for an inspection: one file a language, imported when one is inspected."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def choose(programs: Sequence[Callable], args: Sequence[Any], kwargs: Mapping[str, Any]) -> type:
    """The backend for some programs: NumPyro's if it is loaded and one of them is written in it, else Pyro's."""
    if "numpyro" in sys.modules:
        from .numpyro import NumPyroBackend, speaks

        if speaks(programs, args, kwargs):
            return NumPyroBackend
    from .pyro import PyroBackend

    return PyroBackend
