"""`places_for`: memory for copies of many tensors. `noise_of`, `repeat`: the numbers by which parameters are moved."""

from collections.abc import Sequence
from functools import cache
from math import ceil

import torch
from torch import Tensor

ALIGNED = 16  # numbers at whose multiples a copy begins: processors want 64 bytes
NOISE = 65_521  # a prime, so that no two rows of a weight matrix meet the same numbers


def places_for(like: Sequence[Tensor], double: bool = False) -> list[Tensor]:
    """Tensors to hold such values, or real ones in double precision; in one piece of memory where that can be.

    To be handed out many pieces takes as long as to fill them.
    """
    kinds = [torch.double if double and t.is_floating_point() else t.dtype for t in like]
    joined = [_plain(t) for t in like]
    ends: dict[torch.dtype, int] = {}
    found = []
    for tensor, kind, here in zip(like, kinds, joined, strict=True):
        found.append(ends.get(kind, 0))
        ends[kind] = found[-1] + here * ALIGNED * ceil(tensor.numel() / ALIGNED)
    whole = {kind: torch.empty(end, dtype=kind, device="cpu") for kind, end in ends.items()}
    return [
        whole[kind][start : start + t.numel()].view(t.shape) if here else t.to(kind, copy=True)
        for t, kind, start, here in zip(like, kinds, found, joined, strict=True)
    ]


def _plain(tensor: Tensor) -> bool:
    real = tensor.layout is torch.strided and tensor.is_floating_point()
    return real and tensor.device.type == "cpu" and tensor.is_contiguous()


@cache
def noise_of(seed: int) -> Tensor:
    """Standard normal numbers of one of the few seeds, kept: to draw them takes longest."""
    return torch.randn(NOISE, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def repeat(numbers: Tensor, start: int, place: Tensor) -> Tensor:
    """Fill a tensor with an endless repetition of `numbers`: fresh ones for each weight would take long."""
    start, filled, size = start % len(numbers), 0, place.numel()
    whole = place.view(-1) if place.is_contiguous() else torch.empty(size, dtype=place.dtype, device=place.device)
    while filled < size:
        part = numbers[start : start + size - filled]
        whole[filled : filled + len(part)] = part
        filled, start = filled + len(part), 0
    return place if place.is_contiguous() else place.copy_(whole.view(place.shape))
