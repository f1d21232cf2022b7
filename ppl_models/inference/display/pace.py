"""`Pace`: says once, after a few steps, how long the rest will take; `duration`: seconds in words."""

from time import perf_counter

STEPS, SECONDS = 3, 2.0  # that are timed, at least
WORTHWHILE = 20.0  # seconds: of less nothing is said


class Pace:
    """How long the steps that are left will take, by those since the last thing that was no step.

    Args:
        total: steps.
    """

    def __init__(self, total: int) -> None:
        self.total, self.told = total, False
        self._first: tuple[int, float] | None = None  # the step that the time is taken from

    def restart(self) -> None:
        """Take the time anew: something else has taken its own."""
        self._first = None

    def ready(self, step: int) -> bool:
        """Whether enough steps were timed to say it, which was not said yet."""
        if self.told:
            return False
        now = perf_counter()
        self._first = self._first or (step, now)
        return step - self._first[0] >= STEPS and now - self._first[1] >= SECONDS

    def line(self, step: int) -> str:
        """What there is to say after a step, "" where it is not ready or would soon be over."""
        if not self.ready(step) or self._first is None:
            return ""
        self.told = True
        each = (perf_counter() - self._first[1]) / (step - self._first[0])
        left = self.total - step
        return f"about {duration(each * left)} for the {left} steps left" if each * left > WORTHWHILE else ""


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> [duration(each) for each in (40, 200, 5000, 200_000)]
    ['40 s', '3 min', '1 h 23 min', '2 d 7 h']
    """
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"
