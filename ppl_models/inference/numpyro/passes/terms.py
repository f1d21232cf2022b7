"""One pass of a (model, guide) pair of NumPyro programs as `Terms`: what every objective is a function of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from numpyro import handlers

from ppl_models.numpyro.parts.program import Program

from ..._terms import Terms as Terms
from .divergences import check_unmasked, divergence, log_density, per_datum, per_unit, scaled, unit_divergence
from .lazy import Late
from .messengers import UntilDrawn
from .plates import Trace, data_plate, is_local, latents, observations

PRIOR = 2**31 - 1  # the stream of the prior's draws, beside those of particles, which count from 0 up


def terms(
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    particles: int = 1,
    analytic: bool = True,
    *,
    key: Array,
    params: Mapping[str, Any] | None = None,
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
    at = {"params": params or {}, "analytic": analytic}

    def keys(key: Array) -> Array:
        return key[None] if particles == 1 else jax.random.split(key, particles)

    found = stacked(lambda k: single(model, guide, args, kwargs, key=k, **at), keys(key))
    names = [name for name in found.log_p if name not in found.auxiliary]
    given = {**weights(model), **at["params"]}

    def once(key: Array) -> dict[str, Array]:
        program = handlers.seed(handlers.substitute(model, data=given), key)
        sites = UntilDrawn(names).run(program, args, kwargs)
        check_unmasked(sites)
        return {name: units_of(sites[name], None if name in found.shared else found.data_dim) for name in names}

    def of_prior() -> dict[str, Array]:
        return mapped(once, keys(jax.random.fold_in(key, PRIOR)))

    return replace(found, prior=Late(names, of_prior))


def stacked(run: Callable[..., Terms], *inputs: Any) -> Terms:
    """One `Terms` of many particles: of `run` mapped over the first axis of the inputs."""
    kept: list[tuple[Terms, str | None]] = []

    def arrays(*each: Any) -> tuple[dict[str, Array], ...]:
        found = run(*each)
        try:
            units, reason = found.kl_units, None
        except ValueError as error:  # to be raised if it is ever asked for
            units, reason = {}, str(error)
        kept.append((found, reason))
        return found.log_likelihood, found.log_p, found.log_q, found.kl, units, found.drawn

    (*numbers, units, drawn), (found, reason) = mapped(arrays, *inputs), kept[-1]

    def by_unit() -> dict[str, Array]:
        if reason is not None:
            raise ValueError(reason)
        return units

    return Terms(*numbers, found.shared, found.full_size, found.auxiliary, by_unit, drawn, data_dim=found.data_dim)


def mapped(run: Callable[..., Any], *inputs: Any) -> Any:
    """The arrays of `run` for every index of the first axis of the inputs, stacked along a first axis of their own."""
    if jax.tree.leaves(inputs)[0].shape[0] > 1:
        return jax.vmap(run)(*inputs)
    # not mapped: programs may do what only plain arrays can, and it is what it is without particles
    return jax.tree.map(lambda t: t[None], run(*jax.tree.map(lambda leaf: leaf[0], inputs)))


def single(
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    key: Array,
    params: Mapping[str, Any],
    analytic: bool,
    held: Mapping[str, Array] | None = None,
) -> Terms:
    """The `Terms` of one particle, whose arrays have no axis of particles yet; with the latents in `held` at values."""
    model_trace, guide_trace, alike = traces(model, guide, args, kwargs, key=key, params=params, held=held)
    return collect(model_trace, guide_trace, analytic and alike, next(iter([*args, *(kwargs or {}).values()]), None))


def traces(
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    key: Array,
    params: Mapping[str, Any],
    held: Mapping[str, Array] | None = None,
) -> tuple[Trace, Trace, bool]:
    """(model trace, guide trace, whether both draw the latents in one order) of one run."""
    check_model(model, guide)
    kwargs, keys, params = kwargs or {}, jax.random.split(key), {**weights(model), **params}
    given = {**params, **(held or {})}
    if isinstance(guide, Program) and callable(getattr(guide, "traces", None)):  # one that runs its own model: one pass
        with handlers.seed(rng_seed=keys[0]), handlers.substitute(data=given):
            return *guide.traces(*args, **kwargs), True
    with handlers.trace() as guide_trace, handlers.seed(rng_seed=keys[0]), handlers.substitute(data=given):
        guide(*args, **kwargs)
    check_order(guide, guide_trace)
    with handlers.trace() as model_trace, handlers.seed(rng_seed=keys[1]), handlers.substitute(data=params):
        with handlers.replay(trace=guide_trace):
            model(*args, **kwargs)
    needed, drawn = latents(model_trace), latents(guide_trace)
    for name in drawn:
        if name not in needed and not guide_trace[name]["infer"].get("is_auxiliary"):
            raise ValueError(
                f"the guide samples the site {name!r}, which the model does not draw (latents: {', '.join(needed)}); "
                "build the guide on this model, and pass it the data it was built with"
            )
    for name in needed:
        if name not in drawn:
            raise ValueError(
                f"the guide has no factor for the site {name!r} of the model (the guide samples: {', '.join(drawn)}); "
                "build the guide on this model"
            )
    return model_trace, guide_trace, [name for name in drawn if name in needed] == needed


def collect(model_trace: Trace, guide_trace: Trace, analytic: bool, first: Any = None) -> Terms:
    """The `Terms` of a pair of traces; `first` is the first argument of the run, whose rows are the data."""
    data = data_plate(model_trace, first)

    def dim(site: Mapping[str, Any]) -> int | None:
        return data.dim if is_local(site, data) else None

    def density(site: Mapping[str, Any]) -> Array:
        return per_datum(scaled(log_density(site), site), dim(site))

    drawn = {name: site for name, site in model_trace.items() if site["type"] == "sample"}
    # auxiliary sites and factors of the guide have a density but no prior
    others = {n: q for n, q in guide_trace.items() if q["type"] == "sample" and n not in drawn}
    sites = [*drawn.items(), *others.items(), *((n, q) for n, q in guide_trace.items() if n in drawn)]
    shared = frozenset(name for name, site in sites if not is_local(site, data))
    pairs = {n: (guide_trace[n], site) for n, site in drawn.items() if not site["is_observed"]}
    log_q = {n: density(q) for n, q in [*((n, q) for n, (q, _) in pairs.items()), *others.items()]}
    log_p = {n: density(p) for n, (_, p) in pairs.items()} | {n: 0 * log_q[n] for n in others}
    kl = {}
    for name, (q, p) in pairs.items():
        closed = divergence(q, p) if analytic else None
        kl[name] = log_q[name] - log_p[name] if closed is None else per_datum(scaled(closed, q), dim(q))
    kl |= {name: log_q[name] for name in others}
    full = None if data is None or data.full_size == data.size else data.full_size

    dims = {name: None if name in shared else data.dim for name in pairs}

    def units() -> dict[str, Array]:
        return {n: per_unit(*unit_divergence(n, *pairs[n], analytic), dims[n]) for n in pairs}

    likelihood = {name: density(site) for name, site in drawn.items() if site["is_observed"]}
    draws = {name: units_of(p, dims[name]) for name, (_, p) in pairs.items()}
    place = None if data is None else data.dim
    return Terms(likelihood, log_p, log_q, kl, shared, full, frozenset(others), units, draws, data_dim=place)


def units_of(site: Mapping[str, Any], data_dim: int | None) -> Array:
    """The value of a latent, (n, units), or (1, units) outside the data plate; see `Terms.kl_units`."""
    return per_unit(jnp.asarray(site["value"]), site["fn"].event_dim, data_dim)


def weights(model: Callable) -> dict[str, Any]:
    """The weights of a `Program` under its `numpyro.param`: those that a guide with a copy of the model is to take."""
    return {model.param: eqx.filter(model.own(), eqx.is_inexact_array)} if isinstance(model, Program) else {}


def check_order(guide: Callable, trace: Trace) -> None:
    """Raise ValueError if the trace of a guide observes something: then it may be the model."""
    for name in observations(trace):
        raise ValueError(
            f"the guide, {called(guide)}, observes the site {name!r}; are model and guide in this order? A guide "
            "draws every latent and observes nothing but a numpyro.factor"
        )


def called(program: Callable) -> str:
    """A name of a program for messages, with the address that tells two instances apart."""
    return f"{getattr(program, '__name__', type(program).__name__)} at {id(program):#x}"


def check_model(model: Callable, guide: Callable) -> None:
    """Raise ValueError for a guide that holds a model of another make than the one it is paired with."""
    own = getattr(guide, "model", None) if isinstance(guide, Program) else None
    if not isinstance(own, Program) or not isinstance(model, Program) or own is model:
        return
    if jax.tree.structure(own) != jax.tree.structure(model):
        raise ValueError(
            f"the guide {type(guide).__name__} runs its own model, {called(own)}, which is not the "
            f"{called(model)} it is paired with; build the guide on this model"
        )
