"""`Tally`: the log weights and bounds of an evaluation, added up chunk after chunk of data, as its result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from ..diagnostics import psis
from ..results import Evaluation

TINY = np.finfo(float).tiny
SAME = 1e-4  # of numbers that are computed again, on other threads perhaps
ONE = "no plate around the data: they count as one datum"
SHARED = "latents or data outside the data plate: all data count as one datum, numbers are divided by n"


@dataclass
class Tally:
    """What passes over data have given so far.

    Args:
        particles: K, weights a datum.
        whole: 0, or the number of data where all of them count as one, with one weight a particle.

    Attributes:
        bound: sum over the data of the bound.
        kl: latent -> sum over the data of its divergence.
        sums: k -> sum over the data of the bound by k of the K weights, averaged over disjoint groups of these. k are
            the powers of ten below K.
        each: name -> a number of each datum, chunk by chunk: "nll"; "elbo", the mean of the log weights; "khat", of the
            weights, nan where there are too few; "variance" of log 1/K sum_k w_k over draws, by the delta method,
            Var[w] / (K mean(w)^2); "bits" a dimension.
    """

    particles: int
    whole: int = 0
    bound: float = 0.0
    kl: dict[str, float] = field(default_factory=dict)
    sums: dict[int, float] = field(default_factory=dict)
    each: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, log_w: np.ndarray, bound: float, kl: Mapping[str, float]) -> np.ndarray:
        """The NLLs of more data, (n,).

        Numbers that are not finite are left to who refuses them.

        Args:
            log_w: (particles, n).
            bound: the sum over these data of the bound, kl: of the divergence of each latent.
        """
        log_w = np.asarray(log_w, np.float64)
        self.bound += bound
        self.kl = {name: self.kl.get(name, 0.0) + value for name, value in kl.items()}
        good = np.isfinite(log_w.max(0)) & ~np.isnan(log_w).any(0)
        khat = np.full(log_w.shape[1], np.nan)
        if self.particles > 1:
            khat[good] = psis(log_w[:, good]).khat
        with np.errstate(invalid="ignore"):
            top = log_w.max(0)
            w = np.exp(log_w - top)
            nll = -top - np.log(np.maximum(w.mean(0), TINY))
            variance = w.var(0, ddof=min(1, self.particles - 1)) / self.particles / w.mean(0) ** 2
            for k in (10**i for i in range(len(str(self.particles))) if 10**i < self.particles):
                groups = w[: self.particles // k * k].reshape(-1, k, len(top)).mean(1)
                told = -(top + np.log(np.maximum(groups, TINY)).mean(0)).sum()
                self.sums[k] = self.sums.get(k, 0.0) + float(told)
            self.keep(nll=nll, elbo=log_w.mean(0), khat=khat, variance=variance)
        return nll

    def keep(self, **each: np.ndarray) -> None:
        """Numbers of each datum of this chunk, by name."""
        for name, values in each.items():
            self.each.setdefault(name, []).append(values)

    def of(self, name: str) -> np.ndarray:
        """The numbers of all data by this name, (n,)."""
        return np.concatenate(self.each[name])

    @property
    def done(self) -> int:
        """How many data were added."""
        return sum(len(values) for values in self.each.get("nll", []))

    def numbers(self, n: int) -> dict[str, float]:
        """Name -> mean over n data, of which some may not be finite."""
        nll = self.of("nll").sum() / (self.whole or n)
        return {"ELBO": self.bound / n, "NLL": nll, **{f"KL {name}": value / n for name, value in self.kl.items()}}

    def finite(self, n: int) -> bool:
        """Whether all numbers are."""
        return all(map(isfinite, self.numbers(n).values()))

    def result(self, n: int, notes: Sequence[str], dequantized: bool) -> Evaluation:
        """The evaluation of n data, whose levels were dequantized or not."""
        units = self.whole or n
        numbers, nlls, known = self.numbers(n), self.of("nll"), "bits" in self.each
        # one particle tells nothing of another's, but for a model without latents, whose log p(x) is exact
        sampled = self.particles > 1 or not self.kl
        sampling = float(np.sqrt(self.of("variance").sum())) / units if sampled else float("nan")
        over_data = float(nlls.std(ddof=1) / n**0.5) if not self.whole and n > 1 else float("nan")
        return Evaluation(
            float(numbers["ELBO"]),
            float(numbers["NLL"]),
            sampling if self.whole and self.particles > 1 else over_data,
            {name: float(value / n) for name, value in self.kl.items()},
            float(self.of("bits").mean()) if known else None,
            self.particles,
            n,
            list(notes),
            None if self.whole else nlls,
            sampling_error=sampling,
            convergence={k: total / units for k, total in self.sums.items()},
            khats=self.of("khat"),
            dequantized=known and dequantized,
            elbos=None if self.whole else self.of("elbo"),
        )

    def state(self) -> dict[str, np.ndarray]:
        """All of it as arrays, for a file."""
        found = {f"each.{name}": np.concatenate(values) for name, values in self.each.items()}
        found |= {f"kl.{name}": np.array(value) for name, value in self.kl.items()}
        return found | {"bound": np.array(self.bound), "sums": np.array([*self.sums.items()]).reshape(-1, 2)}

    def begins(self, state: Mapping[str, np.ndarray]) -> bool:
        """Whether a state begins with the numbers that these data have: is it one of the same pair?"""
        pairs = [(state.get(f"each.{name}", np.empty(0))[: self.done], self.of(name)) for name in self.each]
        return all(len(a) == len(b) and np.allclose(a, b, SAME, SAME, equal_nan=True) for a, b in pairs)

    def go_on(self, state: Mapping[str, np.ndarray]) -> None:
        """Have what `state` gave."""
        self.bound = float(state["bound"])
        self.sums = {int(k): float(value) for k, value in state["sums"]}
        self.kl = {name[3:]: float(value) for name, value in state.items() if name.startswith("kl.")}
        self.each = {name[5:]: [value] for name, value in state.items() if name.startswith("each.")}
