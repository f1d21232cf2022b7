"""Indices of large plates to probe: those that reveal how latents of other plates meet in a copy."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ppl_models.programs.laboratory import FEW, Experiment, Node, ProgramRun, rows

from ..values.baselines import Baseline
from ..values.changes import held
from .second_looks import Vantage

MAX_INDICES = 24  # in one plate


def with_informative_indices(
    model: Experiment, base: ProgramRun, baseline: Baseline, latents: Sequence[str], vantages: Sequence[Vantage]
) -> tuple[ProgramRun, list[str]]:
    """`base`, where plates around observed sites have one copy more for each set of latents that meet in some copy.

    By an index (groups) or a covariate that is zero, what a copy depends on differs from copy to copy, and the first,
    the middle and the last need not show it. Also doubts: where a copy depends on latents that are looked at and on
    others of the same plate that are not, while none shows how two of those that are looked at meet.

    Args:
        model: the program.
        base: a run of it.
        baseline: where it was run.
        latents: of it.
        vantages: places to look from at latents that move nothing here.
    """
    data = base.of("observed", "factor")
    large = {plate.name for record in data.values() for plate in record.plates if plate.size > FEW}
    if not large:
        return base, []
    meets: dict[str, dict[int, set[Node]]] = {plate: {} for plate in sorted(large)}
    beyond: dict[str, dict[int, set[str]]] = {plate: {} for plate in large}

    def look(site: str, changed: Baseline, note: Callable[[str, int], object], vantage: Vantage | None = None) -> None:
        try:
            start = base if vantage is None else seen(baseline, vantage).run(model)
            other = seen(changed, vantage).run(model)
        except Exception:  # noqa: BLE001 (a program may take no other value; `Probe` says so)
            return
        inside = {plate.name for plate in base[site].plates}
        for name, record in data.items():
            for plate in record.plates:
                if plate.name in large - inside and name in start and name in other:
                    for i in rows(start[name], other[name], model.laboratory.tolerance, plate):
                        note(plate.name, i)

    def seen(there: Baseline, vantage: Vantage | None) -> Baseline:
        return there if vantage is None else vantage.seen_from(there, base, model.laboratory.leaves)

    for name in latents:
        record = base[name]
        for node in record.nodes:
            for vantage in (None, *vantages):
                look(
                    name,
                    held(baseline, record, node),
                    lambda p, i, n=node: meets[p].setdefault(i, set()).add(n),
                    vantage,
                )
                if large <= {plate.name for plate in record.plates} or any(
                    node in nodes for copies in meets.values() for nodes in copies.values()
                ):
                    break
        if any(plate.size > FEW for plate in record.plates):
            kept = np.array(baseline.values.get(name, record.value))
            value = np.broadcast_to(baseline.others[name], kept.shape).astype(kept.dtype)
            for copy in record.copies:
                at = record.at(value, copy)
                value[at] = kept[at]
            look(name, baseline.holding(name, value), lambda p, i, n=name: beyond[p].setdefault(i, set()).add(n))
    doubts, chosen = [], {}
    for plate, found in meets.items():
        first: dict[frozenset[Node], int] = {}
        for i in sorted(found):
            first.setdefault(frozenset(found[i]), i)
        ranked = sorted(first, key=len, reverse=True)
        chosen[plate] = tuple(first[key] for key in ranked[:MAX_INDICES])
        if len(ranked) > MAX_INDICES:
            doubts.append(
                f"in the model, the copies in the plate {plate!r} depend on latents in {len(ranked)} ways, of "
                f"which {MAX_INDICES} were looked at; pass fewer rows"
            )
        for name in latents:
            mine = [{n for n in key if n[0] == name} for key in ranked]
            some = any(name in beyond[plate].get(i, ()) and any(n[0] == name for n in found[i]) for i in found)
            if some and not any(len(nodes) > 1 for nodes in mine):
                doubts.append(
                    f"in the model, copies in the plate {plate!r} depend on copies of {name!r} that were not "
                    "looked at, beside others; pass an example of fewer"
                )
    return ProgramRun([replace(record, more=chosen) for record in base.values()]), doubts
