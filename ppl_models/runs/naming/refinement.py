"""`refined`: a guide whose draws go on, by a word of a command line or a file: "dais:steps=8"."""

from __future__ import annotations

from typing import Any

from ppl_models.parts.arguments.kinds import no_guide
from ppl_models.programs.legible import quoted

from . import names


def refined(guide: Any, word: str | None, backend: str = "pyro", **more: Any) -> Any:
    """The guide, refined as a word says, "dais:steps=8"; itself for None.

    Args:
        guide: that of a configuration.
        word: a method of `guides.Refined`, with its sizes after a colon.
        backend: language of the guide.
        more: for the class.

    Raises:
        ValueError: what is no method, sizes that it does not have, or a guide that cannot be refined.
    """
    if word is None:
        return guide
    program, method, sizes = refinement(word, backend)
    if guide is no_guide:
        raise ValueError(f"refine {quoted(word)}: found a model without latents, want some to move; leave it out")
    return program(guide, method=method, **sizes, **more)


def refinement(word: str, backend: str = "pyro") -> tuple[type, str, dict[str, Any]]:
    """(the class, the method, the sizes) of such a word; see `refined`."""
    program = names.resolve("guide", f"{names.package_of('guide', backend)}:Refined", backend)
    method, _, rest = word.partition(":")
    words, sizes = names.parse([part for part in rest.split(",") if part], "refine")
    if words or {"method", "model"} & sizes.keys():
        raise ValueError(f"refine {quoted(word)}: want a method and its sizes, as dais:steps=8")
    names.check_sizes(f"refine {quoted(word)}:", program, {"method": method, **sizes}, 1)
    return program, method, sizes
