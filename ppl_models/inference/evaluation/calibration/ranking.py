"""`Ranking`: collects the ranks of the truth among a guide's draws, of latents and of log densities."""

from collections.abc import Mapping

import numpy as np

from ...objectives.terms import Array, Terms

MOST, PROJECTIONS = 50, 20  # numbers in a code that are ranked each; of a larger code, projections of it
ROUNDINGS = 100.0  # of one log p(x, z): what differs by less is a tie
LOG_P, LOG_LIKELIHOOD, LOG_Q, LOG_W = "log p(x, z)", "log p(x | z)", "log q(z | x)", "log w"
JOINT = LOG_P, LOG_LIKELIHOOD, LOG_Q, LOG_W

NO_DENSITY = "no log q, and no log w: the guide's density of the truth is not known"

Arrays = Mapping[str, np.ndarray]


def densities_of(found: Terms, scored: bool) -> dict[str, Array]:
    """log p(x, z), log p(x | z) and, of a guide whose density is known, log q(z | x) of a pass, (particles, n) each."""
    likelihood = sum(found.log_likelihood.values())
    log_p = likelihood + sum(found.log_p[name] for name in found.log_p if name not in found.auxiliary)
    densities = {LOG_P: log_p, LOG_LIKELIHOOD: likelihood}
    return {**densities, LOG_Q: sum(found.log_q.values())} if scored else densities


class Ranking:
    """Ranks of simulations as they come. Ties are broken at random.

    Args:
        seed: of the ties, and of the projections of large codes.

    Attributes:
        marginal: the quantities that are numbers of a code, in order: "z1[0]", or projections of it.
    """

    def __init__(self, seed: int | None) -> None:
        self.rng = np.random.default_rng(seed)
        self.parts: dict[str, list[np.ndarray]] = {}
        self.marginal: tuple[str, ...] = ()
        self.directions: np.ndarray | None = None

    def add(self, latents: Arrays, drawn: Arrays, densities: Arrays, of_drawn: Arrays) -> None:
        """Rank the truth of more simulations.

        Args:
            latents: site -> the simulated values, (n, units).
            drawn: site -> the guide's draws, (draws, n, units).
            densities: some of log p(x, z), log p(x | z) and log q(z | x) at the simulated values, (n,).
            of_drawn: the same at the guide's draws, (draws, n).

        Raises:
            ValueError: a density that is NaN.
        """
        truth = np.concatenate([latents[name] for name in latents], -1)
        draws = np.concatenate([drawn[name] for name in latents], -1)
        if not self.marginal:
            self._choose({name: value.shape[-1] for name, value in latents.items()})
        if self.directions is not None:
            truth, draws = truth @ self.directions, draws @ self.directions
        found = rank(truth, draws, self.rng)
        for i, name in enumerate(self.marginal):
            self.parts.setdefault(name, []).append(found[:, i])
        at, of = dict(densities), dict(of_drawn)
        for name in at:
            if (wrong := np.isnan(at[name]) | np.isnan(of[name]).any(0)).any():
                raise ValueError(f"sbc: {name} is NaN in {wrong.sum()} of {wrong.size} simulations; look at the pair")
        # a guide that is exact has one weight for all draws, up to rounding
        tolerance = ROUNDINGS * np.finfo(at[LOG_P].dtype).eps * (1 + np.abs(at[LOG_P]))
        if LOG_Q in at:
            at[LOG_W], of[LOG_W] = at[LOG_P] - at[LOG_Q], of[LOG_P] - of[LOG_Q]
        for name in at:
            self.parts.setdefault(name, []).append(rank(at[name], of[name], self.rng, tolerance))

    def _choose(self, units: Mapping[str, int]) -> None:
        total = sum(units.values())
        if total > MOST:
            self.directions = self.rng.normal(size=(total, PROJECTIONS))
            self.marginal = tuple(f"projection {i}" for i in range(PROJECTIONS))
        else:
            self.marginal = tuple(
                name if count == 1 else f"{name}[{i}]" for name, count in units.items() for i in range(count)
            )

    @property
    def ranks(self) -> dict[str, np.ndarray]:
        """Quantity -> (simulations,), those of codes first."""
        return {name: np.concatenate(parts) for name, parts in self.parts.items()}


def rank(
    truth: np.ndarray, draws: np.ndarray, rng: np.random.Generator, tolerance: np.ndarray | float = 0.0
) -> np.ndarray:
    """How many draws are below the truth; of those that are equal to it, up to a tolerance, a random number.

    Args:
        truth: (...).
        draws: (draws, ...).

    >>> rank(np.array([0.5, 1.0]), np.array([[0.0, 1.0], [1.0, 2.0]]), np.random.default_rng(0)).tolist()
    [1, 1]
    """
    below, up_to = truth - tolerance, truth + tolerance
    tied = ((draws >= below) & (draws <= up_to)).sum(0)
    return (draws < below).sum(0) + rng.integers(0, tied + 1)
