"""`fit`: train any (model, guide) pair on any data."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import cos, pi
from pathlib import Path
from time import perf_counter
from typing import Any

import pyro
import torch
from pyro.infer.elbo import ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .checkpoint import save, write_json
from .objectives import elbo, plate_nesting, terms
from .progress import Progress


@dataclass
class Run:
    """What a training left behind.

    Attributes:
        history: one record an epoch (or every `every` steps): step, loss, nll (bound, nats per datum), seconds, and
            valid (the bound on the validation data) where there are any.
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

    Args:
        model, guide: any Pyro programs with reparametrized latents; parameters of modules and of `pyro.param` are
            trained, frozen ones (`requires_grad_(False)`) are not.
        data: rows, a tensor or anything with a length that tensors index (`ppl_models.data.Data`); a tuple of such for a
            model of several arguments. It is drawn from in shuffled batches, on the device where it lies.
        steps, epochs: how long; exactly one of them.
        batch_size: rows a step. Larger than the data: all of them, in their order.
        lr, schedule, weight_decay: of AdamW; "cosine" lets the rate fall to zero, "constant" does not.
        warmup: steps over which the weight of the divergences rises linearly from 0 to 1.
        clip: bound on the norm of the gradient, None for none.
        ema: decay of the moving average of the parameters that the pair is left with; None to keep the last ones.
        particles: draws a step, in one vectorized pass.
        analytic: divergences in closed form where there is one (less noise), or all sampled.
        loss: one of Pyro's own ELBOs instead (`pyro.infer.Trace_ELBO()`, ...): then warmup, particles and analytic
            are its business and must keep their defaults.
        validation: data of the same kind: the bound on them is recorded with every record.
        folder: where to write checkpoint.safetensors and history.json with every record, atomically.
        every: steps between records, an epoch by default.
        seed: of the noise and the shuffling; None continues the global generator.
        progress: show a bar with loss, nll (bound) and time left.

    Returns:
        The `Run`; model and guide are trained in place.

    Raises:
        ValueError: arguments that contradict each other; empty data; a pair without parameters; a loss that is not
            finite (the message names the first site whose term is not, and nothing is written).
    """
    if (steps is None) == (epochs is None):
        raise ValueError(f"fit: found steps={steps} and epochs={epochs}, want exactly one of them")
    if schedule not in ("cosine", "constant"):
        raise ValueError(f"fit: found schedule {schedule!r}, want 'cosine' or 'constant'")
    if loss is not None and (warmup, particles, analytic) != (0, 1, True):
        raise ValueError("fit: with a loss of Pyro's, warmup, particles and analytic are not used; set them there")
    columns = data if isinstance(data, tuple) else (data,)
    size = len(columns[0])
    if size == 0 or any(len(column) != size for column in columns):
        raise ValueError(f"fit: found data of length {[len(c) for c in columns]}, want equal lengths of at least 1")
    if batch_size < 1 or particles < 1 or (steps or 1) < 1 or (epochs or 1) <= 0:
        raise ValueError(f"fit: batch_size={batch_size}, particles={particles}, steps={steps}, epochs={epochs}: want >= 1")
    if seed is not None:
        pyro.set_rng_seed(seed)
    batch_size = min(batch_size, size)
    per_epoch = size // batch_size
    total = steps if steps is not None else max(round(epochs * per_epoch), 1)
    every = every or min(per_epoch, total)

    batches = _batches(columns, size, batch_size)
    example = next(batches)
    nesting = plate_nesting(model, guide, example, {})  # with Pyro's validation on: bad data speak up here, once
    params = _parameters(model, guide, example)
    optimizer = torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay, fused=True)
    averaged = [p.detach().clone() for p in params] if ema else []
    run = Run(folder=None if folder is None else Path(folder))
    modules = {name: m for name, m in (("model", model), ("guide", guide)) if isinstance(m, nn.Module)}
    for module in modules.values():
        module.train()

    start, sums, since = perf_counter(), torch.zeros(2), 0
    with pyro.validation_enabled(False), Progress(total, enabled=progress) as bar:
        for step in range(total):
            batch = example if step == 0 else next(batches)
            for group in optimizer.param_groups:
                group["lr"] = lr * (0.5 * (1 + cos(pi * step / total)) if schedule == "cosine" else 1.0)
            beta = min(1.0, (step + 1) / warmup) if warmup else 1.0
            if loss is None:
                found = terms(model, guide, batch, particles=particles, nesting=nesting, analytic=analytic)
                value = -elbo(found, beta, size)
                nll = value if beta == 1 else -elbo(found, 1.0, size)
            else:
                found = None
                value = nll = loss.differentiable_loss(model, guide, *batch) / len(batch[0])
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            if not torch.isfinite(value):
                raise ValueError(_diagnose(step, value, found))
            if clip is not None:
                nn.utils.clip_grad_norm_(params, clip)
            optimizer.step()
            if averaged:
                get_ema_multi_avg_fn(min(ema, (1 + step) / (10 + step)))(averaged, params, step)
            sums, since = sums + torch.stack([value.detach(), nll.detach()]).cpu(), since + 1
            bar.advance(step + 1, *(sums / since).tolist())
            if (step + 1) % every == 0 or step + 1 == total:
                record = {"step": step + 1, "loss": sums[0].item() / since, "nll": sums[1].item() / since}
                sums, since = torch.zeros(2), 0
                with _swapped(params, averaged):
                    if validation is not None:
                        record["valid"] = _bound(model, guide, validation, batch_size)
                    record["seconds"] = perf_counter() - start
                    run.history.append(record)
                    if run.folder is not None:
                        run.folder.mkdir(parents=True, exist_ok=True)
                        save(run.folder / "checkpoint.safetensors", modules)
                        write_json(run.folder / "history.json", {"history": run.history})
    with torch.no_grad():
        for p, average in zip(params, averaged, strict=False):
            p.copy_(average)
    for module in modules.values():
        module.eval()
    run.seconds = perf_counter() - start
    return run


def _batches(columns: Sequence[Any], size: int, batch_size: int) -> Iterator[tuple[Any, ...]]:
    """Shuffled batches without end; the rest of an epoch that fills no batch is left for the next shuffle."""
    while True:
        order = torch.randperm(size) if batch_size < size else torch.arange(size)
        for i in range(0, size - batch_size + 1, batch_size):
            yield tuple(column[order[i : i + batch_size]] for column in columns)


def _parameters(model: Callable, guide: Callable, batch: Sequence[Any]) -> list[Tensor]:
    """Every trainable tensor of the pair: of modules, and of `pyro.param` and `pyro.module` in plain functions."""
    found: dict[int, Tensor] = {}
    for program in (model, guide):
        if isinstance(program, nn.Module):
            found |= {id(p): p for p in program.parameters()}
    with _ParamSites() as sites, torch.no_grad():
        terms(model, guide, batch)
    for value in sites.values:
        value = value.unconstrained() if hasattr(value, "unconstrained") else value
        found[id(value)] = value
    params = [p for p in found.values() if p.requires_grad]
    if not params:
        raise ValueError("fit: model and guide have no trainable parameter; is everything frozen?")
    return params


class _ParamSites(Messenger):
    """Collects the values of param sites. Not a trace: that would want unique names of sample sites as well."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Tensor] = []

    def _pyro_post_param(self, msg: dict) -> None:
        self.values.append(msg["value"])


