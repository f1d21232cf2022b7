"""Whether the chain from data to codes and back mixes: R-hat across chains, effective draws, autocorrelation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ppl_models.inference.sampling import Chain


@dataclass(frozen=True)
class Mixing:
    """What ArviZ says of chains, over all units of their codes.

    Attributes:
        rhat: largest rank-normalized split R-hat: above 1.01 the chains have not forgotten where they began.
        ess: smallest effective number of draws, of all chains together, out of `draws`.
        autocorrelation: (lags + 1,), mean over chains and units; 1 at lag 0.
        draws: chains times kept transitions, those left out at the beginning excepted.
    """

    rhat: float
    ess: float
    autocorrelation: np.ndarray
    draws: int

    @property
    def time(self) -> float:
        """Transitions for one independent draw, 1 + 2 sum_k rho_k up to the first lag that is not positive."""
        below = np.flatnonzero(self.autocorrelation <= 0)
        last = below[0] if len(below) else len(self.autocorrelation)
        return float(1 + 2 * self.autocorrelation[1:last].sum())

    def __str__(self) -> str:
        return "\n".join(
            [
                f"R-hat            {self.rhat:8.3f}  largest of all units of the codes",
                f"effective draws  {self.ess:8.1f}  smallest, of {self.draws}",
                f"autocorrelation  {self.time:8.1f}  transitions an independent draw",
            ]
        )


def mixing(chain: Chain, burn: int = 0, lags: int | None = None) -> Mixing:
    """Diagnose a chain by its codes.

    Args:
        chain: of `inference.markov_chain`, of at least two chains and four kept transitions.
        burn: kept transitions to leave out at the beginning.
        lags: of the autocorrelation, half of the transitions by default.

    Raises:
        ValueError: fewer chains or transitions.

    Source: Vehtari et al. 2021, "Rank-normalization, folding, and localization" (arXiv 1903.08008), by ArviZ.
    """
    import arviz as az

    codes = {name: np.asarray(code.cpu(), float)[burn:].swapaxes(0, 1) for name, code in chain.codes.items()}
    chains, steps = next(iter(codes.values())).shape[:2]
    if chains < 2 or steps < 4:
        raise ValueError(
            f"mixing: found {chains} chains of {steps} transitions, burn={burn} left out, want at least 2 of at least 4"
        )
    draws = _dataset(codes)
    lags = min(steps - 1, steps // 2 if lags is None else lags)
    correlation = np.concatenate([_autocorrelation(c, lags) for c in codes.values()])
    return Mixing(
        rhat=_extreme(az.rhat(draws), np.nanmax),
        ess=_extreme(az.ess(draws), np.nanmin),
        autocorrelation=correlation.mean(0),
        draws=chains * steps,
    )


def _dataset(codes: dict[str, np.ndarray]) -> Any:
    from xarray import Dataset

    return Dataset({name: (("chain", "draw", f"{name}_unit"), code) for name, code in codes.items()})


def _extreme(found: Any, of: Any) -> float:
    """One number of a diagnostic of all variables."""
    return float(of(np.concatenate([np.ravel(found[name].values) for name in found.data_vars])))


def _autocorrelation(code: np.ndarray, lags: int) -> np.ndarray:
    """(chains * units, lags + 1) of (chains, draws, units), of one chain about its own mean, by FFT."""
    series = code.swapaxes(1, 2).reshape(-1, code.shape[1])
    series = series - series.mean(1, keepdims=True)
    power = np.abs(np.fft.rfft(series, n=2 * series.shape[1], axis=1)) ** 2
    covariance = np.fft.irfft(power, axis=1)[:, : lags + 1]
    moving = covariance[:, 0] > 0
    return covariance[moving] / covariance[moving, :1] if moving.any() else np.ones((1, lags + 1))
