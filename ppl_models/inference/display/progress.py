"""Progress bars: of a training, with step, loss, bound and time left; and of what has but a part that is done."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from time import perf_counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress as RichProgress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ppl_models.programs.legible import legible

from .live import Live
from .pace import Pace

BOUNDS = "negative ELBO", "NLL"  # the numbers of an evaluation
SILENCE = 2.0  # seconds that something may take without being shown


class Progress:
    """A context manager whose `advance(step, one, other)` redraws a bar; nothing is shown where it is not enabled.

    In a notebook it is one output of its own (`live.Live`). In a file or a pipe, where a bar cannot be redrawn, a line
    is printed at every twentieth of the way.

    Args:
        total: steps.
        names: of the two numbers.
    """

    def __init__(self, total: int, enabled: bool = True, names: tuple[str, str] = ("loss", "negative ELBO")) -> None:
        self.total, self.enabled, self.names = total, enabled, names
        self.console = Console(stderr=True)
        self.notebook = Live() if enabled and self.console.is_jupyter else None
        self.live = enabled and (self.console.is_terminal or self.notebook is not None)
        self.shown, self.numbers = 0.0, ""  # when, and what; nothing before the first
        self.bar = RichProgress(
            BarColumn(),
            MofNCompleteColumn(),
            _Asked(lambda: self.numbers),
            TimeRemainingColumn(),
            _Asked(self.doing),
            console=self.console,
            disable=not self.live or self.notebook is not None,
        )
        self.part, self.pace = 0, Pace(total)  # the part that was told
        self._work = "", 0.0  # what takes its time, and since when
        self.task = self.bar.add_task("fit", total=total)

    def due(self, step: int) -> bool:
        """Whether `advance` would show this step: the numbers of others need not be fetched from the device."""
        if self.live:
            return step == self.total or perf_counter() - self.shown > 0.1
        return self.enabled and (step == self.total or self._part(step) > self.part or self.pace.ready(step))

    def _part(self, step: int) -> int:
        """In which of some twenty parts a step lies, of which each is told once."""
        return step // max(self.total // 20, 1)

    def advance(self, step: int, one: float, other: float) -> None:
        """Show that `step` steps are done, at these values of the two numbers (nats per datum)."""
        if not self.due(step):
            return
        self.numbers = f"{self.names[0]} {one:.2f}  {self.names[1]} {other:.2f}"
        if self.live:
            self.shown = perf_counter()
            self.bar.update(self.task, completed=step)
            self._draw()
        else:
            self.part = self._part(step)
            self.console.print(f"step {step}/{self.total}  {self.numbers}", highlight=False)
        if line := self.pace.line(step):
            self.say(line)

    def _draw(self) -> None:
        """Draw the output of a notebook; a terminal is redrawn by rich."""
        if self.notebook is not None:
            task = self.bar.tasks[0]
            done = f"{task.completed:.0f}/{self.total}"
            self.notebook.show(task, "  ".join(part for part in (done, self.numbers, self.doing()) if part))

    @contextmanager
    def busy(self, label: str) -> Iterator[None]:
        """Inside, something takes its time: it is shown with its seconds; of less than two nothing is said."""
        self._work = label, perf_counter()
        try:
            begin = self._draw if self.live else lambda: self.say(f"{label} ...")
            with _slow(label, begin, self.say, self.enabled):
                yield
        finally:
            self.part = 0  # that was told
            self.pace.restart()
        self._work = "", 0.0

    def doing(self) -> str:
        """What takes its time just now, with its seconds; nothing if nothing does."""
        label, began = self._work
        return f"{label}, {perf_counter() - began:.0f} s" if label else ""

    def answer(self) -> None:
        """Say, whether anything is shown or not, that a signal was heard."""
        work = self.doing() or "a step is under way"
        line = f"interrupted: {work}; that ends first, then all is saved; once more ends it now"
        if self.enabled:
            self.say(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """Print a line of its own."""
        if self.enabled:
            self.console.print(legible(line), highlight=False, markup=False, emoji=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self.bar.__enter__()
        self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.__exit__(kind, error, traceback)


@contextmanager
def waiting(label: str, enabled: bool = True) -> Iterator[None]:
    """Inside, something is done before there is a bar: after two seconds it is shown with its seconds."""
    console = Console(stderr=True)
    live = RichProgress(TextColumn(label), TimeElapsedColumn(), console=console, transient=True)
    live.add_task(label)

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    try:
        with _slow(label, live.start if console.is_terminal else lambda: say(f"{label} ..."), say, enabled):
            yield
    finally:
        if console.is_terminal:
            live.stop()


@contextmanager
def _slow(label: str, begin: Callable[[], None], say: Callable[[str], None], enabled: bool) -> Iterator[None]:
    """`begin` is called once it has taken a while, and at the end its seconds are said."""
    if not enabled:
        yield
        return
    began, timer = perf_counter(), Timer(SILENCE, begin)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if (took := perf_counter() - began) > SILENCE:
            say(f"{label}: {took:.0f} s")


class _Asked(ProgressColumn):
    """A text that is asked for anew whenever the bar is drawn."""

    def __init__(self, text: Callable[[], str]) -> None:
        super().__init__()
        self.text = text

    def render(self, task: Task) -> Text:
        """See `ProgressColumn`."""
        return Text(self.text())


class Bar:
    """A context manager whose `advance(part)` shows what part of some work is done; a pipe or a file is shown nothing.

    Args:
        label: what is being done.
    """

    def __init__(self, label: str, enabled: bool = True) -> None:
        console = Console(stderr=True)
        self.label, self.notebook = label, Live() if enabled and console.is_jupyter else None
        self.bar = RichProgress(
            TextColumn(label),
            BarColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not (enabled and console.is_terminal),
        )
        self.task = self.bar.add_task(label, total=1.0)

    def advance(self, part: float) -> None:
        """Show that this part is done, in [0, 1]."""
        self.bar.update(self.task, completed=part)
        if self.notebook is not None:
            self.notebook.show(self.bar.tasks[0], self.label)

    def __enter__(self) -> Self:
        self.bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.__exit__(kind, error, traceback)
