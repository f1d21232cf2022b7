"""`check_training`, `check_history`, `usable`: what a checkpoint says of its training, or one line on why it cannot be.

The digest in a file shows damage, and nobody's hand: whoever changes a file on purpose computes it anew.
"""

import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from math import inf
from pathlib import Path
from types import NoneType
from typing import Any

from ..watch import Watch

NUMBER = (int, float)
TRAINING = {  # what every training says of itself
    "step": int,
    "since": int,
    "seconds": NUMBER,
    "settings": dict,
    "stopped": bool,
    "notes": list,
    "best": (list, NoneType),
    "data": object,
    "validation": object,
    "history": (list, dict),
}


def check_training(path: Path, told: Mapping[str, Any], **more: Any) -> None:
    """Raise ValueError for what a training wrote about itself and did not write like that; the message names the file.

    Args:
        path: the file.
        told: what it says about itself.
        more: types of what else is said there.
    """
    for name, kinds in {**TRAINING, **more}.items():
        value = told.get(name, ...)
        good = value is not ... and isinstance(value, kinds)
        if good and kinds in (int, NUMBER):
            good = not isinstance(value, bool) and 0 <= value < inf
        if not good:
            raise _damaged(path, name, value)
    best, watch = told["best"], told.get("watch", {})
    if best is not None and not (len(best) == 2 and all(isinstance(item, NUMBER) for item in best)):
        raise _damaged(path, "best", best)
    if not isinstance(watch, dict) or not watch.keys() <= {each.name for each in fields(Watch)}:
        raise _damaged(path, "watch", watch)
    if not all(isinstance(value, (*NUMBER, NoneType)) for value in watch.values()):
        raise _damaged(path, "watch", watch)
    if not all(isinstance(note, str) for note in told["notes"]):
        raise _damaged(path, "notes", told["notes"])
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
    """An array of a file, once it is known to be of the shape and type of another; ValueError if it is not."""
    if tuple(found.shape) != tuple(like.shape) or found.dtype != like.dtype:
        told = f"{tuple(found.shape)} of {found.dtype}, want {tuple(like.shape)} of {like.dtype}"
        raise ValueError(f"training state of {name!r}: found {told}; resume with what the run was started with")
    return found


def _damaged(path: Path, name: str, value: Any) -> ValueError:
    found = "nothing" if value is ... else reprlib.repr(value)
    return ValueError(
        f"{path} is damaged: found {found} for {name!r}, which no training wrote; start from another file"
    )
