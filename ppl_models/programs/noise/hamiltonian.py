"""`leapfrog`: one Hamiltonian step; `Chain`: several, with the densities that make a bound of them. In either language.

States are mappings from the name of a site to an array, a tensor of torch or an array of JAX: operators alone are used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Array = Any
State = Mapping[str, Array]
Force = Callable[[State], State]
FIRST_STEP = 0.25  # the step size where nothing has been learned, in standard deviations of the noise
KEPT = 0.9  # of a momentum from step to step
STEEPEST = 10.0  # slope of log w that is followed; beyond, the guide is far off, and longer steps would be thrown away


class Moved(NamedTuple):
    """Where a chain has come to.

    Attributes:
        noise: site -> its noise at the end.
        change: site -> log N(noise at the end) - log N(noise at the start) + what the momenta have cost, entry by entry
            of the noise. Its sum is what the log weight of the end has to be added to.
    """

    noise: dict[str, Array]
    change: dict[str, Array]


def leapfrog(noise: State, momentum: State, size: Array | float, force: Force) -> tuple[State, State]:
    """One step of size h, with unit masses: half a drift, a kick, half a drift.

        e' = e + (h/2) v,      v^ = v + h force(e'),      e^ = e' + (h/2) v^

    Each line is a shear, so that the map keeps volumes, whatever the force is. It asks for one force.
    """
    half = size / 2
    middle = {name: noise[name] + half * v for name, v in momentum.items()}
    pull = force(middle)
    kicked = {name: v + size * pull[name] for name, v in momentum.items()}
    return {name: middle[name] + half * v for name, v in kicked.items()}, kicked


@dataclass(frozen=True)
class Chain:
    """Steps from a draw of a guide towards the posterior, in the coordinates e of the guide's Gaussian noise.

        f_b(e) = N(e; 0, I) w(e)^b,      w(e) = p(x, z(e)) / q(z(e) | x)
        for k = 1 ... K:      (e, v^) = leapfrog(e, v, h_k, d log f_{b_k}),      log w += log r_k(v^ | e) - log N(v)
                              v = c v^ + sqrt(1 - c^2) u,      u ~ N(0, I)

    Any sizes, powers, c and normalized r give E[w] = p(x) in the end, and so does any force: slopes d log w / d e are
    cut off at `STEEPEST`, so that a draw of a guide that knows nothing yet is not thrown out of the world. `reverse`
    None is r = N(0, I).

    Attributes:
        sizes: h_k, one for each step.
        powers: b_k, likewise; the last is 1.
        kept: c, which must be 0 where there is a `reverse`.
        reverse: (k, e, v) -> site -> log r_k(v | e), entry by entry, less the constant that every density here has.
    """

    sizes: Sequence[Array | float]
    powers: Sequence[Array | float]
    kept: float = KEPT
    reverse: Callable[[int, State, State], State] | None = None

    def run(self, draw: Callable[[], State], slopes: Force) -> Moved:
        """Draw a start and go all steps.

        Args:
            draw: standard normal noise for all sites, at every call anew.
            slopes: d log w / d e, for each site.
        """
        noise = draw()
        change: dict[str, Array] = {name: e * e / 2 for name, e in noise.items()}
        momentum = draw() if self.sizes else {}
        for k, (size, power) in enumerate(zip(self.sizes, self.powers, strict=True)):

            def force(at: State, power: Array | float = power) -> State:
                found = slopes(at)
                return {name: power * found[name].clip(-STEEPEST, STEEPEST) - e for name, e in at.items()}

            noise, kicked = leapfrog(noise, momentum, size, force)
            back = self.reverse or _standard
            for name, log_r in back(k, noise, kicked).items():
                change[name] = change[name] + momentum[name] ** 2 / 2 + log_r
            if k + 1 < len(self.sizes):  # what the last step leaves of its momentum moves nothing
                momentum = self._refreshed(kicked, draw)
        return Moved(dict(noise), {name: change[name] - e * e / 2 for name, e in noise.items()})

    def _refreshed(self, momentum: State, draw: Callable[[], State]) -> State:
        if self.kept == 1:
            return momentum
        fresh, rest = draw(), (1 - self.kept**2) ** 0.5
        return {name: self.kept * v + rest * fresh[name] for name, v in momentum.items()} if self.kept else fresh


def defaults(steps: int) -> Chain:
    """A chain in which nothing is learned: steps of `FIRST_STEP`, powers k / K."""
    return Chain([FIRST_STEP] * steps, [(k + 1) / steps for k in range(steps)])


def _standard(k: int, noise: State, momentum: State) -> State:
    return {name: -(v * v) / 2 for name, v in momentum.items()}
