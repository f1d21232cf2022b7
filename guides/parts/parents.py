"""Which latents a latent is given: a choice by structure, in whichever language the programs are."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ppl_models.factorization import Factorization

Parents = str | Mapping[str, Sequence[str]]


class Known(Protocol):
    """What a layout knows of a model."""

    guide: str
    latents: Mapping[str, Any]
    factorization: Factorization


def choose_parents(layout: Known, order: Sequence[str], parents: Parents) -> dict[str, tuple[str, ...]]:
    """Which of the latents sampled before it each latent is given, in a guide that samples in `order`.

    "needed": those that the exact posterior depends on, no more (`Factorization.needed_parents`); "all": every earlier
    one; "previous": the one sampled just before; "none"; or a mapping latent -> names (a latent left out gets none).
    A global latent is given globals only.

    Raises:
        ValueError: an unknown word or latent, a bare string for names, or a parent that is not sampled before its
            child.
    """
    words = ("needed", "all", "previous", "none")
    known = parents in words if isinstance(parents, str) else isinstance(parents, Mapping)
    if not known:
        raise ValueError(f"guide {layout.guide}: found parents={parents!r}, want one of {words} or a mapping")
    if not isinstance(parents, str):
        for name in parents:
            check_latent(layout, "parents", name)
            if isinstance(parents[name], str):
                raise ValueError(
                    f"guide {layout.guide}: found parents[{name!r}] = {parents[name]!r}, want a tuple of names; try "
                    f"({parents[name]!r},)"
                )
    chosen: dict[str, tuple[str, ...]] = {}
    for i, name in enumerate(order):
        earlier = [u for u in order[:i] if layout.latents[u].is_global or not layout.latents[name].is_global]
        if not isinstance(parents, str):
            wanted = tuple(parents.get(name, ()))
            late = [u for u in wanted if u not in earlier]
            if late:
                raise ValueError(
                    f"guide {layout.guide}: parents[{name!r}] has {late[0]!r}, which this guide does not sample before "
                    f"it; it can be given {', '.join(earlier) or 'nothing'}"
                )
        elif parents == "needed":
            wanted = tuple(u for u in layout.factorization.needed_parents(name, earlier) if u in earlier)
        else:
            wanted = {"all": tuple(earlier), "previous": tuple(earlier[-1:]), "none": ()}[parents]
        chosen[name] = wanted
    return chosen


def check_latent(layout: Known, argument: str, name: str) -> None:
    """Raise ValueError if an argument names a site that is no latent."""
    if name not in layout.latents:
        raise ValueError(
            f"guide {layout.guide}: {argument} names the site {name!r}, want one of the latents "
            f"{', '.join(layout.latents)}"
        )
