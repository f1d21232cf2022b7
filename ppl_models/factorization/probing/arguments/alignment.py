"""`Alignment`: which element of which argument each observed value is."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from ppl_models.programs.laboratory import Copy, Experiment, Leaves, Node, ProgramRun, SiteRecord, Tags
from ppl_models.programs.record import Site

from ..values.alternatives import poles
from ..values.baselines import Baseline, Change
from .spelling import same, spelled

CLOSED, MIXED = -1, -2  # not from the arguments; from several of their elements at once


class Alignment:
    """For each observed value the element of the arguments it comes from: found by `spelled`.

    Args:
        model: the program, whose laboratory has the arguments.
        baseline: with the latents held.
        base: a run at it.
    """

    def __init__(self, model: Experiment, baseline: Baseline, base: ProgramRun) -> None:
        self.leaves = [np.asarray(leaf) for leaf in model.laboratory.leaves]
        self.index = {name: np.full(record.value.shape, CLOSED) for name, record in base.of("observed").items()}
        self.unread: list[int] = []  # leaves that the program takes no other values for
        starts = np.cumsum([0, *(leaf.size for leaf in self.leaves)]).tolist()
        # whole numbers last, the smaller the later: they may be indices of what is observed
        order = {k: (leaf.dtype.kind != "f", -leaf.size) for k, leaf in enumerate(self.leaves)}
        for k in sorted(order, key=order.__getitem__):
            leaf = self.leaves[k]
            for low, high in poles(leaf, base):
                if self._spell(model, baseline, k, low, high, starts[k]):
                    break
            else:
                if leaf.size:
                    self.unread.append(k)
        self.identical = {name: self._equal(base[name]) for name in self.index}
        self.copied = np.full(starts[-1], -1)  # the place of the element that an element is a copy of
        self.tallies: dict[int, tuple[int, int]] = {}  # leaf -> the mask of whose entries it holds sums, their axis
        self.free: dict[str, int] = {}  # the leaf of each covariate
        self._elements: dict[Node, frozenset[int]] = {}

    def _spell(self, model: Experiment, baseline: Baseline, k: int, low: float, high: float, start: int) -> bool:
        """Find what the elements of leaf k become; False if the program cannot run on these two values."""
        leaf = self.leaves[k]

        def values(numbers: np.ndarray) -> dict[str, np.ndarray] | None:
            changed = [*self.leaves]
            changed[k] = numbers.reshape(leaf.shape)
            try:
                run = replace(baseline, leaves=changed).run(model)
            except Exception:  # noqa: BLE001 (sizes, indices, lengths: a program may not take other ones)
                return None
            found = {name: run[name].value for name in self.index if name in run}
            alike = found.keys() == self.index.keys() and all(v.shape == self.index[n].shape for n, v in found.items())
            return found if alike else None

        told = spelled(values, leaf, low, high)
        if told is None:
            return False
        for name, (places, one, many) in told.items():
            other = self.index[name] != CLOSED
            mixed = (many | (one & other)) if leaf.dtype.kind == "f" else (many & ~other)
            self.index[name] = np.where(one & ~other, places + start, np.where(mixed, MIXED, self.index[name]))
        return True

    def _equal(self, record: SiteRecord) -> bool:
        """Whether the observed values are the elements themselves, no function of them."""
        index, flat = self.index[record.name], self.flat()
        known = index >= 0
        return bool(known.any() and np.array_equal(record.value[known], flat[index[known]].astype(record.value.dtype)))

    def flat(self) -> np.ndarray:
        """All elements of the leaves."""
        return np.concatenate([leaf.reshape(-1) for leaf in self.leaves]) if self.leaves else np.zeros(0)

    def leaves_of(self, flat: np.ndarray) -> list[np.ndarray]:
        """The leaves that lie end to end in `flat`."""
        parts = np.split(flat, np.cumsum([leaf.size for leaf in self.leaves]))
        return [part.reshape(leaf.shape).astype(leaf.dtype) for part, leaf in zip(parts, self.leaves, strict=False)]

    @property
    def mixed(self) -> list[str]:
        """The observed sites with values that combine several elements of the arguments."""
        return [name for name, index in self.index.items() if (index == MIXED).any()]

    @property
    def closed(self) -> list[str]:
        """The observed sites none of whose values comes from the arguments."""
        return [name for name, index in self.index.items() if not (index != CLOSED).any()]

    def owners(self) -> list[frozenset[str]]:
        """For each leaf the observed sites that it reaches, be it as a copy."""
        owners, start = [], 0
        for leaf in self.leaves:
            inside, copied = np.zeros(len(self.copied), bool), self.copied[start : start + leaf.size]
            inside[start : start + leaf.size] = inside[copied[copied >= 0]] = True
            owners.append(frozenset(name for name, i in self.index.items() if inside[i[i >= 0]].any()))
            start += leaf.size
        return owners

    def used(self) -> np.ndarray:
        """Whether each element of the leaves is observed, or a copy of one."""
        used = self.copied >= 0
        for index in self.index.values():
            used[index[index >= 0]] = True
        return used

    def unobserved(self) -> list[np.ndarray]:
        """For each leaf, which of its elements no observed value is made of."""
        used, ends = self.used(), np.cumsum([leaf.size for leaf in self.leaves]).tolist()
        return [~used[e - leaf.size : e].reshape(leaf.shape) for e, leaf in zip(ends, self.leaves, strict=True)]

    def covariates(
        self, names: Sequence[str], base: ProgramRun, leaves: Collection[int] | None = None
    ) -> tuple[list[SiteRecord], dict[Node, Change]]:
        """Arguments that no site observes, as sites of a kind of their own, and how to change each copy of them.

        A leaf with a row for each copy of a plate of the data has a node for each; any other is one node.

        Args:
            names: of all leaves.
            base: a run of the model.
            leaves: those that are asked for, all by default.
        """
        records: list[SiteRecord] = []
        found: dict[Node, Change] = {}
        around = {plate.name: plate for record in base.of("observed").values() for plate in record.plates}
        for k, (leaf, free) in enumerate(zip(self.leaves, self.unobserved(), strict=True)):
            if not free.any() or self.mixed or (leaves is not None and k not in leaves):
                continue
            name = names[k] if free.all() and names[k] not in base else f"{names[k]} (not observed)"
            fitting = [plate for plate in around.values() if leaf.ndim and plate.size == len(leaf)]
            plates = (replace(fitting[0], dim=-1),) if len(fitting) == 1 else ()
            dims = leaf.ndim - len(plates)
            site = Site(name=name, kind="covariate", shape=leaf.shape, event_dim=dims, plates=plates, value=leaf)
            records.append(SiteRecord(site=site))
            self.free[name] = k
            found |= {node: self._change_of(k, node[1] if plates else (), free) for node in records[-1].nodes}
        return records, found

    def _change_of(self, k: int, at: Copy, free: np.ndarray) -> Change:
        return lambda baseline: replace(baseline, leaves=self._moved(k, at, free, baseline.seed))

    def _moved(self, k: int, at: Copy, free: np.ndarray, seed: int) -> list[np.ndarray]:
        """The leaves with the free elements of one, or of one of its rows, changed: to another row's, another order."""
        rng, leaves = np.random.default_rng(seed), list(self.leaves)
        leaf = np.array(leaves[k])
        part, choose = np.asarray(leaf[at]), free[at]
        other = part.copy()
        if at:
            rows = [row for row in leaf[rng.permutation(len(leaf))] if not np.array_equal(row[choose], part[choose])]
            other = rows[0] if rows else other
        else:
            other[choose] = rng.permutation(part[choose])
        if np.array_equal(other[choose], part[choose]):
            other = part + rng.standard_normal(part.shape).astype(leaf.dtype) if leaf.dtype.kind == "f" else part
            # masks and lengths: all may count in the example, or none
            other = ~part if leaf.dtype.kind == "b" else other
            other = np.where(part > 0, part - 1, part + 1).astype(leaf.dtype) if leaf.dtype.kind in "iu" else other
        leaf[at] = np.where(choose, other, part)
        leaves[k] = leaf
        return self._with_copies(leaves)

    def _with_copies(self, leaves: list[np.ndarray]) -> list[np.ndarray]:
        """Changed leaves, with copies of the elements that have changed put right, and the lengths that masks tell."""
        if not (self.copied >= 0).any():
            return leaves
        before, after, start = self.flat(), np.concatenate([leaf.reshape(-1) for leaf in leaves]), 0
        moved = (self.copied >= 0) & ~same(before, after)[self.copied]
        for k, leaf in enumerate(leaves):
            mine = np.flatnonzero(moved[start : start + leaf.size])
            if mine.size:
                places, flat = self.copied[start + mine], leaf.reshape(-1).copy()
                as_it_is = before[start + mine] == before[places]  # and else a function of the element
                flat[mine] = np.where(as_it_is, after[places], _others(self.leaves[k], mine)).astype(leaf.dtype)
                leaves[k] = flat.reshape(leaf.shape)
            start += leaf.size
        for k, (mask, axis) in self.tallies.items():
            if axis == 1:  # of sequences; how many go on at each step is told of packed ones, by those who pack them
                sums = leaves[mask].reshape(*leaves[mask].shape[:2], -1)[..., 0].sum(1)
                leaves[k] = np.round(sums).clip(1, leaves[mask].shape[1]).astype(leaves[k].dtype)
        return leaves

    def elements(self, record: SiteRecord, copy: Copy) -> frozenset[int]:
        """The elements of the arguments that are the value of one copy of an observed site."""
        node, index = (record.name, copy), self.index[record.name]
        if node not in self._elements:
            found = index[record.at(index, copy)]
            self._elements[node] = frozenset(found[found >= 0].tolist())
        return self._elements[node]

    def entries(self, record: SiteRecord, copy: Copy) -> np.ndarray | None:
        """The elements of one argument that the entries of a copy of an observed site are, in their order.

        None where they are not real numbers of one argument, each another element of it and itself the observed value.
        """
        index = self.index[record.name][record.at(self.index[record.name], copy)].reshape(-1)
        ends = np.cumsum([leaf.size for leaf in self.leaves])
        if not self.identical[record.name] or (index < 0).any() or len(np.unique(index)) < len(index):
            return None
        inside = np.unique(np.searchsorted(ends, index, side="right"))
        return index if len(inside) == 1 and self.leaves[inside[0]].dtype.kind == "f" else None

    def changed(
        self,
        record: SiteRecord,
        copy: Copy,
        other: np.ndarray,
        where: np.ndarray | None = None,
        leaves: Leaves | None = None,
    ) -> list[np.ndarray]:
        """The leaves (by default those of the call) with one copy of an observed site replaced by its value in `other`.

        Where the observed values are functions of the elements, other values of the same leaf are put instead.
        `where` narrows it to some elements of the copy's value.
        """
        at = record.at(self.index[record.name], copy)
        index, values = self.index[record.name][at].reshape(-1), other[at].reshape(-1)
        chosen = index >= 0
        if where is not None:
            chosen &= where.reshape(-1)
        found, start = [], 0
        for leaf, now in zip(self.leaves, self.leaves if leaves is None else leaves, strict=True):
            flat = now.reshape(-1).copy()
            mine = chosen & (index >= start) & (index < start + leaf.size)
            if mine.any() and self.identical[record.name]:
                flat[index[mine] - start] = values[mine].astype(leaf.dtype)
            elif mine.any():
                flat[index[mine] - start] = _others(leaf, index[mine] - start)
            found.append(flat.reshape(leaf.shape))
            start += leaf.size
        return self._with_copies(found)

    def tags(self, experiment: Experiment, baseline: Baseline) -> Tags | None:
        """By provenance, what each site of a program may depend on; None where code cannot take tensors with tags."""
        unobserved = {k: name for name, k in self.free.items()}
        owners = [names | {*filter(None, [unobserved.get(k)])} for k, names in enumerate(self.owners())]
        try:
            return experiment.tags(owners, baseline.values, baseline.jitter)
        except Exception:  # noqa: BLE001 (tensors that carry tags are more than some code can take)
            return None

    def shared(self, base: ProgramRun) -> dict[Node, set[Node]]:
        """Copies of observed sites that are the same elements: observed twice."""
        owner: dict[int, set[Node]] = {}
        found = {node: self.elements(base[node[0]], node[1]) for node in base.nodes(base.of("observed"))}
        often = Counter(chain.from_iterable(found.values()))
        for node, elements in found.items():
            for element in (e for e in elements if often[e] > 1):
                owner.setdefault(element, set()).add(node)
        twins: dict[Node, set[Node]] = {}
        for nodes in owner.values():
            for node in nodes:
                twins.setdefault(node, set()).update(nodes - {node})
        return twins


def _others(leaf: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Other values of the leaf for some of its places."""
    flat = leaf.reshape(-1)
    low, high = flat.min(), flat.max()
    return np.where(flat[places] == low, high, low).astype(leaf.dtype)
