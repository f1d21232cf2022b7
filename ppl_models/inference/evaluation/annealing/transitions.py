"""`powers`: temperatures of annealing; `transition`: a Hamiltonian one that is accepted or not; `tuned`: step sizes.

States are mappings from the name of a site to an array, (chains, ...), a tensor of torch or an array of JAX.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from array_api_compat import array_namespace

from ppl_models.programs.noise.hamiltonian import FIRST_STEP, leapfrog

Array = Any
State = Mapping[str, Array]
STEEPNESS = 4.0  # of the sigmoid
ACCEPTED = 0.9  # the share of proposals that a step size is tuned to
RATE = 0.3  # change of a log step size for each share of proposals accepted too many
SMALLEST, LONGEST = 1e-5, np.pi / 2  # a step size, and a trajectory: a quarter of the period of standard normal noise
PILOT = 160  # rows, chains of data, by which step sizes are tuned
WARM = 30  # transitions at the first power by which the pilot finds its first step size
FIRST = float(np.log(FIRST_STEP))


def powers(temperatures: int) -> np.ndarray:
    """b_0 = 0 ... b_T = 1, a sigmoid of t: slow at both ends, where the weights change most.

    Source: Wu et al. 2017 (arXiv 1611.04273), `eval_gen`.

    >>> powers(4).round(3).tolist()
    [0.0, 0.105, 0.5, 0.895, 1.0]
    """
    at = 1 / (1 + np.exp(-STEEPNESS * np.linspace(-1, 1, temperatures + 1)))
    return (at - at[0]) / (at[-1] - at[0])


def pilot_rows(size: int, n: int, chains: int) -> int:
    """How many data tune the step sizes: of n, of which `size` go through the programs at once; all where these do."""
    return size if size >= n else max(1, min(size, PILOT // chains))


class Target(Protocol):
    """log w(e) of a pair on some data, as a function of the noise of chains; rows are (chains, n), one a datum."""

    def weigh(self, noise: State) -> Array:
        """log w of each row."""

    def slopes(self, noise: State) -> State:
        """d log w / d e."""

    def summed(self, entries: State) -> Array:
        """Numbers for the entries of all noise, summed to one for each row."""

    def repeat(self, steps: int, function: Callable[[Any], Any], state: Any) -> Any:
        """The state after so many calls of a function."""

    def spread(self, name: str, rows: Array) -> Array:
        """Numbers for rows, in a shape that goes with the noise of a site."""


class Moved(NamedTuple):
    """Where a transition has led: noise, log w of it, and which rows have moved."""

    noise: dict[str, Array]
    log_w: Array
    accepted: Array


def transition(
    target: Target,
    noise: State,
    log_w: Array,
    power: Array | float,
    size: Array | float,
    steps: int,
    momentum: State,
    log_u: Array,
) -> Moved:
    """Hamiltonian Monte Carlo that leaves f_b(e) = N(e; 0, I) w(e)^b invariant, row by row.

    Args:
        noise, log_w: of the rows, (chains, n).
        power: b.
        size, steps: of the leapfrogs.
        momentum: standard normal, like the noise.
        log_u: log of a uniform number for each row.
    """

    def force(at: State) -> State:
        slopes = target.slopes(at)
        return {name: power * slopes[name] - e for name, e in at.items()}

    new, v = target.repeat(steps, lambda state: leapfrog(*state, size, force), (noise, momentum))
    after = target.weigh(new)
    energy = {n: (new[n] ** 2 + v[n] ** 2 - noise[n] ** 2 - momentum[n] ** 2) / 2 for n in noise}
    accepted = log_u < power * (after - log_w) - target.summed(energy)  # no NaN is
    where = array_namespace(log_w).where
    kept = {name: where(target.spread(name, accepted), new[name], e) for name, e in noise.items()}
    return Moved(kept, where(accepted, after, log_w), accepted)


def tuned(log_size: Array | float, accepted: Array | float, steps: int, clip: Callable[..., Array]) -> Array | float:
    """The log size of so many steps at the next power, after this share of proposals was accepted at this one."""
    return clip(log_size + RATE * (accepted - ACCEPTED), np.log(SMALLEST), np.log(LONGEST / steps))
