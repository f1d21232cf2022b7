"""Draws of pairs of Pyro programs; see `draws`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from ppl_models.inference.pyro.feeding.columns import stored
from ppl_models.inference.pyro.passes.checks import evaluating, forked
from ppl_models.inference.pyro.passes.messengers import Redraw, Substitute
from ppl_models.inference.pyro.passes.pair_info import pair_info
from ppl_models.inference.pyro.passes.particles import vectorizes
from ppl_models.inference.pyro.passes.rows import check_rows
from ppl_models.inference.pyro.passes.terms import Terms, collect, traces
from ppl_models.programs.doubts import mismatches, weighed
from ppl_models.programs.pairs import PROPER, Undrawn
from ppl_models.programs.pyro import PARTICLES, Drawable, as_tensors, kind_of, nodes_of, run as run_program, to_numpy
from ppl_models.programs.record import COMPUTED
from ppl_models.programs.state.torch import modules_of

from .draws import NARROW, UNDRAWN, Arrays, Dims, Draws, constants, gather, named_arguments

Values = dict[str, Tensor]


def draw(
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    draws: int,
    rows: int,
    seed: int | None,
    groups: Collection[str],
) -> Draws:
    """Draw from a pair; see `arviz.to_arviz` for the arguments. The global generator goes on where no seed is given."""
    tensors = chain(*(chain(m.parameters(), m.buffers()) for m in modules_of(model, guide)))
    places = list(dict.fromkeys(t.device for t in tensors))
    with nullcontext() if seed is None else forked(places), torch.no_grad(), evaluating(model, guide):
        if seed is not None:
            torch.manual_seed(seed)
        args = as_tensors(args, "to_arviz", model)
        return _draw(model, guide, [_whole(arg, places[:1]) for arg in args], draws, rows, groups)


def _draw(
    model: Callable, guide: Callable, args: Sequence[Any], draws: int, rows: int, groups: Collection[str]
) -> Draws:
    info = pair_info("to_arviz", model, guide, args)  # with Pyro's validation on: bad data speak up here
    run, terms, nesting, plate = info.pair.model, info.terms, info.pair.nesting, info.pair.plate
    check_rows("to_arviz", model, guide, args, info.pair)
    with forked(args):
        doubts = [*mismatches(info.pair, partial(run_program, guide, args)), *weighed(info.pair)]
    dims = {name: Dims.of(site) for name, site in {**run.latents, **run.observed, **run.computed}.items()}
    observed = {name: dims[name].arrange(to_numpy(site.value)[None])[0] for name, site in run.observed.items()}
    reason = None
    if draws > 1:
        reason = vectorizes(model, guide, args, nesting, plate=plate, single=info.traces)
        reason = reason or _computed_differs(model, guide, args, nesting, dims)
    pair = _Pair(model, guide, args, dims, terms.shared, groups, plate)
    with pyro.validation_enabled(False):
        if reason is None:
            at_once = max(1, rows // max(terms.seen, 1))
            found = gather(lambda count: pair.run(count, -1 - nesting), draws, at_once)
        else:
            found = gather(lambda count: pair.run(1, None), draws, 1)
    densities = found.pop("densities")
    return Draws(
        found,
        densities["log_p"],
        densities["log_q"],
        observed,
        constants(named_arguments(model, args, _array), observed),
        dims,
        info.pair.data,
        ("pyro", pyro.__version__),
        [note for note in (reason and f"draws made one by one: {reason}", pair.left_out) if note],
        doubts,
    )


class _Pair:
    """A pair that draws, several at once in a plate left of all others, or one."""

    def __init__(
        self,
        model: Callable,
        guide: Callable,
        args: Sequence[Any],
        dims: Mapping[str, Dims],
        shared: frozenset[str],
        groups: Collection[str],
        plate: str,
    ) -> None:
        self.model, self.guide, self.args, self.plate = model, guide, args, plate
        self.dims, self.shared, self.groups = dims, shared, groups
        self.left_out: str | None = None

    def run(self, count: int, dim: int | None) -> dict[str, Arrays]:
        """Groups of that many draws, and their densities."""

        def plate() -> Any:
            return nullcontext() if dim is None else pyro.plate(PARTICLES, count, dim=dim)

        with plate():
            model_trace, guide_trace, _ = traces(self.model, self.guide, self.args, {})
        terms = collect(model_trace, guide_trace, dim, False, self.plate)
        values = {name: node["value"] for name, node in nodes_of(model_trace, "latent").items()}
        found = {"posterior": self.arrays(model_trace, count, dim, observed=False)}
        seen = nodes_of(model_trace, "observed")
        found["log_likelihood"] = {name: self.per_datum(terms.log_likelihood[name], count, name) for name in seen}
        found["densities"] = self.densities(terms, count)
        if "posterior_predictive" in self.groups:
            trace = self.predicted(plate, values)
            found["posterior_predictive"] = self.arrays(trace, count, dim, observed=True)
        if self.groups & {"prior", "prior_predictive"}:
            trace = self.predicted(plate, {})
            found["prior"] = self.arrays(trace, count, dim, observed=False)
            found["prior_predictive"] = self.arrays(trace, count, dim, observed=True)
        return found if self.left_out is None else {g: v for g, v in found.items() if "predictive" not in g}

    def predicted(self, plate: Callable, values: Values) -> Trace:
        """A run that draws what is observed anew; where that cannot be drawn it stays, and `left_out` says so."""
        if self.left_out is None:
            try:
                with Drawable(*UNDRAWN), poutine.trace() as capture, plate(), Substitute(values), Redraw(NARROW):
                    self.model(*self.args)
                return capture.trace
            except Undrawn as error:
                self.left_out = str(error)
        with Drawable("to_arviz", PROPER), poutine.trace() as capture, plate(), Substitute(values):
            self.model(*self.args)
        return capture.trace

    def arrays(self, trace: Trace, count: int, dim: int | None, observed: bool) -> Arrays:
        """The values of a trace that were drawn or computed, or else the data."""
        found = {}
        for name, node in trace.nodes.items():
            if name in self.dims and ("redrawn" in node["infer"] or kind_of(node) == "observed") == observed:
                own = self.dims[name]
                found[name] = own.arrange(to_numpy(_by_draw(name, node["value"], count, dim, own)))
        return found

    def per_datum(self, term: Tensor, count: int, *names: str) -> np.ndarray:
        """(count, n), or (count,) for what is outside the data plate."""
        array = to_numpy(term.expand(count, term.shape[1]))
        return array[:, 0] if set(names) <= self.shared else array

    def densities(self, terms: Terms, count: int) -> Arrays:
        """log p(x, z) and log q(z | x) of each datum, or of all of them where they share something."""

        def total(tables: Sequence[Mapping[str, Tensor]]) -> np.ndarray:
            found = [table[name] for table in tables for name in table]
            if self.shared:
                return to_numpy(sum(t.sum(1).expand(count) for t in found))
            return to_numpy(sum(t.expand(count, t.shape[1]) for t in found))

        return {"log_p": total([terms.log_likelihood, terms.log_p]), "log_q": total([terms.log_q])}


def _computed_differs(
    model: Callable, guide: Callable, args: Sequence[Any], nesting: int, dims: Mapping[str, Dims]
) -> str | None:
    """The reason why deterministic sites are not to be computed for many draws at once, None if there is none."""
    count, dim = 3, -1 - nesting
    with pyro.plate(PARTICLES, count, dim=dim):
        together, _, _ = traces(model, guide, args, {})
    computed = nodes_of(together, *COMPUTED)
    try:
        many = {n: _by_draw(n, together.nodes[n]["value"], count, dim, dims[n]) for n in dims}
    except ValueError as error:
        return str(error)
    for k in range(count if computed else 0):
        with Substitute({name: many[name][k] for name in nodes_of(together, "latent")}):
            with poutine.trace() as capture:
                model(*args)
        for name in computed:
            if not torch.allclose(many[name][k], capture.trace.nodes[name]["value"], 1e-3, 1e-3, equal_nan=True):
                return f"site {name!r} has another value when particles are vectorized"
    return None


def _by_draw(name: str, value: Tensor, count: int, dim: int | None, own: Dims) -> Tensor:
    """(count, *shape of one value)."""
    if dim is None:
        return value.unsqueeze(0)
    if value.shape == own.shape:  # without particles, whose dim is left of all others
        return value.expand(count, *own.shape)
    if value.numel() != count * int(np.prod(own.shape)) or value.shape[0] != count:
        raise ValueError(f"site {name!r} has the shape {tuple(value.shape)} when {count} particles are vectorized")
    return value.reshape(count, *own.shape)


def _whole(arg: Any, place: Sequence[torch.device]) -> Any:
    """An argument as the programs take it: a `Data` as its rows, tensors where the parameters are."""
    if not isinstance(arg, Tensor) and stored(arg) is not None:
        arg = arg[slice(0, len(arg))]
    return arg.to(place[0]) if isinstance(arg, Tensor) and place else arg


def _array(value: Any) -> Any:
    return to_numpy(value) if isinstance(value, Tensor) else value
