"""`PyroEngine`: the steps of a training of Pyro programs, and how they are measured, shown and kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro
import torch
from safetensors.torch import load as unpacked, save as packed
from torch import Tensor

from ppl_models.parts.arguments.kinds import Count
from ppl_models.programs.rows import AsTheyCome

from ...config import COMPILERS, FitConfig
from ...objectives.bounds import elbo
from ...resuming.training_record import check_training, checked, usable
from ..engine.compiled import Compiled
from ..engine.compilers import has_xla
from ..engine.python_state import Attributes, undone
from ..engine.step import Eager, StepInputs, negative
from ..feeding.batches import Batches
from ..feeding.columns import Columns
from ..passes.messengers import Weighed
from ..passes.rows import refuse_others
from ..passes.terms import terms
from .checkpoint import load, load_training, save
from .diagnosis import diagnosis
from .modes import set_to, trained
from .state import rng_state, set_rng_state

LOOK = 50  # steps after which a GPU is asked whether all went well


class PyroEngine:
    """See `ppl_models.inference.training.loop.Engine`.

    Args:
        config: the options of the training.
        total: steps of it.
        eager: the step.
        batches: of the data.
        held_out: validation data or None.
        rest, rest_held_out: looks at the rows of both that nobody has looked at.
        saved: what a checkpoint keeps of the pair.
        path: the checkpoint, or None.
    """

    def __init__(
        self,
        config: FitConfig,
        total: int,
        eager: Eager,
        batches: Batches,
        held_out: Sequence[Any] | None,
        rest: AsTheyCome,
        rest_held_out: AsTheyCome | None,
        saved: Mapping[str, Any],
        path: Path | None,
    ) -> None:
        self.config, self.total, self.eager, self.batches = config, total, eager, batches
        self.held_out, self.saved, self.path = held_out, saved, path
        self.rest, self.rest_held_out, self.measured = rest, rest_held_out, 0
        self.group, self.slots, self.latents = eager.group, eager.slots, eager.config.kl_of
        self.device = eager.slots.parameters[0].device
        self.programs = trained(eager.model, eager.guide, eager.slots.parameters)
        self.betas, self.rates = config.betas(), config.rates(total)
        self.step: Eager | Compiled = eager
        self.compiler: str | None = None  # that a run which goes on was started with, or "eager"
        self.again = False  # whether it goes on
        self.tally = torch.zeros(4 + len(self.latents), device=self.device)
        self.recent: list[tuple[StepInputs, Sequence[Any]]] = []  # the last steps, and a batch of each
        self.told: list[Tensor] = []  # what they told
        self.say: Callable[[str], None] | None = None  # until it is said how the steps run
        self.best: list[Tensor] = []

    @contextmanager
    def running(self, say: Callable[[str], None], busy: Callable[[str], AbstractContextManager]) -> Iterator[None]:
        """Modules are in training mode, and Pyro's validation is off."""
        with set_to(self.programs, training=True), pyro.validation_enabled(False):
            self.say, chosen = say, self._chosen()
            if chosen != "eager":
                self.step = Compiled(self.eager, say, busy, chosen if self._asks(chosen) else None)
            yield

    def advance(self, done: int, most: int) -> int:
        """Take one step, or as many as go together. A GPU is asked only now and then whether it was finite."""
        count, self.recent, self.told = self.config.accumulate, [], []
        while len(self.recent) < most:
            step = done + len(self.recent)
            batches = [next(self.batches) for _ in range(count)]
            for i, batch in enumerate(batches):
                self.rest(batch, step * count + i)
            now = StepInputs(step, self.config.lr * self.rates(step), self.betas(step))
            self.recent.append((now, batches[-1]))
            if self.again and not self.eager.met:
                self._meet(batches[0], now)
            if isinstance(self.step, Eager):
                self.told.append(self.step(batches, now))
                break
            if not self.step.queue(batches, now):
                break
        if isinstance(self.step, Compiled):
            self.told = self.step.flush()
        for each in self.told:
            self.tally += each
        if self.say is not None and (now := self._compiler()) is not None:
            self._tell(now)
        if self.device.type != "cuda" or any((now.step + 1) % LOOK == 0 for now, _ in self.recent):
            self._check()
        return len(self.recent)

    def means(self) -> tuple[list[float], int]:
        """See `Engine`."""
        self._check()
        loss, bound, norm, _, *kl = (self.tally / self.tally[3].clamp(min=1)).tolist()
        return [loss, bound, norm, *kl], int(self.tally[3])

    def clear(self) -> None:
        """Begin the means anew; parameters are true, running statistics, of each process's own rows, the first's."""
        self._settle()
        self.tally = torch.zeros_like(self.tally)
        if self.group is not None:
            self.group.broadcast_(list(dict.fromkeys(b for program in self.programs for b in program.buffers())))

    @torch.no_grad()
    def bound(self, done: int) -> float:
        """Mean negative ELBO of the validation data, one draw each, or the mean of Pyro's loss."""
        with self.slots.averaged(), set_to(self.programs, training=False):
            return self._bound(self.held_out)

    def remember(self) -> None:
        """See `Engine`."""
        self.best = [p.detach().clone() for p in self.slots.averages or self.slots.parameters]

    @contextmanager
    def shown(self) -> Iterator[None]:
        """See `Engine`."""
        with self.slots.averaged(), set_to(self.programs, training=False):
            kept = rng_state(self.device)
            yield
            set_rng_state(kept, self.device)

    def save(self, about: Mapping[str, Any], best: bool) -> None:
        """Write the checkpoint, with the generators of every process."""
        self._settle()
        own = {**rng_state(self.device), **self.batches.state()}
        mine = torch.frombuffer(bytearray(packed({k: v.cpu() for k, v in own.items()})), dtype=torch.uint8)
        each = [mine] if self.group is None else self.group.gather_bytes(mine)
        if each is None:
            return
        with self.slots.averaged():
            state = {**self.slots.state(), "tally": self.tally}
            state |= {f"process.{rank}": part for rank, part in enumerate(each)}
            state |= {f"best.{name}": p for name, p in zip(self.slots.names, self.best, strict=False)}
            if best:
                state = {name: tensor.clone() for name, tensor in state.items()}
                last = [p.detach().clone() for p in self.slots.parameters]
                self._set(self.best)
            settled = {} if (compiler := self._compiler()) is None else {"compiler": compiler}
            try:
                save(self.path, self.saved, state, {**about, "world": len(each), **settled})
            finally:
                if best:
                    self._set(last)

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See `Engine`."""
        state, about = load_training(self.path, self.saved)
        check_training(self.path, about, world=Count)
        return state, about

    def restore(self, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: of another pair, or of another number of processes.
        """
        rank, world = (0, 1) if self.group is None else (self.group.rank, self.group.world)
        if about["world"] != world:
            raise ValueError(
                f"fit: found {world} processes, the run in {self.path.parent} was started with {about['world']}; "
                "resume with as many"
            )
        self.again, self.compiler = True, about.get("compiler")
        load(self.path, self.saved)
        with usable(self.path):
            self.slots.restore(state)
            told = state["tally"].to(self.device)
            self.tally[: len(told)] = checked(
                "tally", told, self.tally[: len(told)]
            )  # older files tell fewer divergences
            if about["best"] is not None:
                pairs = zip(self.slots.names, self.slots.parameters, strict=True)
                self.best = [checked(f"best.{name}", state[f"best.{name}"], p).to(self.device) for name, p in pairs]
            own = unpacked(state[f"process.{rank}"].numpy().tobytes())
            self.batches.restore({k: v for k, v in own.items() if k in ("order", "position", "seed")})
            set_rng_state(own, self.device)

    def leave(self, best: bool) -> None:
        """Leave the pair with its averages, or the best of them, in memory of its own."""
        if isinstance(self.step, Compiled):
            self.step.release()
        self.slots.swap()
        if best:
            self._set(self.best)
        self.batches.close()

    def _check(self) -> None:
        """Raise if a step was not finite."""
        if bool(self.eager.halted):
            self._settle()
            lost = [i for i, each in enumerate(self.told) if not each[3]]
            raise ValueError(diagnosis(self.eager, *self.recent[lost[0] if lost else -1]))

    def _chosen(self) -> str:
        """By which the steps will be compiled, or "eager": as asked for, as the run was started, as there is."""
        compile, kind = self.config.compile, self.device.type
        if compile in COMPILERS:
            return str(compile)
        here = "xla" if kind == "cpu" and has_xla() else "inductor"
        before = here if self.compiler == "xla" else self.compiler  # Inductor where JAX is gone
        if compile == "auto" and before is not None:
            return before
        if not self.config.captured(self.total, kind, here == "xla"):
            return "eager"
        return before if before in COMPILERS else here

    def _asks(self, chosen: str) -> bool:
        """Whether no other compiler may stand in for the chosen one: it was, or too few steps are worth another."""
        few = self.config.compile == "auto" and not self.config.captured(self.total, self.device.type, xla=False)
        return few or chosen in (self.config.compile, self.compiler)

    def _meet(self, batch: Sequence[Any], now: StepInputs) -> None:
        """Let one of Pyro's losses look at the pair, as it did before the run was ended, and leave no other trace."""
        kept, eager = rng_state(self.device), self.eager
        with undone(self.programs, Attributes(eager.model, eager.guide)):
            negative(eager.config, eager.model, eager.guide, batch, now.beta, {})
        set_rng_state(kept, self.device)
        eager.met = True

    def _tell(self, now: str) -> None:
        """Say how the steps run, where nobody has asked for it or it is not as it was."""
        if self.compiler not in (None, now):
            self.say(
                f"the run was started with {_steps(self.compiler)} and goes on with {_steps(now)}: its end will not be "
                "that of an uninterrupted one bit for bit"
            )
        elif self.compiler is None and self.config.compile == "auto" and now != "eager":
            self.say(f"{self.total} steps are enough to have them compiled, by {now}; compile=False is without")
        self.say = None

    def _compiler(self) -> str | None:
        """By which steps are compiled, or "eager"; None as long as that is not settled."""
        if isinstance(self.step, Eager) or self.step.reason is not None:
            return "eager"
        return self.step.compiler if self.step.graphs else None

    def _settle(self) -> None:
        """Let the tensors of the pair be what the steps have made of them."""
        if isinstance(self.step, Compiled):
            self.step.settle()

    def _bound(self, data: Columns) -> float:
        size, total, eager, step = data.size, 0.0, self.eager, self.eager.config
        rank, world = (self.group.rank, self.group.world) if self.group is not None else (0, 1)
        mine = [torch.arange(rank, size, world)] if world > 1 else None
        count = size if mine is None else len(mine[0])
        for i in range(0, count, self.config.batch_size):
            index = slice(i, i + self.config.batch_size)
            batch = data.rows(index if mine is None else mine[0][index], self.device)
            if self.rest_held_out is not None:
                self.rest_held_out(batch, self.measured)
                self.measured += 1
            loss, rows, weighing = step.fit.loss, len(batch[0]), step.weighing.among(size)
            known = replace(step.indices, numbered="").around(eager.model, batch)
            try:
                if loss is None:
                    with Weighed(step.weighing, rows), known:
                        found = terms(eager.model, eager.guide, batch, plate=step.plate, states=step.states)
                    total -= elbo(found, data_size=size if weighing.plate else 1).item() * rows
                else:
                    with Weighed(weighing, rows, loss), known:
                        value = float(loss.loss(eager.model, eager.guide, *batch))
                    total += value * rows / weighing.counted(loss, rows)
            except Exception:
                refuse_others("fit: validation", eager.model, eager.guide, batch)
                raise
        return total / size if self.group is None else self.group.mean(total * world / size)

    @torch.no_grad()
    def _set(self, values: Sequence[Tensor]) -> None:
        for p, value in zip(self.slots.parameters, values, strict=True):
            p.copy_(value)


def _steps(compiler: str) -> str:
    return "eager steps" if compiler == "eager" else f"steps compiled by {compiler}"
