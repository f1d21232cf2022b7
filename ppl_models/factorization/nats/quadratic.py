"""The Gaussian of a log density that can be evaluated but not differentiated."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import torch

from .gaussian import Joint


def joint_by_differences(
    log_density: Callable[[np.ndarray], float],
    sizes: Mapping[str, int],
    observed: Sequence[str],
    tolerance: float = 1e-7,
    seed: int = 0,
) -> Joint | None:
    """The Gaussian of a black-box log density, or None if it is not one.

        log p(v) = c + g^T v - 1/2 v^T P v:      P_ij = f(e_i) + f(e_j) - f(e_i + e_j) - f(0),      Cov v = P^-1

    Second differences of a quadratic are exact; that it is one is checked at distances 1, 10 and 100 from 0.

        >>> f = lambda v: -(v[0] ** 2 + (v[1] - v[0]) ** 2) / 2
        >>> joint_by_differences(f, {"z": 1, "x": 1}, ("x",)).covariance
        tensor([[1., 1.],
                [1., 2.]], dtype=torch.float64)
        >>> joint_by_differences(lambda v: -np.cosh(v[0]) - v[1] ** 2, {"z": 1, "x": 1}, ("x",))

    Args:
        log_density: of the concatenated vector, (D,) to a number; it is called D (D + 3) / 2 + 7 times.
        sizes: node -> number of coordinates, in the order in which the vector concatenates them.
        observed: the nodes that are data.
        tolerance: relative to the size of the densities.
        seed: of the points that are checked.
    """
    ends = np.cumsum([0, *sizes.values()]).tolist()
    unit = np.eye(ends[-1])
    none = log_density(np.zeros(ends[-1]))
    ahead = np.array([log_density(e) for e in unit])
    behind = np.array([log_density(-e) for e in unit])
    precision = np.diag(2 * none - ahead - behind)
    for i, j in combinations(range(ends[-1]), 2):
        precision[i, j] = precision[j, i] = ahead[i] + ahead[j] - log_density(unit[i] + unit[j]) - none
    slope = (ahead - behind) / 2
    rng = np.random.default_rng(seed)
    for distance in (1.0, -1.0, 10.0, -10.0, 100.0, -100.0):
        v = distance * rng.standard_normal(ends[-1])
        found, expected = log_density(v), none + slope @ v - v @ precision @ v / 2
        if not abs(found - expected) <= tolerance * (1 + abs(found)):
            return None
    blocks = {node: slice(*span) for node, span in zip(sizes, zip(ends, ends[1:], strict=False), strict=True)}
    try:
        covariance = torch.linalg.inv(torch.from_numpy(precision))
        return Joint((covariance + covariance.mT) / 2, blocks, tuple(observed))
    except (ValueError, RuntimeError):  # not positive definite
        return None
