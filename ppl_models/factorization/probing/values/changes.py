"""`changes`: how the copies of sites are changed, in held values or in the arguments that they come from."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ppl_models.programs.laboratory import Node, ProgramRun, SiteRecord

from ..arguments.alignment import Alignment
from .baselines import Baseline, Change


def held(baseline: Baseline, record: SiteRecord, node: Node) -> Baseline:
    """A baseline with the held value changed at one node."""
    value = np.array(baseline.values.get(record.name, record.value))
    at = record.at(value, node[1])
    value[at] = np.broadcast_to(baseline.others[record.name], value.shape)[at]
    return baseline.holding(record.name, value)


def change_of(record: SiteRecord, node: Node, alignment: Alignment | None = None) -> Change:
    """A change of a copy of a site: of an observed one through the arguments, where it comes from there."""
    if alignment is None or record.kind != "observed" or not alignment.elements(record, node[1]):
        return lambda baseline: held(baseline, record, node)

    def change(baseline: Baseline) -> Baseline:
        others = np.broadcast_to(baseline.others[record.name], record.value.shape)
        return replace(baseline, leaves=alignment.changed(record, node[1], others, leaves=baseline.leaves))

    return change


def changes(base: ProgramRun, names: Iterable[str], alignment: Alignment | None = None) -> dict[Node, Change]:
    """A change of each copy of some sites."""
    return {node: change_of(base[node[0]], node, alignment) for node in base.nodes(names)}
