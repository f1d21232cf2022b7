"""`pair_info(model, guide, args)`: run a pair once and record all that a training or an evaluation must know of it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.params.param_store import _MODULE_NAMESPACE_DIVIDER as OF_MODULE
from pyro.poutine import Trace
from torch import Tensor, nn

from ppl_models.programs.arguments import refuse_call
from ppl_models.programs.pairs import Pair
from ppl_models.programs.plates import data_plate
from ppl_models.programs.pyro import read
from ppl_models.programs.rows import fits, rows_in
from ppl_models.programs.state.torch import modules_of

from ...objectives.finite import counted, infinite_terms, refuse
from ...objectives.states import refuse_trial
from ..sites.rounding import rounded
from .checks import forked
from .enumerated import with_states
from .messengers import Drawing
from .particles import broadcasts, vectorizes
from .rows import made_for, refuse_others, refuse_unsized_plates
from .terms import Terms, collect, run_pair, terms

ENUMERATE = "which does without, or sum a discrete site out with TraceEnum_ELBO"


@dataclass(frozen=True)
class PairInfo:
    """One run of a pair: it holds all that the run has computed, so keep `how` and let it go.

    Attributes:
        pair: the records.
        traces: of model and guide.
        params: what the programs have in Pyro's param store, by name: unconstrained values that share its memory.
        ran: the modules that were run.
        particles, passes: draws in one pass, and how many such passes make up the draws of a step.
    """

    pair: Pair
    traces: tuple[Trace, Trace]
    params: dict[str, Tensor]
    ran: Drawing
    particles: int = 1
    passes: int = 1

    @property
    def how(self) -> dict[str, Any]:
        """The arguments of `losses.estimate` that depend on the pair."""
        split = {"particles": self.particles, "passes": self.passes}
        how = {**split, "nesting": self.pair.nesting, "plate": self.pair.plate}
        return {**how, "states": True} if self.pair.enumerated else how

    @property
    def terms(self) -> Terms:
        """Those of the run, no divergence in closed form."""
        return collect(*self.traces, None, False, self.pair.plate)


def pair_info(
    asks: str,
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    particles: int = 1,
    inner: int = 1,
    observes: bool = True,
    paired: bool = True,
    reparametrized: bool = False,
    sums: bool = False,
) -> PairInfo:
    """Run a pair on a batch, with Pyro's validation as it is: wrong data speak up here.

    The global generators are as before afterwards.

    Args:
        asks: the function that asks, what an error starts with: "fit".
        model, guide: the pair.
        args, kwargs: the arguments of both, a batch.
        particles: draws of a step, in one pass if the programs are right with one (`vectorizes`), else one by one.
        inner: of all latents but the guide's first, for each of these (`terms`); each has a pass then.
        observes: whether the model must observe something.
        paired: whether the guide must draw what the model draws, as it need not where sites are summed out.
        reparametrized: whether every latent of the guide must be, as the pathwise gradient wants it.
        sums: sum out what the model enumerates and the guide does not draw.

    Raises:
        ValueError: a model that observes nothing, a guide that observes something (they may be swapped), that lacks a
            site of the model or has one too many, or a latent that is not reparametrized; the message names the site.
            A pair that was made for another number of rows. Inner draws of a pair that is not right with them.
    """
    kwargs = kwargs or {}
    given = [*args, *kwargs.values()]
    with forked(given), torch.no_grad(), poutine.block(), rounded():
        traces, params, ran, pair = _seen(asks, model, guide, args, kwargs, sums)
        instead = f"pass loss=pyro.infer.Trace_ELBO(), {ENUMERATE}" if reparametrized else None
        pair.check(asks, model, observes=observes, paired=paired, reparametrized=instead)
        found = PairInfo(pair, traces, params, ran, 1, particles)
        if reparametrized and pair.enumerated and not kwargs:
            reason = broadcasts(model, guide, args, pair.nesting, pair.plate, traces)
            if reason is not None:
                refuse_trial(asks, pair.enumerated, reason)
        if inner > 1:
            reason = "they are given keyword arguments"
            if not kwargs:
                reason = vectorizes(model, guide, args, pair.nesting, plate=pair.plate, single=traces, inner=True)
            if reason is not None:
                raise ValueError(f"{asks}: found an objective of {inner} inner draws, but {reason}; try inner=1")
        elif particles > 1 and not kwargs:
            reason = vectorizes(model, guide, args, pair.nesting, plate=pair.plate, single=traces)
            if reason is None:
                found = replace(found, particles=particles, passes=1)
    return found


def first_look(
    asks: str,
    model: Callable,
    guide: Callable,
    rows: Callable[[int], tuple[Any, ...]],
    n: int,
    most: int,
    sums: bool = False,
) -> tuple[PairInfo, tuple[Any, ...]]:
    """(`pair_info`, the rows that it is of): the first ones, or all of them for a pair that takes no fewer.

    Args:
        asks, model, guide, sums: see `pair_info`.
        rows: gives so many of the first rows, a tuple of arguments.
        n: how many there are.
        most: how many of them are enough.
    """
    batch = rows(min(n, most))
    try:
        return pair_info(asks, model, guide, batch, sums=sums), batch
    except Exception:
        if n <= most or (made_for(model, guide, batch) or ("", 0))[1] != n:
            raise
    whole = rows(n)
    return pair_info(asks, model, guide, whole, sums=sums), whole


def _seen(
    asks: str, model: Callable, guide: Callable, args: Sequence[Any], kwargs: Mapping[str, Any], sums: bool
) -> tuple[tuple[Trace, Trace], dict[str, Tensor], Drawing, Pair]:
    """(traces, params, what was called, record) of a run; if it fails, it is asked if the number of rows is why."""
    try:
        traces, params, ran = run_with_params(model, guide, args, kwargs, sums, asks)
    except Exception as error:
        refuse_unsized_plates(asks, guide)
        if not kwargs:
            refuse_others(asks, model, guide, args)
        _refuse_infinite(asks, error, model, guide, args, kwargs)
        raise
    of_model, of_guide = map(read, traces)
    data = data_plate(with_states(of_model) if sums else of_model, next(iter([*args, *kwargs.values()]), None))
    pair = Pair(of_model, of_guide, data)
    if not kwargs and not fits((pair.model, pair.guide), rows_in(args)):
        refuse_others(asks, model, guide, args)
    return traces, params, ran, pair


def _refuse_infinite(
    asks: str, error: Exception, model: Callable, guide: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Raise ValueError for a distribution that torch refused for its parameters, which it would print whole."""
    if not isinstance(error, ValueError) or not str(error).startswith("Expected parameter"):
        return
    counts: dict[str, int] = {}
    with pyro.validation_enabled(False), suppress(Exception):
        found = terms(model, guide, args, kwargs)
        counts = counted(infinite_terms(found))
    if any(counts.values()):
        refuse(asks, {}, counts, found.seen)
    what = " ".join(str(error).partition(", but found")[0].split())
    raise ValueError(f"{asks}: a distribution of the programs has other parameters than it takes: {what}") from error


