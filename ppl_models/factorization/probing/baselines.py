"""Where a program is looked at: first runs, values to hold and to change, and what moves though nothing was changed."""

from collections.abc import Callable

from ppl_models.programs.laboratory import Backend, Trial, Values

from .alignment import Alignment
from .alternatives import another
from .probe import Point, Probed


def first_runs(backend: Backend, model: Callable, guide: Callable | None) -> tuple[Trial, Trial]:
    """A first run of each."""
    drawn = Trial() if guide is None else backend.run(guide, backend.leaves, {}, 0)
    return _drawn(backend, model, guide, {}, 0), drawn


def _drawn(backend: Backend, model: Callable, guide: Callable | None, rows: Values, seed: int) -> Trial:
    """A run of the model; where it cannot draw (an improper prior) it is given the guide's values."""
    try:
        return backend.run(model, backend.leaves, rows, seed)
    except NotImplementedError:
        if guide is None:
            raise
        trial = backend.run(guide, backend.leaves, rows, seed)
        held = {**rows, **{s.name: s.value for s in trial.of("latent", "determined")}}
        return backend.run(model, backend.leaves, held, seed)


def draw_point(
    backend: Backend,
    model: Callable,
    guide: Callable | None,
    r: int,
    jitter: bool,
    plus: tuple[str, ...],
    rows: Values,
) -> Point:
    """Values from the model, or from the guide where the model cannot draw, and others to change them to.

    Parameters stay as they are where moving them leaves densities that are no numbers.
    """
    for moved in (r, None) if jitter else (None,):
        backend.jitter(moved)
        trial = _drawn(backend, model, guide, rows, r)
        held = {**rows, **{s.name: s.value for s in trial if s.kind == "latent" or s.name in plus}}
        checked = [*trial, *(() if guide is None else backend.run(guide, backend.leaves, held, r))]
        if all(seen.finite for seen in checked if seen.kind != "determined"):
            break
    try:
        others = {s.name: another(s) for s in trial if s.fresh is not None}
        again = _drawn(backend, model, guide, rows, r + 1000) if plus else trial
    except NotImplementedError:  # a density that cannot be drawn from
        again = _drawn(backend, model, guide, rows, r + 1000)
        others = {s.name: again[s.name].value for s in trial if s.fresh is not None}
    return Point(moved, r, held, {**others, **{name: again[name].value for name in plus}})


def trace_tags(backend: Backend, program: Callable, alignment: Alignment) -> dict[str, frozenset[str]] | None:
    try:
        return backend.tags(program, alignment.owners())
    except Exception:  # noqa: BLE001 (tensors that carry tags are more than some code can take)
        return None


def check_hidden(
    backend: Backend,
    program: Callable,
    base: Trial,
    point: Point,
    targets: list[str],
    probed: Probed,
    what: str,
) -> None:
    """Doubt a program whose factors move although nothing that is known of has changed."""
    backend.jitter(point.jitter)
    for seed in (point.seed, point.seed + 77):
        other = backend.run(program, backend.leaves, point.values, seed)
        for name in targets:
            seen = base[name]
            if name in other.sites and not seen.mute and seen.moved(other[name], backend.tolerance):
                probed.doubts.append(
                    f"the {what}'s factor of {name!r} depends on something that changes from run to run: random "
                    "numbers drawn outside of sample statements, or the subsample of another run of the model"
                )
    probed.doubts[:] = dict.fromkeys(probed.doubts)
