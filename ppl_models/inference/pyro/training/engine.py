"""The loop of a training: steps, records, early stopping, and files from which it goes on exactly."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from time import perf_counter
from typing import Any

import pyro
import torch
from safetensors.torch import load as unpacked, save as packed
from torch import Tensor, nn

from ...config import FitConfig, compared
from ...interrupts import interrupts
from ...objectives import elbo
from ...progress import Progress
from ...run import Callback, Run
from ..engine.compiled import Compiled
from ..engine.step import Eager, StepInputs
from ..feeding.batches import Batches, rows_of
from ..feeding.distributed import Group
from ..passes.terms import terms
from . import modes
from .checkpoint import CHECKPOINT, load, load_training, save, write_json
from .state import rng_state, set_rng_state

LOOK = 50  # steps after which a GPU is asked whether all went well


class Loop:
    """A training in the middle: all that `fit` has settled, and how far it is.

    Args:
        config: the arguments of the training.
        total: steps of it.
        every: steps between records.
        eager: the step.
        batches: of the data.
        held_out: validation data or None.
        saved: what a checkpoint keeps of the pair.
        programs: the modules of the pair.
        run: what is left behind.
        callbacks: see `Callback`.
        group: of processes that train together.
        about: what a checkpoint says besides.
    """

    def __init__(
        self,
        config: FitConfig,
        total: int,
        every: int,
        eager: Eager,
        batches: Batches,
        held_out: Sequence[Any] | None,
        saved: Mapping[str, Any],
        programs: Sequence[nn.Module],
        run: Run,
        callbacks: Sequence[Callback],
        group: Group | None,
        about: Mapping[str, Any],
    ) -> None:
        self.config, self.total, self.every, self.eager, self.batches = config, total, every, eager, batches
        self.held_out, self.saved, self.programs, self.run = held_out, saved, programs, run
        self.callbacks, self.group, self.about = callbacks, group, dict(about)
        self.slots, self.device = eager.slots, eager.slots.parameters[0].device
        self.step: Eager | Compiled = eager
        self.done, self.since, self.before, self.stopped = 0, 0, 0.0, False
        self.kept = -1  # the step that the checkpoint is of
        self.tally = torch.zeros(4 + len(eager.config.kl_of), device=self.device)
        self.best: list[Tensor] = []
        self.best_bound, self.worse = float("inf"), 0
        self.start = perf_counter()

    @property
    def is_main(self) -> bool:
        """Whether this process writes and shows."""
        return self.group is None or self.group.is_main

    def __call__(self, progress: bool) -> None:
        """Take the steps that are left. However it ends, the pair holds its averages (or the best) afterwards."""
        betas, rates = self.config.betas(), self.config.rates(self.total)
        with ExitStack() as stack:
            stack.callback(self._leave)
            stack.enter_context(modes.set_to(self.programs, training=True))
            stack.enter_context(pyro.validation_enabled(False))
            bar = stack.enter_context(Progress(self.total, progress and self.is_main))
            if self.config.captured(self.total, self.device.type):
                self.step = Compiled(self.eager, lambda line: self._note(line, bar))
            asked = stack.enter_context(interrupts(self.group is None))
            while self.done < self.total and not self.stopped:
                batches = [next(self.batches) for _ in range(self.config.accumulate)]
                now = StepInputs(self.done, self.config.lr * rates(self.done), betas(self.done))
                self.tally += self.step(batches, now)
                self.done, self.since = self.done + 1, self.since + 1
                due = self.done % self.every == 0 or self.done == self.total
                if due or bar.due(self.done) or self.device.type != "cuda" or self.done % LOOK == 0:
                    self._look(now, batches[-1])
                if bar.due(self.done):
                    bar.advance(self.done, *self._means()[:2])
                if due:
                    self._record(bar)
                if asked:
                    self._interrupted(asked[0], bar)

    def _means(self) -> list[float]:
        return (self.tally / self.tally[3].clamp(min=1)).tolist()

    def _look(self, now: StepInputs, batch: Sequence[Any]) -> None:
        """Raise if a step since the last look was not finite."""
        if bool(self.eager.halted):
            raise ValueError(modes.diagnosis(self.eager, now, batch))

    def _record(self, bar: Progress) -> None:
        """Note how it goes, ask the callbacks, and write the files."""
        loss, nll = self._means()[:2]
        taken = int(self.tally[3])
        record: dict[str, float] = {"step": self.done, "loss": loss, "nll": nll}
        if self.config.skip is not None:
            record["skipped"] = self.since - taken
            if not taken:
                raise ValueError(
                    f"fit: none of the last {self.since} steps was taken: every gradient was larger than "
                    f"skip={self.config.skip} or not finite; try a larger skip, a smaller lr, or look at the data"
                )
        self.tally, self.since = torch.zeros_like(self.tally), 0
        if self.group is not None:  # running statistics of each process's own rows: those of rank 0 are kept
            self.group.broadcast_(list(dict.fromkeys(b for program in self.programs for b in program.buffers())))
        with self.slots.averaged():
            with modes.set_to(self.programs, training=False):
                if self.held_out is not None:
                    record["valid"] = self._bound()
                record["seconds"] = self.before + perf_counter() - self.start
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
            self.best = [p.detach().clone() for p in self.slots.parameters]
        else:
            self.worse += 1
        if self.worse >= self.config.patience:
            self.stopped = True
            best = f"the bound on validation data was best, {self.best_bound:.4f}, {self.worse} records ago"
            self._note(f"stopped at step {self.done}: {best}; the pair is left as it was then", bar)

    def _call_back(self, bar: Progress) -> None:
        """Ask the callbacks; what they draw does not touch the training."""
        if self.callbacks and self.is_main:
            kept = rng_state(self.device)
            for callback in self.callbacks:
                if callback(self.run):
                    self.stopped = True
                    name = getattr(callback, "__name__", type(callback).__name__)
                    self._note(f"stopped at step {self.done} by the callback {name}", bar)
            set_rng_state(kept, self.device)
        if self.group is not None:
            self.stopped = self.group.mean(float(self.stopped)) > 0

    @torch.no_grad()
    def _bound(self) -> float:
        """Mean negative ELBO of the validation data, one draw each, or the mean of Pyro's loss."""
        columns, config, eager = self.held_out, self.eager.config, self.eager
        size, total = len(columns[0]), 0.0
        rank, world = (self.group.rank, self.group.world) if self.group is not None else (0, 1)
        mine = [torch.arange(rank, size, world)] if world > 1 else None
        count = size if mine is None else len(mine[0])
        for i in range(0, count, self.config.batch_size):
            index = slice(i, i + self.config.batch_size)
            batch = rows_of(columns, index if mine is None else mine[0][index], self.device)
            if config.loss is None:
                total -= elbo(terms(eager.model, eager.guide, batch), data_size=size).item() * len(batch[0])
            else:
                total += float(config.loss.loss(eager.model, eager.guide, *batch))
        return total / size if self.group is None else self.group.mean(total * world / size)

    def _save(self) -> None:
        """Write the checkpoint, whole, and the history beside it for people; the parameters are the averages now.

        At the end of a training with `patience` its weights are the best ones, as those of the pair will be.
        """
        if self.run.folder is None:
            return
        self.kept = self.done
        own = {**rng_state(self.device), **self.batches.state()}
        mine = torch.frombuffer(bytearray(packed({k: v.cpu() for k, v in own.items()})), dtype=torch.uint8)
        each = [mine] if self.group is None else self.group.gather_bytes(mine)
        if each is None:
            return
        state = {**self.slots.state(), "tally": self.tally}
        state |= {f"process.{rank}": part for rank, part in enumerate(each)}
        state |= {f"best.{name}": p for name, p in zip(self.slots.names, self.best, strict=False)}
        about = {
            **self.about,
            "step": self.done,
            "since": self.since,
            "seconds": self.before + perf_counter() - self.start,
            "history": self.run.history,
            "settings": self.config.to_dict(),
            "stopped": self.stopped,
            "notes": [self.run.notes[-1]] if self.stopped else [],
            "best": [self.best_bound, self.worse] if self.best else None,
            "world": len(each),
        }
        over = self.best and (self.stopped or self.done == self.total)
        if over:
            state = {name: tensor.clone() for name, tensor in state.items()}
            last = [p.detach().clone() for p in self.slots.parameters]
            self._set(self.best)
        try:
            save(self.run.folder / CHECKPOINT, self.saved, state, about)
        finally:
            if over:
                self._set(last)
        self._write_history()

    def _write_history(self) -> None:
        write_json(self.run.folder / "history.json", {"history": self.run.history})

    def resume(self) -> None:
        """Go on from the checkpoint of the folder, as if there had been no end.

        Raises:
            ValueError: a file that is damaged, or of another pair, data or arguments.
        """
        path = self.run.folder / CHECKPOINT
        state, about = load_training(path)
        compared(self.config.to_dict(), about["settings"])
        for name, told in (("data", "data"), ("validation", "validation data")):
            if about[name] != self.about[name]:
                raise ValueError(
                    f"fit: the {told} are not those that the run in {self.run.folder} was started with; resume with "
                    "the same, or choose another folder"
                )
        world = 1 if self.group is None else self.group.world
        if about["world"] != world:
            raise ValueError(
                f"fit: found {world} processes, the run in {self.run.folder} was started with {about['world']}; resume "
                "with as many"
            )
        load(path, self.saved)
        self.slots.restore(state)
        self.tally.copy_(state["tally"])
        self.done, self.since, self.before = about["step"], about["since"], about["seconds"]
        self.kept, self.stopped = self.done, about["stopped"]
        self.run.notes += about["notes"]
        self.run.history[:] = about["history"]
        if about["best"] is not None:
            self.best_bound, self.worse = about["best"]
            self.best = [state[f"best.{name}"].to(self.device) for name in self.slots.names]
        own = unpacked(state[f"process.{0 if self.group is None else self.group.rank}"].numpy().tobytes())
        self.batches.restore({k: v for k, v in own.items() if k in ("order", "position", "seed")})
        set_rng_state(own, self.device)
        if self.is_main:
            self._write_history()  # a kill may have come between the two files

    def _interrupted(self, end: BaseException, bar: Progress) -> None:
        """Save where it is, between two steps, and let the signal have its way."""
        if self.run.folder is not None:
            if self.kept != self.done:
                with self.slots.averaged():
                    self._save()
            line = f"interrupted after step {self.done}, saved; go on with resume=True and {self.run.folder}"
            self._note(line, bar)
            end.add_note(line)  # where there is no bar, the traceback says it
        raise end

    def _note(self, line: str, bar: Progress) -> None:
        self.run.notes.append(line)
        bar.say(line)

    @torch.no_grad()
    def _set(self, values: Sequence[Tensor]) -> None:
        for p, value in zip(self.slots.parameters, values, strict=True):
            p.copy_(value)

    def _leave(self) -> None:
        """Leave the pair with its averages, or the best of them, in memory of its own."""
        self.slots.swap()
        if self.best and (self.stopped or self.done == self.total):
            self._set(self.best)
        if isinstance(self.step, Compiled):
            self.step.release()
        self.batches.close()
        self.run.seconds = self.before + perf_counter() - self.start
