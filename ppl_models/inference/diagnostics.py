"""Diagnostics of a guide from log weights: PSIS, Pareto k-hat, leave-one-out. NumPy in and out, for any language.

Larger `log_w` means a larger weight here, log p - log q. ArviZ 1.x negates what its `psislw` is given (it is written
for leave-one-out), so that weights passed to it as they are look perfect whatever the guide: it is not called.
"""

from math import ceil, log10, sqrt
from typing import NamedTuple

import numpy as np

LEAST = 5  # draws in a tail that is fitted
SMALLEST = float(np.log(np.finfo(float).tiny / np.finfo(float).eps ** 2))  # log of a weight that counts
PRIOR = (10, 0.5)  # the shape is shrunk as if so many draws had had this one


class Smoothed(NamedTuple):
    """Pareto-smoothed importance weights, of one datum or of many.

    Attributes:
        khat: (...), shape of the tail of the weights; above `threshold` neither they nor their means are to be trusted.
        ess: (...), 1 / sum_s w_s^2 of the smoothed weights, how many independent draws of the posterior they are worth.
        tail: (...), how many draws the tail was fitted to.
        log_weights: (draws, ...), smoothed, no larger than the largest of the raw ones; their exp sums to 1.
    """

    khat: np.ndarray
    ess: np.ndarray
    tail: np.ndarray
    log_weights: np.ndarray


def khat(log_w: np.ndarray) -> np.ndarray:
    """Pareto k-hat of importance weights, one a datum: `psis(log_w).khat`.

    >>> z = np.random.default_rng(0).normal(size=4000)
    >>> narrow = z**2 / 2 - (0.5 * z) ** 2 / 2  # log p - log q of p = N(0, 1), q = N(0, 0.5^2); exactly 1 - 0.5^2
    >>> wide = z**2 / 2 - (2 * z) ** 2 / 2
    >>> bool(khat(narrow) > 0.5), bool(khat(wide) < 0)
    (True, True)
    """
    return psis(log_w).khat


def threshold(draws: int) -> float:
    """The largest k-hat at which so many draws are enough, min(1 - 1 / log10(draws), 0.7).

    Source: Vehtari et al. 2024 (arXiv 1507.02646).
    """
    return min(1 - 1 / log10(draws), 0.7) if draws > 1 else float("-inf")


def psis(log_w: np.ndarray) -> Smoothed:
    """Fit the tail of importance weights w = p / q by a generalized Pareto distribution and smooth it.

        P(w > u + y | w > u) = (1 + k y / sigma)^(-1 / k),      moments of order below 1 / k exist

    The tail are the M = ceil(min(S / 5, 3 sqrt(S))) largest of S weights; the r-th of them becomes the quantile
    (r - 1/2) / M of the fit.

    Args:
        log_w: (draws, ...), log p - log q of draws of q, up to a constant a datum. -inf is a weight of zero.

    Returns:
        With k-hat nan where there are too few draws for a fit (21 are enough). Where fewer than 5 draws are above all
        others, which are equal, as weights of discrete latents may be, it is inf if these few weigh more than a tail of
        the others would, else 0, as for an exact guide.

    Raises:
        ValueError: no draws, or a log weight that is NaN or +inf.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry 2024, "Pareto smoothed importance sampling", JMLR 25(72)
    (arXiv 1507.02646).
    """
    log_w = np.asarray(log_w, np.float64)
    if log_w.ndim < 1 or log_w.shape[0] < 1:
        raise ValueError(f"psis: found log weights of shape {log_w.shape}, want (draws, ...) with at least one draw")
    if np.isnan(log_w).any() or np.isposinf(log_w).any():
        raise ValueError("psis: found log weights that are NaN or +inf; look at the densities of model and guide")
    columns = log_w.reshape(len(log_w), -1)
    found = [_psis(column) for column in columns.T]
    weights = np.stack([f[0] for f in found], -1) if found else columns
    k, ess, tail = (np.array([f[i] for f in found]).reshape(log_w.shape[1:]) for i in (1, 2, 3))
    return Smoothed(k, ess, tail.astype(int), weights.reshape(log_w.shape))


