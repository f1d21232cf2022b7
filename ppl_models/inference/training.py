"""`fit`: train any (model, guide) pair on any data."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from math import cos, inf, pi
from numbers import Integral
from pathlib import Path
from time import perf_counter
from typing import Any

import pyro
import torch
from pyro.infer.elbo import ELBO
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .batches import batches_of, columns_of, rows_of
from .checkpoint import CHECKPOINT, contents, prepared, save, write_json
from .checks import check_loss, check_pair, check_values
from .objectives import elbo
from .particles import vectorizes
from .progress import Progress
from .terms import Terms, plate_nesting, terms


@dataclass
class Run:
    """What a training left behind.

    Attributes:
        history: one record an epoch (or every `every` steps): step; loss and nll (bound), means over the steps since
            the record before in nats per datum; valid, the bound on validation data if there are any; seconds since the
            start.
        folder: where the checkpoint and the history were written, or None.
        seconds: wall-clock time of the whole training.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    folder: Path | None = None
    seconds: float = 0.0


def fit(
    model: Callable,
    guide: Callable,
    data: Any,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    batch_size: int = 128,
    lr: float = 1e-3,
    schedule: str = "cosine",
    weight_decay: float = 0.0,
    warmup: int = 0,
    clip: float | None = 100.0,
    ema: float | None = 0.999,
    particles: int = 1,
    analytic: bool = True,
    loss: ELBO | None = None,
    validation: Any = None,
    folder: str | Path | None = None,
    every: int | None = None,
    seed: int | None = None,
    progress: bool = True,
) -> Run:
    """Maximize the ELBO of a pair by stochastic gradient steps, with one fused AdamW over all its parameters.

    However it ends, by an error or Ctrl-C too, the pair is left with the (averaged) parameters of the steps done.

    Args:
        model, guide: any Pyro programs with reparametrized latents (others with a `loss`); parameters of modules and of
            `pyro.param` are trained, frozen ones (`requires_grad_(False)`) are not. For the time of the call modules
            are in training mode, a wholly frozen one in evaluation mode; for the validation all are in evaluation mode.
        data: rows, a tensor or anything with a length that tensors index (`ppl_models.data.Data`); a tuple of such for
            a model of several arguments. It is drawn from in shuffled batches, which are moved to the modules' device.
        steps, epochs: how long; exactly one of them. An epoch is `len(data) // batch_size` steps.
        batch_size: rows a step. Larger than the data: all of them, in their order.
        lr, schedule, weight_decay: of AdamW; "cosine" lets the rate fall to zero, "constant" does not.
        warmup: steps over which the weight of the divergences rises linearly from 0 to 1.
        clip: bound on the norm of the gradient, None for none.
        ema: decay of the moving average of the parameters that the pair is left with, min(ema, (1 + t) / (10 + t)) at
            step t = 0, 1, ...; None to keep the last ones.
        particles: draws a step, in one vectorized pass if the programs are right with one, else one by one.
        analytic: divergences in closed form where there is one (less noise), or all sampled.
        loss: one of Pyro's own ELBOs instead (`pyro.infer.Trace_ELBO()`, `TraceEnum_ELBO()`, ...): then warmup,
            particles and analytic are its business and must keep their defaults.
        validation: data of the same kind: the bound on them is recorded with every record.
        folder: where to write checkpoint.safetensors and history.json with every record, atomically. It must not hold
            a checkpoint; a new one is removed if there was no record.
        every: steps between records, an epoch by default.
        seed: of the noise and the shuffling; None continues the global generator.
        progress: show a bar with loss, nll (bound) and time left.

    Returns:
        The `Run`; model and guide are trained in place.

    Raises:
        TypeError: data that have no length or that tensors do not index; a loss that is no objective of Pyro's.
        ValueError: arguments that contradict each other; data that are empty or not finite, or a value in any row that
            the model does not take; a pair without parameters, in the wrong order, or with latents that are not
            reparametrized; a loss without gradients; a folder that cannot be written to; a loss or gradient that is not
            finite (the message names the first site whose term is not; that step is not taken, and files are left as
            the last record wrote them).
    """
    if (steps is None) == (epochs is None):
        raise ValueError(f"fit: found steps={steps} and epochs={epochs}, want exactly one of them")
    if schedule not in ("cosine", "constant"):
        raise ValueError(f"fit: found schedule {schedule!r}, want 'cosine' or 'constant'")
    _at_least_one(steps=steps, batch_size=batch_size, particles=particles, every=every)
    _in_range(0 < lr < inf, f"lr={lr}, want more than 0")
    _in_range(epochs is None or 0 < epochs < inf, f"epochs={epochs}, want more than 0")
    _in_range(weight_decay >= 0, f"weight_decay={weight_decay}, want at least 0")
    _in_range(warmup >= 0, f"warmup={warmup}, want a number of steps, at least 0")
    _in_range(clip is None or clip > 0, f"clip={clip}, want more than 0, or None for no bound")
    _in_range(ema is None or 0 <= ema < 1, f"ema={ema}, want 0 <= ema < 1, or None for no average")
    if loss is not None and (warmup, particles, analytic) != (0, 1, True):
        raise ValueError("fit: with a loss of Pyro's, warmup, particles and analytic are not used; set them there")
    if loss is not None:
        check_loss(loss)
    columns = columns_of(data, "fit: data")
    held_out = None if validation is None else columns_of(validation, "fit: validation")
    if seed is not None:
        pyro.set_rng_seed(seed)
    size = len(columns[0])
    batch_size = min(batch_size, size)
    per_epoch = size // batch_size
    total = steps if steps is not None else max(round(epochs * per_epoch), 1)
    every = every or min(per_epoch, total)
    programs = {name: p for name, p in (("model", model), ("guide", guide)) if isinstance(p, nn.Module)}
    run = Run(folder=None if folder is None else Path(folder))
    start = perf_counter()

    with prepared(run.folder):
        with _mode(programs.values(), training=False):  # looking does not move running statistics
            device = next((p.device for program in programs.values() for p in program.parameters()), None)
            batches = batches_of(columns, batch_size, device)
            example = next(batches)
            check_pair("fit", model, guide, example, reparametrized=loss is None)
            # with Pyro's validation on: bad data speak up here, once; a loss of Pyro's finds its own nesting
            nesting = plate_nesting(model, guide, example, {}) if loss is None else None
            saved = contents(model, guide, example)
            params = _trainable(saved)
            for rows in (columns, held_out):
                if rows is not None:
                    check_values(model, guide, rows, min(batch_size, len(rows[0])), device)
            passes, draws = 1, particles
            if particles > 1:
                with torch.no_grad():
                    if vectorizes(model, guide, example, nesting) is not None:
                        passes, draws = particles, 1
        averaged = [p.detach().clone() for p in params] if ema is not None else []
        optimizer = torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay, fused=True)
        sums, since = torch.zeros(2, device=params[0].device), 0
        training, averaging = _mode(programs.values(), training=True), _averaged_at_last(params, averaged)

        with training, averaging, pyro.validation_enabled(False), Progress(total, progress) as bar:
            for step in range(total):
                batch = example if step == 0 else next(batches)
                for group in optimizer.param_groups:
                    group["lr"] = lr * (0.5 * (1 + cos(pi * step / total)) if schedule == "cosine" else 1.0)
                found: list[Terms] = []
                if loss is None:
                    beta = min(1.0, (step + 1) / warmup) if warmup else 1.0
                    found = [terms(model, guide, batch, None, draws, nesting, analytic) for _ in range(passes)]
                    value = -sum(elbo(f, beta, size) for f in found) / passes
                    nll = value if beta == 1 else -sum(elbo(f, 1.0, size) for f in found) / passes
                else:
                    value = nll = loss.differentiable_loss(model, guide, *batch) / len(batch[0])
                optimizer.zero_grad(set_to_none=True)
                if not value.requires_grad:
                    raise ValueError("fit: the loss depends on no trainable parameter; is all that it reads frozen?")
                value.backward()
                norm = nn.utils.clip_grad_norm_(params, inf if clip is None else clip)
                if not torch.isfinite(value + norm):
                    raise ValueError(_diagnose(step, value, found, batch))
                optimizer.step()
                if averaged:
                    get_ema_multi_avg_fn(min(ema, (1 + step) / (10 + step)))(averaged, params, step)
                sums, since = sums + torch.stack([value.detach(), nll.detach()]), since + 1
                if bar.due(step + 1):
                    bar.advance(step + 1, *(sums / since).tolist())
                if (step + 1) % every == 0 or step + 1 == total:
                    record = dict(zip(("loss", "nll"), (sums / since).tolist(), strict=True))
                    sums, since = torch.zeros_like(sums), 0
                    with _swapped(params, averaged):
                        if held_out is not None:
                            with _mode(programs.values(), training=False):
                                record["valid"] = _bound(model, guide, held_out, batch_size, device, loss)
                        run.history.append({"step": step + 1, **record, "seconds": perf_counter() - start})
                        if run.folder is not None:
                            save(run.folder / CHECKPOINT, saved)
                            write_json(run.folder / "history.json", {"history": run.history})
    run.seconds = perf_counter() - start
    return run


