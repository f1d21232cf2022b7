"""`fit`: train any (model, guide) pair of NumPyro programs on any data."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Unpack

import jax
import numpy as np
from jax import random

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyGuide, AnyProgram, Place, Seed, Whole
from ppl_models.programs.doubts import mismatches
from ppl_models.programs.noise import check_shared
from ppl_models.programs.numpyro import runs
from ppl_models.programs.plates import subsampled
from ppl_models.programs.state.jax import tidied

from ...config import Config, FitConfig, FitOptions, compared, configured, shows_options
from ...display.progress import waiting
from ...objectives.bounds import is_doubly
from ...results import Callback, Run, as_sequence
from ...resuming.identity import Identity, cpus, factorization_of
from ...resuming.training_record import check_training, usable
from ...storage.changed_guides import check_evidence
from ...storage.checkpoint_file import prepared
from ...training.loop import Loop, check_call
from ...training.weighing import Weighing
from ..engine.parameters import find, of_program
from ..engine.step import Blocks, Step, begun
from ..feeding.batches import Order, columns_of, drawn, fingerprint
from ..passes.checks import Look, as_they_come, check_loss, check_states, check_values
from ..passes.losses import initial_state
from ..passes.messengers import Weighed
from .checkpoint import CHECKPOINT, read, with_constants
from .engine import NumPyroEngine
from .start import found_start

PACKAGES = "jax", "jaxlib", "numpyro", "equinox", "ppl-models"  # by whose versions a run need not come to the same bits


@shows_options
@checked
def fit(
    model: AnyProgram,
    guide: AnyGuide,
    data: Any,
    config: Config = None,
    *,
    validation: Any = None,
    callbacks: Callback | Sequence[Callback] | None = None,
    folder: Place | None = None,
    resume: bool = False,
    workers: Whole = 0,
    progress: bool = True,
    **options: Unpack[FitOptions],
) -> Run:
    """Maximize a bound of a pair by stochastic gradient steps, with one AdamW over all its parameters.

    The arguments are those of `ppl_models.inference.fit`, whose numbers it has, draw for draw. Many steps run in one
    call of the device, on data that stay there. Programs do not change: the trained ones are in the `Run`. However it
    ends, it holds the (averaged) parameters of the steps done: an error or a Ctrl-C has it as its attribute `run`.

    The loss is computed in training mode (`parts.training`), the bound on validation data in evaluation mode.

    Args:
        model, guide: any NumPyro programs with reparametrized latents (others with a `loss`); all their
            `numpyro.param`s are trained. None for the guide of a model without latents.
        data: rows, an array, a data frame of numbers, a map-style data set, which is read once, or a
            `ppl_models.data.Data`, whose noise is drawn anew for each batch; for a model of several arguments a tuple
            of such, or a dict by their names.
        config, validation, callbacks, folder, resume, progress, options: as there.
        workers: 0; batches are made on the device.

    Returns:
        The `Run`, with the trained pair as `run.model` and `run.guide`.

    Raises:
        TypeError: data that are no arrays of rows; a loss that is no objective of NumPyro's; an option that is not in
            `FitConfig`.
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
    config = configured(config, options)
    if isinstance(config.compile, str) and config.compile != "auto":
        raise ValueError(f"fit: found compile={config.compile!r}, a compiler of torch's steps; try compile=True")
    if config.loss is None:
        is_doubly(config.objective, config.gradient)
    else:
        check_loss(config.loss)
        config.check_alone("NumPyro")
    check_call(config, validation, folder, resume)
    called = as_sequence(callbacks)
    columns = columns_of(data, "fit: data", model)
    held_out = None if validation is None else columns_of(validation, "fit: validation", model)
    run = Run(folder=None if folder is None else Path(folder))

    with prepared(run.folder, resume) as notes, ExitStack() as stack, ExitStack() as looking:
        run.notes += notes
        looking.enter_context(waiting("looking at model, guide and data", progress))
        there = run.folder is not None and resume and (run.folder / CHECKPOINT).exists()
        seed = (
            _started(run.folder, config, model, guide)
            if there
            else int(np.random.default_rng().integers(2**31))
            if config.seed is None
            else config.seed
        )
        keys = random.split(random.key(seed), 3)
        size, rows = len(columns[0]), min(config.batch_size, len(columns[0]))
        batch = drawn(columns, [column.values[:rows] for column in columns], keys[0])
        free, parameters, pair = find(model, guide, batch, keys[1])
        stack.enter_context(tidied(model, guide))
        if not jax.tree.leaves(free):
            raise ValueError("fit: model and guide have no trainable parameter; is everything frozen?")
        params = parameters.constrained(free)
        without = "pass loss=numpyro.infer.TraceGraph_ELBO(), which does without"
        pair.check("fit", model, reparametrized=without if config.loss is None else None, language="numpyro")
        if config.loss is None and pair.enumerated:
            check_states("fit", model, guide, batch, params, pair)
        check_shared("fit", guide, pair.shared & {*pair.model.latents}, rows, size)
        run.notes += mismatches(pair, runs(guide, batch, params))
        for each in (columns, held_out):
            if each is not None:
                check_values(Look("fit", model, guide, each, params, pair.plate), min(rows, len(each[0])))
        order = Order(size, rows, seed % 2**64)
        prints = {"data": fingerprint(columns), "validation": None if held_out is None else fingerprint(held_out)}
        threads = cpus() if jax.default_backend() == "cpu" else None
        identity = Identity(config, factorization_of(pair), (model, guide), prints, PACKAGES, threads)
        told = pair.kl if config.loss is None else ()
        weighing = Weighing.of(pair, size)
        run.notes += weighing.notes(size, rows)
        if there:
            guide = with_constants(run.folder / CHECKPOINT, guide)
        else:
            guide, told_start = found_start(model, guide, columns, params, weighing, rows)
            run.notes += told_start
        free = of_program(free, guide)  # the same numbers, in a program that begins elsewhere
        params = parameters.constrained(free)
        drawn_by_guide = {plate.name for plate in subsampled(pair.guide)}
        numbered = pair.plate in drawn_by_guide and pair.counts(rows, size)
        states = bool(pair.enumerated)
        step = Step(model, guide, parameters, columns, config, keys[2], told, pair.plate, weighing, numbered, states)
        how = {"particles": config.particles, "analytic": config.analytic, "plate": pair.plate}
        how |= {"data_size": weighing.size, "key": keys[1], "params": params, "states": states}
        with Weighed(weighing, rows):
            first = initial_state(config.objective, model, guide, batch, **how)
        state = begun(free, config.ema is not None, told, first)
        blocks = Blocks(step, order, config.total(order.per_epoch))
        path = None if run.folder is None else run.folder / CHECKPOINT
        rest = as_they_come(Look("fit", model, guide, columns, params, pair.plate), order.per_epoch)
        of_held_out = None
        if held_out is not None:
            parts = -(-len(held_out[0]) // config.batch_size)
            of_held_out = as_they_come(Look("fit", model, guide, held_out, params, pair.plate), parts)
        engine = NumPyroEngine(blocks, state, held_out, run, path, rest, of_held_out)
        loop = Loop(engine, config, order.per_epoch, validation is not None, run, called, identity, seed, pair.shared)
        if there:
            loop.resume()
        looking.close()
        loop(progress)
    return run


def _started(folder: Path, config: FitConfig, model: Callable, guide: Callable) -> int:
    """The seed of the run in a folder, whose arguments must be these."""
    found = read(folder / CHECKPOINT)
    check_evidence(folder / CHECKPOINT, found, (model, guide))
    about = found.about
    if about.get("backend") != "numpyro" or "seed" not in about:
        raise ValueError(f"fit: {folder} holds no training of NumPyro programs; choose another folder")
    check_training(folder / CHECKPOINT, about, seed=Seed)
    with usable(folder / CHECKPOINT):
        compared(config.to_dict(), about["settings"])
    return about["seed"]
