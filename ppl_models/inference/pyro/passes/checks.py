"""`check_values`: score rows before the work starts, `as_they_come` the others; and checks of a loss of Pyro's."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.infer.elbo import ELBO
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger

from ppl_models.programs.pyro import nodes_of
from ppl_models.programs.rows import AsTheyCome, starts
from ppl_models.programs.state.torch import modules_of

from ...config import check_instance
from ...objectives.stateful import has_state
from ..feeding.columns import Columns
from ..sites.rounding import rounded
from .terms import run_pair

CHUNK, MOST = 1000, 50_000  # rows of a run, and rows that are looked at before the work


def check_loss(loss: Any) -> None:
    """Raise unless `loss` is one of Pyro's objectives that gradients can be taken of.

    Raises:
        TypeError: a class in place of an instance, or no objective of Pyro's.
        ValueError: an objective without `differentiable_loss`.
    """
    working = "Trace_ELBO, TraceMeanField_ELBO and TraceEnum_ELBO work"
    check_instance(loss, ELBO, "Pyro", working)
    if has_state(getattr(loss, "objective", None)):
        raise ValueError(
            "fit: found a Loss of an objective with state, which no checkpoint would keep, want the objective itself; "
            "try objective= in place of loss="
        )
    if not callable(getattr(loss, "differentiable_loss", None)):
        raise ValueError(f"fit: loss {type(loss).__name__} has no differentiable_loss; {working}")


def check_enumeration(loss: Any, guide: Callable) -> None:
    """Raise ValueError for `TraceEnum_ELBO` with a guide that runs the model: Pyro enumerates without."""
    if isinstance(loss, TraceEnum_ELBO) and isinstance(poutine.unwrap(guide), Messenger):
        raise ValueError(
            f"fit: TraceEnum_ELBO takes no guide that runs the model, as {type(guide).__name__} does; take one in an "
            "order of its own (BottomUp), or Trace_ELBO()"
        )


def check_values(model: Callable, guide: Callable, data: Columns, size: int, device: torch.device | None) -> None:
    """Score rows once, so that a wrong value speaks up before the first step: every row, or of many `MOST` of them.

    The model alone runs on chunks of rows with latents of its prior, and only what it observes is scored. If that
    fails, by a wrong value, a model of one fixed size or a wild draw of the prior, the pair runs as in the work to come
    and what it raises is the answer. Nothing is looked at while Pyro's validation is off, and of data that are neither
    tensors nor `Data` only the first chunk; the global generator is as before afterwards.

    Args:
        model, guide: the pair, in evaluation mode.
        data: all the rows; of many, chunks from the first to the last of them.
        size: rows of a batch of the work to come.
        device: where the rows go.

    Raises:
        ValueError: a value outside the support of its distribution; what the programs themselves raise.
    """
    if not torch.distributions.Distribution._validate_args:
        return
    n = data.size if data.known else min(data.size, max(size, CHUNK))

    def chunks(rows: int, whole: bool) -> Iterator[tuple[Any, ...]]:
        for i in starts(n, rows, MOST):
            i = max(min(i, n - rows), 0) if whole else i  # no rest of another size
            yield data.rows(slice(i, min(i + rows, n)), device)

    _look(model, guide, chunks(CHUNK, False), lambda: chunks(size, True), device)


def as_they_come(
    model: Callable, guide: Callable, data: Columns, batches: int, device: torch.device | None
) -> AsTheyCome:
    """A look at the rows that `check_values` left out, as `check_values` has it, when they come to be used.

    Args:
        model, guide, device: the pair and where it computes.
        data: all the rows.
        batches: after how many batches each row has come once.
    """
    width = len(data.columns)  # less the numbers of the rows
    wanted = data.known and data.size > MOST and torch.distributions.Distribution._validate_args

    def look(held: list[Sequence[Any]]) -> None:
        parts = [tuple(batch[:width]) for batch in held]
        with evaluating(model, guide), pyro.validation_enabled(True):
            whole = tuple(torch.cat(column) for column in zip(*parts, strict=True))
            _look(model, guide, [whole], lambda: parts, device)

    return AsTheyCome(look, CHUNK, batches if wanted else 0)


def _look(
    model: Callable,
    guide: Callable,
    chunks: Iterable[tuple[Any, ...]],
    batches: Callable[[], Iterable[tuple[Any, ...]]],
    device: torch.device | None,
) -> None:
    with forked([device]), torch.no_grad(), poutine.block(), rounded():
        try:
            for chunk in chunks:
                with poutine.trace() as capture:
                    model(*chunk)
                _score(capture.trace)
        except Exception:  # noqa: BLE001 (what it means, the pair will tell)
            for batch in batches():
                _score(run_pair(model, guide, batch, {})[0])


def _score(trace: Trace) -> None:
    for node in nodes_of(trace, "observed").values():
        fn, value = node["fn"], node["value"]
        # a density of all rows may cost a network's pass over each: such a distribution offers to look at values alone
        getattr(fn, "check_value", fn.log_prob)(value)


def forked(places: Iterable[Any]) -> Any:
    """The global generators, of the CPU and of the CUDA devices among tensors or devices, as before afterwards."""
    found = [getattr(place, "device", place) for place in places]
    return torch.random.fork_rng({d for d in found if isinstance(d, torch.device) and d.type == "cuda"})


@contextmanager
def evaluating(*programs: Any) -> Iterator[None]:
    """Inside, the modules of programs are in evaluation mode, and outside each in its own again.

    Looking moves no running statistics then. The modules are those that programs are or hold (`modules_of`). Simplexes
    may be `rounded`.
    """
    modes = {m: m.training for module in modules_of(*programs) for m in module.modules()}
    for module in modes:
        module.training = False
    try:
        with rounded():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
