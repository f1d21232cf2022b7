"""Which copies in a large plate are looked at: those that tell how latents of other plates meet in them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ppl_models.programs.laboratory import FEW, Backend, Node, Plate, Trial

from .probe import Point, held

MOST = 24  # copies in one plate


def telling(
    backend: Backend, model: Callable, base: Trial, point: Point, leaves: Sequence[np.ndarray], latents: Sequence[str]
) -> tuple[Trial, list[str]]:
    """`base`, where plates around observed sites have one copy more for each set of latents that meet in some copy.

    By an index (groups) or a covariate that is zero, what a copy depends on differs from copy to copy, and the first,
    the middle and the last need not show it. Also doubts: where a copy depends on latents that are looked at and on
    others of the same plate that are not, while none shows how two of those that are looked at meet.
    """
    large = {p for s in base.of("observed", "factor") for p in s.plates if p.size > FEW}
    if not large:
        return base, []
    meets: dict[Plate, dict[int, set[Node]]] = {plate: {} for plate in large}
    beyond: dict[Plate, dict[int, set[str]]] = {plate: {} for plate in large}

    def look(site: str, change: tuple, note: Callable[[Plate, int], None]) -> None:
        try:
            other = backend.run(model, *change, point.seed)
        except Exception:  # noqa: BLE001 (a program may take no other value; `probe` says so)
            return
        inside = {plate.name for plate in base[site].plates}
        for seen in base.of("observed", "factor"):
            for plate in seen.plates:
                if plate in large and plate.name not in inside and seen.name in other.sites:
                    for i in seen.rows(other[seen.name], backend.tolerance, plate):
                        note(plate, i)

    for name in latents:
        seen = base[name]
        for node in seen.nodes:
            look(name, held(point, seen, node, leaves), lambda p, i, n=node: meets[p].setdefault(i, set()).add(n))
        if any(plate.size > FEW for plate in seen.plates):
            value, others = np.array(point.values.get(name, seen.value)), point.others[name]
            kept = value.copy()
            value[...] = np.broadcast_to(others, value.shape)
            for copy in seen.copies:
                at = seen.at(value, copy, seen.event_dim)
                value[at] = kept[at]
            change = leaves, {**point.values, name: value}
            look(name, change, lambda p, i, n=name: beyond[p].setdefault(i, set()).add(n))
    doubts, chosen = [], {}
    for plate, found in meets.items():
        first: dict[frozenset[Node], int] = {}
        for i in sorted(found):
            first.setdefault(frozenset(found[i]), i)
        ranked = sorted(first, key=len, reverse=True)
        chosen[plate] = replace(plate, more=tuple(first[key] for key in ranked[:MOST]))
        if len(ranked) > MOST:
            doubts.append(
                f"in the model, the copies in the plate {plate.name!r} depend on latents in {len(ranked)} ways, of "
                f"which {MOST} were looked at; pass fewer rows"
            )
        for name in latents:
            mine = [{n for n in key if n[0] == name} for key in ranked]
            some = any(name in beyond[plate].get(i, ()) and any(n[0] == name for n in found[i]) for i in found)
            if some and not any(len(nodes) > 1 for nodes in mine):
                doubts.append(
                    f"in the model, copies in the plate {plate.name!r} depend on copies of {name!r} that were not "
                    "looked at, beside others; pass an example of fewer"
                )
    sites = {
        s.name: replace(s, plates=tuple(chosen.get(plate, plate) for plate in s.plates)) if {*s.plates} & large else s
        for s in base
    }
    return Trial(sites), doubts