def run_with_params(
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    sums: bool = False,
    asks: str = "contents",
) -> tuple[tuple[Trace, Trace], dict[str, Tensor], Drawing]:
    """((model trace, guide trace), `PairInfo.params`, `PairInfo.ran`) of a run that nothing else sees.

    Raises:
        ValueError: see `run_pair`.
    """
    if not kwargs:
        refuse_call(asks, model, guide, args, None)
    with torch.no_grad(), poutine.block(), poutine.trace() as capture, poutine.block(expose_types=["param"]):
        with Drawing() as ran:
            pair = run_pair(model, guide, args, kwargs, sums)
    nodes = {name: node for name, node in capture.trace.nodes.items() if node["type"] == "param"}
    values = {name: node["value"] for name, node in nodes.items()}
    params = {name: v.unconstrained() if hasattr(v, "unconstrained") else v for name, v in values.items()}
    return pair, params | _shadowed(nodes, params, (model, guide, *ran.called)), ran


def _shadowed(
    nodes: Mapping[str, Mapping[str, Any]], params: Mapping[str, Tensor], programs: Sequence[Any]
) -> dict[str, Tensor]:
    """The modules' own parameters where Pyro's store has others of the same names, of an earlier pair of the process.

    `pyro.module` and a `PyroModule` register theirs, and do not read what the store gives back for them.
    """
    given = {name: node["args"][1] for name, node in nodes.items() if len(node["args"]) > 1}
    given = {name: p for name, p in given.items() if isinstance(p, nn.Parameter) and params[name] is not p}
    if not given:
        return {}
    parts = {part for module in modules_of(*programs) for part in module.modules()}
    holders = {p: part for part in parts for p in part.parameters(recurse=False)}
    return {
        name: p
        for name, p in given.items()
        if p in holders and (OF_MODULE in name or isinstance(holders[p], PyroModule))
    }
