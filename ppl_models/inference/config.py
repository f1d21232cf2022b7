"""The arguments of `fit` that say how a pair is trained: checked once, and written down, for a run to be resumed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from math import inf
from numbers import Integral
from typing import Any

from .schedules import Constant, Cosine, Linear, to_dict

GRADIENTS = "reparametrized", "doubly-reparametrized"
PRECISIONS = "float32", "bfloat16"
# Steps from which a capture pays on a CPU (it takes about half a minute) and on a GPU. By the number of steps and not
# by the clock, so that a resumed run decides alike.
WORTHWHILE = {"cpu": 5000, "cuda": 500}


@dataclass(frozen=True)
class Settings:
    """See `ppl_models.inference.fit`, whose arguments these are, and those of `ppl_models.numpyro.fit`.

    Raises:
        ValueError: values out of their range, or that contradict each other.
    """

    objective: Callable
    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 128
    lr: float = 1e-3
    schedule: str | Callable[[int], float] = "cosine"
    weight_decay: float = 0.0
    warmup: int = 0
    beta: float | Callable[[int], float] = 1.0
    clip: float | None = 100.0
    skip: float | None = None
    ema: float | None = 0.999
    particles: int = 1
    analytic: bool = True
    gradient: str = "reparametrized"
    loss: Any = None
    accumulate: int = 1
    precision: str = "float32"
    patience: int | None = None
    every: int | None = None
    seed: int | None = None
    compile: str | bool = "auto"

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"fit: found steps={self.steps} and epochs={self.epochs}, want exactly one of them")
        if self.schedule not in ("cosine", "constant") and not callable(self.schedule):
            raise ValueError(
                f"fit: found schedule {self.schedule!r}, want 'cosine', 'constant' or a function of the step"
            )
        for name in ("steps", "batch_size", "particles", "accumulate", "patience", "every"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, Integral) or value < 1):
                raise ValueError(f"fit: found {name}={value}, want an integer of at least 1")
        self._check(0 < self.lr < inf, "lr", "more than 0")
        self._check(self.epochs is None or 0 < self.epochs < inf, "epochs", "more than 0")
        self._check(self.weight_decay >= 0, "weight_decay", "at least 0")
        self._check(self.warmup >= 0, "warmup", "a number of steps, at least 0")
        self._check(self.clip is None or self.clip > 0, "clip", "more than 0, or None for no bound")
        self._check(self.skip is None or self.skip > 0, "skip", "more than 0, or None to skip nothing")
        self._check(self.ema is None or 0 <= self.ema < 1, "ema", "0 <= ema < 1, or None for no average")
        self._check(callable(self.beta) or 0 <= self.beta < inf, "beta", "at least 0, or a function of the step")
        self._check(self.precision in PRECISIONS, "precision", " or ".join(map(repr, PRECISIONS)))
        self._check(self.gradient in GRADIENTS, "gradient", " or ".join(map(repr, GRADIENTS)))
        self._check(self.compile in ("auto", True, False), "compile", "'auto', True or False")
        if self.warmup and self.beta != 1.0:
            raise ValueError(f"fit: found warmup={self.warmup} and beta={self.beta}, want one; try beta=Linear(steps)")

    def check_alone(self, usual: Callable, whose: str) -> None:
        """Raise ValueError if there is a loss of a library's, and something set that is then the loss's business.

        Args:
            usual: the objective where none is asked for.
            whose: the library, for the message.
        """
        ours = (self.warmup, self.beta, self.particles, self.analytic, self.objective, self.gradient, self.precision)
        if self.loss is not None and ours != (0, 1.0, 1, True, usual, "reparametrized", "float32"):
            raise ValueError(
                f"fit: with a loss of {whose}'s, objective, gradient, beta, warmup, particles, analytic and precision "
                "are not used; set them there"
            )

    def _check(self, good: bool, name: str, want: str) -> None:
        if not good:
            raise ValueError(f"fit: found {name}={getattr(self, name)}, want {want}")

    def total(self, per_epoch: int) -> int:
        """The number of steps."""
        return self.steps if self.steps is not None else max(round(self.epochs * per_epoch / self.accumulate), 1)

    def betas(self) -> Callable[[int], float]:
        """The weight of the divergences by step."""
        if self.warmup:
            return Linear(self.warmup)
        return self.beta if callable(self.beta) else Constant(float(self.beta))

    def rates(self, total: int) -> Callable[[int], float]:
        """The factor of the learning rate by step."""
        if callable(self.schedule):
            return self.schedule
        return Cosine(total) if self.schedule == "cosine" else Constant()

    def captured(self, total: int, kind: str) -> bool:
        """Whether steps of torch are to be captured, on a kind of device."""
        if self.compile == "auto":
            return total >= WORTHWHILE.get(kind, inf)
        return bool(self.compile)

    def average_weight(self, step: int) -> float:
        """How much of the newest parameters goes into the moving average at a step, counted from 0."""
        return average_weight(self.ema, step)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON; functions by their names and options."""
        return {field.name: told(getattr(self, field.name)) for field in fields(self)}


def average_weight(ema: float | None, step: int) -> float:
    """1 - min(ema, (1 + step) / (10 + step)), so that an average soon forgets where it began; 1 where there is none."""
    return 1.0 if ema is None else 1 - min(ema, (1 + step) / (10 + step))


def told(value: Any) -> Any:
    """A value as JSON: what is none by a text that is the same in another process."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, partial):
        inner = [repr(told(a)) for a in value.args] + [f"{k}={told(v)!r}" for k, v in value.keywords.items()]
        return f"{told(value.func)}({', '.join(inner)})"
    try:
        return to_dict(value)
    except (TypeError, ValueError, AttributeError):
        return getattr(value, "__qualname__", type(value).__qualname__)


def compared(now: Mapping[str, Any], then: Mapping[str, Any]) -> None:
    """Raise ValueError at the first argument that is not what a run was started with.

    `compile` may differ (the numbers are the same up to rounding), and where a run goes on it may be for longer
    (`steps`, `epochs`) if its learning rate does not depend on the end.
    """
    free = {"compile", "seed"} | ({"steps", "epochs"} if now.get("schedule") != "cosine" else set())
    for name, value in now.items():
        if name not in free and name in then and then[name] != value:
            raise ValueError(
                f"fit: found {name}={value!r}, but the run in this folder was started with {then[name]!r}; resume with "
                "the arguments that it was started with, or choose another folder"
            )
