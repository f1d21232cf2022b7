"""One pass of a (model, guide) pair of NumPyro programs as `Terms`: what every objective is a function of."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from numpyro import handlers

from ppl_models.numpyro.parts.program import Program
from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyGuide, AnyProgram, Count
from ppl_models.programs.arguments import refuse_call
from ppl_models.programs.numpyro import Trace, frame_of, nodes_of, read
from ppl_models.programs.pairs import DENSE, check_order, check_sites, refuse_model
from ppl_models.programs.plates import data_plate

from ...objectives.states import refuse_draws
from ...objectives.terms import Terms as Terms
from .divergences import (
    check_unmasked,
    divergence,
    log_density,
    log_support,
    per_datum,
    per_unit,
    scaled,
    unit_divergence,
)
from .expectation import AllStates, Expectation
from .lazy import Late
from .messengers import First, UntilDrawn

PRIOR = 2**31 - 1  # the stream of the prior's draws, beside those of particles, which count from 0 up


@checked
def terms(
    model: AnyProgram,
    guide: AnyGuide,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    particles: Count = 1,
    analytic: bool = True,
    *,
    key: Array,
    params: Mapping[str, Any] | None = None,
    plate: str | None = None,
    inner: Count = 1,
    states: bool = False,
) -> Terms:
    """Run the pair once, with all particles in one pass of `jax.vmap`, and collect its `Terms`.

    It can be jitted and differentiated with respect to `params` and `args`.

    Args:
        model, guide: any NumPyro programs; a guide with a method `traces` gives both traces in one pass.
        args, kwargs: the arguments of both.
        particles: draws of the guide.
        analytic: take divergences in closed form where there is one and where both programs draw in one order.
        key: of the draws.
        params: values of `numpyro.param`s by name, as `SVI.get_params` gives them; by default what they start from.
        plate: name of the data plate, "" where there is none; None looks for it (`programs.plates.data_plate`). Inside
            a transformation that hides the numbers of the data, give it where several plates have as many rows.
        inner: draws of every latent for each draw of the one that the guide draws first (`vhp`). The terms are of
            particles * inner draws.
        states: take the exact mean over all states of the discrete sites that the guide marks, `infer={"enumerate":
            "parallel"}`, in place of draws (`expectation.Expectation`).

    Raises:
        ValueError: the guide samples a site that the model lacks, lacks one that it needs, runs another model, or
            observes something.

    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> def model(x):
    ...     with numpyro.plate("data", len(x)):
    ...         z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    ...         numpyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     with numpyro.plate("data", len(x)):
    ...         numpyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
    >>> found = terms(model, guide, (jnp.zeros(3),), particles=5, key=jax.random.key(0))
    >>> found.log_w.shape, f"{found.log_w.std():.3f}"  # the exact posterior: all weights are equal
    ((5, 3), '0.000')
    """
    at = {"params": params or {}, "analytic": analytic, "plate": plate, "states": states}

    def keys(key: Array, count: int = particles) -> Array:
        return key[None] if count == 1 else jax.random.split(key, count)

    try:
        if inner == 1:
            found = stacked(lambda k: single(model, guide, args, kwargs, key=k, **at), keys(key))
        else:
            found = stacked(
                lambda k, first: single(model, guide, args, kwargs, key=k, first=first, **at),
                jax.vmap(lambda k: jax.random.split(k, inner))(keys(key)),
                keys(jax.random.fold_in(key, PRIOR - 1)),
                over=nested,
            )
    except TypeError:
        refuse_call("terms", model, guide, args, kwargs)
        raise
    if inner > 1 and found.enumerated:
        refuse_draws(found.enumerated, "inner draws")
    names = [name for name in found.log_p if name not in found.auxiliary]
    given = {**weights(model), **(params or {})}

    def once(key: Array) -> dict[str, Array]:
        program = handlers.seed(handlers.substitute(model, data=given), key)
        sites = UntilDrawn(names).run(program, args, kwargs)
        check_unmasked(sites)
        return {name: units_of(sites[name], None if name in found.shared else found.data_dim) for name in names}

    def of_prior() -> dict[str, Array]:
        if found.enumerated:
            refuse_draws(found.enumerated)
        return mapped(once, keys(jax.random.fold_in(key, PRIOR), particles * inner))

    return replace(found, prior=Late(names, of_prior), inner=inner)


def stacked(run: Callable[..., Terms], *inputs: Any, over: Callable[..., Any] | None = None) -> Terms:
    """One `Terms` of many particles: of `run` mapped over the first axis of the inputs, or `over` other axes."""
    kept: list[tuple[Terms, str | None]] = []

    def arrays(*each: Any) -> tuple[dict[str, Array], ...]:
        found = run(*each)
        try:
            units, reason = found.kl_units, None
        except ValueError as error:  # to be raised if it is ever asked for
            units, reason = {}, str(error)
        kept.append((found, reason))
        drawn = {} if found.enumerated else found.drawn
        return found.log_likelihood, found.log_p, found.log_q, found.kl, units, drawn, found.log_support

    (*numbers, units, drawn, support), (found, reason) = (over or mapped)(arrays, *inputs), kept[-1]
    drawn = Late([*found.log_p], lambda: refuse_draws(found.enumerated)) if found.enumerated else drawn

    def by_unit() -> dict[str, Array]:
        if reason is not None:
            raise ValueError(reason)
        return units

    same = {"data_dim": found.data_dim, "enumerated": found.enumerated, "log_support": support}
    return Terms(*numbers, found.shared, found.full_size, found.auxiliary, by_unit, drawn, **same)


def mapped(run: Callable[..., Any], *inputs: Any) -> Any:
    """The arrays of `run` for every index of the first axis of the inputs, stacked along a first axis of their own."""
    if jax.tree.leaves(inputs)[0].shape[0] > 1:
        return jax.vmap(run)(*inputs)
    # not mapped: programs may do what only plain arrays can, and it is what it is without particles
    return jax.tree.map(lambda t: t[None], run(*jax.tree.map(lambda leaf: leaf[0], inputs)))


def nested(run: Callable[..., Any], many: Array, once: Array) -> Any:
    """The arrays of `run` for all of (particles, inner) and each of (particles,), stacked along one axis for both."""
    found = mapped(lambda each, shared: jax.vmap(lambda one: run(one, shared))(each), many, once)
    return jax.tree.map(lambda t: t.reshape(-1, *t.shape[2:]), found)


def single(
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    key: Array,
    params: Mapping[str, Any],
    analytic: bool,
    plate: str | None,
    held: Mapping[str, Array] | None = None,
    first: Array | None = None,
    states: bool = False,
) -> Terms:
    """The `Terms` of one particle, whose arrays have no axis of particles yet; with the latents in `held` at values.

    The key `first` is that of the first draw of the guide alone.
    """
    fixed = {"params": params, "held": held, "first": first, "states": states}
    model_trace, guide_trace, alike = traces(model, guide, args, kwargs, key=key, **fixed)
    if plate is None:
        found = data_plate(read(model_trace), next(iter([*args, *(kwargs or {}).values()]), None))
        plate = found.name if found else ""
    return collect(model_trace, guide_trace, analytic and alike, plate)


def traces(
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    key: Array,
    params: Mapping[str, Any],
    held: Mapping[str, Array] | None = None,
    first: Array | None = None,
    states: bool = False,
) -> tuple[Trace, Trace, bool]:
    """(model trace, guide trace, whether both draw the latents in one order) of one run."""
    check_model(model, guide)
    kwargs, keys, params = kwargs or {}, jax.random.split(key), {**weights(model), **params}
    given, own = {**params, **(held or {})}, AllStates() if states else nullcontext() if first is None else First(first)
    if runs_model(guide):  # one pass
        with handlers.seed(rng_seed=keys[0]), handlers.substitute(data=given), own:
            return *guide.traces(*args, **kwargs), True
    with handlers.trace() as guide_trace, handlers.seed(rng_seed=keys[0]), handlers.substitute(data=given), own:
        guide(*args, **kwargs)
    check_order(guide, nodes_of(guide_trace, "observed"), "numpyro")
    with handlers.trace() as model_trace, handlers.seed(rng_seed=keys[1]), handlers.substitute(data=params):
        with handlers.replay(trace=guide_trace):
            model(*args, **kwargs)
    needed, given = (nodes_of(trace, "latent") for trace in (model_trace, guide_trace))
    check_sites([*needed], [*given], [name for name, node in given.items() if node["infer"].get("is_auxiliary")])
    return model_trace, guide_trace, [name for name in given if name in needed] == [*needed]


def collect(
    model_trace: Trace, guide_trace: Trace, analytic: bool, plate: str, expectation: Expectation | None = None
) -> Terms:
    """The `Terms` of a pair of traces, means over the states that the guide enumerated; see `terms`."""
    expectation = expectation or Expectation.of(guide_trace)
    drawn = nodes_of(model_trace, *DENSE)
    data = next((frame for node in drawn.values() if (frame := frame_of(node, plate, model_trace))), None)

    def dim(site: Mapping[str, Any]) -> int | None:
        return data.dim if frame_of(site, plate, model_trace) else None

    def reduce(value: Array, site: Mapping[str, Any]) -> Array:
        return per_datum(expectation.mean(scaled(value, site), site), dim(site))

    def density(site: Mapping[str, Any]) -> Array:
        return reduce(log_density(site), site)

    of_guide = nodes_of(guide_trace, *DENSE)
    # auxiliary sites and factors of the guide have a density but no prior
    others = {n: q for n, q in of_guide.items() if n not in drawn}
    shared = frozenset(name for name, site in [*drawn.items(), *of_guide.items()] if dim(site) is None)
    pairs = {n: (guide_trace[n], site) for n, site in drawn.items() if not site["is_observed"]}
    log_q = {n: density(q) for n, q in [*((n, q) for n, (q, _) in pairs.items()), *others.items()]}
    log_p = {n: density(p) for n, (_, p) in pairs.items()} | {n: 0 * log_q[n] for n in others}
    kl = {}
    for name, (q, p) in pairs.items():
        # of an enumerated site the mean of log q - log p is exact
        closed = divergence(q, p) if analytic and name not in expectation.names else None
        kl[name] = log_q[name] - log_p[name] if closed is None else reduce(closed, q)
    kl |= {name: log_q[name] for name in others}
    full = None if data is None or data.full_size == data.size else data.full_size

    dims = {name: None if name in shared else data.dim for name in pairs}

    def unit(name: str) -> Array:
        found, events = unit_divergence(name, *pairs[name], analytic)
        return per_unit(expectation.mean(found, pairs[name][0], events), events, dims[name])

    likelihood = {name: density(site) for name, site in drawn.items() if site["is_observed"]}
    draws = {} if expectation.sites else {name: units_of(p, dims[name]) for name, (_, p) in pairs.items()}
    support = {n: reduce(s, q) for n, (q, _) in pairs.items() if (s := log_support(q["fn"])) is not None}
    place = None if data is None else data.dim
    told = {"data_dim": place, "enumerated": expectation.names, "log_support": support}
    units = lambda: {name: unit(name) for name in pairs}  # noqa: E731
    return Terms(likelihood, log_p, log_q, kl, shared, full, frozenset(others), units, draws, **told)


def units_of(site: Mapping[str, Any], data_dim: int | None) -> Array:
    """The value of a latent, (n, units), or (1, units) outside the data plate; see `Terms.kl_units`."""
    return per_unit(jnp.asarray(site["value"]), site["fn"].event_dim, data_dim)


def weights(model: Callable) -> dict[str, Any]:
    """The weights of a `Program` under its `numpyro.param`: those that a guide with a copy of the model is to take."""
    return {model.param: eqx.filter(model.own(), eqx.is_inexact_array)} if isinstance(model, Program) else {}


def runs_model(guide: Callable) -> bool:
    """Whether a guide runs its own model, so that one pass, its `traces`, shows both."""
    return isinstance(guide, Program) and callable(getattr(guide, "traces", None))


def check_model(model: Callable, guide: Callable) -> None:
    """Raise ValueError for a guide that holds a model of another make than the one it is paired with."""
    own = getattr(guide, "model", None) if isinstance(guide, Program) else None
    if not isinstance(own, Program) or not isinstance(model, Program) or own is model:
        return
    if jax.tree.structure(own) != jax.tree.structure(model):
        refuse_model(guide, own, model)
