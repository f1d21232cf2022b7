"""`package(tracker, name)`: the package that a tracker logs with, imported when the tracker is made."""

import importlib
from types import ModuleType


def package(tracker: str, name: str) -> ModuleType:
    """The package of this name, whose import takes seconds.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"{tracker}: found no package to log with ({error}), want {name}; install it with pip install {name}, or "
            "leave the callback out: the run is in history.json too"
        ) from None
