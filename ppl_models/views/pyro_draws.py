"""Draws of pairs of Pyro programs; see `draws`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from ppl_models.inference.pyro.passes.checks import check_pair, evaluating, forked
from ppl_models.inference.pyro.passes.messengers import Substitute
from ppl_models.inference.pyro.passes.particles import vectorizes
from ppl_models.inference.pyro.passes.terms import Terms, collect, plate_nesting, traces
from ppl_models.parts.plates import PARTICLES, data_plate, is_deterministic, latents, observations

from .draws import Arrays, Draws, Frame, Layout, constants, gather, named_arguments

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
    modules = [program for program in (model, guide) if isinstance(program, nn.Module)]
    tensors = chain(*(chain(m.parameters(), m.buffers()) for m in modules))
    places = list(dict.fromkeys(t.device for t in tensors))
    with nullcontext() if seed is None else forked(places), torch.no_grad(), evaluating(*modules):
        if seed is not None:
            torch.manual_seed(seed)
        return _draw(model, guide, [_whole(arg, places[:1]) for arg in args], draws, rows, groups)


def _draw(
    model: Callable, guide: Callable, args: Sequence[Any], draws: int, rows: int, groups: Collection[str]
) -> Draws:
    seen = check_pair("to_arviz", model, guide, args)
    _check_whole(seen)
    first = args[0] if args else None
    model_trace, guide_trace, _ = traces(model, guide, args, {})  # with Pyro's validation on: bad data speak up here
    terms = collect(model_trace, guide_trace, None, False, first)
    plate = data_plate(model_trace, first)
    layouts = {name: _layout(node) for name, node in model_trace.nodes.items() if _has_values(node)}
    observed = {
        n: layouts[n].arrange(_array(model_trace.nodes[n]["value"])[None])[0] for n in observations(model_trace)
    }
    nesting = plate_nesting(model, guide, args, {})
    reason = None
    if draws > 1:
        reason = vectorizes(model, guide, args, nesting) or _computed_differs(model, guide, args, nesting, layouts)
    pair = _Pair(model, guide, args, layouts, terms.shared, groups)
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
        layouts,
        None if plate is None else Frame(plate.name, plate.dim, plate.size),
        ("pyro", pyro.__version__),
        [] if reason is None else [f"draws made one by one: {reason}"],
    )


class _Pair:
    """A pair that draws, several at once in a plate left of all others, or one."""

    def __init__(
        self,
        model: Callable,
        guide: Callable,
        args: Sequence[Any],
        layouts: Mapping[str, Layout],
        shared: frozenset[str],
        groups: Collection[str],
    ) -> None:
        self.model, self.guide, self.args = model, guide, args
        self.layouts, self.shared, self.groups = layouts, shared, groups

    def run(self, count: int, dim: int | None) -> dict[str, Arrays]:
        """Groups of that many draws, and their densities."""

        def plate() -> Any:
            return nullcontext() if dim is None else pyro.plate(PARTICLES, count, dim=dim)

        with plate():
            model_trace, guide_trace, _ = traces(self.model, self.guide, self.args, {})
        first = self.args[0] if self.args else None
        terms = collect(model_trace, guide_trace, dim, False, first)
        values = {name: model_trace.nodes[name]["value"] for name in latents(model_trace)}
        found = {"posterior": self.arrays(model_trace, count, dim, observed=False)}
        seen = observations(model_trace)
        found["log_likelihood"] = {name: self.per_datum(terms.log_likelihood[name], count, name) for name in seen}
        found["densities"] = self.densities(terms, count)
        if "posterior_predictive" in self.groups:
            with poutine.trace() as capture, plate(), Substitute(values), _Redraw():
                self.model(*self.args)
            found["posterior_predictive"] = self.arrays(capture.trace, count, dim, observed=True)
        if self.groups & {"prior", "prior_predictive"}:
            with poutine.trace() as capture, plate(), _Redraw():
                self.model(*self.args)
            found["prior"] = self.arrays(capture.trace, count, dim, observed=False)
            found["prior_predictive"] = self.arrays(capture.trace, count, dim, observed=True)
        return found

    def arrays(self, trace: Trace, count: int, dim: int | None, observed: bool) -> Arrays:
        """What was drawn or computed, or else what the data are, of a trace."""
        found = {}
        for name, node in trace.nodes.items():
            if name in self.layouts and ("redrawn" in node["infer"] or _is_data(node)) == observed:
                layout = self.layouts[name]
                found[name] = layout.arrange(_array(_by_draw(name, node["value"], count, dim, layout)))
        return found

    def per_datum(self, term: Tensor, count: int, *names: str) -> np.ndarray:
        """(count, n), or (count,) for what is outside the data plate."""
        array = _array(term.expand(count, term.shape[1]))
        return array[:, 0] if set(names) <= self.shared else array

    def densities(self, terms: Terms, count: int) -> Arrays:
        """log p(x, z) and log q(z | x) of each datum, or of all of them where they share something."""

        def total(tables: Sequence[Mapping[str, Tensor]]) -> np.ndarray:
            found = [table[name] for table in tables for name in table]
            if self.shared:
                return _array(sum(t.sum(1).expand(count) for t in found))
            return _array(sum(t.expand(count, t.shape[1]) for t in found))

        return {"log_p": total([terms.log_likelihood, terms.log_p]), "log_q": total([terms.log_q])}


class _Redraw(Messenger):
    """Draw what is observed anew; factors and what is computed stay."""

    def _pyro_sample(self, msg: dict) -> None:
        if _is_data(msg):
            msg["infer"] = {**msg["infer"], "redrawn": True}
            msg["is_observed"], msg["value"], msg["done"] = False, None, False


def _computed_differs(
    model: Callable, guide: Callable, args: Sequence[Any], nesting: int, layouts: Mapping[str, Layout]
) -> str | None:
    """The reason why deterministic sites are not to be computed for many draws at once, None if there is none."""
    count, dim = 3, -1 - nesting
    with pyro.plate(PARTICLES, count, dim=dim):
        together, _, _ = traces(model, guide, args, {})
    computed = [name for name, node in together.nodes.items() if name in layouts and is_deterministic(node)]
    try:
        many = {n: _by_draw(n, together.nodes[n]["value"], count, dim, layouts[n]) for n in layouts}
    except ValueError as error:
        return str(error)
    for k in range(count if computed else 0):
        with Substitute({name: many[name][k] for name in latents(together)}):
            with poutine.trace() as capture:
                model(*args)
        for name in computed:
            if not torch.allclose(many[name][k], capture.trace.nodes[name]["value"], 1e-3, 1e-3, equal_nan=True):
                return f"site {name!r} has another value when particles are vectorized"
    return None


def _by_draw(name: str, value: Tensor, count: int, dim: int | None, layout: Layout) -> Tensor:
    """(count, *shape of one value)."""
    if dim is None:
        return value.unsqueeze(0)
    if value.shape == layout.shape:  # without particles, whose dim is left of all others
        return value.expand(count, *layout.shape)
    if value.numel() != count * int(np.prod(layout.shape)) or value.shape[0] != count:
        raise ValueError(f"site {name!r} has the shape {tuple(value.shape)} when {count} particles are vectorized")
    return value.reshape(count, *layout.shape)


def _layout(node: Mapping[str, Any]) -> Layout:
    frames = [Frame(f.name, f.dim, f.size) for f in node["cond_indep_stack"] if f.vectorized and f.name != PARTICLES]
    value, event_dim = node["value"], node["fn"].event_dim
    if is_deterministic(node) and event_dim == value.dim():  # what Pyro takes where nothing is said
        return Layout.computed(value.shape, frames)
    return Layout.of(value.shape, event_dim, frames)


def _has_values(node: Mapping[str, Any]) -> bool:
    """Whether a node draws, observes or computes something: no factor."""
    if node["type"] != "sample" or not isinstance(node["value"], Tensor):
        return False
    return not node["is_observed"] or is_deterministic(node) or _is_data(node)


def _is_data(node: Mapping[str, Any]) -> bool:
    """Whether a node or message is an observation, as `observations` has it."""
    return node["is_observed"] and not is_deterministic(node) and node["value"].numel() > 0


def _check_whole(trace: Trace) -> None:
    for node in trace.nodes.values():
        for f in node["cond_indep_stack"] if node["type"] == "sample" else ():
            if f.full_size not in (None, f.size):
                raise ValueError(
                    f"to_arviz: the plate {f.name!r} draws {f.size} of {f.full_size} data, want every datum; take a "
                    "model of the same parameters whose plate does not subsample"
                )


def _whole(arg: Any, place: Sequence[torch.device]) -> Any:
    """An argument as the programs take it: a `Data` as its rows, tensors where the parameters are."""
    if not isinstance(arg, Tensor) and isinstance(getattr(arg, "values", None), Tensor):
        arg = arg[slice(0, len(arg))]
    return arg.to(place[0]) if isinstance(arg, Tensor) and place else arg


def _array(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()
