"""`structure_of`: the guide whose factorization a guide has; `refused`: the messages about guides that are refined.

A guide that refines another one (it has that in its attribute `refines`) draws from what has no density to compute: the
draws of the other, moved. Who conditions on whom is told by the other.
"""

from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from ppl_models.parts.arguments.kinds import no_guide

FAMILIES = "a Gaussian, pushed through bijections or not"
Plates = Mapping[str, tuple[int, int]]  # plate -> its copies in this run, and in all


def structure_of(guide: Any) -> Any:
    """The guide that a refined one starts from; any other guide itself."""
    found = getattr(guide, "refines", None)
    return guide if found is None else structure_of(found)


def refused(found: str, want: str, instead: str, asks: str = "guide Refined") -> NoReturn:
    """Raise ValueError for what cannot be refined."""
    raise ValueError(f"{asks}: found {found}, want {want}; try {instead}")


def refuse_scoring() -> NoReturn:
    """Raise ValueError where the density of another value than a refined draw is asked for."""
    refused(
        "a refined guide where densities of other values than its draw are asked for",
        "a guide whose density is known",
        "the guide that it refines, its attribute `refines`",
        "log q",
    )


def structure_notes(guide: Any) -> tuple[str, ...]:
    """A line on a verdict about the guide that a refined one starts from."""
    return () if structure_of(guide) is guide else ("refined: structure of the base",)


def check_unrefined(asks: str, guide: Any) -> Any:
    """The guide; ValueError for one that is refined already, or is none."""
    if structure_of(guide) is not guide:
        refused("steps for a guide that takes some already", "a guide without", "refine=0", asks)
    if guide is no_guide:
        refused("steps for a model without latents", "latents to move", "refine=0", asks)
    return guide


def going_notes(steps: int) -> list[str]:
    """A line on an evaluation whose draws went on by so many steps."""
    told = f"refined: {steps} Hamiltonian steps after each draw of the guide, with nothing learned, at evaluation only"
    return [told] if steps else []


def check_shared(asks: str, guide: Any, shared: Collection[str], rows: int, size: int) -> None:
    """Raise ValueError for a refined guide of latents that all data share, of which a batch is seen at a time.

    Args:
        asks: the function that asks.
        guide: the guide.
        shared: the latents outside of the plate of the data.
        rows, size: of a batch, and of all the data.
    """
    if structure_of(guide) is not guide and shared and rows < size:
        found = f"a refined guide of {', '.join(map(repr, sorted(shared)))}, which all {size} data share, in batches"
        refused(
            f"{found} of {rows}",
            "all data in every step: steps that follow a batch bound nothing",
            f"batch_size={size}",
            asks,
        )


def check_partial(latents: Mapping[str, Plates], sites: Mapping[str, Plates], drawn: Collection[str]) -> None:
    """Raise ValueError for latents that the guide lacks, or whose steps would follow some of the data alone.

    Args:
        latents: of the model, with the plates around each.
        sites: of the model, likewise, all of them.
        drawn: what the guide draws.
    """
    partial = {name: sizes for plates in sites.values() for name, sizes in plates.items() if sizes[0] != sizes[1]}
    for name, plates in latents.items():
        if name not in drawn:
            refused(f"the latent {name!r} of the model, which the guide does not draw", "all drawn", "to draw it there")
        for plate, (size, full) in partial.items():
            if plate not in plates:
                found = f"the latent {name!r} outside of the plate {plate!r}, which draws {size} of {full} data"
                refused(found, "all data, or latents of each datum alone", "a plate that draws no subsample")