def _psis(raw: np.ndarray) -> tuple[np.ndarray, float, float, int]:
    """(smoothed log weights, k-hat, ESS, size of the tail) of one datum."""
    draws = len(raw)
    if np.isneginf(raw).all():
        return np.full(draws, -np.inf), np.inf, 0.0, 0
    log_w = raw - raw.max()
    size = ceil(min(draws / 5, 3 * sqrt(draws)))
    order = np.argsort(log_w, kind="stable")
    # not below what a difference of two weights can be divided by, so that a weight of zero is no tail
    cutoff = max(log_w[order[-min(size, draws - 1) - 1]], SMALLEST)
    tail = order[log_w[order] > cutoff]
    if size < LEAST:
        k = np.nan
    elif len(tail) < LEAST:
        # a few draws above all others, which are equal: do they weigh more than a tail of those would?
        k = np.inf if np.exp(log_w[tail]).sum() > size * np.exp(cutoff) else 0.0
    else:
        k, sigma = fit_pareto(np.exp(cutoff) * np.expm1(log_w[tail] - cutoff))
        if np.isfinite(k) and sigma > 0:
            quantiles = (np.arange(len(tail)) + 0.5) / len(tail)
            log_w[tail] = np.minimum(np.log(np.exp(cutoff) + _inverse(quantiles, k, sigma)), 0.0)
    log_w -= np.log(np.exp(log_w).sum())
    return log_w, k, float(1 / np.exp(2 * log_w).sum()), len(tail)


def fit_pareto(y: np.ndarray) -> tuple[float, float]:
    """(k, sigma) of a generalized Pareto distribution on y > 0, k shrunk towards 1/2 with the weight of 10 draws.

    Args:
        y: (M,), ascending, M at least 5.

    Source: Zhang and Stephens 2009, "A new and efficient estimation method for the generalized Pareto distribution",
    Technometrics 51(3); Vehtari et al. 2024 for the shrinkage.
    """
    count = len(y)
    points = 30 + int(sqrt(count))
    # candidates for b = -k / sigma, around the quartile and below the reciprocal of the largest
    b = 1 - np.sqrt(points / (np.arange(points) + 0.5))
    b = b / (3 * y[int(count / 4 + 0.5) - 1]) + 1 / y[-1]
    k = np.log1p(-b[:, None] * y).mean(1)
    flat = b == 0  # an exponential tail, of which -b / k is the limit 1 / mean(y)
    rate = np.where(flat, 1 / y.mean(), -b / np.where(flat, 1.0, k))
    profile = count * (np.log(rate) - k - 1)
    weights = np.exp(profile - profile.max())
    b_mean = (b * weights).sum() / weights.sum()
    k_mean = np.log1p(-b_mean * y).mean()
    strength, at = PRIOR
    sigma = -k_mean / b_mean if b_mean else y.mean()
    return float((count * k_mean + strength * at) / (count + strength)), float(sigma)


def _inverse(probability: np.ndarray, k: float, sigma: float) -> np.ndarray:
    """The quantile function of a generalized Pareto distribution."""
    exponential = -np.log1p(-probability)
    return sigma * (exponential if abs(k) < np.finfo(float).eps else np.expm1(k * exponential) / k)


class LeaveOneOut(NamedTuple):
    """Expected log predictive density of a new datum, in nats, by leaving out each datum in turn.

    Attributes:
        elpd: sum over the data.
        error: its standard error, sqrt(n Var_n).
        pointwise: (n,), log p(x_n | all other x).
        khat: (n,), of the weights that leave out each datum; see `threshold`.
    """

    elpd: float
    error: float
    pointwise: np.ndarray
    khat: np.ndarray


def loo(log_likelihood: np.ndarray, log_w: np.ndarray | None = None) -> LeaveOneOut:
    """Leave each datum out by importance sampling, from draws of the posterior or of a guide for global latents.

        p(x_n | x_-n) = sum_s w_sn p(x_n | z_s),      w_sn ~ p(x, z_s) / (q(z_s) p(x_n | z_s)), smoothed by `psis`

    Where a datum has latents of its own, they were drawn in view of it, and this is no held-out density.

    Args:
        log_likelihood: (draws, n), log p(x_n | z_s).
        log_w: (draws,), log p(x, z_s) - log q(z_s) of the guide's draws; None for draws of the posterior.

    Raises:
        ValueError: arrays of other shapes; see `psis`.

    Source: Vehtari, Gelman and Gabry 2017 (arXiv 1507.04544); Magnusson et al. 2019 (arXiv 1904.10679) for guides.
    """
    given = np.asarray(log_likelihood, np.float64)
    log_w = np.zeros(given.shape[:1]) if log_w is None else np.asarray(log_w, np.float64)
    if given.ndim != 2 or log_w.shape != given.shape[:1]:
        raise ValueError(
            f"loo: found log_likelihood {given.shape} and log_w {log_w.shape}, want (draws, n) and (draws,); all data "
            "make one importance problem where their latents are global, stack chains into draws"
        )
    weights = psis(log_w[:, None] - given)
    terms = weights.log_weights + given
    top = terms.max(0)
    pointwise = top + np.log(np.exp(terms - top).sum(0))
    error = float(np.sqrt(pointwise.size * pointwise.var(ddof=1))) if pointwise.size > 1 else float("nan")
    return LeaveOneOut(float(pointwise.sum()), error, pointwise, weights.khat)
