"""Train and evaluate any (model, guide) pair of NumPyro programs."""

from typing import Any

import lazy_loader

import ppl_models.inference as _both
from ppl_models.numpyro import installed as installed

_given, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_PASSED = (
    "ActiveUnits",
    "Annealed",
    "Calibration",
    "MLflow",
    "Run",
    "Sandwich",
    "Terms",
    "WandB",
    "adaptive_free_bits",
    "elbo",
    "free_bits",
    "geco",
    "importance_weighted",
    "rewo",
    "semi_supervised",
    "soft_free_bits",
    "vhp",
)
_CRITERIA = ("info_vae", "mmd", "moment_matching", "moments", "unregularized")
__all__ += (*_PASSED, *_CRITERIA)


def __getattr__(name: str) -> Any:
    return getattr(_both, name) if name in (*_PASSED, *_CRITERIA) else _given(name)  # one function for both
