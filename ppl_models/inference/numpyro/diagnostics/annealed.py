"""`ais`: log p(x) of a NumPyro pair by annealing from a guide to the posterior."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from ppl_models.numpyro.data import Rows
from ppl_models.numpyro.parts.program import Program
from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyGuide, AnyProgram, Count, Seed, Whole, no_guide
from ppl_models.programs.doubts import mismatches, weighed
from ppl_models.programs.noise import check_unrefined
from ppl_models.programs.noise.numpyro import noise_shape
from ppl_models.programs.noise.numpyro_prior import Prior
from ppl_models.programs.numpyro import run, runs
from ppl_models.programs.pairs import INSTEAD_OF_PORT, check_whole
from ppl_models.programs.record import Run
from ppl_models.programs.state.jax import tidied

from ...display.progress import Bar
from ...evaluation.annealing.pairs import check_annealed, check_simulated
from ...evaluation.annealing.result import Annealed, Sandwich
from ...evaluation.annealing.transitions import FIRST, WARM, pilot_rows, powers, tuned
from ...evaluation.calibration.amortized import refuse_fixed
from ..engine.parameters import find
from ..feeding.batches import columns_of, drawn
from ..passes.checks import CHUNK
from ..passes.rows import fewer
from ..passes.terms import weights
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

    See `ppl_models.inference.ais`, whose arguments and result these are. Chains are mapped over by `jax.vmap`, and a
    run over all temperatures is compiled.

    Raises:
        ValueError: see there.
    """
    columns = columns_of(data, "ais: data", model)
    n = len(columns[0])
    key = random.key(int(np.random.default_rng().integers(2**31)) if seed is None else seed)
    precise = jax.default_matmul_precision("float32")
    with tidied(model, guide), precise, Bar("annealing", progress) as bar:
        known = _Pair(model, guide, columns, chains, leapfrogs, rows, simulations > 0, key)
        b = powers(temperatures)
        sizes = np.asarray(known.pilot(random.fold_in(key, 1), b))
        starts = [*range(0, n, known.size)]
        total, done = len(starts) + 2 * -(-simulations // known.size), 0
        log_ws, shares, pairs = [], [], []
        for start in starts:
            keys = random.split(random.fold_in(key, 2 + start))
            count = min(known.size, n - start)
            args = known.some(keys[0], start, known.size)  # all of one size, so that the last one compiles nothing
            log_w, accepted = known.anneal(keys[1], args, b, sizes)
            log_ws.append(log_w if known.whole else log_w[:, :count])
            shares.append(accepted)
            bar.advance((done := done + 1) / total)
        for start in range(0, simulations, known.size):
            keys = random.split(random.fold_in(random.fold_in(key, 0), start), 4)
            count = min(known.size, simulations - start)
            args, latents = known.simulator.draw(keys[1], known.some(keys[0], start, known.size))
            forward, _ = known.anneal(keys[2], args, b, sizes)
            backward, _ = known.anneal(keys[3], args, b, sizes, latents)
            pairs.append((forward[:, :count], backward[:, :count]))
            bar.advance((done := done + 2) / total)
    forward = np.concatenate(log_ws, 1)
    simulated = Sandwich.of(*(np.concatenate(side, 1) for side in zip(*pairs, strict=True))) if pairs else None
    units = known.pair.units(n) if known.whole else None
    run = {"start": known.origin, "chains": chains, "temperatures": temperatures, "leapfrogs": leapfrogs}
    run |= {"accepted": float(np.mean(shares)), "sizes": sizes, "n": n}
    return Annealed.of(forward, simulated, units, known.notes, **run)


class _Pair:
    """A pair that is right with a number of rows, as far as a trial tells."""

    def __init__(
        self,
        model: Callable,
        guide: Callable,
        columns: Sequence[Rows],
        chains: int,
        leapfrogs: int,
        rows: int,
        simulated: bool,
        key: Array,
    ) -> None:
        self.columns, self.chains, self.leapfrogs, self.n = columns, chains, leapfrogs, len(columns[0])
        self.origin = "prior" if guide is no_guide else "guide"
        batch = self.some(key, 0, min(self.n, CHUNK))
        if guide is no_guide:
            kept: list[Run] = []
            jax.eval_shape(lambda: kept.append(run(model, batch, params=weights(model))))
            guide = Prior(model, kept[-1].latents)
        self.model, self.guide = model, check_unrefined("ais", guide)
        try:
            free, parameters, pair = find(model, guide, batch, key, "ais")
        except Exception:  # of a plate of a fixed size, all rows may be no fewer than it takes
            if self.n == len(batch[0]):
                raise
            batch = self.some(key, 0, self.n)
            free, parameters, pair = find(model, guide, batch, key, "ais")
        pair.check("ais", model, language="numpyro")
        check_whole("ais", pair.model, INSTEAD_OF_PORT)
        check_annealed(pair, self.origin, lambda fn: noise_shape(fn) is not None)
        self.pair, self.params = pair, {**weights(model), **parameters.constrained(free)}
        self.notes = [*mismatches(pair, runs(guide, batch, self.params)), *weighed(pair)]
        self.whole, self.size = bool(pair.shared) or joint(pair), max(1, min(self.n, rows // chains))
        fixed = None
        alike = isinstance(guide, Prior) and isinstance(model, Program)  # which take any number of rows
        if not self.whole and len(batch[0]) > 1 and (simulated or self.size < self.n) and not alike:
            fixed = fewer(model, guide, batch, pair, self.params, key)
        if self.whole or fixed:
            self.notes += [f"all rows in every pass: {fixed}"] if fixed and self.n > self.size else []
            self.size = self.n
        if simulated:
            check_simulated(pair)
            if fixed:
                refuse_fixed("ais", fixed)
            self.simulator = Simulator("ais", model, batch, pair.plate, self.params)
        self._run, self._tune = jax.jit(self._annealed), jax.jit(self._tuned)

    def some(self, key: Array, start: int, count: int) -> tuple[Array, ...]:
        """So many rows as the programs see them, beginning anew after the last."""
        index = np.arange(start, start + count) % self.n
        return drawn(self.columns, [column.values[index] for column in self.columns], key)

    def pilot(self, key: Array, b: np.ndarray) -> Array:
        """Step sizes, one for each power between 0 and 1, by chains of a few data whose weights are not used."""
        few = pilot_rows(self.size, self.n, self.chains)
        middle = np.concatenate([b[1:2].repeat(WARM), b[1:-1]])
        return self._tune(self.params, self.some(key, 0, few), key, middle)[WARM:]

    def anneal(
        self,
        key: Array,
        args: Sequence[Array],
        b: np.ndarray,
        sizes: np.ndarray,
        latents: Mapping[str, Array] | None = None,
    ) -> tuple[np.ndarray, float]:
        """(log W of each row, (chains, n), in float64; the mean share of accepted proposals).

        With latents, of chains that go back from them.
        """
        steps, middle = np.diff(b), b[1:-1]
        if latents is not None:
            steps, middle, sizes = steps[::-1], middle[::-1], sizes[::-1]
        log_w, accepted = self._run(self.params, args, key, middle, sizes, latents)
        total = (steps[:, None, None] * np.asarray(log_w, np.float64)).sum(0)
        return total, float(accepted.mean()) if len(middle) else 1.0

    def _tuned(self, params: Mapping[str, Any], args: Sequence[Array], key: Array, middle: Array) -> Array:
        target = Target(self.model, self.guide, args, params, self.pair, self.chains, self.whole)

        def step(state: tuple[Any, ...], each: tuple[Array, Array]) -> tuple[tuple[Any, ...], Array]:
            noise, log_w, log_size = state
            moved = target.move(each[0], noise, log_w, each[1], jnp.exp(log_size), self.leapfrogs)
            new = tuned(log_size, moved.accepted.mean(), self.leapfrogs, jnp.clip).astype(log_size.dtype)
            return (moved.noise, moved.log_w, new), jnp.exp(log_size)

        noise = target.draw(key)
        log_w = target.weigh(noise)
        first = jnp.asarray(FIRST, log_w.dtype)
        return jax.lax.scan(step, (noise, log_w, first), (random.split(key, len(middle)), middle))[1]

    def _annealed(
        self,
        params: Mapping[str, Any],
        args: Sequence[Array],
        key: Array,
        middle: Array,
        sizes: Array,
        latents: Mapping[str, Array] | None,
    ) -> tuple[Array, Array]:
        """(log w at every power, (temperatures, chains, n); what share of proposals was accepted in between)."""
        target = Target(self.model, self.guide, args, params, self.pair, self.chains, self.whole)

        def step(state: tuple[Any, Array], each: tuple[Array, Array, Array]) -> tuple[tuple[Any, Array], Any]:
            moved = target.move(each[0], *state, *each[1:], self.leapfrogs)
            return (moved.noise, moved.log_w), (moved.log_w, moved.accepted.mean())

        noise = target.draw(key) if latents is None else target.start(latents)
        first = target.weigh(noise)
        each = random.split(random.fold_in(key, 1), len(middle)), middle, sizes
        _, (log_w, accepted) = jax.lax.scan(step, (noise, first), each)
        return jnp.concatenate([first[None], log_w]), accepted
