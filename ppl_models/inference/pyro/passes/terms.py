"""One pass of a (model, guide) pair as `Terms`: what every objective is a function of."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyGuide, AnyProgram, Count, Whole
from ppl_models.programs.arguments import refuse_call
from ppl_models.programs.noise import structure_of
from ppl_models.programs.pairs import DENSE, check_order, check_sites, refuse_model
from ppl_models.programs.plates import data_plate
from ppl_models.programs.pyro import PARTICLES, frame_of, mask_of, nodes_of, outside, read

from ...objectives.states import refuse_draws
from ...objectives.terms import Terms as Terms, refuse_mask
from ..sites.divergences import log_density, log_support, per_datum, per_unit, unit_divergence, weighed_divergence
from .enumerated import FIRST, summed_out
from .expectation import AllStates, Expectation
from .lazy import Late
from .messengers import Inner, UntilDrawn


@checked
def terms(
    model: AnyProgram,
    guide: AnyGuide,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    particles: Count = 1,
    nesting: Whole | None = None,
    analytic: bool = True,
    plate: str | None = None,
    sums: bool = False,
    inner: Count = 1,
    states: bool = False,
) -> Terms:
    """Run the pair once, with all particles in one vectorized pass, and collect its `Terms`.

    No number is read on the way (no `.item()`), so a device is never made to wait, but where several plates have as
    many rows as there are data and `plate` is not given.

    Args:
        model, guide: any Pyro programs; a `GuideMessenger` gives both traces in one pass.
        args, kwargs: the arguments of both.
        particles: draws of the guide, in a plate left of all others.
        nesting: number of plate dims of the programs, needed for particles > 1; see `plate_nesting`.
        analytic: take divergences in closed form where there is one.
        plate: name of the data plate, "" where there is none; None looks for it (`programs.plates.data_plate`).
        sums: sum out what the model enumerates and the guide does not draw (`summed_out`).
        inner: draws of every latent for each draw of the one that the guide draws first (`vhp`). The terms are of
            particles * inner draws; the particles are then as many passes.
        states: take the exact mean over all states of the discrete sites that the guide marks, `infer={"enumerate":
            "parallel"}`, in place of draws (`expectation.Expectation`).

    Raises:
        ValueError: the guide samples a site that the model lacks, lacks one that it needs, runs another model, or
            observes something.
    """
    kwargs = kwargs or {}
    draws = particles * inner
    if draws > 1 and nesting is None:
        nesting = plate_nesting(model, guide, args, kwargs)
    if particles > 1 and inner > 1:
        how = {"nesting": nesting, "analytic": analytic, "plate": plate, "sums": sums, "inner": inner, "states": states}
        return concatenated([terms(model, guide, args, kwargs, **how) for _ in range(particles)])
    dim = None if draws == 1 else -1 - nesting

    def vectorized() -> Any:
        plate = pyro.plate(PARTICLES, draws, dim=dim) if dim else nullcontext()
        return plate if inner == 1 else Inner(plate)

    with vectorized():
        try:
            first = (FIRST if nesting is None else -2 - nesting) if states else None
            model_trace, guide_trace, same_order = traces(model, guide, args, kwargs, sums, first)
        except TypeError:
            refuse_call("terms", model, guide, args, kwargs)
            raise
    if plate is None:
        plate = plate_of(model_trace, next(iter([*args, *kwargs.values()]), None))
    found = collect(model_trace, guide_trace, dim, analytic and same_order, plate)
    if inner > 1 and found.enumerated:
        refuse_draws(found.enumerated, "inner draws")
    nodes: dict[str, Any] = {}
    names = [name for name in found.log_p if name not in found.auxiliary]
    dims = {name: None if name in found.shared else found.data_dim for name in names}

    def of_prior(name: str) -> Tensor:  # which must not keep the pass alive
        if found.enumerated:
            _ = found.drawn[name]  # refuses
        if not nodes:  # one run for all of them
            nodes.update(UntilDrawn(names).run(model, args, kwargs, vectorized()))
        return units_of(nodes[name], dims[name], dim)

    return replace(found, prior=Late({name: partial(of_prior, name) for name in names}), inner=inner)


def run_pair(
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    sums: bool = False,
    states: int | None = None,
) -> tuple[Trace, Trace]:
    """(model trace, guide trace) of one run, subsample sites pruned; whether their latents agree is not looked at.

    Of the model's the sites that it enumerates and the guide does not draw are summed out if `sums`. Those that the
    guide enumerates have all their states in dims from `states` leftwards, where that is given.

    Raises:
        ValueError: a guide built on another model (it has `model`, and is a `GuideMessenger` or has a `layout`), or one
            that observes something other than a `pyro.factor`.
    """
    bare = poutine.unwrap(guide)
    messenger = isinstance(bare, GuideMessenger)
    # the `model` of an autoguide may be hidden in a poutine.block, that of another module may be anything
    knowing = structure_of(bare)
    known = isinstance(knowing, GuideMessenger) or hasattr(knowing, "layout")
    own = getattr(knowing, "model", None) if known else None
    if own is not None and own != model:  # methods and functions compare by identity, too
        refuse_model(bare, own, model)
    all_states = nullcontext() if states is None else AllStates(states)
    if messenger:
        with all_states:
            guide(*args, **kwargs)
        return bare.get_traces()  # subsample sites pruned
    # as contexts: `trace(fn)` would append a table of shapes to every message that a program raises
    with poutine.trace() as capture, all_states:
        guide(*args, **kwargs)
    check_order(guide, nodes_of(capture.trace, "observed"), "pyro")
    enumerating = EnumMessenger(FIRST) if sums else nullcontext()
    with poutine.trace() as replayed, poutine.replay(trace=capture.trace), enumerating:
        model(*args, **kwargs)
    found = prune_subsample_sites(replayed.trace)
    return summed_out(found) if sums else found, prune_subsample_sites(capture.trace)


def traces(
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    sums: bool = False,
    states: int | None = None,
) -> tuple[Trace, Trace, bool]:
    """(model trace, guide trace, whether both draw the latents in one order), pruned; see `run_pair`."""
    model_trace, guide_trace = run_pair(model, guide, args, kwargs, sums, states)
    if isinstance(poutine.unwrap(guide), GuideMessenger):
        return model_trace, guide_trace, True
    needed, given = (nodes_of(trace, "latent") for trace in (model_trace, guide_trace))
    check_sites([*needed], [*given], [name for name, node in given.items() if node["infer"].get("is_auxiliary")])
    return model_trace, guide_trace, [name for name in given if name in needed] == [*needed]


def plate_of(model_trace: Trace, first: Any) -> str:
    """The name of the data plate, "" where there is none; `first` is the first argument of the run."""
    found = data_plate(read(model_trace), first)
    return found.name if found else ""


def collect(
    model_trace: Trace,
    guide_trace: Trace,
    particle_dim: int | None,
    analytic: bool,
    plate: str,
    expectation: Expectation | None = None,
) -> Terms:
    """The `Terms` of a pair of traces, means over the states that the guide enumerated; see `terms`."""
    expectation = expectation or Expectation.of(guide_trace)
    drawn = nodes_of(model_trace, *DENSE)
    data = next((frame for node in drawn.values() if (frame := frame_of(node, plate))), None)

    def reduce(value: Tensor, node: Mapping[str, Any]) -> Tensor:
        scale, mask = node["scale"], node["mask"]
        if mask is not None or isinstance(scale, Tensor) or scale != 1:
            value = scale_and_mask(value, scale, mask)
        return per_datum(expectation.mean(value, node), data.dim if frame_of(node, plate) else None, particle_dim)

    def density(node: Mapping[str, Any]) -> Tensor:
        return reduce(log_density(node["fn"], node["value"]), node)

    likelihood, pairs = {}, {}
    of_guide = nodes_of(guide_trace, *DENSE)
    # auxiliary sites and factors of the guide have a density but no prior
    others = {n: q for n, q in of_guide.items() if n not in drawn}
    shared = outside(drawn, plate) | outside(of_guide, plate)
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
        # of an enumerated site the mean of log q - log p is exact
        closed = weighed_divergence(q, p) if analytic and name not in expectation.names else None
        kl[name] = log_q[name] - log_p[name] if closed is None else reduce(*closed)
    kl |= {name: log_q[name] for name in others}
    full = None if data is None or data.full_size in (None, data.size) else data.full_size

    dims = {name: None if name in shared else data.dim for name in pairs}

    def unit(name: str) -> Tensor:
        found, events = unit_divergence(name, *pairs[name], analytic)
        return per_unit(expectation.mean(found, pairs[name][0], events), events, dims[name], particle_dim)

    of_draw = expectation.refuse_draws if expectation.sites else None
    drawn = Late({n: of_draw or partial(units_of, p, dims[n], particle_dim) for n, (_, p) in pairs.items()})
    dim = None if data is None else data.dim
    return Terms(
        likelihood,
        log_p,
        log_q,
        kl,
        shared,
        full,
        frozenset(others),
        lambda: {name: unit(name) for name in pairs},
        drawn,
        data_dim=dim,
        enumerated=expectation.names,
        log_support={n: reduce(s, q) for n, (q, _) in pairs.items() if (s := log_support(q["fn"])) is not None},
    )


def units_of(node: Mapping[str, Any], data_dim: int | None, particle_dim: int | None) -> Tensor:
    """The value of a latent, (particles, n, units); see `Terms.kl_units`.

    Raises:
        ValueError: some of its data are masked out: their values are none of the aggregate's.
    """
    if mask_of(node) is not None:
        refuse_mask(node["name"])
    return per_unit(node["value"], node["fn"].event_dim, data_dim, particle_dim)


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
        inner=first.inner,
        enumerated=first.enumerated,
        log_support=join(lambda f: f.log_support),
    )


@checked
def plate_nesting(model: AnyProgram, guide: AnyGuide, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """The number of dims that the plates of a pair take: particles go left of them. Runs the pair once."""
    with torch.no_grad(), poutine.block():
        try:
            pair = traces(model, guide, args, kwargs)[:2]
        except TypeError:
            refuse_call("plate_nesting", model, guide, args, kwargs)
            raise
    return max((site.rank for trace in pair for site in read(trace).values()), default=0)