def _at_least_one(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and (not isinstance(value, Integral) or value < 1):
            raise ValueError(f"fit: found {name}={value}, want an integer of at least 1")


def _in_range(good: bool, text: str) -> None:
    if not good:
        raise ValueError(f"fit: found {text}")


def _trainable(saved: Mapping[str, Any]) -> list[Tensor]:
    """Every trainable tensor of what a checkpoint keeps, once."""
    held = [p.parameters() if isinstance(p, nn.Module) else p.values() for p in saved.values()]
    params = [p for p in dict.fromkeys(chain.from_iterable(held)) if p.requires_grad]
    if not params:
        raise ValueError("fit: model and guide have no trainable parameter; is everything frozen?")
    return params


@contextmanager
def _mode(programs: Iterable[nn.Module], training: bool) -> Iterator[None]:
    """Inside, programs are in this mode (a wholly frozen one never trains); outside, every module in its own again."""
    before = {module: module.training for program in programs for module in program.modules()}
    for program in programs:
        program.train(training and any(p.requires_grad for p in program.parameters()))
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


@contextmanager
def _averaged_at_last(params: list[Tensor], averaged: list[Tensor]) -> Iterator[None]:
    """The parameters end as their moving averages, if there are any, however the block ends."""
    try:
        yield
    finally:
        _swap(params, averaged)


@contextmanager
def _swapped(params: list[Tensor], averaged: list[Tensor]) -> Iterator[None]:
    """Inside, the parameters hold their moving averages, if there are any; outside, their own values again."""
    _swap(params, averaged)
    try:
        yield
    finally:
        _swap(params, averaged)


@torch.no_grad()
def _swap(params: list[Tensor], averaged: list[Tensor]) -> None:
    for p, average in zip(params, averaged, strict=False):  # no averages: nothing to do
        kept = p.clone()
        p.copy_(average)
        average.copy_(kept)


@torch.no_grad()
def _bound(
    model: Callable,
    guide: Callable,
    columns: Sequence[Any],
    batch_size: int,
    device: torch.device | None,
    loss: ELBO | None,
) -> float:
    """Mean negative ELBO over data, one draw each, or the mean of Pyro's `loss`."""
    size, total = len(columns[0]), 0.0
    for i in range(0, size, batch_size):
        batch = rows_of(columns, slice(i, i + batch_size), device)
        if loss is None:
            total -= elbo(terms(model, guide, batch), data_size=size).item() * len(batch[0])
        else:
            total += float(loss.loss(model, guide, *batch))
    return total / size


def _diagnose(step: int, value: Tensor, found: Sequence[Terms], batch: Sequence[Any]) -> str:
    """What is not finite: the data of the batch, a term of the loss, or the gradient alone."""
    finite = bool(torch.isfinite(value))
    text = f"fit: the {'gradient is not finite' if finite else f'loss is {value.item()}'} at step {step + 1}"
    if not all(torch.isfinite(x).all() for x in batch if isinstance(x, Tensor)):
        return text + ": the batch has NaN or infinite values; look at the data and their transform"
    sites = [(f"divergence of site {n!r}", t) for f in found for n, t in f.kl.items()]
    sites += [(f"log p of the observed site {n!r}", t) for f in found for n, t in f.log_likelihood.items()]
    bad = [name for name, t in sites if not torch.isfinite(t).all()]
    if bad:
        text += f"; the first term that is not finite is the {bad[0]}"
    return text + "; try a smaller lr, clip=1, or warmup, and look at the data"
