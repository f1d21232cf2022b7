"""`structure_of`: the guide whose factorization a guide has; `refused`: the messages about guides that are refined.

A guide that refines another one (it has that in its attribute `refines`) draws from what has no density to compute: the
draws of the other, moved. Who conditions on whom is told by the other.
"""

from typing import Any, NoReturn


def structure_of(guide: Any) -> Any:
    """The guide that a refined one starts from; any other guide itself."""
    found = getattr(guide, "refines", None)
    return guide if found is None else structure_of(found)


def refused(found: str, want: str, instead: str, asks: str = "guide Refined") -> NoReturn:
    """Raise ValueError for what cannot be refined."""
    raise ValueError(f"{asks}: found {found}, want {want}; try {instead}")
