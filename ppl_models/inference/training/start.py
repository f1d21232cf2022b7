"""`found_start`: the mode of the globals of a guide and the curvature there, with which a training begins."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy import ndarray
from scipy.optimize import minimize

MOST_ROWS = 10_000  # of data that are looked at
MOST_NUMBERS = 1_000  # of globals: the curvature has as many columns
EVALUATIONS, REFINEMENTS = 500, 30  # of the climb, and of Newton's method after it
MOST_BENT = 5  # of these at places that are in no valley
CLOSE, NEAR = 1e-9, 1e-2  # nats that a mode may be above the place where the climb ends; where rounding ends it


class Beginning(Protocol):
    """What `guide.factors.beginning()` gives of a guide whose globals are still at their priors, else None.

    Attributes:
        latents: the globals.
        apart: latents that are none of them.
        loc, scale: where a search begins, and in what units it goes, (D,), unconstrained.
        values: (D,) -> ({site: value}, log |det|), in arrays of the language.
        at: puts the factors at a mode (D,), in the units of the precision (D, D) there.
        narrow: leaves them at the location of their priors, with a standard deviation of 0.1 at most.
    """

    latents: Sequence[str]
    apart: Sequence[str]
    loc: ndarray
    scale: ndarray
    values: Callable[[Any], tuple[dict[str, Any], Any]]
    at: Callable[[ndarray, ndarray], Any]
    narrow: Callable[[], Any]


class Density(Protocol):
    """The log density of all globals and of the data, of a vector (D,), with its derivatives in double precision."""

    def value_and_gradient(self, v: ndarray) -> tuple[float, ndarray]:
        """(the density, (D,))."""

    def hessian(self, v: ndarray) -> ndarray:
        """(D, D)."""


class Mode(NamedTuple):
    """A mode of a density.

    Attributes:
        place: (D,).
        precision: minus the second derivatives there, (D, D), positive definite.
        value: the density there.
        evaluations: of it, that were needed.
    """

    place: ndarray
    precision: ndarray
    value: float
    evaluations: int


def refused(wanted: Beginning, random: bool) -> str:
    """The reason why there is no density of the globals alone, "" if there is one.

    Args:
        wanted: of the guide.
        random: whether the model takes a part of its data, another one at each run.
    """
    if wanted.apart:
        return f"their density has {_named(wanted.apart)} in it, which are latent, too"
    if random:
        return "the model takes another part of its data at each run"
    if len(wanted.loc) > MOST_NUMBERS:
        return f"there are {len(wanted.loc)} numbers, more than the {MOST_NUMBERS} of which the curvature is taken"
    return ""


def failed(error: Exception) -> str:
    """The reason that an error of the model is."""
    return f"their density cannot be had ({' '.join([type(error).__name__, *str(error).splitlines()[:1]])})"


def climb(density: Density, loc: ndarray, scale: ndarray) -> Mode | str:
    """The mode of a density that L-BFGS and then Newton's method come to, or the reason why there is none.

    Args:
        density: twice differentiable.
        loc, scale: where to begin and in what units to go, (D,).
    """
    count, lowest = 0, np.inf

    def negative(w: ndarray) -> tuple[float, ndarray]:
        nonlocal count, lowest
        count += 1
        value, gradient = density.value_and_gradient(loc + scale * w)
        if not np.isfinite(value) or not np.isfinite(gradient).all():
            return (lowest if np.isfinite(lowest) else 0.0) + 1e10, np.zeros_like(w)  # the line search comes back
        lowest = min(lowest, -value)
        return -value, -gradient * scale

    negative(np.zeros_like(loc))
    if not np.isfinite(lowest):
        return "their density is not finite at the location of the priors"
    options = {"maxiter": EVALUATIONS, "maxfun": EVALUATIONS, "maxcor": 20, "ftol": 1e-12, "gtol": 1e-8}
    w = minimize(negative, np.zeros_like(loc), jac=True, method="L-BFGS-B", options=options).x
    damping, bent, found = 0.0, 0, None
    for _ in range(REFINEMENTS):
        value, slope = negative(w)
        curvature = -density.hessian(loc + scale * w) * scale * scale[:, None]
        if not np.isfinite(curvature).all() or not np.isfinite(slope).all():
            break
        unit = 1 / np.sqrt(np.maximum(np.abs(np.diag(curvature)), 1e-300))
        values, vectors = np.linalg.eigh(curvature * unit * unit[:, None])
        along = vectors.T @ (slope * unit)
        good = values[0] > 1e-12 * values[-1]
        bent += not good
        if bent > MOST_BENT:
            break
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = float((along**2 / values).sum()) / 2
        if good and 0 <= gain < NEAR:
            found = Mode(loc + scale * w, curvature / scale / scale[:, None], -value, count)
            if gain < CLOSE:
                break
        # a step downhill, whatever the signs of the curvature; shorter ones if it does not go down
        size = np.maximum(np.abs(values), 1e-10 * np.abs(values).max())
        for _ in range(10):
            step = -unit * (vectors @ (along / (size + damping)))
            if negative(w + step)[0] <= value:
                w, damping = w + step, damping / 10
                break
            damping = max(10 * damping, 1e-3 * np.abs(values).max())
        else:
            break
    return found or f"their density has no mode that {count} evaluations come to"


def told(wanted: Beginning, found: Mode | str, rows: int, of: int) -> str:
    """The line that a training tells of the start of its globals."""
    names = _named(wanted.latents)
    if isinstance(found, str):
        return f"start of {names}: the location of their priors, as {found}"
    sample = f" of {rows} of {of} rows" if rows < of else ""
    return (
        f"start of {names}: the mode{sample}, log density {found.value:.6g} after {found.evaluations} evaluations, in "
        "units of the curvature there"
    )


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
