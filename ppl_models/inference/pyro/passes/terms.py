"""One pass of a (model, guide) pair as `Terms`: what every objective is a function of."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import MaskedDistribution
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from ppl_models.parts.plates import PARTICLES, data_plate, is_deterministic, is_local, latents, observations

from ..._terms import Terms as Terms
from .divergences import divergence, log_density, per_datum, per_unit, unit_divergence
from .lazy import Late
from .messengers import UntilDrawn


def terms(
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    particles: int = 1,
    nesting: int | None = None,
    analytic: bool = True,
) -> Terms:
    """Run the pair once, with all particles in one vectorized pass, and collect its `Terms`.

    No number is read on the way (no `.item()`), so a device is never made to wait.

    Args:
        model, guide: any Pyro programs; a `GuideMessenger` gives both traces in one pass.
        args, kwargs: the arguments of both.
        particles: draws of the guide, in a plate left of all others.
        nesting: number of plate dims of the programs, needed for particles > 1; see `plate_nesting`.
        analytic: take divergences in closed form where there is one.

    Raises:
        ValueError: the guide samples a site that the model lacks, lacks one that it needs, runs another model, or
            observes something.
    """
    kwargs = kwargs or {}
    if particles > 1 and nesting is None:
        nesting = plate_nesting(model, guide, args, kwargs)
    dim = None if particles == 1 else -1 - nesting

    def plate() -> Any:
        return pyro.plate(PARTICLES, particles, dim=dim) if dim else nullcontext()

    with plate():
        model_trace, guide_trace, same_order = traces(model, guide, args, kwargs)
    first = next(iter([*args, *kwargs.values()]), None)
    found = collect(model_trace, guide_trace, dim, analytic and same_order, first)
    nodes: dict[str, Any] = {}
    data, names = data_plate(model_trace, first), [name for name in found.log_p if name not in found.auxiliary]
    shared = found.shared

    def of_prior(name: str) -> Tensor:  # which must not keep the pass alive
        if not nodes:  # one run for all of them
            nodes.update(UntilDrawn(names).run(model, args, kwargs, plate()))
        return units_of(nodes[name], data, shared, dim)

    return replace(found, prior=Late({name: partial(of_prior, name) for name in names}))


def run_pair(model: Callable, guide: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Trace, Trace]:
    """(model trace, guide trace) of one run, subsample sites pruned; whether their latents agree is not looked at.

    Raises:
        ValueError: a guide built on another model (it has `model`, and is a `GuideMessenger` or has a `layout`), or one
            that observes something other than a `pyro.factor`.
    """
    messenger = isinstance(guide, GuideMessenger)
    # the `model` of an autoguide may be hidden in a poutine.block, that of another module may be anything
    own = getattr(guide, "model", None) if messenger or hasattr(guide, "layout") else None
    if own is not None and own != model:  # methods and functions compare by identity, too
        raise ValueError(
            f"the guide {type(guide).__name__} runs its own model, {_called(own)}, which is not the "
            f"{_called(model)} it is paired with; build the guide on this model"
        )
    if messenger:
        guide(*args, **kwargs)
        return guide.get_traces()  # subsample sites pruned
    # as contexts: `trace(fn)` would append a table of shapes to every message that a program raises
    with poutine.trace() as capture:
        guide(*args, **kwargs)
    for name in observations(capture.trace):
        raise ValueError(
            f"the guide, {_called(guide)}, observes the site {name!r}; are model and guide in this order? A guide "
            "draws every latent and observes nothing but a pyro.factor"
        )
    with poutine.trace() as replayed, poutine.replay(trace=capture.trace):
        model(*args, **kwargs)
    return prune_subsample_sites(replayed.trace), prune_subsample_sites(capture.trace)


def traces(
    model: Callable, guide: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Trace, Trace, bool]:
    """(model trace, guide trace, whether both draw the latents in one order), subsample sites pruned."""
    model_trace, guide_trace = run_pair(model, guide, args, kwargs)
    if isinstance(guide, GuideMessenger):
        return model_trace, guide_trace, True
    needed, given = latents(model_trace), latents(guide_trace)
    for name in given:
        if name not in needed and not guide_trace.nodes[name]["infer"].get("is_auxiliary"):
            raise ValueError(
                f"the guide samples the site {name!r}, which the model does not draw (latents: {', '.join(needed)}); "
                "build the guide on this model, and pass it the data it was built with"
            )
    for name in needed:
        if name not in given:
            raise ValueError(
                f"the guide has no factor for the site {name!r} of the model (the guide samples: {', '.join(given)}); "
                "build the guide on this model"
            )
    return model_trace, guide_trace, [n for n in given if n in needed] == needed


def _called(program: Callable) -> str:
    """A name of a program for messages, with the address that tells two instances apart."""
    return f"{getattr(program, '__name__', type(program).__name__)} at {id(program):#x}"


def collect(
    model_trace: Trace, guide_trace: Trace, particle_dim: int | None, analytic: bool, first: Any = None
) -> Terms:
    """The `Terms` of a pair of traces; `first` is the first argument of the run, whose rows are the data."""
    data = data_plate(model_trace, first)

    def reduce(value: Tensor, node: Mapping[str, Any]) -> Tensor:
        scale, mask = node["scale"], node["mask"]
        if mask is not None or isinstance(scale, Tensor) or scale != 1:
            value = scale_and_mask(value, scale, mask)
        return per_datum(value, data.dim if is_local(node, data) else None, particle_dim)

    def density(node: Mapping[str, Any]) -> Tensor:
        return reduce(log_density(node["fn"], node["value"]), node)

    likelihood, drawn, pairs = {}, {}, {}
    for name, node in model_trace.nodes.items():
        if node["type"] == "sample" and not is_deterministic(node):
            drawn[name] = node
    # auxiliary sites and factors of the guide have a density but no prior
    others = {n: q for n, q in guide_trace.nodes.items() if q["type"] == "sample" and n not in drawn}
    others = {n: q for n, q in others.items() if not is_deterministic(q)}
    nodes = [*drawn.items(), *others.items(), *((n, q) for n, q in guide_trace.nodes.items() if n in drawn)]
    shared = frozenset(name for name, node in nodes if not is_local(node, data))
    for name, node in drawn.items():
        if node["is_observed"]:
            likelihood[name] = density(node)
        else:
            pairs[name] = guide_trace.nodes[name], node
    log_q = Late({n: partial(density, q) for n, q in [*((n, q) for n, (q, _) in pairs.items()), *others.items()]})
    log_p = {n: partial(density, p) for n, (_, p) in pairs.items()}
    log_p = Late(log_p | {n: lambda n=n: torch.zeros_like(log_q[n]) for n in others})
    kl = {}
    for name, (q, p) in pairs.items():
        closed = divergence(q, p) if analytic else None
        kl[name] = log_q[name] - log_p[name] if closed is None else reduce(closed, q)
    kl |= {name: log_q[name] for name in others}
    full = None if data is None or data.full_size in (None, data.size) else data.full_size

    def units() -> dict[str, Tensor]:
        dims = {name: None if name in shared else data.dim for name in pairs}
        return {n: per_unit(*unit_divergence(n, *pairs[n], analytic), dims[n], particle_dim) for n in pairs}

    drawn = Late({n: partial(units_of, p, data, shared, particle_dim) for n, (_, p) in pairs.items()})
    return Terms(likelihood, log_p, log_q, kl, shared, full, frozenset(others), units, drawn)


def units_of(node: Mapping[str, Any], data: Any, shared: Collection[str], particle_dim: int | None) -> Tensor:
    """The value of a latent, (particles, n, units); see `Terms.kl_units`.

    Raises:
        ValueError: some of its data are masked out: their values are none of the aggregate's.
    """
    if isinstance(node["mask"], Tensor) or isinstance(node["fn"], MaskedDistribution):
        raise ValueError(
            f"site {node['name']!r}: found a mask on this latent, want a code for every datum where all codes are "
            "looked at together; drop the rows that are masked out"
        )
    dim = None if data is None or node["name"] in shared else data.dim
    return per_unit(node["value"], node["fn"].event_dim, dim, particle_dim)


def concatenated(found: Sequence[Terms]) -> Terms:
    """Several passes over the same data as one of all their particles."""
    if len(found) == 1:
        return found[0]
    counts = [max(t.shape[0] for t in (*f.log_likelihood.values(), *f.kl.values())) for f in found]

    def join(of: Callable[[Terms], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        tables = [of(f) for f in found]

        def joined(name: str) -> Tensor:
            # what does not depend on the particles has one row for all of them
            rows = [t[name].expand(k, *t[name].shape[1:]) for t, k in zip(tables, counts, strict=True)]
            return torch.cat(rows)

        return Late({name: partial(joined, name) for name in tables[0]})

    first = found[0]
    return Terms(
        dict(join(lambda f: f.log_likelihood)),
        join(lambda f: f.log_p),
        join(lambda f: f.log_q),
        dict(join(lambda f: f.kl)),
        first.shared,
        first.full_size,
        first.auxiliary,
        lambda: dict(join(lambda f: f.kl_units)),
        join(lambda f: f.drawn),
        join(lambda f: f.prior),
    )


def plate_nesting(model: Callable, guide: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """How many dims the plates of a pair take: particles go left of them. Runs the pair once."""
    with torch.no_grad(), poutine.block():
        pair = traces(model, guide, args, kwargs)[:2]
    nodes = [node for trace in pair for node in trace.nodes.values() if node["type"] == "sample"]
    return max((-f.dim for node in nodes for f in node["cond_indep_stack"] if f.vectorized), default=0)
