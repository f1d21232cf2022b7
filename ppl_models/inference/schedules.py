"""Schedules: functions of the step, for the weight of the divergences and for the factor of the learning rate.

A schedule is any `schedule(step) -> float`, the step counted from 0. Those here are plain data, so that a checkpoint
can hold them: `from_dict(to_dict(schedule)) == schedule`.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import cos, exp, inf, pi
from typing import Annotated, Any

from ppl_models.parts.arguments.checked import check, checked
from ppl_models.parts.arguments.kinds import Count, Number, Positive, Whole

LEAST = Number(least=0)


@checked
@dataclass(frozen=True)
class Constant:
    """The same value at every step.

    >>> Constant(0.5)(1000)
    0.5
    """

    value: float = 1.0

    def __call__(self, step: int) -> float:
        """The value at a step, counted from 0."""
        return self.value


@checked
@dataclass(frozen=True)
class Linear:
    """A line from `start` to `end`, which it reaches in the last of `steps` steps and keeps.

        start + (end - start) * min(1, (t + 1) / steps)

    The defaults are the warm-up of the divergences; `Linear(1000, 1.0, 0.1)` is a decay of the learning rate.

    Raises:
        ValueError: steps that are no integer of at least 1, ends that are not finite.

    Source: Bowman et al. 2016 (arXiv 1511.06349), section 3.1, and Sønderby et al. 2016 (arXiv 1602.02282).

    >>> [Linear(4)(t) for t in range(6)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """

    steps: Count
    start: float = 0.0
    end: float = 1.0

    def __call__(self, step: int) -> float:
        """The value at a step, counted from 0."""
        done = min(1.0, (step + 1) / self.steps)
        return self.start * (1 - done) + self.end * done  # exact at both ends


@checked
@dataclass(frozen=True)
class Cyclic:
    """Repeated warm-ups: in each period the value rises from 0 to 1, then stays at 1.

        min(1, tau / rising),      tau = (t mod period) / period

    Args:
        period: steps of a cycle.
        rising: the part of it over which the value rises, in (0, 1].

    Raises:
        ValueError: a period that is no integer of at least 1, another part.

    Source: Fu et al. 2019 (arXiv 1903.10145), whose step is counted from 1, ours from 0.

    >>> [Cyclic(4)(t) for t in range(6)]
    [0.0, 0.5, 1.0, 1.0, 0.0, 0.5]
    """

    period: Count
    rising: Annotated[float, Number(above=0, most=1)] = 0.5

    def __call__(self, step: int) -> float:
        """The value at a step, counted from 0."""
        return min(1.0, step % self.period / (self.period * self.rising))


@checked
@dataclass(frozen=True)
class Cosine:
    """Half a wave from 1 to 0, after a linear rise.

        (t + 1) / warmup   for t < warmup,      (1 + cos[pi (t - warmup) / (total - warmup)]) / 2   then, 0 from `total`

    Args:
        total: steps of the whole training.
        warmup: steps of the rise.

    Raises:
        ValueError: a total that is no integer of at least 1, a warm-up that is none of 0 ... total - 1.

    Source: Loshchilov & Hutter 2017 (arXiv 1608.03983), eq. 5, without restarts.

    >>> [round(Cosine(4)(t), 3) for t in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """

    total: Count
    warmup: Whole = 0

    def __post_init__(self) -> None:
        if self.warmup >= self.total:
            raise ValueError(f"Cosine: found warmup={self.warmup} of total={self.total} steps, want fewer")

    def __call__(self, step: int) -> float:
        """The value at a step, counted from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if step >= self.total:
            return 0.0
        return 0.5 * (1 + cos(pi * (step - self.warmup) / (self.total - self.warmup)))


@checked
@dataclass(frozen=True)
class Exponential:
    """1/2 for every `half_life` steps: 2^(-t / half_life).

    Raises:
        ValueError: a half-life that is not positive.

    >>> [Exponential(2)(t) for t in (0, 2, 4)]
    [1.0, 0.5, 0.25]
    """

    half_life: Positive

    def __call__(self, step: int) -> float:
        """The value at a step, counted from 0."""
        return 0.5 ** (step / self.half_life)


@checked
@dataclass(frozen=True)
class Saturating:
    """A rise from 0 to 1 that slows down: 1 - exp(-t / steps).

    Raises:
        ValueError: a number of steps that is not positive.

    Source: the released code of Zhao, Song & Ermon 2017 (arXiv 1702.08658), with steps = 10000.

    >>> [round(Saturating(2)(t), 3) for t in (0, 2, 4)]
    [0.0, 0.632, 0.865]
    """

    steps: Positive

    def __call__(self, step: int) -> float:
        """The value at a step, counted from 0."""
        return 1 - exp(-step / self.steps)


Schedule = Constant | Linear | Cyclic | Cosine | Exponential | Saturating
_KINDS = {kind.__name__: kind for kind in (Constant, Linear, Cyclic, Cosine, Exponential, Saturating)}


def to_dict(schedule: Schedule) -> dict[str, Any]:
    """A schedule as JSON: its kind and its fields.

    Raises:
        ValueError: any other function, of which nothing is known.

    >>> to_dict(Linear(400))
    {'kind': 'Linear', 'steps': 400, 'start': 0.0, 'end': 1.0}
    """
    if type(schedule) not in _KINDS.values():
        raise ValueError(f"to_dict: found {schedule!r}, want an instance of one of {', '.join(_KINDS)}")
    return {"kind": type(schedule).__name__, **asdict(schedule)}


def from_dict(found: Mapping[str, Any]) -> Schedule:
    """The schedule that `to_dict` wrote.

    Raises:
        ValueError: an unknown kind, unknown or missing fields, fields that the kind refuses.
    """
    fields = dict(found)
    kind = _KINDS.get(fields.pop("kind", None))
    if kind is None:
        raise ValueError(f"from_dict: found the kind {found.get('kind')!r}, want one of {', '.join(_KINDS)}")
    try:
        return kind(**fields)
    except TypeError as error:
        raise ValueError(f"from_dict: found fields {sorted(fields)} of a {kind.__name__}: {error}") from error


def within(name: str, schedule: Callable[[int], float]) -> Callable[[int], float]:
    """The schedule of an option of `fit`, whose every value is looked at: a finite number of at least 0.

    Raises:
        ValueError: another value, of a `Constant` at once.
    """

    def at(step: int) -> float:
        value = schedule(step)
        return value if type(value) is float and 0 <= value < inf else check("fit", f"{name}({step})", value, LEAST)

    return Constant(at(0)) if isinstance(schedule, Constant) else at
