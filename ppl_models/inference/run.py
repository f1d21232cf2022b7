"""What a training leaves behind, and who is told on the way."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass
class Run:
    """What a training left behind.

    Attributes:
        history: one record an epoch (or every `every` steps): step; loss and nll (bound), means over the steps since
            the record before in nats per datum; valid, the bound on validation data if there are any; skipped, the
            steps not taken, with `skip`; seconds since the start; and what callbacks added.
        folder: where the checkpoint and the history were written, or None.
        seconds: wall-clock time of the whole training.
        notes: what one should know: why steps ran uncompiled, that the training ended early.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    folder: Path | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


class Callback(Protocol):
    """Called with every record, while the programs hold their averages, in evaluation mode; True ends the training."""

    def __call__(self, run: Run) -> bool | None:
        """`run.history[-1]` is the record; numbers added to it are kept."""


def as_sequence(callbacks: Callback | Sequence[Callback] | None) -> list[Callback]:
    """Callbacks as a list: none, one or several.

    Raises:
        TypeError: one that cannot be called.
    """
    found = [] if callbacks is None else [callbacks] if callable(callbacks) else list(callbacks)
    for callback in found:
        if not callable(callback):
            raise TypeError(f"fit: found the callback {callback!r}, want a function of the Run")
    return found
