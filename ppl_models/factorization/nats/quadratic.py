"""The Gaussian of a black-box log density: `linear_gaussian` by its derivatives, `joint_by_differences` without."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, combinations, pairwise

import numpy as np

from ppl_models.programs.laboratory.density import Density

from .gaussian import GaussianJoint

TOLERANCE = 1e-8  # of a test that a density is Gaussian, relative to the terms it compares


def linear_gaussian(
    log_density: Density, sizes: Mapping[str, int], observed: Sequence[str], *, seed: int = 0
) -> GaussianJoint | None:
    """The Gaussian of a black-box log density, or None if it is not one.

        log p(v) = c + g^T v - 1/2 v^T P v,      Cov v = P^-1

    Third differences have to vanish on lines through 0, Hessians at distances 1, 10 and 100 to agree (a ReLU network is
    linear near any one point) and be positive definite, values on both sides of 0 to be the quadratic form's. Anything
    else (an exception, nan, no gradient) means None. Not seen: what differs only where no test goes.

        >>> import torch
        >>> from ppl_models.programs.laboratory.torch_density import TorchDensity
        >>> def found(mean):
        ...     density = TorchDensity(lambda v: -(v[0] ** 2 + (v[1] - mean(v[0])) ** 2) / 2)
        ...     return linear_gaussian(density, {"z": 1, "x": 1}, observed=("x",))
        >>> found(lambda z: z).covariance.round(4)
        array([[1., 1.],
               [1., 2.]])
        >>> found(torch.relu)

    Args:
        log_density: `(D,)` to a number, with two derivatives; it may lack a constant.
        sizes: node -> number of coordinates, in the order in which v concatenates them.
        observed: the nodes that are data.
        seed: of the points.

    Raises:
        ValueError: an observed name without a size.
    """
    for node in set(observed) - set(sizes):
        raise ValueError(f"linear_gaussian: observed node {node!r} has no size (sizes: {', '.join(sizes)})")
    try:
        precision = _precision(log_density, sum(sizes.values()), np.random.default_rng(seed))
        return None if precision is None else _joint(precision, sizes, observed)
    except Exception:  # a program may do anything at values outside its support; then it is not Gaussian
        return None


def _precision(f: Density, size: int, generator: np.random.Generator) -> np.ndarray | None:
    """P if f is quadratic with the Hessian -P, positive definite, as far as the tests see."""
    points, zero = generator.standard_normal((3, size)) * [[1.0], [-10.0], [100.0]], np.zeros(size)
    base = f(zero)
    if not all(_vanishes(f(2 * v), -3 * f(v), 3 * base, -f(-v)) for v in points):
        return None
    hessians = [-f.hessian(v) for v in points]
    precision = (hessians[0] + hessians[0].T) / 2
    scale = np.sqrt(precision.diagonal() * precision.diagonal()[:, None])
    same = all((np.abs(h - precision) <= TOLERANCE * scale).all() for h in hessians)
    if not same or not np.linalg.eigvalsh(precision / scale)[0] > 1e-12:  # flat, to rounding: improper
        return None
    slope = f.gradient(zero)
    same = all(_vanishes(base, -f(v), slope @ v, -v @ precision @ v / 2) for v in (*points, *-points))
    return precision if same else None


def _vanishes(*terms: float) -> bool:
    """Whether a sum is 0, to rounding of its terms."""
    return bool(abs(sum(terms)) <= TOLERANCE * sum(map(abs, terms)))


def joint_by_differences(
    log_density: Callable[[np.ndarray], float],
    sizes: Mapping[str, int],
    observed: Sequence[str],
    tolerance: float = 1e-7,
    seed: int = 0,
) -> GaussianJoint | None:
    """The Gaussian of a black-box log density, or None if it is not one.

        log p(v) = c + g^T v - 1/2 v^T P v:      P_ij = f(e_i) + f(e_j) - f(e_i + e_j) - f(0),      Cov v = P^-1

    Second differences of a quadratic are exact; that it is one is checked at distances 1, 10 and 100 from 0.

        >>> f = lambda v: -(v[0] ** 2 + (v[1] - v[0]) ** 2) / 2
        >>> joint_by_differences(f, {"z": 1, "x": 1}, ("x",)).covariance
        array([[1., 1.],
               [1., 2.]])
        >>> joint_by_differences(lambda v: -np.cosh(v[0]) - v[1] ** 2, {"z": 1, "x": 1}, ("x",))

    Args:
        log_density: of the concatenated vector, (D,) to a number; it is called D (D + 3) / 2 + 7 times.
        sizes: node -> number of coordinates, in the order in which the vector concatenates them.
        observed: the nodes that are data.
        tolerance: relative to the size of the densities.
        seed: of the points that are checked.
    """
    size = sum(sizes.values())
    unit, none = np.eye(size), log_density(np.zeros(size))
    ahead = np.array([log_density(e) for e in unit])
    behind = np.array([log_density(-e) for e in unit])
    precision = np.diag(2 * none - ahead - behind)
    for i, j in combinations(range(size), 2):
        precision[i, j] = precision[j, i] = ahead[i] + ahead[j] - log_density(unit[i] + unit[j]) - none
    slope = (ahead - behind) / 2
    rng = np.random.default_rng(seed)
    for distance in (1.0, -1.0, 10.0, -10.0, 100.0, -100.0):
        v = distance * rng.standard_normal(size)
        found, expected = log_density(v), none + slope @ v - v @ precision @ v / 2
        if not abs(found - expected) <= tolerance * (1 + abs(found)):
            return None
    try:
        return _joint(precision, sizes, observed)
    except (ValueError, np.linalg.LinAlgError):  # not positive definite
        return None


def _joint(precision: np.ndarray, sizes: Mapping[str, int], observed: Sequence[str]) -> GaussianJoint:
    spans = pairwise([0, *accumulate(sizes.values())])
    covariance = np.linalg.inv(precision)
    blocks = {node: slice(*span) for node, span in zip(sizes, spans, strict=True)}
    return GaussianJoint((covariance + covariance.T) / 2, blocks, tuple(observed))
