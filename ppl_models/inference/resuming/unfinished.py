"""`Unfinished`: the file of an evaluation that takes its time, from which it goes on after it was stopped."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ..storage.files import write_atomically

PAUSE = 30.0  # seconds between two states


def check_seeded(resume: object, seed: int | None) -> None:
    """Raise ValueError for an evaluation that is to go on from a file, and whose draws have no seed to go on from."""
    if resume is not None and seed is None:
        raise ValueError("evaluate: found resume and seed=None, want a seed that the draws go on from; try seed=0")


def digest_of(weights: Iterable[tuple[str, np.ndarray]]) -> str:
    """A digest of named weights, the same for the same ones."""
    digest = hashlib.sha256()
    for name, values in weights:
        digest.update(f"{name} {values.shape} {values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


class Unfinished:
    """A state now and then, in a .npz file without pickles that is removed at the end.

    Args:
        path: of the file, None for none.
        about: what makes the evaluation the same one; a file of another is written over.
    """

    def __init__(self, path: Path | None, about: Mapping[str, object]) -> None:
        self.path, self.about, self.saved = path, json.dumps(about, sort_keys=True), perf_counter()

    def read(self) -> dict[str, np.ndarray]:
        """The state of the same evaluation, or nothing, where there is none or the file is damaged."""
        if self.path is None or not self.path.is_file():
            return {}
        try:
            with self.path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                found = dict(file)
        except (OSError, ValueError, BadZipFile, EOFError):
            return {}
        return found if str(found.pop("about", "")) == self.about else {}

    def keep(self, state: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Write the state that the function gives, if the last one is old enough."""
        if self.path is None or perf_counter() - self.saved < PAUSE:
            return
        arrays: dict[str, Any] = {**state(), "about": np.array(self.about)}

        def write(file: Path) -> None:
            with file.open("wb") as out:
                np.savez(out, **arrays)

        write_atomically(self.path, write)
        self.saved = perf_counter()

    def end(self) -> None:
        """Remove the file."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
