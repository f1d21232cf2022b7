"""`TorchDensity`: a log density over torch with its derivatives, in NumPy's arrays."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


class TorchDensity:
    """A log density over torch as `ppl_models.programs.laboratory.Density` wants it, by automatic differentiation.

    Args:
        log_density: (D,) in double precision to a scalar, differentiable twice.
    """

    def __init__(self, log_density: Callable[[Tensor], Tensor]) -> None:
        self.log_density = log_density

    def __call__(self, v: np.ndarray) -> float:
        """The density of a vector."""
        return float(self.log_density(torch.from_numpy(v)))

    @torch.enable_grad()
    def gradient(self, v: np.ndarray) -> np.ndarray:
        """(D,)."""
        return torch.autograd.functional.jacobian(self.log_density, torch.from_numpy(v)).numpy()

    @torch.enable_grad()
    def hessian(self, v: np.ndarray) -> np.ndarray:
        """(D, D)."""
        return torch.autograd.functional.hessian(self.log_density, torch.from_numpy(v)).numpy()
