"""`check_states`: what guides want of discrete latents; `Discrete`, the words for how a factor of one is trained."""

from collections.abc import Mapping
from math import prod
from typing import Literal

from ..looks.latents import Latent
from ..looks.layout import Layout

Discrete = Literal["enumerate", "relax"]
MOST_STATES = 4096  # of one site, all of which an exact sum goes through
TEMPERATURE = 2 / 3  # of the relaxed draws, as Maddison et al. 2017 (arXiv 1611.00712) have it for posteriors


def categories_of(latent: Latent) -> int:
    """The states of one entry of a discrete latent."""
    return 2 if latent.facts.states == "bernoulli" else latent.facts.unconstrained_shape[-1]


def entries_of(latent: Latent) -> int:
    """How many entries an event of a discrete latent has."""
    states = latent.facts.states
    return prod(latent.event_shape[:-1] if states == "one-hot" else latent.event_shape)


def check_states(layout: Layout, parents: Mapping[str, tuple[str, ...]], discrete: Discrete | None) -> None:
    """Raise ValueError for discrete latents that a guide has no factor for.

    Args:
        layout: of the model.
        parents: latent -> the latents it is given.
        discrete: the word of the guide, None for one that takes continuous latents alone.
    """
    for name, latent in layout.latents.items():
        if latent.facts.is_discrete:
            where = f"guide {layout.guide}: site {name!r} is discrete ({latent.site.family})"
            if discrete is None:
                raise ValueError(f"{where}, want continuous latents; try SelfReflective, MeanField or Faithful")
            if discrete == "relax":
                _check_relaxed(where, latent)
            else:
                _check_enumerated(where, latent)
    for name, given in parents.items() if discrete == "enumerate" else ():
        shared = layout.latents[name].shared_plates
        for parent in (layout.latents[u] for u in given if layout.latents[u].facts.is_discrete):
            for plate in parent.plates:
                if plate.name not in shared and plate.size > 1:
                    raise ValueError(
                        f"guide {layout.guide}: site {name!r} is given all copies of {parent.name!r} in the plate "
                        f"{plate.name!r}, which are enumerated one by one; want each given its own copy; try another "
                        "order (Faithful has order=), or discrete='relax'"
                    )


def _check_relaxed(where: str, latent: Latent) -> None:
    if latent.facts.states == "categorical":
        raise ValueError(
            f"{where}, found discrete='relax', but no gradient goes through its whole numbers, want one-hot vectors; "
            "write it as a OneHotCategorical, or try discrete='enumerate'"
        )


def _check_enumerated(where: str, latent: Latent) -> None:
    entries, categories = entries_of(latent), categories_of(latent)
    loose = prod(latent.event_shape[: latent.unplated_dims])
    if loose > 1:
        raise ValueError(
            f"{where} and has {loose} batch entries in no plate, want them in a plate or made one event by .to_event; "
            "or try discrete='relax'"
        )
    if entries * (categories - 1).bit_length() > 62 or categories**entries > MOST_STATES:
        raise ValueError(
            f"{where} and has {categories}^{entries} states, want at most {MOST_STATES} to enumerate; try "
            "discrete='relax', or several sites"
        )
