"""Parameters and their moments laid side by side, so that one loop updates many."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .optimizer_state import OptimizerState

SMALL = 16_384  # elements: what is smaller shares a buffer
MANY = 1_000  # small tensors from which each layer has buffers of its own, so that the updates of layers are alike


class Buffers:
    """The lists of `OptimizerState` as few tensors: small ones are views of one buffer."""

    def __init__(self, slots: OptimizerState) -> None:
        self.slots = slots
        self.groups = _groups(slots.names, slots.parameters)
        # on CUDA each starts at a multiple of 64 bytes, as matrix products like it
        self.pads = [-p.numel() % 16 if p.is_cuda else 0 for p in slots.parameters]
        self.starts: dict[int, int] = {}
        for group in self.groups:
            start = 0
            for i in group:
                self.starts[i] = start
                start += slots.parameters[i].numel() + self.pads[i]
        self.lists: dict[str, list[Tensor]] = {}
        for kind, tensors in slots.lists().items():
            self.lists[kind] = [self._merge(kind, tensors, group) for group in self.groups]

    @torch.no_grad()
    def _merge(self, kind: str, tensors: list[Tensor], group: list[int]) -> Tensor:
        if len(group) == 1:
            return tensors[group[0]].data  # no view, which the compiler would take for an alias
        whole = torch.cat([pad(tensors[i].detach().flatten(), (0, self.pads[i])) for i in group])
        for i, part in zip(group, self.parts(whole, group), strict=True):
            if kind == "parameter":
                tensors[i].data = part
            else:
                tensors[i] = part
        return whole

    def parts(self, whole: Tensor, group: list[int]) -> list[Tensor]:
        """The views of a buffer that are its tensors, detached, each in its own shape."""
        if len(group) == 1:
            return [whole]
        shapes = [(self.starts[i], self.slots.parameters[i]) for i in group]
        return [whole[start : start + p.numel()].view(p.shape) for start, p in shapes]

    def flat(self) -> list[Tensor]:
        """All of them, list after list."""
        return [tensor for each in self.lists.values() for tensor in each]

    @torch.no_grad()
    def put(self, place: int, value: Tensor) -> None:
        """Give the tensor at a place of `flat` a value: the memory of it where the tensor stands alone, else a copy."""
        kind, k = list(self.lists)[place // len(self.groups)], place % len(self.groups)
        if len(self.groups[k]) > 1:
            self.lists[kind][k].copy_(value)
            return
        self.lists[kind][k], (i,) = value, self.groups[k]
        if kind == "parameter":
            self.slots.parameters[i].data = value
        else:
            self.slots.lists()[kind][i] = value

    def joined(self, gradients: Sequence[Tensor], group: list[int]) -> Tensor:
        """Gradients of the tensors of a buffer as the buffer's."""
        if len(group) == 1:
            return gradients[group[0]]
        flat = [gradients[i].reshape(-1) for i in group]
        return torch.cat([pad(g, (0, self.pads[i])) if self.pads[i] else g for i, g in zip(group, flat, strict=True)])

    def marks(self, group: list[int], chosen: list[bool], like: Tensor) -> Tensor:
        """A buffer of ones where the chosen tensors lie, zeros elsewhere."""
        sizes = [self.slots.parameters[i].numel() + self.pads[i] for i in group]
        return torch.cat([like.new_full((n,), float(one)) for n, one in zip(sizes, chosen, strict=True)])

    @torch.no_grad()
    def release(self) -> None:
        """Move what was merged to memory of its own."""
        for kind, tensors in self.slots.lists().items():
            for group in self.groups:
                for i in group if len(group) > 1 else ():
                    if kind == "parameter":
                        tensors[i].data = tensors[i].data.clone()
                    else:
                        tensors[i] = tensors[i].clone()


def _groups(names: Sequence[str], tensors: Sequence[Tensor]) -> list[list[int]]:
    """Numbers of tensors for one buffer each: small ones of a dtype and device, others alone."""
    alone = [t.numel() >= SMALL or not t.is_contiguous() or t.layout != torch.strided for t in tensors]
    layers = len(tensors) - sum(alone) >= MANY
    groups: dict[Any, list[int]] = {}
    for i, t in enumerate(tensors):
        of = (t.dtype, t.device, _layer(names[i]) if layers else "")
        groups.setdefault(i if alone[i] else of, []).append(i)
    # those of whole lines of the cache first, so that as many as can begin at one
    return [sorted(group, key=lambda i: tensors[i].nbytes % 64 > 0) for group in groups.values()]


def _layer(name: str) -> str:
    """A name up to its first number: "model.priors.3" of "model.priors.3.net.0.weight"."""
    found = re.match(r".*?\.\d+(?=\.|$)", name)
    return found.group() if found else ""
