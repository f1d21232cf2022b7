"""`NumPyroEngine`: the steps of a training of NumPyro programs, and how they are measured, shown and kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from ppl_models.numpyro.data import Rows
from ppl_models.numpyro.parts.program import Program, named_constants
from ppl_models.parts.arguments.kinds import Seed
from ppl_models.programs.rows import AsTheyCome

from ...objectives.bounds import elbo
from ...results import Run
from ...resuming.training_record import check_training, checked, usable
from ..engine.parameters import Params
from ..engine.step import Blocks, State
from ..feeding.batches import drawn
from ..passes.messengers import Weighed
from ..passes.rounding import rounded
from ..passes.rows import refuse_others
from ..passes.terms import terms
from .checkpoint import read, save
from .diagnosis import diagnosis

PATIENCE = 0.2  # seconds that a block of steps is to take, so that a bar moves and Ctrl-C is heard


class NumPyroEngine:
    """See `ppl_models.inference.training.loop.Engine`.

    Args:
        blocks: the steps.
        state: where they begin.
        held_out: validation data or None.
        run: given the pair as it is now, as programs do not change.
        path: the checkpoint, or None.
        rest, rest_held_out: looks at the rows of both data that nobody has looked at.
    """

    def __init__(
        self,
        blocks: Blocks,
        state: State,
        held_out: Sequence[Rows] | None,
        run: Run,
        path: Path | None,
        rest: AsTheyCome,
        rest_held_out: AsTheyCome | None,
    ) -> None:
        self.rest, self.rest_held_out, self.measured = rest, rest_held_out, 0
        self.blocks, self.state, self.held_out, self.run, self.path = blocks, state, held_out, run, path
        self.step, self.config, self.parameters = blocks.step, blocks.config, blocks.step.parameters
        self.latents, self.group = blocks.step.kl_of, None
        pair = {"model": self.step.model, "guide": self.step.guide}
        held = {label: named_constants(p) for label, p in pair.items() if isinstance(p, Program)}
        self.constants = {f"{label}.{name}": value for label, each in held.items() for name, value in each.items()}
        self.best: Params | None = None
        self.waiting: AbstractContextManager = nullcontext()  # around the first block, which compiles
        self.length = 1  # steps of a block, as many as take long enough to look up
        self._bounds = jax.jit(self._bounded)

    @contextmanager
    def running(self, say: Callable[[str], None], busy: Callable[[str], AbstractContextManager]) -> Iterator[None]:
        """See `Engine`."""
        self.waiting = busy("compiling the step")
        yield

    def advance(self, done: int, most: int) -> int:
        """Take a block of steps."""
        count, each = min(self.length, most), self.config.accumulate
        for batch in range(done * each, min((done + count) * each, self.rest.batches)):
            self.rest((self.blocks.order.rows(batch),), batch)
        began = perf_counter()
        with self.waiting:
            self.state, tried = self.blocks(self.state, done, count)
            halted = bool(self.state.halted)
        self.waiting = nullcontext()
        if halted:
            first = done + tried - 1
            now = {name: column[0] for name, column in self.blocks.table(first, 1, 1).items()}
            raise ValueError(diagnosis(self.step, self.state, first, now, self.blocks.stored))
        if perf_counter() - began < PATIENCE / 2:
            self.length = min(2 * self.length, self.blocks.capacity)
        elif perf_counter() - began > PATIENCE:
            self.length = max(self.length // 2, 1)
        return count

    def means(self) -> tuple[list[float], int]:
        """See `Engine`."""
        tally = np.asarray(self.state.tally, float)
        loss, bound, norm, _, *kl = (tally / max(tally[3], 1)).tolist()
        return [loss, bound, norm, *kl], int(tally[3])

    def clear(self) -> None:
        """See `Engine`."""
        self.state = self.state._replace(tally=jnp.zeros_like(self.state.tally))

    def bound(self, done: int) -> float:
        """Mean negative ELBO of the validation data, one draw each, or the mean of NumPyro's loss."""
        size, total = len(self.held_out[0]), 0.0
        # streams of their own: steps count from 0 up
        key = random.fold_in(random.fold_in(self.step.key, 2**31 - 1), done)
        for i in range(0, size, self.config.batch_size):
            if self.rest_held_out is not None:
                self.rest_held_out((np.arange(i, min(i + self.config.batch_size, size)),), self.measured)
                self.measured += 1
            rows = [column.values[i : i + self.config.batch_size] for column in self.held_out]
            try:
                with jax.default_matmul_precision(self.config.precision):
                    total += float(self._bounds(self.state.left, rows, random.fold_in(key, i)))
            except Exception:
                args = drawn(self.held_out, rows, key)
                refuse_others("fit: validation", self.step.model, self.step.guide, args, {})
                raise
        return total / size

    def remember(self) -> None:
        """See `Engine`."""
        self.best = self.state.left

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The run holds the pair with its averages."""
        self._fill(self.state.left)
        yield

    def save(self, about: Mapping[str, Any], best: bool) -> None:
        """See `Engine`."""
        named = self.parameters.named
        lists = {kind: getattr(self.state, kind) for kind in ("params", "exp_avg", "exp_avg_sq", "average")}
        lists["best"] = self.best
        training = {
            f"{kind}.{n}": a for kind, each in lists.items() if each is not None for n, a in named(each).items()
        } | {f"objective.{name}": a for name, a in self.state.objective.items()}
        weights = {**self.constants, **named(self.parameters.constrained(self.best if best else self.state.left))}
        save(self.path, weights, {**training, "tally": self.state.tally}, {**about, "backend": "numpyro"})

    def read(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """See `Engine`."""
        found = read(self.path)
        check_training(self.path, found.about, seed=Seed)
        return found.training, found.about

    def restore(self, state: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """See `Engine`."""

        def restored(kind: str) -> Params:
            own = {n.removeprefix(f"{kind}."): a for n, a in state.items() if n.startswith(f"{kind}.")}
            return self.parameters.restored(self.state.params, own)

        kinds = ["params", "exp_avg", "exp_avg_sq"] + (["average"] if self.state.average is not None else [])
        with usable(self.path):
            self.state = self.state._replace(**{kind: restored(kind) for kind in kinds})
            objective = {
                name: jnp.asarray(checked(f"objective.{name}", state[f"objective.{name}"], jnp.asarray(now)))
                for name, now in self.state.objective.items()
            }
            tally, told = self.state.tally, state["tally"]  # older files tell fewer divergences
            tally = tally.at[: len(told)].set(jnp.asarray(checked("tally", told, tally[: len(told)])))
            self.state = self.state._replace(tally=tally, objective=objective)
            if about["best"] is not None:
                self.best = restored("best")

    def leave(self, best: bool) -> None:
        """Leave the run with the pair."""
        self._fill(self.best if best else self.state.left)

    def _bounded(self, free: Params, rows: Sequence[Array], key: Array) -> Array:
        keys, step = random.split(key), self.step
        batch, params = drawn(self.held_out, rows, keys[0]), self.parameters.constrained(free)
        size, count, loss = len(self.held_out[0]), len(batch[0]), self.config.loss
        weighing = step.weighing.among(size)
        if loss is not None:
            with Weighed(weighing, count, loss), rounded():
                value = loss.loss(keys[1], params, step.model, step.guide, *batch)
            return value * count / weighing.counted(loss, count)
        with Weighed(weighing, count):
            how = {"plate": step.plate, "states": step.states}
            found = terms(step.model, step.guide, batch, key=keys[1], params=params, **how)
        return -elbo(found, data_size=size if weighing.plate else 1) * count

    def _fill(self, free: Params) -> None:
        """Give the run the pair with these parameters."""
        self.run.params = self.parameters.constrained(free)
        self.run.model, self.run.guide = self.parameters.programs(self.step.model, self.step.guide, self.run.params)
