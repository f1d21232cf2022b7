"""Mixing of the chain from data to latents and back: R-hat across chains, effective draws, autocorrelation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count, Whole

if TYPE_CHECKING:
    from ppl_models.inference.pyro.sampling.sampling import Chain


@dataclass(frozen=True)
class Mixing:
    """Diagnostics of chains by ArviZ, over all units of their codes.

    Attributes:
        rhat: largest rank-normalized split R-hat: above 1.01 the chains have not forgotten where they began.
        ess: smallest effective number of draws, of all chains together, out of `draws`.
        autocorrelation: (lags + 1,), mean over units, by kept state; chains that differ from each other count as
            correlated at every lag.
        draws: chains times kept states, those left out at the beginning excepted.
        every: transitions from one kept state to the next.
    """

    rhat: float
    ess: float
    autocorrelation: np.ndarray
    draws: int
    every: int = 1

    @property
    def time(self) -> float:
        """Transitions of one chain for one independent draw, draws / ess times `every`."""
        return self.every * self.draws / self.ess

    def __str__(self) -> str:
        return "\n".join(
            [
                f"R-hat            {self.rhat:8.3f}  largest of all units of the codes",
                f"effective draws  {self.ess:8.1f}  smallest, of {self.draws}",
                f"transitions      {self.time:8.1f}  for one independent draw",
            ]
        )


@checked
def mixing(chain: Chain, burn: Whole = 0, lags: Count | None = None) -> Mixing:
    """Diagnose a chain by its codes.

    Args:
        chain: of `inference.markov_chain`, of at least two chains and four kept transitions.
        burn: kept transitions to leave out at the beginning.
        lags: of the autocorrelation, half of the kept states by default.

    Raises:
        ValueError: fewer chains or transitions.

    Source: Vehtari et al. 2021, "Rank-normalization, folding, and localization" (arXiv 1903.08008): R-hat and effective
    draws by ArviZ, the autocorrelation of several chains by eq. 10.
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
        autocorrelation=np.nanmean(correlation, 0),
        draws=chains * steps,
        every=chain.every,
    )


def _dataset(codes: dict[str, np.ndarray]) -> Any:
    from xarray import Dataset

    return Dataset({name: (("chain", "draw", f"{name}_unit"), code) for name, code in codes.items()})


def _extreme(found: Any, of: Any) -> float:
    """One number of a diagnostic of all variables."""
    return float(of(np.concatenate([np.ravel(found[name].values) for name in found.data_vars])))


def _autocorrelation(code: np.ndarray, lags: int) -> np.ndarray:
    """(units, lags + 1) of (chains, draws, units): 1 - (W - mean_m s_m^2 rho_tm) / var.

    W is the mean of the chains' variances s_m^2, and var their pooled one, which counts the differences of their means;
    NaN for a unit that never moves.
    """
    draws = code.shape[1]
    series = (code - code.mean(1, keepdims=True)).swapaxes(1, 2)
    power = np.abs(np.fft.rfft(series, n=2 * draws)) ** 2
    covariance = np.fft.irfft(power)[..., : lags + 1].mean(0) / draws  # s_m^2 rho_tm, the mean over chains
    within = covariance[:, :1] * draws / (draws - 1)
    pooled = within * (draws - 1) / draws + code.mean(1).var(0, ddof=1)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = 1 - (within - covariance * draws / (draws - 1)) / pooled
    return np.where(pooled > 0, found, np.nan)
