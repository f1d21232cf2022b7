"""Modules, numbers and compiled functions of both languages side by side."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor, nn


def shaken(module: nn.Module) -> nn.Module:
    """So that what starts at zero does not hide a mistake."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def jnps(*tensors: Tensor) -> list[jax.Array]:
    """The same numbers in JAX."""
    return [jnp.asarray(t.detach().numpy()) for t in tensors]


def close(found: jax.Array, expected: Tensor, rtol: float = 1e-12, atol: float = 1e-13) -> None:
    """Of one shape, and of equal numbers but for rounding."""
    expected = expected.detach().numpy()
    assert np.shape(found) == expected.shape
    np.testing.assert_allclose(np.asarray(found), expected, rtol=rtol, atol=atol)


def quick(function: Callable) -> Callable:
    """Compiled without much thought: it runs once."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})
