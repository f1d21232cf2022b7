"""What a training of NumPyro programs leaves behind."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Run:
    """What a training left behind: that of `ppl_models.inference.Run`, and the pair itself, as programs do not change.

    Attributes:
        history: one record an epoch (or every `every` steps): step; loss and nll (bound), means over the steps since
            the record before in nats per datum; valid, the bound on validation data if there are any; skipped, the
            steps not taken, with `skip`; seconds since the start; and what callbacks added.
        folder: where the checkpoint and the history were written, or None.
        seconds: wall-clock time of the whole training.
        notes: what one should know: that the training ended early.
        model, guide: the pair with its (averaged) parameters: new `Program`s; other functions with their params
            substituted.
        params: these parameters by the names of their `numpyro.param`s, for `handlers.substitute` and `Predictive`.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    folder: Path | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    model: Callable | None = field(default=None, repr=False)
    guide: Callable | None = field(default=None, repr=False)
    params: dict[str, Any] = field(default_factory=dict, repr=False)
