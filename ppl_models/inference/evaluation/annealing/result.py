"""`Annealed`, `Sandwich`: results of annealed importance sampling, stochastic bounds of log p(x) in nats."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import nan, sqrt
from typing import Any, Self

import numpy as np

from ppl_models.programs.legible import legible

FEW = 0.5  # the share of accepted proposals, tuned to 0.9, below which chains hardly move
HARDLY = "few proposals were accepted, so that the bound may be far off: try more temperatures, or a closer start"


@dataclass(frozen=True)
class Sandwich:
    """Bounds of log p(x) from both sides, for data that the model has drawn, in nats per datum.

    Attributes:
        lower, upper: means over the data of log mean_c w_c of chains from the start to the posterior, and of
            -log mean_c 1 / w_c of chains back, from the latents that each datum was drawn of.
        lower_error, upper_error: their standard errors over the data.
        gap: upper - lower, at least what the chains lose.
        gap_error: its standard error: that of the differences, datum by datum.
        lowers, uppers: of each datum, (n,).
        n: number of data.
    """

    lower: float
    upper: float
    lower_error: float
    upper_error: float
    gap: float
    gap_error: float
    n: int
    lowers: np.ndarray = field(repr=False, compare=False)
    uppers: np.ndarray = field(repr=False, compare=False)

    @classmethod
    def of(cls, forward: np.ndarray, backward: np.ndarray) -> Self:
        """That of log weights of chains to the posterior and back, (chains, n) each."""
        lowers, uppers = log_mean(forward), -log_mean(-backward)
        (lower, low), (upper, high), (gap, error) = map(mean_of, (lowers, uppers, uppers - lowers))
        return cls(lower, upper, low, high, gap, error, len(lowers), lowers, uppers)


@dataclass(frozen=True)
class Annealed:
    """Result of `ais`: means over the data, in nats per datum.

    Attributes:
        lower: a stochastic lower bound of log p(x): the mean of log mean_c w_c is at most the log evidence, and rises
            to it with chains and temperatures.
        error: its standard error over the data (over the chains, where all data count as one).
        simulated: bounds from both sides of as many data of the model's own as were asked for; None for none. Its gap
            is measured on these data: on others it is what the chains lose if they go there as well.
        start: "guide" or "prior", where chains start.
        chains, temperatures, leapfrogs: of the run.
        accepted: the mean share of accepted proposals.
        sizes: (temperatures - 1,), the step sizes, as the pilot left them.
        n: number of data.
        lowers: that of each datum, (n,); None where all data count as one.
        notes: what one should know of these numbers.
    """

    lower: float
    error: float
    simulated: Sandwich | None
    start: str
    chains: int
    temperatures: int
    leapfrogs: int
    accepted: float
    n: int
    sizes: np.ndarray = field(repr=False, compare=False)
    lowers: np.ndarray | None = field(default=None, repr=False, compare=False)
    notes: Sequence[str] = ()

    @classmethod
    def of(
        cls, log_w: np.ndarray, simulated: Sandwich | None, units: int | None, notes: Sequence[str], **run: Any
    ) -> Self:
        """That of log weights (chains, n); of all data as one, (chains, 1), the bound is divided by `units`."""
        each = log_mean(log_w)
        notes = [*notes, *([HARDLY] if run["accepted"] < FEW else [])]
        if units is None:
            return cls(*mean_of(each), simulated, lowers=each, notes=notes, **run)
        log_w = np.asarray(log_w[:, 0], np.float64)
        ratios = np.exp(log_w - log_w.max())
        error = float(ratios.std(ddof=1) / ratios.mean() / sqrt(len(ratios)) / units) if len(ratios) > 1 else nan
        return cls(float(each[0]) / units, error, simulated, notes=notes, **run)

    def to_dict(self) -> dict[str, Any]:
        """All numbers that are no arrays, ready for JSON."""
        found = asdict(self)
        for place in (found, found["simulated"] or {}):
            for name in ("sizes", "lowers", "uppers"):
                place.pop(name, None)
        return {**found, "notes": list(self.notes)}

    def __str__(self) -> str:
        rows = [f"log p(x)   {self.lower:10.3f} +- {self.error:.3f} or more, nats per datum, of {self.n} data"]
        if self.simulated is not None:
            s = self.simulated
            rows += [
                f"simulated  {s.lower:10.3f} +- {s.lower_error:.3f} to {s.upper:.3f} +- {s.upper_error:.3f}, of {s.n} "
                "data of the model's own",
                f"gap        {s.gap:10.3f} +- {s.gap_error:.3f}, what chains lose there at most",
            ]
        run = (
            f"{self.chains} chains from the {self.start}, {self.temperatures} temperatures, {self.leapfrogs} leapfrogs"
        )
        rows.append(f"{run}; {100 * self.accepted:.0f} % accepted")
        return legible("\n".join([*rows, *self.notes]))


def log_mean(log_w: np.ndarray) -> np.ndarray:
    """log mean_c exp log_w_c, (chains, n) to (n,), in float64.

    Raises:
        ValueError: data all of whose chains weigh nothing, or with a weight that is NaN or infinite.
    """
    log_w = np.asarray(log_w, np.float64)
    top = log_w.max(0)
    if wrong := int((~np.isfinite(top)).sum()):
        raise ValueError(
            f"ais: found weights that are zero in all chains, NaN or infinite in {wrong} of {top.size} data, want "
            "finite bounds; look at the densities of the pair there, or try more chains, or another start"
        )
    return top + np.log(np.exp(log_w - top).mean(0))


def mean_of(values: np.ndarray) -> tuple[float, float]:
    """(mean, its standard error)."""
    return float(values.mean()), float(values.std(ddof=1) / sqrt(len(values))) if len(values) > 1 else nan
