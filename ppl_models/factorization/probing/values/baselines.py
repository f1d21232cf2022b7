"""`Baseline`: site values at which probes start, and others to change them to; `draw_baseline` draws one."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from ppl_models.programs.laboratory import Experiment, Leaves, ProgramRun, Values
from ppl_models.programs.state.jitter import Jitter

from .alternatives import another


@dataclass(frozen=True)
class Baseline:
    """Input of a run: values at sites, a seed, a jitter of the parameters, arguments.

    Args:
        values: of the latents and of what else is held.
        others: another value of every site, to change it to.
        seed: of the random numbers.
        jitter: how the parameters are moved, None to take them as they are.
        leaves: other arrays for those among the arguments.
    """

    values: Values
    others: Values
    seed: int
    jitter: Jitter | int | None
    leaves: Leaves | None = None
    _runs: dict[int, ProgramRun] = field(default_factory=dict, init=False, repr=False, compare=False)

    def run(self, experiment: Experiment) -> ProgramRun:
        """The run of a program at this baseline, which is made once."""
        key = id(experiment.program)
        if key not in self._runs:
            self._runs[key] = experiment.run(self.values, seed=self.seed, jitter=self.jitter, leaves=self.leaves)
        return self._runs[key]

    def holding(self, name: str, value: np.ndarray) -> "Baseline":
        """The same with another value held at a site."""
        return replace(self, values={**self.values, name: value})


Baselines = Callable[[int], Baseline]
Change = Callable[[Baseline], Baseline]


def draw_baseline(
    model: Experiment, guide: Experiment | None, r: int, jitter: bool, plus: tuple[str, ...], rows: Values
) -> Baseline:
    """The r-th baseline: values from the model, or from the guide where the model cannot draw, or draws outside of it.

    Parameters stay as they are where moving them leaves densities that are no numbers.

    Args:
        model, guide: the programs.
        r: a seed.
        jitter: whether to move the parameters.
        plus: deterministic sites that are held, too.
        rows: what plates subsample, the same at every baseline.
    """
    ways = [(moved, False) for moved in ((r, None) if jitter else (None,))]
    if guide is not None:  # one on a part of the support, which draws of the prior leave; if that is not it, as before
        ways += [(ways[0][0], True), ways[-1]]
    others: dict[str, np.ndarray] = {}
    for moved, by_guide in ways:
        run = (_run_by_guide if by_guide and guide else first_run)(model, guide, rows, r, moved)
        held = {**rows, **{name: s.value for name, s in run.items() if s.kind == "latent" or name in plus}}
        found = Baseline(held, others, r, moved)
        checked = [*run.values()]
        checked += [] if guide is None else found.run(guide).values()
        if all(record.finite for record in checked if record.kind != "deterministic"):
            break
    left = [*plus]
    for name in (name for name, record in run.items() if record.fresh is not None):
        try:
            others[name] = another(run[name])
        except NotImplementedError:  # a density that cannot be drawn from
            left.append(name)
    again = first_run(model, guide, rows, r + 1000, moved) if left else run
    others |= {name: again[name].value for name in left}
    return found


def first_run(
    model: Experiment,
    guide: Experiment | None,
    rows: Values | None = None,
    seed: int = 0,
    jitter: Jitter | int | None = None,
) -> ProgramRun:
    """A run of the model; where it cannot draw (an improper prior) it is given the guide's values."""
    rows = rows or {}
    try:
        return model.run(rows, seed=seed, jitter=jitter)
    except NotImplementedError:
        if guide is None:
            raise
        return _run_by_guide(model, guide, rows, seed, jitter)


def _run_by_guide(
    model: Experiment, guide: Experiment | None, rows: Values, seed: int, jitter: Jitter | int | None
) -> ProgramRun:
    """A run of the model on values of the guide."""
    assert guide is not None
    run = guide.run(rows, seed=seed, jitter=jitter)
    drawn = {name: record.value for name, record in run.of("latent", "deterministic").items()}
    return model.run({**rows, **drawn}, seed=seed, jitter=jitter)
