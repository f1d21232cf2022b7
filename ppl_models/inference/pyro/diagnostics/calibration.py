"""`sbc`: amortized simulation-based calibration of a guide: do its draws lie about the truth as they should?"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro import poutine

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyProgram, Count, Seed
from ppl_models.programs.noise import structure_of
from ppl_models.programs.pyro import to_numpy

from ...display.progress import Bar
from ...evaluation.calibration.amortized import check_calibrated, chunks, refuse_fixed
from ...evaluation.calibration.ranking import JOINT, NO_DENSITY, Ranking, densities_of
from ...evaluation.calibration.result import Calibration as Calibration
from ..evaluation.densities import device_of, looking
from ..feeding.columns import Columns
from ..passes.messengers import Substitute
from ..passes.pair_info import pair_info
from ..passes.particles import vectorizes
from ..passes.rows import FEW, check_rows, fewer, made_for
from ..passes.terms import collect, concatenated, terms, traces
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

        z*, x ~ p(z, x),   z_s ~ q(z | x),   rank = #{s: f(z_s, x) < f(z*, x)},   s = 1 ... S

    If q(z | x) = p(z | x), every rank of every f is as likely as any other (`Calibration` tests it exactly). f is each
    number of a code, which sees bias and spread of a marginal and is blind to dependences, and to a guide that ignores
    the data; and log p(x, z), log p(x | z), log q(z | x) and log w, which see those. See docs/diagnostics.md.

    It judges a guide where the model draws data. Where a trained model's draws are unlike the data, the guide may be
    better or worse there.

    Args:
        model, guide: any Pyro programs, all of whose latents are in the plate of the data; discrete ones, too. The
            guide is given data that it has never seen, so that parameters for each datum are of no use.
        data: rows, of which shapes and types are read, and arguments that the model does not observe.
        simulations: data that are drawn.
        draws: S, of the guide, for each; 99 or 199 give ranks that make even bins.
        rows: how many (datum, draw) rows go through the programs at once.
        seed: of all draws; the global generator is as before afterwards. None continues it.
        progress: show a bar.

    Raises:
        ValueError: a guide that takes the given rows alone; latents outside the plate of the data; a model that
            observes what is computed of its arguments, or that draws no data; densities that are NaN.

    Source: Talts et al. 2018 (arXiv 1804.06788); Modrak et al. 2023 (arXiv 2211.02383) for log densities as quantities.

    >>> import torch, pyro, pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(x / 2, 0.5))  # sqrt(0.5) is right
    >>> print(sbc(model, guide, torch.randn(8), simulations=500).shape("z"))
    the draws are too narrow
    """
    data = Columns(data, "sbc: data", model, guide)
    with looking(model, guide, seed, *data.places), Bar("calibration", progress) as bar:
        pair = _Pair(model, guide, data)
        ranking = Ranking(seed)
        for start, count in chunks(simulations, rows, draws):
            index = torch.arange(start, start + count) % data.size
            pair.rank(data.rows(index, pair.device), draws, max(1, rows // count), ranking)
            bar.advance((start + count) / simulations)
    ranks = ranking.ranks
    return Calibration(ranks, draws, tuple(name for name in JOINT if name in ranks), pair.notes)


class _Pair:
    """A pair that is right with any rows, as far as a trial of a few tells."""

    def __init__(self, model: Callable, guide: Callable, data: Columns) -> None:
        self.model, self.guide, self.device = model, guide, device_of(model, guide)
        # more rows than there are: a guide with parameters for each datum takes no others
        index = torch.arange(max(data.size, FEW) + 1) % data.size
        batch = data.rows(index, self.device)
        try:
            info = pair_info("sbc", model, guide, batch)
        except Exception:
            program, size = made_for(model, guide, batch) or ("", 0)
            if program != "guide":
                raise
            refuse_fixed("sbc", f"it has values for {size} rows")
        check_rows("sbc", model, guide, batch, info.pair)
        pair = info.pair
        check_calibrated("sbc", pair)
        _, reason = fewer(model, guide, batch, pair, info.traces)
        if reason is not None:
            refuse_fixed("sbc", reason)
        self.nesting, self.plate = pair.nesting, pair.plate
        reason = vectorizes(model, guide, batch, self.nesting, plate=self.plate, single=info.traces)
        self.together = reason is None
        self.notes = [] if reason is None else [f"draws made one by one: {reason}"]
        # of draws with auxiliary latents, or that were refined, log q of other values is not known
        self.scored = not info.terms.auxiliary and structure_of(guide) is guide
        if not self.scored:
            self.notes.append(NO_DENSITY)
        self.simulator = Simulator("sbc", model, batch, self.plate)

    def rank(self, batch: Sequence[Any], draws: int, at_once: int, ranking: Ranking) -> None:
        """Draw data for these rows, and rank what they were drawn of."""
        args, latents = self.simulator.draw(batch)
        with Substitute(latents):
            if self.scored:
                both = traces(self.model, self.guide, args, {})[:2]
            else:
                with poutine.trace() as alone:
                    self.model(*args)
                both = alone.trace, alone.trace
        truth = collect(*both, None, False, self.plate)
        how = {"nesting": self.nesting, "analytic": False, "plate": self.plate}
        sizes = [1] * draws if not self.together else [at_once] * (draws // at_once)
        sizes += [draws % at_once] if self.together and draws % at_once else []
        found = concatenated([terms(self.model, self.guide, args, particles=k, **how) for k in sizes])
        ranking.add(
            {name: to_numpy(value)[0] for name, value in truth.drawn.items()},
            {name: to_numpy(found.drawn[name]) for name in truth.drawn},
            {name: to_numpy(value)[0] for name, value in densities_of(truth, self.scored).items()},
            {name: to_numpy(value) for name, value in densities_of(found, self.scored).items()},
        )
