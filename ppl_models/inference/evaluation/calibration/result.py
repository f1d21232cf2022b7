"""`Calibration`: the result of a simulation-based calibration: ranks, tests of them, and words for their shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import sqrt
from typing import Any

import numpy as np

from ppl_models.programs.legible import legible

from .ranking import JOINT, LOG_LIKELIHOOD, LOG_P, LOG_Q, LOG_W
from .uniformity import Uniform, symmetry

ERROR = 0.05  # the probability that a right guide has any quantity outside
SHOWN = 6  # numbers of a code in the text, the worst ones
CLEAR = 2.5  # standard errors from which a shape is told
UNEVEN = "the truth is at either end of them too often: right on the average, too narrow or wide datum by datum"
MEANING = {
    (LOG_P, "low"): "they leave the bulk of the posterior: a guide too wide, shifted, or without a dependence",
    (LOG_P, "high"): "they stay near the mode: a guide too narrow",
    (LOG_LIKELIHOOD, "low"): "they explain the data worse than the truth does",
    (LOG_LIKELIHOOD, "high"): "they explain the data better than the truth does",
    (LOG_Q, "low"): "the truth is closer to the guide's middle than its own draws are: too wide",
    (LOG_Q, "high"): "the guide finds the truth too improbable: too narrow, or shifted",
    **{(name, "narrow"): UNEVEN for name in (LOG_P, LOG_LIKELIHOOD, LOG_Q)},
    (LOG_W, "low"): "the truth weighs more than they do: guide and posterior differ",
    (LOG_W, "wide"): "their weights differ more than that of the truth does",
}


@dataclass(frozen=True)
class Calibration:
    """How a guide's draws lie about the truth, of data that the model has drawn itself.

    Of a guide that is the exact posterior of every datum each rank is as likely as any other. The converse is not true:
    each quantity is blind to something.

    Attributes:
        ranks: quantity -> (simulations,), how many of the guide's draws are below the truth: of each number of a code
            ("z1[0]"; of a code of more than 50, 20 random projections of it), and of the log densities `joint`.
        draws: of the guide for each simulation.
        joint: the quantities that see all latents and the data at once.
        notes: what one should know of these numbers.
    """

    ranks: Mapping[str, np.ndarray] = field(repr=False)
    draws: int
    joint: tuple[str, ...] = JOINT
    notes: Sequence[str] = ()

    @property
    def simulations(self) -> int:
        """How many data were drawn."""
        return len(next(iter(self.ranks.values())))

    @property
    def marginal(self) -> tuple[str, ...]:
        """The quantities that are numbers of a code."""
        return tuple(name for name in self.ranks if name not in self.joint)

    @cached_property
    def p_values(self) -> dict[str, float]:
        """Quantity -> the probability of ranks as uneven as these, of a guide that is right (`Uniform`)."""
        test = Uniform(self.simulations, self.draws)
        return {name: test.p_value(ranks) for name, ranks in self.ranks.items()}

    @cached_property
    def vsbc(self) -> dict[str, float]:
        """Number of a code -> the probability of ranks as lopsided as these, of a guide without bias (`symmetry`)."""
        return {name: symmetry(self.ranks[name], self.draws) for name in self.marginal}

    @property
    def outside(self) -> tuple[str, ...]:
        """The quantities that are too uneven for chance; any at all in 5 % of cases, of a guide that is right."""
        return tuple(name for name, p in self.p_values.items() if p * len(self.ranks) < ERROR)

    @property
    def biased(self) -> tuple[str, ...]:
        """The numbers of codes that are too lopsided for chance; any in 5 % of cases, of a guide without bias."""
        return tuple(name for name, p in self.vsbc.items() if p * len(self.vsbc) < ERROR)

    def band(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(k / (S + 1), least, largest) share of ranks below k = 1 ... S: of a quantity inside all lie in between."""
        low, high = Uniform(self.simulations, self.draws).band(ERROR / len(self.ranks))
        shares = (np.arange(self.draws) + 1) / (self.draws + 1)
        return shares, low / self.simulations, high / self.simulations

    def ecdf(self, name: str) -> np.ndarray:
        """The share of ranks of a quantity below k = 1 ... S."""
        return Uniform(self.simulations, self.draws).counts(self.ranks[name]) / self.simulations

    def shape(self, name: str) -> str:
        """How the draws of a quantity lie about the truth, in words: too low or high, too narrow or wide.

        By mean and spread of u = (rank + 1/2) / (S + 1), in standard errors of what they are of a uniform one.
        """
        u = (self.ranks[name] + 0.5) / (self.draws + 1) - 0.5
        shift = u.mean() * sqrt(12 * len(u))
        spread = (np.square(u).mean() - 1 / 12) * sqrt(180 * len(u))
        told = []
        if abs(shift) > CLEAR:
            told.append("low" if shift > 0 else "high")
        if abs(spread) > CLEAR and (name in self.marginal or not told):
            told.append("narrow" if spread > 0 else "wide")
        if not told:
            return "the draws lie otherwise than the truth"
        words = f"the draws are too {' and too '.join(told)}"
        meaning = MEANING.get((name, told[0]))
        return f"{words}: {meaning}" if meaning else words

    def to_dict(self) -> dict[str, Any]:
        """The tests, ready for JSON."""
        return {
            "simulations": self.simulations,
            "draws": self.draws,
            "p_values": self.p_values,
            "vsbc": self.vsbc,
            "outside": {name: self.shape(name) for name in self.outside},
            "biased": list(self.biased),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        def told(p: float) -> str:
            return f"p {p:<9.2g}" if p > 1e-99 else f"p {'< 1e-99':<9}"

        count, worst = len(self.ranks), sorted(self.marginal, key=lambda name: self.p_values[name])
        rows = [
            f"{self.simulations} simulations, {self.draws} draws of the guide each; outside where p < {ERROR} / {count}"
        ]
        for name in (*worst[:SHOWN], *(name for name in self.joint if name in self.ranks)):
            verdict = f"OUTSIDE: {self.shape(name)}" if name in self.outside else "inside"
            rows.append(f"{name:<14}{told(self.p_values[name])}{verdict}")
        if len(worst) > SHOWN:
            rows.insert(
                SHOWN + 1, f"{len(worst) - SHOWN} more of codes, with p of {self.p_values[worst[SHOWN]]:.2g} up"
            )
        if self.vsbc:
            least = min(self.vsbc, key=lambda name: self.vsbc[name])
            verdict = f"BIASED: {', '.join(self.biased)}" if self.biased else "no bias seen"
            rows.append(f"{'VSBC':<14}{told(self.vsbc[least])}{verdict} (the least, of {least})")
        return legible("\n".join([*rows, *self.notes]))
