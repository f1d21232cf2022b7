"""`reads`: what the reverse networks of a refined guide read of the guide that it refines."""

from math import prod
from typing import Any

from ppl_models.programs.noise import refused


def reads(guide: Any, known: bool, conditionals: type) -> dict[str, tuple[int, int]]:
    """Latent -> entries of its noise, and how many numbers the guide has encoded for it (0 where none are told).

    Args:
        guide: the guide.
        known: whether it is one of this library.
        conditionals: the class of factors that tells what they have encoded.

    Raises:
        ValueError: another guide; a latent in a plate that holds no data.
    """
    if not known:
        refused(f"a {type(guide).__name__} for 'hvi'", "a guide of this library, which tells what it reads", "'dais'")
    found = {}
    for name, latent in guide.layout.latents.items():
        if latent.private_plates and not latent.joint_over_plates:
            plate = latent.private_plates[0].name
            refused(f"the latent {name!r} in the plate {plate!r}, which holds no data, for 'hvi'", "none", "'dais'")
        factors = guide.factors
        told = isinstance(factors, conditionals) and name in factors.plan and guide.layout.key(name) is not None
        entries = prod(latent.copies) * prod(latent.facts.unconstrained_shape)
        found[name] = entries, factors.plan[name].inputs[0] if told else 0
    return found
