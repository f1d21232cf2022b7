"""`ais`: log p(x) by annealing from a guide to the posterior, bounded from both sides on simulated data."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyGuide, AnyProgram, Count, Seed, Whole, no_guide
from ppl_models.programs.doubts import mismatches, weighed
from ppl_models.programs.noise import check_unrefined
from ppl_models.programs.noise.pyro import noise_shape
from ppl_models.programs.noise.pyro_prior import Prior
from ppl_models.programs.pyro import run

from ...display.progress import Bar
from ...evaluation.annealing.pairs import check_annealed, check_simulated, refuse_one_by_one
from ...evaluation.annealing.result import Annealed as Annealed, Sandwich as Sandwich
from ...evaluation.annealing.transitions import FIRST, WARM, State, pilot_rows, powers, tuned
from ...evaluation.calibration.amortized import refuse_fixed
from ..evaluation.densities import device_of, looking
from ..feeding.columns import Columns
from ..passes.checks import CHUNK
from ..passes.pair_info import first_look
from ..passes.particles import vectorizes
from ..passes.rows import check_rows, fewer
from .simulated import Simulator
from .target import Target, joint


@checked
def ais(
    model: AnyProgram,
    guide: AnyGuide,
    data: Any,
    *,
    chains: Count = 16,
    temperatures: Count = 500,
    leapfrogs: Count = 5,
    simulations: Whole = 0,
    rows: Count = 2000,
    seed: Seed | None = 0,
    progress: bool = True,
) -> Annealed:
    """Bound log p(x) by annealing from a guide to the posterior, closer than importance samples of the guide come.

        f_b(e) = N(e; 0, I) w(e)^b,   w(e) = p(x, z(e)) / q(z(e) | x),   0 = b_0 < ... < b_T = 1
        e_0 ~ N(0, I),   e_t ~ Hamiltonian Monte Carlo that keeps f_{b_t}
        log W = sum_t (b_t - b_{t-1}) log w(e_{t-1}),   log p(x) >= E log mean_c W_c

    e is the noise that the guide's draws are made of, in which a posterior that the guide is near to is near to N(0,
    I). E W = p(x) whatever the guide is, and however badly chains mix: a poor guide costs tightness. Step sizes, one a
    power, are tuned by a pilot on a few data and then fixed: sizes that adapt would bias W.

    `simulations` bounds the other side, on data of the model's own: of x ~ p(x | z*), z* is a draw of the posterior,
    and chains that go back from it give E 1/W = 1/p(x), so log p(x) <= -E log mean_c 1/W_c (bidirectional Monte Carlo).
    The gap of the two says how far a bound may be from the truth; it is that of simulated data.

    Args:
        model: any Pyro program.
        guide: where chains start, the closer to the posterior the better: its draws made of Gaussian noise, amortized
            or not. None starts from the prior of the model instead, as a check that does not hang on the guide: a guide
            that misses a mode leaves its chains in the others.
        data: rows, as for `evaluate`.
        chains: of each datum.
        temperatures: T; each costs `leapfrogs` gradients of the pair and one pass for each chain of each datum.
        leapfrogs: of a transition.
        simulations: data that are drawn from the model and bounded from both sides; other arguments are those of data.
        rows: how many (datum, chain) rows go through the programs at once; at least all the data where the program has
            global latents, or takes one number of rows alone.
        seed: of all draws; the global generator is as before afterwards. None continues it.
        progress: show a bar.

    Raises:
        ValueError: a latent that is discrete, or made of no Gaussian noise; programs that take no dim of chains; for
            simulations what `sbc` raises, and a guide whose noise is not to be had from its draws (low rank).

    Source: Neal 2001; Wu, Burda, Salakhutdinov and Grosse 2017 (arXiv 1611.04273); Grosse, Ghahramani and Adams 2015
    (arXiv 1511.02543).

    >>> import torch, pyro, pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> x = torch.tensor([0.0, 2.0])
    >>> print(f"{ais(model, None, x, chains=500, temperatures=20, progress=False).lower:.2f}")
    -1.77
    >>> print(f"{dist.Normal(0.0, 2**0.5).log_prob(x).mean():.2f}")
    -1.77
    """
    data = Columns(data, "ais: data", model, guide)
    with looking(model, guide, seed, *data.places), Bar("annealing", progress) as bar:
        known = _Pair(model, guide, data, chains, leapfrogs, rows, simulations > 0)
        b = powers(temperatures)
        sizes = known.pilot(data, b)
        starts = [*range(0, data.size, known.size)]
        total, done = len(starts) + 2 * -(-simulations // known.size), 0
        log_ws, shares, pairs = [], [], []
        for start in starts:
            target = known.target(data.rows(slice(start, min(start + known.size, data.size)), known.device))
            log_w, accepted = anneal(target, target.draw(), b, sizes)
            log_ws.append(log_w)
            shares.append(accepted)
            bar.advance((done := done + 1) / total)
        for start in range(0, simulations, known.size):
            index = torch.arange(start, min(start + known.size, simulations)) % data.size
            args, latents = known.simulator.draw(data.rows(index, known.device))
            target = known.target(args)
            forward, _ = anneal(target, target.draw(), b, sizes)
            backward, _ = anneal(target, target.start(latents), b, sizes, back=True)
            pairs.append((forward, backward))
            bar.advance((done := done + 2) / total)
    forward = np.concatenate(log_ws, 1)
    simulated = Sandwich.of(*(np.concatenate(side, 1) for side in zip(*pairs, strict=True))) if pairs else None
    units = known.pair.units(data.size) if known.whole else None
    run = {"start": known.origin, "chains": chains, "temperatures": temperatures, "leapfrogs": leapfrogs}
    run |= {"accepted": float(np.mean(shares)), "sizes": np.asarray(sizes), "n": data.size}
    return Annealed.of(forward, simulated, units, known.notes, **run)


class _Pair:
    """A pair that is right with many chains and a number of rows, as far as trials tell."""

    def __init__(
        self, model: Callable, guide: Callable, data: Columns, chains: int, leapfrogs: int, rows: int, simulated: bool
    ) -> None:
        self.device, self.chains, self.leapfrogs, self.n = device_of(model, guide), chains, leapfrogs, data.size
        self.origin = "prior" if guide is no_guide else "guide"
        if guide is no_guide:
            guide = Prior(model, run(model, data.rows(slice(0, min(data.size, CHUNK)), self.device)).latents)
        self.model, self.guide = model, check_unrefined("ais", guide)
        info, batch = first_look("ais", model, guide, lambda k: data.rows(slice(0, k), self.device), data.size, CHUNK)
        check_rows("ais", model, guide, batch, info.pair)
        pair = self.pair = info.pair
        check_annealed(pair, self.origin, lambda fn: noise_shape(fn) is not None)
        reason = vectorizes(model, guide, batch, pair.nesting, plate=pair.plate, single=info.traces)
        if reason is not None:
            refuse_one_by_one(reason)
        self.notes = [*mismatches(pair, partial(run, guide, batch)), *weighed(pair)]
        self.whole, self.size = bool(pair.shared) or joint(pair), max(1, rows // chains)
        fixed = None
        if not self.whole and len(batch[0]) > 1 and (simulated or self.size < data.size):
            _, fixed = fewer(model, guide, batch, pair, info.traces)
        if self.whole or fixed:
            self.notes += [f"all rows in every pass: {fixed}"] if fixed and data.size > self.size else []
            self.size = data.size
        if simulated:
            check_simulated(pair)
            if fixed:
                refuse_fixed("ais", fixed)
            self.simulator = Simulator("ais", model, batch, pair.plate)

    def target(self, args: Sequence[Any]) -> "Target":
        """Chains of these rows."""
        return Target(self.model, self.guide, args, self.pair, self.chains, self.leapfrogs, self.whole)

    def pilot(self, data: Columns, b: np.ndarray) -> list[float]:
        """Step sizes, one for each power between 0 and 1, by chains of a few data whose weights are not used."""
        few = pilot_rows(self.size, data.size, self.chains)
        target = self.target(data.rows(slice(0, few), self.device))
        noise, log_size, sizes = target.draw(), FIRST, []
        log_w = target.weigh(noise)
        for power in [*b[1:2].repeat(WARM), *b[1:-1]]:
            sizes.append(float(np.exp(log_size)))
            noise, log_w, accepted = target.move(noise, log_w, power, sizes[-1])
            log_size = tuned(log_size, accepted.double().mean().item(), self.leapfrogs, np.clip)
        return sizes[WARM:]


def anneal(
    target: Target, noise: State, b: np.ndarray, sizes: Sequence[float], back: bool = False
) -> tuple[np.ndarray, float]:
    """(log W of each row, (chains, n), in float64; the mean share of accepted proposals) of chains there or back."""
    steps, middle = np.diff(b), b[1:-1]
    if back:
        steps, middle, sizes = steps[::-1], middle[::-1], sizes[::-1]
    log_w = target.weigh(noise)
    total, accepted = steps[0] * log_w.double(), []
    for step, power, size in zip(steps[1:], middle, sizes, strict=True):
        noise, log_w, moved = target.move(noise, log_w, power, size)
        total = total + step * log_w.double()
        accepted.append(moved.double().mean())
    return total.cpu().numpy(), torch.stack(accepted).mean().item() if accepted else 1.0
