"""The loop of a training: blocks of steps, records, early stopping, and files from which it goes on exactly."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from time import perf_counter
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from ppl_models.numpyro.data import Rows
from ppl_models.numpyro.parts.program import Program, named_constants

from ...files import write_json
from ...interrupts import interrupts
from ...objectives import elbo
from ...progress import Progress
from ...run import Callback
from ..engine.parameters import Params
from ..engine.step import Blocks, State
from ..feeding.batches import drawn
from ..passes.terms import terms
from .checkpoint import CHECKPOINT, read, save
from .diagnosis import diagnosis
from .run import Run

PATIENCE = 0.2  # seconds that a block of steps is to take, so that a bar moves and Ctrl-C is heard


class Loop:
    """A training in the middle: all that `fit` has settled, and how far it is.

    Args:
        blocks: the steps.
        state: where they begin.
        total: how many there are.
        every: steps between records.
        held_out: validation data or None.
        run: what is left behind.
        callbacks: see `Callback`.
        about: what a checkpoint says besides.
    """

    def __init__(
        self,
        blocks: Blocks,
        state: State,
        total: int,
        every: int,
        held_out: Sequence[Rows] | None,
        run: Run,
        callbacks: Sequence[Callback],
        about: Mapping[str, Any],
    ) -> None:
        self.blocks, self.state, self.total, self.every = blocks, state, total, every
        self.held_out, self.run, self.callbacks, self.about = held_out, run, callbacks, dict(about)
        self.step, self.config, self.parameters = blocks.step, blocks.config, blocks.step.parameters
        pair = {"model": self.step.model, "guide": self.step.guide}
        held = {label: named_constants(p) for label, p in pair.items() if isinstance(p, Program)}
        self.constants = {f"{label}.{name}": value for label, each in held.items() for name, value in each.items()}
        self.done, self.since, self.before, self.stopped = 0, 0, 0.0, False
        self.kept = -1  # the step that the checkpoint is of
        self.best: Params | None = None
        self.best_bound, self.worse = float("inf"), 0
        self.length = 1  # steps of a block, as many as take long enough to look up
        self.start = perf_counter()
        self._bounds = jax.jit(self._bounded)

    def __call__(self, progress: bool) -> None:
        """Take the steps that are left. However it ends, the run holds the averages (or the best) afterwards."""
        with ExitStack() as stack:
            stack.push(self._leave)
            bar = stack.enter_context(Progress(self.total, progress))
            asked = stack.enter_context(interrupts())
            while self.done < self.total and not self.stopped:
                self._advance()
                if bar.enabled:
                    bar.advance(self.done, *self._means()[:2])
                if self.done % self.every == 0 or self.done == self.total:
                    self._record(bar)
                if asked:
                    self._interrupted(asked[0], bar)

    def _advance(self) -> None:
        """Take a block of steps: to the next record at most."""
        left = min(self.every - self.done % self.every, self.total - self.done)
        began, count = perf_counter(), min(self.length, left)
        state, tried = self.blocks(self.state, self.done, count)
        if bool(state.halted):
            first = self.done + tried - 1
            self.state, self.done, self.since = state, first, self.since + tried - 1
            now = {name: column[0] for name, column in self.blocks.table(first, 1, 1).items()}
            raise ValueError(diagnosis(self.step, state, first, now, self.blocks.stored))
        self.state, self.done, self.since = state, self.done + count, self.since + count
        if perf_counter() - began < PATIENCE / 2:
            self.length = min(2 * self.length, self.blocks.capacity)
        elif perf_counter() - began > PATIENCE:
            self.length = max(self.length // 2, 1)

    def _means(self) -> list[float]:
        tally = np.asarray(self.state.tally, float)
        return (tally / max(tally[3], 1)).tolist()

    def _record(self, bar: Progress) -> None:
        """Note how it goes, ask the callbacks, and write the files."""
        loss, nll = self._means()[:2]
        taken = int(self.state.tally[3])
        record: dict[str, float] = {"step": self.done, "loss": loss, "nll": nll}
        if self.config.skip is not None:
            record["skipped"] = self.since - taken
            if not taken:
                raise ValueError(
                    f"fit: none of the last {self.since} steps was taken: every gradient was larger than "
                    f"skip={self.config.skip} or not finite; try a larger skip, a smaller lr, or look at the data"
                )
        self.state, self.since = self.state._replace(tally=jnp.zeros_like(self.state.tally)), 0
        if self.held_out is not None:
            record["valid"] = self._bound()
        record["seconds"] = self.before + perf_counter() - self.start
        self.run.history.append(record)
        self._judge(record, bar)
        if self.callbacks:
            self._fill(self.state.left)
        for callback in self.callbacks:
            if callback(self.run):
                self.stopped = True
                name = getattr(callback, "__name__", type(callback).__name__)
                self._note(f"stopped at step {self.done} by the callback {name}", bar)
        self._save()

    def _judge(self, record: Mapping[str, float], bar: Progress) -> None:
        """Remember the best parameters, and stop where the validation bound has not fallen for too long."""
        if self.config.patience is None:
            return
        if record["valid"] < self.best_bound:
            self.best_bound, self.worse, self.best = record["valid"], 0, self.state.left
        else:
            self.worse += 1
        if self.worse >= self.config.patience:
            self.stopped = True
            best = f"the bound on validation data was best, {self.best_bound:.4f}, {self.worse} records ago"
            self._note(f"stopped at step {self.done}: {best}; the pair is left as it was then", bar)

    def _bound(self) -> float:
        """Mean negative ELBO of the validation data, one draw each, or the mean of NumPyro's loss."""
        size, total = len(self.held_out[0]), 0.0
        # streams of their own: steps count from 0 up
        key = random.fold_in(random.fold_in(self.step.key, 2**31 - 1), self.done)
        for i in range(0, size, self.config.batch_size):
            rows = [column.values[i : i + self.config.batch_size] for column in self.held_out]
            with jax.default_matmul_precision(self.config.precision):
                total += float(self._bounds(self.state.left, rows, random.fold_in(key, i)))
        return total / size

    def _bounded(self, free: Params, rows: Sequence[Array], key: Array) -> Array:
        keys, step = random.split(key), self.step
        batch, params = drawn(self.held_out, rows, keys[0]), self.parameters.constrained(free)
        if self.config.loss is not None:
            return self.config.loss.loss(keys[1], params, step.model, step.guide, *batch)
        found = terms(step.model, step.guide, batch, key=keys[1], params=params)
        return -elbo(found, data_size=len(self.held_out[0])) * len(batch[0])

    def _last(self) -> Params:
        """What the pair is left with: at the end of a training with `patience` the best there was."""
        over = self.best is not None and (self.stopped or self.done == self.total)
        return self.best if over else self.state.left

    def _save(self) -> None:
        """Write the checkpoint, whole, and the history beside it for people."""
        if self.run.folder is None:
            return
        self.kept, named = self.done, self.parameters.named
        lists = {kind: getattr(self.state, kind) for kind in ("params", "exp_avg", "exp_avg_sq", "average")}
        lists["best"] = self.best
        training = {
            f"{kind}.{n}": a for kind, each in lists.items() if each is not None for n, a in named(each).items()
        }
        about = {
            **self.about,
            "backend": "numpyro",
            "step": self.done,
            "since": self.since,
            "seconds": self.before + perf_counter() - self.start,
            "history": self.run.history,
            "settings": self.config.to_dict(),
            "stopped": self.stopped,
            "notes": [self.run.notes[-1]] if self.stopped else [],
            "best": [self.best_bound, self.worse] if self.best is not None else None,
        }
        weights = {**self.constants, **named(self.parameters.constrained(self._last()))}
        save(self.run.folder / CHECKPOINT, weights, {**training, "tally": self.state.tally}, about)
        self._write_history()

    def _write_history(self) -> None:
        write_json(self.run.folder / "history.json", {"history": self.run.history})

    def resume(self) -> None:
        """Go on from the checkpoint of the folder, as if there had been no end.

        Raises:
            ValueError: a file that is damaged, or of another pair, data or arguments.
        """
        found = read(self.run.folder / CHECKPOINT)
        training, about = found.training, found.about
        for name, told in (("data", "data"), ("validation", "validation data")):
            if about[name] != self.about[name]:
                raise ValueError(
                    f"fit: the {told} are not those that the run in {self.run.folder} was started with; resume with "
                    "the same, or choose another folder"
                )

        def restored(kind: str) -> Params:
            own = {n.removeprefix(f"{kind}."): a for n, a in training.items() if n.startswith(f"{kind}.")}
            return self.parameters.restored(self.state.params, own)

        kinds = ["params", "exp_avg", "exp_avg_sq"] + (["average"] if self.state.average is not None else [])
        self.state = self.state._replace(**{kind: restored(kind) for kind in kinds})
        self.state = self.state._replace(tally=jnp.asarray(training["tally"]))
        self.done, self.since, self.before = about["step"], about["since"], about["seconds"]
        self.kept, self.stopped = self.done, about["stopped"]
        self.run.notes += about["notes"]
        self.run.history[:] = about["history"]
        if about["best"] is not None:
            (self.best_bound, self.worse), self.best = about["best"], restored("best")
        self._write_history()  # a kill may have come between the two files

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

    def _fill(self, free: Params) -> None:
        """Give the run the pair with these parameters."""
        self.run.params = self.parameters.constrained(free)
        self.run.model, self.run.guide = self.parameters.programs(self.step.model, self.step.guide, self.run.params)

    def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the run with the pair; an error that ends the training carries it."""
        self._fill(self._last())
        self.run.seconds = self.before + perf_counter() - self.start
        if error is not None:
            error.run = self.run