class _swapped:
    """Inside, the parameters hold their moving averages; outside, their own values again."""

    def __init__(self, params: list[Tensor], averaged: list[Tensor]) -> None:
        self.pairs = list(zip(params, averaged, strict=False))

    def _swap(self) -> None:
        with torch.no_grad():
            for p, average in self.pairs:
                kept = p.clone()
                p.copy_(average)
                average.copy_(kept)

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()


def _bound(model: Callable, guide: Callable, data: Any, batch_size: int) -> float:
    """Mean negative ELBO over data, one draw each."""
    columns = data if isinstance(data, tuple) else (data,)
    size, total = len(columns[0]), 0.0
    with torch.no_grad():
        for i in range(0, size, batch_size):
            batch = tuple(column[i : i + batch_size] for column in columns)
            total -= elbo(terms(model, guide, batch), data_size=size).item() * len(batch[0])
    return total / size


def _diagnose(step: int, value: Tensor, found: Any) -> str:
    text = f"fit: the loss is {value.item()} at step {step + 1}"
    if found is not None:
        sites = [(f"log p of the observed site {n!r}", t) for n, t in found.log_likelihood.items()]
        sites = [(f"divergence of site {n!r}", t) for n, t in found.kl.items()] + sites
        bad = [name for name, t in sites if not torch.isfinite(t).all()]
        if bad:
            text += f"; the first term that is not finite is the {bad[0]}"
    return text + "; try a smaller lr, clip=1, or warmup, and look at the data"


