"""`Loop`: the shell of a training in any language: records, patience, callbacks, files, interrupts and progress."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Protocol

from ..config import FitConfig
from ..display.progress import Progress
from ..results import Callback, Run
from ..resuming.history import History
from ..resuming.identity import Identity
from ..storage.checkpoint_file import CHECKPOINT, refuse_earlier
from .interrupts import interrupts
from .watch import Watch

INFINITE = float("inf")


class Together(Protocol):
    """The processes that train together."""

    is_main: bool
    orphaned: bool  # whether what has started the processes is gone

    def mean(self, value: float) -> float:
        """The mean of a number over the processes."""


class Engine(Protocol):
    """Steps of a training in one language, and how they are measured, shown and kept.

    Attributes:
        latents: those whose mean divergence `means` tells.
        group: of the processes that train together, None for one.
    """

    latents: Sequence[str]
    group: Together | None

    def running(
        self, say: Callable[[str], None], busy: Callable[[str], AbstractContextManager]
    ) -> AbstractContextManager:
        """Inside, steps may be taken; `say` is given the lines that a user should read, `busy` what takes its time."""

    def advance(self, done: int, most: int) -> int:
        """Take some steps after the first `done`, 1 to `most`, and say how many.

        Raises:
            ValueError: a step that was not finite.
        """

    def means(self) -> tuple[list[float], int]:
        """(means over the steps taken of loss, negative ELBO, norm of the gradient, each divergence; their count).

        Raises:
            ValueError: a step that was not finite.
        """

    def clear(self) -> None:
        """Begin the means anew: a record is due."""

    def bound(self, done: int) -> float:
        """The negative ELBO of the validation data, in nats per datum."""

    def remember(self) -> None:
        """Keep the (averaged) parameters of now as the best ones."""

    def shown(self) -> AbstractContextManager:
        """Inside, callbacks see the pair with its averages in evaluation mode; what they draw touches no training."""

    def save(self, about: Mapping[str, Any], best: bool) -> None:
        """Write the checkpoint, whole: with the averages, or the best parameters, as the weights."""

    def read(self) -> tuple[Any, Mapping[str, Any]]:
        """(what `restore` takes, what was said about it) of the checkpoint."""

    def restore(self, state: Any, about: Mapping[str, Any]) -> None:
        """Go on from there."""

    def leave(self, best: bool) -> None:
        """Leave the pair with its averages, or the best parameters; there are no steps after that."""


def check_call(config: FitConfig, validation: Any, folder: str | Path | None, resume: bool) -> None:
    """Raise ValueError for arguments of `fit` that lack another one."""
    if config.patience is not None and validation is None:
        raise ValueError(f"fit: found patience={config.patience} without validation data, want some to judge by")
    if resume and folder is None:
        raise ValueError("fit: found resume=True without a folder, want the one to go on from")


class Loop:
    """A training in the middle: all that `fit` has settled, and how far it is.

    Args:
        engine: takes the steps.
        config: the options of the training.
        per_epoch: batches an epoch.
        validated: whether there are validation data.
        run: what is left behind.
        callbacks: see `Callback`.
        identity: of the run, for its checkpoint.
        seed: that the checkpoint tells, None where the generators say it all.
        shared: latents outside the data plate.
    """

    def __init__(
        self,
        engine: Engine,
        config: FitConfig,
        per_epoch: int,
        validated: bool,
        run: Run,
        callbacks: Sequence[Callback],
        identity: Identity,
        seed: int | None = None,
        shared: Collection[str] = (),
    ) -> None:
        self.engine, self.config, self.run, self.identity = engine, config, run, identity
        # taken down before the first step: functions may hold what changes as they are used
        self.about = {} if run.folder is None else {**identity.told, **({} if seed is None else {"seed": seed})}
        self.total, self.every = config.total(per_epoch), config.between_records(per_epoch)
        self.validated, self.callbacks = validated, callbacks
        self.done, self.since, self.before, self.stopped = 0, 0, 0.0, False
        self.kept, self.listed = -1, 0  # the step that the checkpoint is of; the records that it knows
        self.history = None if run.folder is None else History(run.folder)
        self.best_bound, self.worse = INFINITE, 0
        self.watch, self.shared = Watch(), shared
        self.start = perf_counter()
        self.is_main = engine.group is None or engine.group.is_main  # whether this process writes and shows

    def __call__(self, progress: bool) -> None:
        """Take the steps that are left. However it ends, the pair holds its averages (or the best) afterwards."""
        with ExitStack() as stack:
            stack.push(self._leave)
            bar = stack.enter_context(Progress(self.total, progress and self.is_main))
            for line in self.run.notes:  # of the look at the pair, and of what is not as it was
                bar.say(line)
            stack.enter_context(self.engine.running(lambda line: self._note(line, bar), bar.busy))
            asked = stack.enter_context(interrupts(self.engine.group is None, bar.answer))
            while self.done < self.total and not self.stopped:
                left = min(self.every - self.done % self.every, self.total - self.done)
                taken = self.engine.advance(self.done, left)
                self.done, self.since = self.done + taken, self.since + taken
                if self.engine.group is not None and self.engine.group.orphaned:
                    raise ValueError("fit: torchrun, which has started this process, is gone; nothing more is written")
                if bar.due(self.done):
                    bar.advance(self.done, *self.engine.means()[0][:2])
                if self.done % self.every == 0 or self.done == self.total:
                    self._record(bar)
                if asked:
                    self._interrupted(asked[0], bar)

    @property
    def _over(self) -> bool:
        """Whether the training has come to its end, with parameters that were best."""
        return self.best_bound < INFINITE and (self.stopped or self.done == self.total)

    def _record(self, bar: Progress) -> None:
        """Note how it goes, ask the callbacks, and write the files."""
        (loss, bound, norm, *kl), taken = self.engine.means()
        record: dict[str, float] = {"step": self.done, "loss": loss, "negative_elbo": bound, "grad_norm": norm}
        divergences = dict(zip(self.engine.latents, kl, strict=True))
        if self.config.record_kl:
            record |= {f"kl.{name}": value for name, value in divergences.items()}
        if self.config.skip is not None:
            record["skipped"] = self.since - taken
            if not taken:
                raise ValueError(
                    f"fit: none of the last {self.since} steps was taken: every gradient was larger than "
                    f"skip={self.config.skip} or not finite; try a larger skip, a smaller lr, or look at the data"
                )
        own = [value for name, value in divergences.items() if name not in self.shared]
        for line in self.watch(record, own, self.since, self.done == self.total):
            self._note(line, bar)
        self.engine.clear()
        self.since = 0
        if self.validated:
            record["valid"] = self.engine.bound(self.done)
        record["seconds"] = self._seconds()
        self.run.history.append(record)
        self._judge(record, bar)
        self._call_back(bar)
        self._save()

    def _judge(self, record: Mapping[str, float], bar: Progress) -> None:
        """Remember the best parameters, and stop where the validation bound has not fallen for too long."""
        if self.config.patience is None:
            return
        if record["valid"] < self.best_bound:
            self.best_bound, self.worse = record["valid"], 0
            self.engine.remember()
        else:
            self.worse += 1
        if self.worse >= self.config.patience:
            self.stopped = True
            best = f"the bound on validation data was best, {self.best_bound:.4f}, {self.worse} records ago"
            self._note(f"stopped at step {self.done}: {best}; the pair is left as it was then", bar)

    def _call_back(self, bar: Progress) -> None:
        if self.callbacks and self.is_main:
            with self.engine.shown():
                for callback in self.callbacks:
                    if callback(self.run):
                        self.stopped = True
                        name = getattr(callback, "__name__", type(callback).__name__)
                        self._note(f"stopped at step {self.done} by the callback {name}", bar)
        if self.engine.group is not None:
            self.stopped = self.engine.group.mean(float(self.stopped)) > 0

    def _save(self) -> None:
        """Write the new records, then the checkpoint, and now and then the history beside it for people.

        At the end of a training with `patience` its weights are the best ones, as those of the pair will be.

        Raises:
            ValueError: the checkpoint there is of a later step, so another process has gone on with the run.
        """
        if self.history is None:
            return
        if self.is_main:
            try:
                refuse_earlier(self.history.path.with_name(CHECKPOINT), self.done)
            except ValueError:
                self.history = None  # nothing more is written, this for people neither
                raise
            self.history.append(self.run.history)
        self.kept = self.done
        about = {
            **self.about,
            "step": self.done,
            "total": self.total,
            "since": self.since,
            "seconds": self._seconds(),
            "history": self.history.told(),
            "stopped": self.stopped,
            "notes": [self.run.notes[-1]] if self.stopped else [],
            "watch": self.watch.to_dict(),
            "best": [self.best_bound, self.worse] if self.best_bound < INFINITE else None,
        }
        self.engine.save(about, self._over)
        self.listed = self.history.count
        self._show_history(now=False)

    def _show_history(self, now: bool = True) -> None:
        if self.is_main and self.history is not None:
            self.history.show(self.run.history[: self.listed], now)

    def resume(self) -> None:
        """Go on from the checkpoint of the folder, as if there had been no end.

        Raises:
            ValueError: a file that is damaged, or of another pair, data or arguments.
        """
        state, about = self.engine.read()
        self.run.notes += self.identity.compared(about, self.run.folder)
        self.engine.restore(state, about)
        self.done, self.since, self.before = about["step"], about["since"], about["seconds"]
        self.kept, self.stopped = self.done, about["stopped"]
        self.best_bound, self.worse = about["best"] or (INFINITE, 0)
        self.watch = Watch(**about.get("watch", {}))  # which older files lack
        self.run.notes += about["notes"]
        if self.history is not None:
            try:
                self.run.history[:] = self.history.read(about.get("history"))
            except FileNotFoundError:
                self.run.notes.append(f"{self.history.path} is lost, with the records up to step {self.done}")
        self.listed = len(self.run.history)
        self._show_history()  # a kill may have come between the files

    def _interrupted(self, end: BaseException, bar: Progress) -> None:
        """Save where it is, between two steps, and let the signal have its way."""
        if self.run.folder is not None:
            if self.kept != self.done:
                self._save()
            line = f"interrupted after step {self.done}, saved; go on with resume=True and {self.run.folder}"
            self._note(line, bar)
            end.add_note(line)  # where there is no bar, the traceback says it
        raise end

    def _note(self, line: str, bar: Progress) -> None:
        self.run.notes.append(line)
        bar.say(line)

    def _seconds(self) -> float:
        return self.before + perf_counter() - self.start

    def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the pair as it is to be; an error that ends the training carries the run."""
        self.engine.leave(self._over)
        self.run.seconds = self._seconds()
        with suppress(OSError) if error is not None else nullcontext():
            self._show_history()
        if error is not None:
            setattr(error, "run", self.run)  # noqa: B010 (of any error)
