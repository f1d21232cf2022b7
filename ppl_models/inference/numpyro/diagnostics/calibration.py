"""`sbc`: amortized simulation-based calibration of a NumPyro guide."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array, random
from numpyro import handlers

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyProgram, Count, Seed
from ppl_models.programs.noise import structure_of
from ppl_models.programs.pairs import INSTEAD_OF_PORT, check_whole
from ppl_models.programs.state.jax import tidied

from ...display.progress import Bar
from ...evaluation.calibration.amortized import check_calibrated, chunks, refuse_fixed
from ...evaluation.calibration.ranking import JOINT, NO_DENSITY, Ranking, densities_of
from ...evaluation.calibration.result import Calibration
from ..engine.parameters import find
from ..feeding.batches import columns_of, drawn
from ..passes.rows import FEW, fewer, made_for
from ..passes.terms import collect, single, terms
from .simulated import Simulator


@checked
def sbc(
    model: AnyProgram,
    guide: AnyProgram,
    data: Any,
    *,
    simulations: Count = 1000,
    draws: Count = 99,
    rows: Count = 20_000,
    seed: Seed | None = 0,
    progress: bool = False,
) -> Calibration:
    """Calibrate an amortized guide on data that the model draws itself, with no training.

    See `ppl_models.inference.sbc`, whose arguments and result these are.

    Raises:
        ValueError: see there.
    """
    columns = columns_of(data, "sbc: data", model)
    key = random.key(int(np.random.default_rng().integers(2**31)) if seed is None else seed)
    with tidied(model, guide), jax.default_matmul_precision("float32"), Bar("calibration", progress) as bar:
        size, ranking = len(columns[0]), Ranking(seed)

        def some(key: Array, start: int, count: int) -> tuple[Array, ...]:
            index = np.arange(start, start + count) % size
            return drawn(columns, [column.values[index] for column in columns], key)

        # more rows than there are: a guide with parameters for each datum takes no others
        pair = _Pair(model, guide, some(key, 0, max(size, FEW) + 1), key)
        parts = [*chunks(simulations, rows, draws)]
        for i, (start, count) in enumerate(parts):  # all of one size, so that the last one compiles nothing
            of_data, of_pass = random.split(random.fold_in(key, i))
            pair.rank(of_pass, some(of_data, start, parts[0][1]), draws, ranking, count)
            bar.advance((start + count) / simulations)
    ranks = ranking.ranks
    return Calibration(ranks, draws, tuple(name for name in JOINT if name in ranks), pair.notes)


class _Pair:
    """A pair that is right with any rows, as far as a trial of a few tells."""

    def __init__(self, model: Callable, guide: Callable, batch: Sequence[Array], key: Array) -> None:
        self.model, self.guide = model, guide
        try:
            free, parameters, pair = find(model, guide, batch, key, "sbc")
        except Exception:
            program, size = made_for(model, guide, batch, {}) or ("", 0)
            if program != "guide":
                raise
            refuse_fixed("sbc", f"it has values for {size} rows")
        pair.check("sbc", model, language="numpyro")
        check_whole("sbc", pair.model, INSTEAD_OF_PORT)
        check_calibrated("sbc", pair)
        self.params, self.plate, self.names = parameters.constrained(free), pair.plate, [*pair.model.latents]
        reason = fewer(model, guide, batch, pair, self.params, key)
        if reason is not None:
            refuse_fixed("sbc", reason)
        auxiliary = set(pair.kl) - set(self.names)
        # of draws with auxiliary latents, or that were refined, log q of other values is not known
        self.scored = not auxiliary and structure_of(guide) is guide
        self.notes = [] if self.scored else [NO_DENSITY]
        self.simulator = Simulator("sbc", model, batch, self.plate, self.params)
        self._of_truth, self._of_guide = jax.jit(self._truth), jax.jit(self._draws, static_argnums=2)

    def rank(self, key: Array, batch: Sequence[Array], draws: int, ranking: Ranking, count: int) -> None:
        """Draw data for these rows, and rank what the first `count` of them were drawn of."""
        of_data, of_pass = random.split(key)
        args, latents = self.simulator.draw(of_data, batch)
        truth, at = jax.tree.map(np.asarray, self._of_truth(of_pass, args, latents))
        found, of = jax.tree.map(np.asarray, self._of_guide(of_pass, args, draws))
        truth, at = ({name: value[:count] for name, value in each.items()} for each in (truth, at))
        found, of = ({name: value[:, :count] for name, value in each.items()} for each in (found, of))
        ranking.add(truth, found, at, of)

    def _truth(self, key: Array, args: Sequence[Array], latents: Mapping[str, Array]) -> tuple[dict, dict]:
        if self.scored:
            how = {"params": self.params, "analytic": False, "plate": self.plate, "held": latents}
            found = single(self.model, self.guide, args, key=key, **how)
        else:
            given = {**self.params, **latents}
            with handlers.trace() as trace, handlers.seed(rng_seed=key), handlers.substitute(data=given):
                self.model(*args)
            found = collect(trace, trace, False, self.plate)
        return {name: found.drawn[name] for name in self.names}, densities_of(found, self.scored)

    def _draws(self, key: Array, args: Sequence[Array], draws: int) -> tuple[dict, dict]:
        how = {"particles": draws, "analytic": False, "plate": self.plate, "params": self.params}
        found = terms(self.model, self.guide, args, key=key, **how)
        return {name: found.drawn[name] for name in self.names}, densities_of(found, self.scored)
