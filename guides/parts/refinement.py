"""`reads`: what the reverse networks of a refined guide read: noise of latents, and what the guide has encoded."""

from math import prod
from typing import Any, NamedTuple

from ppl_models.programs.noise import refused


class Reads(NamedTuple):
    """What the reverse network of one latent reads.

    Attributes:
        latents: those whose noise it reads, its own first: all that there is one of for each of its copies, as a step
            moves each by the slopes that the others have a part in.
        inputs: the widths of their noise, and of what the guide has encoded, where that is told.
        entries: those of its own noise.
        encodes: whether the last of the inputs is what the guide has encoded.
    """

    latents: tuple[str, ...]
    inputs: tuple[int, ...]
    entries: int
    encodes: bool


def reads(guide: Any, known: bool, conditionals: type) -> dict[str, Reads]:
    """What is read for each latent.

    Args:
        guide: the guide.
        known: whether it is one of this library.
        conditionals: the class of factors that tells what they have encoded.

    Raises:
        ValueError: another guide; a latent in a plate that holds no data.
    """
    if not known:
        refused(f"a {type(guide).__name__} for 'hvi'", "a guide of this library, which tells what it reads", "'dais'")
    latents, factors = guide.layout.latents, guide.factors
    for name, latent in latents.items():
        if latent.private_plates and not latent.joint_over_plates:
            plate = latent.private_plates[0].name
            refused(f"the latent {name!r} in the plate {plate!r}, which holds no data, for 'hvi'", "none", "'dais'")
    entries = {name: prod(each.copies) * prod(each.facts.unconstrained_shape) for name, each in latents.items()}
    found = {}
    for name, latent in latents.items():
        around = [u for u, other in latents.items() if u != name and other.shared_plates <= latent.shared_plates]
        told = isinstance(factors, conditionals) and name in factors.plan and guide.layout.key(name) is not None
        widths = [entries[u] for u in (name, *around)] + ([factors.plan[name].inputs[0]] if told else [])
        found[name] = Reads((name, *around), tuple(widths), entries[name], told)
    return found
