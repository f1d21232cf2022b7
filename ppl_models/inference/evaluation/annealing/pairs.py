"""`check_annealed`, `check_simulated`: which pairs have chains in their noise, and which chains can go backwards."""

from collections.abc import Callable
from typing import Any, NoReturn

from ppl_models.programs.noise.structure import FAMILIES
from ppl_models.programs.pairs import Pair

from ..calibration.amortized import check_calibrated


def check_annealed(pair: Pair, start: str, has_noise: Callable[[Any], bool]) -> None:
    """Raise ValueError for a latent that Hamiltonian steps cannot move.

    Args:
        pair: the model, and the guide or the prior that chains start from.
        start: which of them, "guide" or "prior".
        has_noise: of a distribution, whether its draws are made of Gaussian noise.
    """
    if not pair.model.latents:
        raise ValueError("ais: found a model that draws no latents, whose log p(x) `evaluate` computes exactly")
    moved = [name for name, site in pair.guide.latents.items() if site.family != "Delta"]
    for name, site in pair.guide.latents.items():
        # a point may be computed of what other sites draw, as that of an autoguide is
        if not (has_noise(site.fn) or (moved and name not in moved)):
            other = "a guide of such factors" if start == "prior" else "another guide, or guide=None for the prior"
            if getattr(site.fn.support, "is_discrete", False):  # which no guide draws of Gaussian noise
                other = "`evaluate`, which takes any latents"
            raise ValueError(
                f"ais: found the latent {name!r} drawn from a {site.family} by the {start}, want {FAMILIES}, whose "
                f"noise Hamiltonian steps can move; try {other}"
            )


def check_simulated(pair: Pair) -> None:
    """Raise ValueError for a pair that has no chains back from the truth."""
    check_calibrated("ais", pair)
    for name in pair.guide.latents:
        if name not in pair.model.latents:
            raise ValueError(
                f"ais: found the site {name!r} of the guide alone, for which no truth is drawn; try simulations=0"
            )


def refuse_inverse(name: str, family: str) -> NoReturn:
    """Raise ValueError for a latent whose values are made of more noise than they tell."""
    raise ValueError(
        f"ais: found the latent {name!r} drawn from a {family}, whose noise is not to be had from its values; try "
        "guide=None for chains from the prior, or simulations=0"
    )


def refuse_one_by_one(reason: str) -> NoReturn:
    """Raise ValueError for a pair that is not right with many chains in one pass."""
    raise ValueError(
        f"ais: found programs that do not run with many chains in one pass ({reason}), want them to broadcast over "
        "dims on the left"
    )
