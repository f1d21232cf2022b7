"""Steps of a training: loss, gradient, guard, AdamW and moving average, many of them in one call of a device."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from ppl_models.numpyro.data import Rows
from ppl_models.numpyro.parts.nets.layers import Conv
from ppl_models.numpyro.parts.program import training

from ...config import FitConfig
from ...objectives.bounds import elbo, importance_weighted, mean_kl
from ...objectives.stateful import Carried
from ...schedules import Constant
from ...training.weighing import Weighing
from ..feeding.batches import Order, drawn
from ..passes.losses import estimate
from ..passes.messengers import Numbered, Weighed
from ..passes.rounding import rounded
from .parameters import Parameters, Params

BETAS, EPS = (0.9, 0.999), 1e-8  # of AdamW
LONGEST, LARGEST = 512, 2**20  # steps of a block, and rows that it takes in all


class State(NamedTuple):
    """State of a training that a step changes, in unconstrained parameters.

    Attributes:
        params, exp_avg, exp_avg_sq: parameters, with the moments of Adam.
        average: their moving average, None for none.
        tally: (4 + kl_of,), sums over the steps taken of loss, negative ELBO, norm of the gradient, 1, and the mean
            divergence of each latent of `Step.kl_of`.
        halted: whether a step was not finite, after which none is taken.
        objective: the state of an objective that has one, else {}.
    """

    params: Params
    exp_avg: Params
    exp_avg_sq: Params
    average: Params | None
    tally: Array
    halted: Array
    objective: dict[str, Array]

    @property
    def left(self) -> Params:
        """The parameters that a pair is left with: the averages, if there are any."""
        return self.params if self.average is None else self.average


def begun(
    params: Params, average: bool, kl_of: Sequence[str] = (), objective: Mapping[str, Array] | None = None
) -> State:
    """The state before the first step."""
    zeros, tally = jax.tree.map(jnp.zeros_like, params), jnp.zeros(4 + len(kl_of))
    average_of = params if average else None
    return State(params, zeros, zeros, average_of, tally, jnp.zeros((), bool), dict(objective or {}))


@dataclass(frozen=True)
class Step:
    """One step of a training as a function of `State`, and the loss that it takes.

    Attributes:
        model, guide: the pair.
        parameters: what is known of its parameters.
        columns: the data.
        config: the arguments of the training.
        key: of all its noise.
        kl_of: the latents whose mean divergence a step tells.
        plate: name of the data plate, "" where there is none.
        weighing: who weighs a batch.
        states: whether the guide enumerates discrete sites.
        numbered: whether the rows of a batch are the indices of that plate, the last entry of what `batch` gives.
    """

    model: Callable
    guide: Callable
    parameters: Parameters
    columns: Sequence[Rows]
    config: FitConfig
    key: Array
    kl_of: tuple[str, ...] = ()
    plate: str | None = None
    weighing: Weighing = Weighing()
    numbered: bool = False
    states: bool = False

    @training()
    def negative(
        self,
        free: Params,
        rows: Sequence[Array],
        key: Array,
        beta: float | Array,
        state: Mapping[str, Array] | None = None,
    ) -> tuple[Array, Any]:
        """(what is minimized, (told, the terms of all, the objective's state after it)) on stored rows.

        `told` is (2 + kl_of,), in nats per datum: the same, the negative ELBO, and the mean divergence of each
        latent of `kl_of`. Programs are in training mode.
        """
        config, weighing = self.config, self.weighing
        size = weighing.size or len(self.columns[0])
        keys = random.split(key)
        around = Numbered(self.plate or "", rows[-1]) if self.numbered else nullcontext()
        rows = rows[:-1] if self.numbered else rows
        batch, params = drawn(self.columns, rows, keys[0]), self.parameters.constrained(free)
        if config.loss is not None:
            with Weighed(weighing, len(batch[0]), config.loss), around, rounded():
                value = config.loss.loss(keys[1], params, self.model, self.guide, *batch)
            value = value / weighing.counted(config.loss, len(batch[0]))
            return value, (jnp.stack([value, value]), None, {})
        objective = Carried(config.objective, state) if state else config.objective
        with Weighed(weighing, len(batch[0])), around:
            value, found = estimate(
                objective,
                self.model,
                self.guide,
                batch,
                key=keys[1],
                params=params,
                beta=beta,
                data_size=size,
                particles=config.particles,
                analytic=config.analytic,
                gradient=config.gradient,
                plate=self.plate,
                states=self.states,
            )
        bound = value
        if not (isinstance(beta, float) and beta == 1 and config.objective in (elbo, importance_weighted)):
            plain = importance_weighted if config.objective is importance_weighted else elbo
            bound = -plain(found, 1.0, size)
        after = {name: v.astype(state[name].dtype) for name, v in objective.after.items()} if state else {}
        return value, (jnp.stack([value, bound, *mean_kl(found, self.kl_of, size)]), found, after)

    def beta(self, now: Mapping[str, Array]) -> float | Array:
        """The weight of the divergences: a number where it never changes."""
        betas = self.config.betas()
        return betas.value if isinstance(betas, Constant) else now["beta"]

    def batch(self, stored: Sequence[Array], now: Mapping[str, Array], i: int | Array) -> tuple[list[Array], Array]:
        """(the stored rows of the i-th batch of a step, the key of its noise)."""
        rows = now["rows"][i]
        return [*(v[rows] for v in stored), *[rows] * self.numbered], random.fold_in(
            random.fold_in(self.key, now["step"]), i
        )

    def __call__(self, state: State, now: Mapping[str, Array], stored: Sequence[Array]) -> State:
        """Take a step on batches, whose gradients are averaged.

        Args:
            state: before it.
            now: step, counted from 0; lr; beta; weight, of the newest parameters in the average; corrections of the
                moments of Adam; rows (accumulate, batch_size).
            stored: the values of the data.
        """
        config, count = self.config, self.config.accumulate

        def gradient(i: int | Array, objective: Mapping[str, Array]) -> tuple[tuple[Array, Params], Any]:
            """((told, the gradient), the state of the objective that the i-th batch leaves)."""
            rows, key = self.batch(stored, now, i)
            loss = lambda p: _leading(self.negative(p, rows, key, self.beta(now), objective))  # noqa: E731
            (_, (told, after)), slopes = jax.value_and_grad(loss, has_aux=True)(state.params)
            return (told, slopes), after

        def add(carry: tuple[Any, Any], i: Array) -> tuple[Any, None]:
            each, after = gradient(i, carry[1])
            return (jax.tree.map(jnp.add, carry[0], each), after), None

        (told, slopes), after = gradient(0, state.objective)
        if count > 1:
            sums, after = jax.lax.scan(add, ((told, slopes), after), jnp.arange(1, count))[0]
            told, slopes = jax.tree.map(lambda t: t / count, sums)
        norm = jnp.sqrt(sum(jnp.sum(g.astype(told.dtype) ** 2) for g in jax.tree.leaves(slopes)))
        good = jnp.isfinite(told[0] + norm) & ~state.halted
        halted = state.halted | ~good if config.skip is None else state.halted
        good = good if config.skip is None else good & (norm <= config.skip)
        if config.clip is not None:
            factor = jnp.minimum(1.0, config.clip / (norm + 1e-6))  # as torch's clip_grad_norm_
            slopes = jax.tree.map(lambda g: g * factor.astype(g.dtype), slopes)
        moved = self._moved(state, slopes, now)
        outcome = jnp.concatenate([told[:2], norm[None].astype(told.dtype), jnp.ones(1, told.dtype), told[2:]])
        taken = State(*moved, state.tally + outcome, halted, after)
        kept = state._replace(halted=halted)
        return jax.tree.map(lambda new, old: jnp.where(good, new, old), taken, kept)

    def _moved(self, state: State, slopes: Params, now: Mapping[str, Array]) -> tuple[Any, ...]:
        """(parameters, their two moments, their average) after AdamW, as torch computes it."""
        one, two = BETAS
        exp_avg = jax.tree.map(lambda m, g: one * m + (1 - one) * g, state.exp_avg, slopes)
        exp_avg_sq = jax.tree.map(lambda v, g: two * v + (1 - two) * g**2, state.exp_avg_sq, slopes)

        def move(p: Array, m: Array, v: Array) -> Array:
            lr, first, second = (now[name].astype(p.dtype) for name in ("lr", "first", "second"))
            return p * (1 - lr * self.config.weight_decay) - lr / first * m / (jnp.sqrt(v / second) + EPS)

        params = jax.tree.map(move, state.params, exp_avg, exp_avg_sq)
        if state.average is None:
            return params, exp_avg, exp_avg_sq, None
        average = jax.tree.map(lambda a, p: a + now["weight"].astype(p.dtype) * (p - a), state.average, params)
        return params, exp_avg, exp_avg_sq, average

    def finite(self, state: State, now: Mapping[str, Array], stored: Sequence[Array]) -> tuple[Array, dict[str, Array]]:
        """(the loss of a step again, what it is made of -> whether that is finite), for the message of an error."""
        values, told = [], {}
        for i in range(self.config.accumulate):
            rows, key = self.batch(stored, now, i)
            value, (_, found, _) = self.negative(state.params, rows, key, self.beta(now), state.objective)
            values.append(value)
            if found is not None:
                sites = [(f"divergence of site {name!r}", term) for name, term in found.kl.items()]
                sites += [(f"log p of the observed site {name!r}", t) for name, t in found.log_likelihood.items()]
                told |= {name: jnp.isfinite(term).all() & told.get(name, True) for name, term in sites}
        return sum(values) / len(values), told


class Blocks:
    """Many steps in one call: a loop on the device, compiled once for any number of steps.

    So the numbers do not depend on where a block begins or ends: a run goes on after any step as if it had not stopped.

    Args:
        step: the step.
        order: of the rows.
        total: steps of the training.
    """

    def __init__(self, step: Step, order: Order, total: int) -> None:
        config = step.config
        self.step, self.order, self.config = step, order, config
        self.stored = [jnp.asarray(column.values) for column in step.columns]
        batch = order.rows(0)
        rows = len(batch) * config.accumulate
        self.looped = config.compile is True or (config.compile == "auto" and not _convolves(step.model, step.guide))
        self.capacity = max(min(LONGEST, total, LARGEST // rows), 1) if self.looped else 1
        self.betas, self.rates = config.betas(), config.rates(total)
        self._float = jnp.zeros(()).dtype
        self._run = jax.jit(self._loop if self.looped else self._once)

    def __call__(self, state: State, first: int, count: int) -> tuple[State, int]:
        """(the state after steps `first`, `first` + 1, ..., how many were tried: `count`, or less if one halted)."""
        table = self.table(first, count, self.capacity)
        with jax.default_matmul_precision(self.config.precision):
            state, done = self._run(state, table, np.int32(count), self.stored)
        return state, int(done)

    def table(self, first: int, count: int, length: int) -> dict[str, np.ndarray]:
        """Inputs of each step (see `Step.__call__`), a row for each; up to `length` the last one again."""
        steps, each = range(first, first + count), self.config.accumulate
        numbers = {
            "lr": [self.config.lr * self.rates(step) for step in steps],
            "beta": [self.betas(step) for step in steps],
            "weight": [self.config.average_weight(step) for step in steps],
            "first": [1 - BETAS[0] ** (step + 1) for step in steps],
            "second": [1 - BETAS[1] ** (step + 1) for step in steps],
        }
        table = {name: np.array(column, self._float) for name, column in numbers.items()}
        table["step"] = np.arange(first, first + count, dtype=np.int32)
        rows = [self.order.rows(batch) for batch in range(first * each, (first + count) * each)]
        table["rows"] = np.stack(rows).astype(np.int32).reshape(count, each, -1)
        return {n: np.concatenate([column, np.repeat(column[-1:], length - count, 0)]) for n, column in table.items()}

    def _loop(self, state: State, table: Mapping[str, Array], count: Array, stored: Sequence[Array]) -> Any:
        def more(carry: tuple[State, Array]) -> Array:
            return (carry[1] < count) & ~carry[0].halted

        def take(carry: tuple[State, Array]) -> tuple[State, Array]:
            state, i = carry
            return self.step(state, {name: column[i] for name, column in table.items()}, stored), i + 1

        return jax.lax.while_loop(more, take, (state, jnp.int32(0)))

    def _once(self, state: State, table: Mapping[str, Array], count: Array, stored: Sequence[Array]) -> Any:
        return self.step(state, {name: column[0] for name, column in table.items()}, stored), count


def _convolves(*programs: Any) -> bool:
    """Whether programs have convolutions, and a CPU to compute them, where XLA takes ten times as long in a loop."""
    kinds = (Conv, eqx.nn.Conv)
    leaves = jax.tree.leaves(programs, is_leaf=lambda node: isinstance(node, kinds))
    return jax.default_backend() == "cpu" and any(isinstance(leaf, kinds) for leaf in leaves)


def _leading(found: tuple[Array, tuple[Array, Any, Any]]) -> tuple[Array, Any]:
    value, (told, _, after) = found
    return value, (told, after)
