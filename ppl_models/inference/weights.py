"""`Weights`: what the importance weights of an evaluation say of its NLL, collected from chunks of data."""

from dataclasses import dataclass, field, replace

import numpy as np

from .diagnostics import psis
from .results import Evaluation


@dataclass
class Weights:
    """Errors and convergence of the NLL of an evaluation, and Pareto k-hats, chunk after chunk.

    Args:
        particles: K, weights a datum.

    Attributes:
        elbos: mean of the log weights of each datum.
        khats: k-hat of the weights of each datum; nan where there are too few.
        variances: of each datum, the variance of log 1/K sum_k w_k over draws, by the delta method,

            Var[w] / (K mean(w)^2)

        sums: k -> sum over the data of the bound by k of the K weights, averaged over disjoint groups of these. k are
            the powers of ten below K.
    """

    particles: int
    elbos: list[np.ndarray] = field(default_factory=list)
    khats: list[np.ndarray] = field(default_factory=list)
    variances: list[np.ndarray] = field(default_factory=list)
    sums: dict[int, float] = field(default_factory=dict)

    def add(self, log_w: np.ndarray) -> None:
        """The weights of more data, (particles, n); those that are no numbers are left to who refuses them."""
        log_w = np.asarray(log_w, np.float64)
        good = np.isfinite(log_w.max(0)) & ~np.isnan(log_w).any(0)
        khat = np.full(log_w.shape[1], np.nan)
        if self.particles > 1:
            khat[good] = psis(log_w[:, good]).khat
        self.khats.append(khat)
        self.elbos.append(log_w.mean(0))
        with np.errstate(invalid="ignore"):
            top = log_w.max(0)
            w = np.exp(log_w - top)
            if self.particles > 1:
                self.variances.append(w.var(0, ddof=1) / self.particles / w.mean(0) ** 2)
            for k in self.sizes:
                groups = w[: self.particles // k * k].reshape(-1, k, len(top))
                bound = -(top + _log(groups.mean(1)).mean(0)).sum()
                self.sums[k] = self.sums.get(k, 0.0) + float(bound)

    @property
    def sizes(self) -> list[int]:
        """Powers of ten below the number of particles."""
        return [10**i for i in range(len(str(self.particles))) if 10**i < self.particles]

    def told(self, found: Evaluation, n: int, dequantized: bool) -> Evaluation:
        """An evaluation with what the weights say of it: n data, whose levels were dequantized or not."""
        sampled = bool(self.variances) or not found.kl  # one particle tells nothing of another's
        return replace(
            found,
            sampling_error=float(sum(each.sum() for each in self.variances)) ** 0.5 / n if sampled else float("nan"),
            convergence={k: total / n for k, total in self.sums.items()},
            khats=np.concatenate(self.khats),
            elbos=None if found.nlls is None else np.concatenate(self.elbos),
            dequantized=found.bits_per_dim is not None and dequantized,
        )


def _log(w: np.ndarray) -> np.ndarray:
    """log w; of weights that all have underflown beside a larger one, of the smallest number."""
    return np.log(np.maximum(w, np.finfo(float).tiny))
