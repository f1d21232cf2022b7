"""`Uniform`: an exact simultaneous test and band for the ECDF of ranks; `symmetry`: the exact test of VSBC."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

HALVINGS = 40  # of the interval in which the level of single points is looked for
ROUNDING = 1e-10  # of probabilities that are 1 less a sum


@dataclass(frozen=True)
class Uniform:
    """Ranks of the truth among S draws, of N simulations, if each of 0 ... S is as likely.

        C_k = #{ranks < k} ~ Bin(N, k / (S + 1)),      k = 1 ... S;      given C_j, C_k - C_j is binomial, too

    A count is judged by the smaller of its two tails, doubled. The test looks at the most unlikely of all counts, and
    the law of that is computed from count to count, without simulations.

    Args:
        simulations, draws: N and S.

    Source: Saeilynoja, Buerkner and Vehtari 2022, "Graphical test for discrete uniformity and its applications in
    goodness-of-fit evaluation and multiple sample comparison", Statistics and Computing 32 (arXiv 2103.10522).

    >>> test = Uniform(simulations=500, draws=99)
    >>> rng = np.random.default_rng(0)
    >>> even, narrow = rng.integers(0, 100, 500), (100 * rng.beta(0.5, 0.5, 500)).astype(int)
    >>> bool(test.p_value(even) > 0.05), bool(test.p_value(narrow) < 1e-6)
    (True, True)
    """

    simulations: int
    draws: int

    @cached_property
    def _tails(self) -> np.ndarray:
        """(S, N + 1), twice the smaller tail of each count."""
        from scipy.stats import binom

        counts = np.arange(self.simulations + 1)
        shares = (np.arange(self.draws) + 1)[:, None] / (self.draws + 1)
        lower, upper = (binom.cdf(counts, self.simulations, shares), binom.sf(counts - 1, self.simulations, shares))
        return np.minimum(2 * np.minimum(lower, upper), 1.0)

    @cached_property
    def _log_factorials(self) -> np.ndarray:
        return np.append(0.0, np.cumsum(np.log(np.arange(1, self.simulations + 1))))

    def counts(self, ranks: np.ndarray) -> np.ndarray:
        """C_1 ... C_S of ranks, (S,)."""
        return np.cumsum(np.bincount(ranks, minlength=self.draws + 1))[:-1]

    def p_value(self, ranks: np.ndarray) -> float:
        """The probability of a count as unlikely as the most unlikely one of these ranks, (N,)."""
        least = float(self._tails[np.arange(self.draws), self.counts(ranks)].min())
        found = 1 - self._within(least * (1 + 1e-9)) if least > ROUNDING else 0.0
        return found if found > ROUNDING else min(least * self.draws, ROUNDING)  # at most the sum of all points

    def band(self, error: float) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest count at each k, (S,) both: in 1 - error of all cases all counts are in between."""
        low, high = 0.0, 1.0  # of the level of a point: at 0 all are in between
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._within(middle) >= 1 - error else (low, middle)
        good = self._tails > low
        return good.argmax(1), self.simulations - good[:, ::-1].argmax(1)

    def _within(self, level: float) -> float:
        """The probability that the tails of all counts are above a level."""
        n, log_factorial = self.simulations, self._log_factorials
        chances, first = np.ones(1), 0  # of the count before, from `first` on
        for k, tails in enumerate(self._tails):
            good = np.flatnonzero(tails > level)
            if not len(good):
                return 0.0
            before, now = first + np.arange(len(chances))[:, None], np.arange(good[0], good[-1] + 1)
            more, share = now - before, 1 / (self.draws + 1 - k)  # of what has a rank of k or above, that of k itself
            step = log_factorial[n - before] - log_factorial[n - now] - log_factorial[np.maximum(more, 0)]
            step += more * np.log(share) + (n - now) * np.log1p(-share)
            chances, first = chances @ np.where(more < 0, 0.0, np.exp(step)), int(good[0])
        return float(chances.sum())


def symmetry(ranks: np.ndarray, draws: int) -> float:
    """The p-value of ranks being symmetric, those of a guide that is not biased: variational SBC.

        p_i = P_q(z < z_true),      sup_t |F(t) - F'(t)|,      F the ECDF of p_i and F' that of 1 - p_i

    As F and F' are of the same numbers, their distance is not that of two independent samples, for which tables are
    made: it is the largest excursion of a walk of N fair steps, from the most extreme p_i inwards, and its law is
    computed.

    Args:
        ranks: (N,), among so many draws.

    Source: Yao, Vehtari, Simpson and Gelman 2018, "Yes, but did it work?: evaluating variational inference" (arXiv
    1802.02538), algorithm 2; Butler 1969, "A test for symmetry using the sample distribution function", Annals of
    Mathematical Statistics 40(6).

    >>> rng = np.random.default_rng(0)
    >>> high, narrow = rng.binomial(99, rng.beta(2, 1, 500)), rng.binomial(99, rng.beta(0.5, 0.5, 500))
    >>> bool(symmetry(high, 99) < 1e-6), bool(symmetry(narrow, 99) > 0.05)
    (True, True)
    """
    from_middle = 2 * np.asarray(ranks) - draws
    order = np.argsort(-np.abs(from_middle), kind="stable")
    steps = np.sign(from_middle[order])
    steps = steps[steps != 0]  # what is in the middle is on neither side
    if not len(steps):
        return 1.0
    return _excursion(len(steps), int(np.abs(np.cumsum(steps)).max()))


@lru_cache(maxsize=256)
def _excursion(steps: int, most: int) -> float:
    """P( max |walk of fair steps| >= most )."""
    inside = np.zeros(2 * most - 1)  # at -most + 1 ... most - 1
    inside[most - 1] = 1.0
    for _ in range(steps):
        inside = (np.append(inside[1:], 0.0) + np.append(0.0, inside[:-1])) / 2
    found = max(1 - float(inside.sum()), 0.0)
    return found if found > ROUNDING else min(4 * float(np.exp(-(most**2) / (2 * steps))), ROUNDING)  # at most
