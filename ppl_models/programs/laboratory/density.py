"""`Density`: a log density of one vector with its derivatives, as a laboratory gives it."""

from typing import Protocol

import numpy as np


class Density(Protocol):
    """A log density of one vector, (D,) to a number, with its derivatives."""

    def __call__(self, v: np.ndarray) -> float: ...

    def gradient(self, v: np.ndarray) -> np.ndarray:
        """(D,)."""

    def hessian(self, v: np.ndarray) -> np.ndarray:
        """(D, D)."""
