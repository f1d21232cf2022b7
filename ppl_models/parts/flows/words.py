"""`FLOWS`, `flow_sizes`: flows by name, with the sizes that a word may give after it ("maf:steps=4,hidden=640").

`Bijection` lists the words of the bijections between the latents of a model.
"""

from collections.abc import Mapping
from typing import Any, Literal

from ..arguments.checked import told
from ..arguments.sizes import worded

Bijection = Literal["rank-one", "spline", "identity"]
FLOWS: Mapping[str, Mapping[str, Any]] = {
    "maf": {"kind": "affine", "steps": 4, "hidden": 256, "depth": 1},
    "maf-mean": {"kind": "shift", "steps": 4, "hidden": 256, "depth": 1},
    "nsf": {"kind": "spline", "steps": 5, "hidden": 128, "depth": 1, "bins": 8},
}
MORE = {"passes"}  # which all of them take besides


def flow_sizes(where: str, word: str) -> dict[str, Any]:
    """The arguments of an `AutoregressiveFlow` that a word names.

    Raises:
        ValueError: an unknown name or size; `where` begins the message.

    >>> flow_sizes("VAE: prior", "nsf:passes=2")
    {'kind': 'spline', 'steps': 5, 'hidden': 128, 'depth': 1, 'bins': 8, 'passes': 2}
    """
    name, sizes = worded(where, word)
    if name not in FLOWS:
        raise ValueError(f"{where}: found {told(word)}, want 'standard', or one of {', '.join(map(repr, FLOWS))}")
    known = {*FLOWS[name], *MORE} - {"kind"}
    if sizes.keys() - known:
        raise ValueError(f"{where}: found {told(word)}, want sizes of {name!r}: {', '.join(sorted(known))}")
    return {**FLOWS[name], **sizes}
