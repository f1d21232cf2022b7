"""Train and evaluate any (model, guide) pair of Pyro programs."""

import importlib
import warnings
from typing import Any

import lazy_loader

_given, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_MOVED = {  # helpers that were public in 0.1, until the next version
    "write_atomically": "storage.files",
    "write_json": "storage.files",
    "CHECKPOINT": "storage.checkpoint_file",
    "PREVIOUS": "storage.checkpoint_file",
}


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        return _given(name)
    home = f"{__name__}.{_MOVED[name]}"
    told = f"ppl_models.inference.{name} is not public any more; import it from {home}, or do without"
    warnings.warn(told, DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(home), name)
