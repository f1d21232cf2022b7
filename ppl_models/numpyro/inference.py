"""The former address of `ppl_models.inference.numpyro`, kept for one version."""

import warnings
from typing import Any

import ppl_models.inference.numpyro as _tools

__all__ = _tools.__all__


def __getattr__(name: str) -> Any:
    value = getattr(_tools, name)
    if not name.startswith("_"):
        where = "ppl_models.inference.numpyro"
        warnings.warn(f"{__name__} is now {where}; import {name} from there", DeprecationWarning, stacklevel=2)
    return value
