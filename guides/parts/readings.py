"""What guides of either language know of plates, of what a latent reads, and of what its network is called."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple


@dataclass(frozen=True)
class Plate:
    """A plate as one run of the model entered it: sizes are those of the example."""

    name: str
    dim: int
    size: int
    full_size: int


class Reading(NamedTuple):
    """What latents with the same evidence tensor share: the plates they are in, and the observed sites they read."""

    keep: frozenset[str]
    sites: tuple[str, ...]


@lru_cache(maxsize=4096)
def kept_elements(
    width: int, inside: tuple[tuple[str, frozenset[int]], ...], sites: tuple[str, ...]
) -> slice | list[int] | None:
    """Which elements of a row of `width` are left without those that only other sites than `sites` observe."""
    wanted = frozenset().union(*(elements for name, elements in inside if name in sites))
    others = frozenset().union(*(elements for name, elements in inside if name not in sites)) - wanted
    kept = [i for i in range(width) if i not in others]
    if not kept:
        return None
    return slice(kept[0], kept[-1] + 1) if kept[-1] - kept[0] == len(kept) - 1 else kept


def network_of(name: str) -> str:
    """The name of a factor's network: no dots, which separate modules, and another one for each site."""
    return f"q_{name}" if "." not in name else "dotted_" + name.replace("~", "~0").replace(".", "~1")
