"""`pushed`, `pulled`, `stretch`: a value and what its transformed distribution starts from, in either language.

A transformed distribution draws e from its base and gives z = f(e), f being a list of transforms in both languages.
"""

from collections.abc import Sequence
from typing import Any

BASE = " (base)"  # ends the name of a site whose base, not its value, is held in a run


def couples(transforms: Sequence[Any]) -> bool:
    """Whether some transform takes more than one entry at once, so that entries of z are not those of e.

    One that does not say, by its domain, counts as one that takes single entries.
    """
    try:
        return any(transform.domain.event_dim or transform.codomain.event_dim for transform in transforms)
    except (AttributeError, NotImplementedError):
        return False


def pushed(transforms: Sequence[Any], base: Any) -> Any:
    """z = f(e)."""
    for transform in transforms:
        base = transform(base)
    return base


def pulled(transforms: Sequence[Any], value: Any) -> Any:
    """e with z = f(e). Raises NotImplementedError where a transform has no inverse."""
    for transform in reversed(transforms):
        value = transform.inv(value)
    return value


def stretch(transforms: Sequence[Any], base: Any, dims: int) -> Any:
    """log |det dz/de|, with as many dims as a log density of z has."""
    total: Any = 0.0
    for transform in transforms:
        value = transform(base)
        volume = transform.log_abs_det_jacobian(base, value)
        for _ in range(volume.ndim - dims):
            volume = volume.sum(-1)
        total, base = total + volume, value
    return total
