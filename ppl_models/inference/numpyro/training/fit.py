"""`fit`: train any (model, guide) pair of NumPyro programs on any data."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import random
from numpyro.infer.elbo import ELBO

from ...checkpoint_file import prepared
from ...config import Settings, compared
from ...run import Callback, as_sequence
from ..engine.parameters import find
from ..engine.step import Blocks, Step, begun
from ..feeding.batches import Order, columns_of, drawn, fingerprint
from ..passes.checks import check_loss, check_pair, check_values
from ..passes.losses import Objective, is_doubly
from ..passes.objectives import elbo
from .checkpoint import CHECKPOINT, read
from .loop import Loop
from .run import Run


def fit(
    model: Callable,
    guide: Callable,
    data: Any,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    batch_size: int = 128,
    lr: float = 1e-3,
    schedule: str | Callable[[int], float] = "cosine",
    weight_decay: float = 0.0,
    warmup: int = 0,
    beta: float | Callable[[int], float] = 1.0,
    clip: float | None = 100.0,
    skip: float | None = None,
    ema: float | None = 0.999,
    particles: int = 1,
    analytic: bool = True,
    objective: Objective = elbo,
    gradient: str = "reparametrized",
    loss: ELBO | None = None,
    accumulate: int = 1,
    precision: str = "float32",
    compile: str | bool = "auto",
    validation: Any = None,
    patience: int | None = None,
    callbacks: Callback | Sequence[Callback] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    every: int | None = None,
    workers: int = 0,
    seed: int | None = None,
    progress: bool = True,
) -> Run:
    """Maximize a bound of a pair by stochastic gradient steps, with one AdamW over all its parameters.

    The arguments are those of `ppl_models.inference.fit`, whose numbers it has, draw for draw. Many steps run in one
    call of the device, on data that stay there. Programs do not change: the trained ones are in the `Run`. However it
    ends, it holds the (averaged) parameters of the steps done: an error or a Ctrl-C has it as its attribute `run`.

    The loss is computed in training mode (`parts.training`), the bound on validation data in evaluation mode.

    Args:
        model, guide: any NumPyro programs with reparametrized latents (others with a `loss`); all their
            `numpyro.param`s are trained.
        data: rows, an array or a `ppl_models.data.Data`, whose noise is drawn anew for each batch; a tuple of such for
            a model of several arguments. It is drawn from in shuffled batches.
        steps, epochs: how long; exactly one of them. An epoch is `len(data) // batch_size` batches.
        batch_size: rows a batch. Larger than the data: all of them, in their order.
        lr, schedule, weight_decay: of AdamW; "cosine" lets the rate fall to zero, "constant" does not, and a function
            of the step (`ppl_models.inference.schedules`) gives its factor.
        warmup: steps over which the weight of the divergences rises linearly from 0 to 1.
        beta: that weight, or a function of the step, counted from 0.
        clip: bound on the norm of the gradient, None for none.
        skip: leave a step out whose gradient has a larger norm, or is not finite; None: the latter is an error.
        ema: decay of the moving average of the parameters that the pair is left with, min(ema, (1 + t) / (10 + t)) at
            step t = 0, 1, ...; None to keep the last ones.
        particles: draws a step, in one pass of `jax.vmap`.
        analytic: divergences in closed form where there is one (less noise), or all sampled.
        objective, gradient: of `objectives` or `criteria`, and `losses.estimate`: `importance_weighted`,
            `partial(free_bits, nats=1)`, `unregularized`.
        loss: one of NumPyro's own ELBOs instead (`numpyro.infer.Trace_ELBO()`, `TraceGraph_ELBO()`, ...): then
            objective, gradient, beta, warmup, particles, analytic and precision are its business and must keep their
            defaults.
        accumulate: batches whose gradients are averaged for one step.
        precision: of matrix products, `jax.default_matmul_precision`: "bfloat16" lets a device take its fastest, where
            it has such; all else is in single precision.
        compile: steps are always compiled: with True in a loop on the device, with False one by one, with "auto" in a
            loop but for programs with convolutions on a CPU, where XLA takes ten times as long for them in loops.
        validation: data of the same kind: the bound on them is recorded with every record.
        patience: stop after so many records without a better bound on the validation data, and leave the pair as it was
            at the best.
        callbacks: called with the `Run` after every record; one that returns True ends the training.
        folder: where to write checkpoint.safetensors and history.json with every record, atomically. It must not hold
            a checkpoint, but to resume; a new one is removed if there was no record.
        resume: go on from the checkpoint in the folder, if there is one, as if there had been no interruption: model,
            guide, data and arguments must be those that it was started with.
        every: steps between records, an epoch by default.
        workers: 0; batches are made on the device.
        seed: of parameters that a program draws, the noise and the shuffling; None draws one.
        progress: show a bar with loss, nll (bound) and time left.

    Returns:
        The `Run`, with the trained pair as `run.model` and `run.guide`.

    Raises:
        TypeError: data that are no arrays of rows; a loss that is no objective of NumPyro's.
        ValueError: arguments that contradict each other; workers; data that are empty or not finite, or a value in any
            row that the model does not take; a pair without parameters, in the wrong order, or with latents that are
            not reparametrized; a folder that cannot be written to, or to resume that holds another run or a damaged
            file; a loss or gradient that is not finite (the message names the first site whose term is not; that step
            is not taken, and files are left as the last record wrote them).

    >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> def model(x):
    ...     loc = numpyro.param("loc", 0.0)
    ...     with numpyro.plate("data", len(x)):
    ...         z = numpyro.sample("z", dist.Normal(loc, 1.0))
    ...         numpyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     weight = numpyro.param("weight", 0.0)
    ...     with numpyro.plate("data", len(x)):
    ...         numpyro.sample("z", dist.Normal(weight * x + numpyro.param("bias", 0.0), 0.5**0.5))
    >>> x = 3 + 2**0.5 * np.random.default_rng(0).normal(size=500)
    >>> run = fit(model, guide, x, steps=500, lr=0.03, seed=0, progress=False)
    >>> abs(run.params["loc"] - x.mean()) < 0.2, abs(run.params["weight"] - 0.5) < 0.1
    (Array(True, dtype=bool), Array(True, dtype=bool))
    """
    if workers:
        raise ValueError(f"fit: found workers={workers}, want 0: batches are made on the device here")
    settings = Settings(
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        schedule=schedule,
        weight_decay=weight_decay,
        warmup=warmup,
        beta=beta,
        clip=clip,
        skip=skip,
        ema=ema,
        particles=particles,
        analytic=analytic,
        objective=objective,
        gradient=gradient,
        loss=loss,
        accumulate=accumulate,
        precision=precision,
        patience=patience,
        every=every,
        seed=seed,
        compile=compile,
    )
    if loss is None:
        is_doubly(objective, gradient)
    else:
        check_loss(loss)
        settings.check_alone(elbo, "NumPyro")
    if patience is not None and validation is None:
        raise ValueError(f"fit: found patience={patience} without validation data, want some to judge by")
    if resume and folder is None:
        raise ValueError("fit: found resume=True without a folder, want the one to go on from")
    called = as_sequence(callbacks)
    columns = columns_of(data, "fit: data")
    held_out = None if validation is None else columns_of(validation, "fit: validation")
    run = Run(folder=None if folder is None else Path(folder))

    with prepared(run.folder, resume):
        there = run.folder is not None and resume and (run.folder / CHECKPOINT).exists()
        seed = (
            _started(run.folder, settings)
            if there
            else int(np.random.default_rng().integers(2**31))
            if seed is None
            else seed
        )
        keys = random.split(random.key(seed), 3)
        size, rows = len(columns[0]), min(batch_size, len(columns[0]))
        batch = drawn(columns, [column.values[:rows] for column in columns], keys[0])
        free, parameters = find(model, guide, batch, keys[1])
        if not jax.tree.leaves(free):
            raise ValueError("fit: model and guide have no trainable parameter; is everything frozen?")
        params = parameters.constrained(free)
        check_pair("fit", model, guide, batch, params, reparametrized=loss is None)
        for each in (columns, held_out):
            if each is not None:
                check_values("fit", model, guide, each, min(rows, len(each[0])), params)
        order = Order(size, rows, seed % 2**64)
        total = settings.total(order.per_epoch)
        every = every or min(max(order.per_epoch // accumulate, 1), total)
        known = {"data": columns, "validation": held_out} if folder is not None else {}
        about = {name: None if each is None else fingerprint(each) for name, each in known.items()}
        step = Step(model, guide, parameters, columns, settings, keys[2])
        blocks = Blocks(step, order, total)
        loop = Loop(
            blocks,
            begun(free, ema is not None),
            total,
            every,
            held_out,
            run,
            called,
            {**about, "seed": seed},
        )
        if there:
            loop.resume()
        loop(progress)
    return run


def _started(folder: Path, settings: Settings) -> int:
    """The seed of the run in a folder, whose arguments must be these."""
    about = read(folder / CHECKPOINT).about
    if about.get("backend") != "numpyro" or "seed" not in about:
        raise ValueError(f"fit: {folder} holds no training of NumPyro programs; choose another folder")
    compared(settings.to_dict(), about["settings"])
    return about["seed"]
