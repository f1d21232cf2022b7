"""`check_training`, `check_history`, `usable`: what a checkpoint says of its training, or one line on why it cannot be.

The digest in a file shows damage, and nobody's hand: whoever changes a file on purpose computes it anew.
"""

import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, cast

from ppl_models.parts.arguments.kinds import WRONG, Count, Entries, Is, Items, Kind, NotNegative, Whole, kind_of

from ..config import Compiler
from ..training.watch import Watch

NUMBER = (int, float)
TEXTS = Annotated[dict, Entries("a mapping to texts", str)]
SITE = Annotated[list, Is("kind, family, shape and plates", lambda found: _is_site(found))]
TRAINING: Mapping[str, Any] = {  # what every training says of itself
    "step": Whole,
    "since": Whole,
    "seconds": NotNegative,
    "settings": dict,
    "stopped": bool,
    "notes": Annotated[list, Items("texts", str)],
    "best": Annotated[list, Items("two numbers", float, 2)] | None,
    "data": str | None,
    "validation": str | None,
    "history": list | dict,
}
LATER: Mapping[str, Any] = {  # what older ones do not
    "watch": Annotated[dict, Is("of `Watch`", lambda found: _is_watch(found))],
    "functions": Annotated[
        dict, Entries("of `Traits`", Annotated[dict, Is("of one", lambda found: _is_traits(found))])
    ],
    "factorization": Annotated[dict, Entries("of programs", Annotated[dict, Entries("of sites", SITE)])],
    "sources": Annotated[list, Items("texts of both programs", TEXTS, 2)],
    "versions": Annotated[dict, Entries("texts or None", str | None)],
    "threads": Count | None,
    "total": Count,
    "compiler": Literal["eager", Compiler],
}


def check_training(path: Path, told: dict[str, Any], **more: Any) -> None:
    """Raise ValueError for what no training wrote about itself like that, by the name of the file; numbers become ours.

    Args:
        path: the file.
        told: what it says about itself.
        more: what else is said there, by its annotation.
    """
    for name, annotation in {**TRAINING, **LATER, **more}.items():
        value = told.get(name, ...)
        if value is ... and name in LATER:
            continue
        if (found := cast(Kind, kind_of(annotation)).read(value)) is WRONG:
            raise _damaged(path, name, value)
        told[name] = found
    if isinstance(told["history"], list):  # in files of before; now it says how many lines of another file are its own
        check_history(path, told["history"])


def check_history(path: Path, history: Any) -> None:
    """Raise ValueError for records of a file that have no step and no bound."""
    if not isinstance(history, list):
        raise _damaged(path, "history", history)
    for record in history:
        told = record if isinstance(record, dict) else {}
        bound = "nll" if "nll" in told else "negative_elbo"  # null where it was not finite
        if not isinstance(told.get("step"), NUMBER) or not isinstance(told.get(bound, ""), (*NUMBER, NoneType)):
            raise _damaged(path, "history", record)


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Inside, where the state of a training is taken from a file, an error says in one line that it is that file's."""
    try:
        yield
    except Exception as error:  # a forged state fails wherever it is looked at
        text = " ".join(str(error).split())
        lacks = "it lacks " if isinstance(error, KeyError) else ""
        told = text if isinstance(error, ValueError) else f"its training state cannot be used: {lacks}{text}"
        raise ValueError(told if str(path) in told else f"{path}: {told}") from None


def checked(name: str, found: Any, like: Any) -> Any:
    """An array of a file, once it is known to be there, of the shape and type of another; ValueError if it is not."""
    if found is None or tuple(found.shape) != tuple(like.shape) or found.dtype != like.dtype:
        told = "nothing" if found is None else f"{tuple(found.shape)} of {found.dtype}"
        raise ValueError(
            f"training state of {name!r}: found {told}, want {tuple(like.shape)} of {like.dtype}; resume with the "
            "model, the guide and the arguments that the run was started with"
        )
    return found


def _is_site(found: Any) -> bool:
    """Whether it is what `identity.factorization_of` tells of a site."""
    if not (isinstance(found, list) and len(found) == 4 and all(isinstance(each, list) for each in found[2:])):
        return False
    plates = all(isinstance(plate, list) and len(plate) == 2 and isinstance(plate[0], str) for plate in found[3])
    return isinstance(found[0], str) and plates and all(type(size) is int for size in found[2])


def _is_watch(found: Any) -> bool:
    known = isinstance(found, dict) and found.keys() <= {each.name for each in fields(Watch)}
    return known and all(isinstance(value, (*NUMBER, NoneType)) for value in found.values())


def _is_traits(found: Any) -> bool:
    """Whether it is what `asdict` makes of `Traits`."""
    kinds = {"firm": TEXTS, "loose": TEXTS, "unknown": Annotated[list, Items("texts", str)], "bytecode": str}
    if not isinstance(found, dict) or found.keys() != kinds.keys():
        return False
    return all(cast(Kind, kind_of(kind)).read(found[name]) is not WRONG for name, kind in kinds.items())


def _damaged(path: Path, name: str, value: Any) -> ValueError:
    found = "nothing" if value is ... else reprlib.repr(value)
    return ValueError(
        f"{path} is damaged: found {found} for {name!r}, which no training wrote; start from another file"
    )
