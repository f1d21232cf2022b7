"""`NUMPYRO`: how guides look at NumPyro programs and read their data; see `guides.parts.looks.language.Language`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.ops.provenance import eval_provenance

from guides.parts.looks.covariates import Covariate
from guides.parts.looks.language import Arguments, Look, Model, every_edge
from guides.parts.looks.latents import Facts, altered, fixed
from ppl_models.factorization import Factorization
from ppl_models.numpyro.parts.vamp import EncoderMixture
from ppl_models.programs import numpyro as programs
from ppl_models.programs.record import Run, Site

from .families import gaussian_base
from .origins import origins


class NumPyro:
    """See `guides.parts.looks.language.Language`."""

    name = "NumPyro"
    array = "array"

    def look(self, model: Model, args: Arguments, unplated: bool) -> Look:
        """See `Language.look`: shapes are all that is needed of most models, by a run that computes nothing."""
        found: list[tuple[Run, dict[str, Facts]]] = []
        try:
            jax.eval_shape(lambda: found.append(_look(model, args, unplated)))
        except Exception:  # noqa: BLE001 (bounds of a support, a branch on data; or an error, which is then raised)
            found.append(_look(model, args, unplated))
        run, facts = found[-1]
        if any(each.states == "categorical" for each in facts.values()):
            facts = _limited(facts, programs.run(model, args))

        def observe(arrays: Mapping[int, Array]) -> dict[str, Array]:
            observed = programs.run(model, [arrays.get(i, a) for i, a in enumerate(args)]).observed
            return {name: jnp.asarray(site.value) for name, site in observed.items()}

        arrays = {i: a for i, a in enumerate(args) if self.kind(a)}
        sites = origins(observe, arrays)
        if sites is None:  # an integer may say how long a loop is
            sites = origins(observe, {i: a for i, a in arrays.items() if self.kind(a) == "float"})
        return Look(run, facts, sites, lambda: observe(arrays), lambda given: _factorization(model, args, run, given))

    def observe(
        self, model: Model, args: Arguments, kwargs: Mapping[str, Any], subsamples: bool
    ) -> tuple[dict[str, Array], dict[str, tuple[Array, int]]]:
        """See `Language.observe`."""
        block = handlers.block(hide_fn=lambda msg: not (subsamples and msg["type"] == "plate"))
        key = numpyro.prng_key()
        own = handlers.seed(rng_seed=0 if key is None else key, hide_types=["plate"] if subsamples else [])
        with block, own, handlers.trace() as trace:
            model(*args, **kwargs)
        observed, indices = (programs.nodes_of(trace, kind).items() for kind in ("observed", "subsample"))
        values = {name: jnp.asarray(node["value"]) for name, node in observed}
        return values, {name: (node["value"], node["args"][0]) for name, node in indices}

    def kind(self, value: object) -> str | None:
        """See `Language.kind`: of JAX or NumPy arrays of numbers, no random keys."""
        if not isinstance(value, (jax.Array, np.ndarray)) or jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return None
        return "float" if jnp.issubdtype(value.dtype, jnp.floating) else "bool" if value.dtype == bool else "int"

    def floats(self, value: Array) -> Array:
        """See `Language.floats`."""
        value = jnp.asarray(value)
        return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(jnp.result_type(float))

    def join(self, parts: list[Array]) -> Array:
        """See `Language.join`."""
        shape = jnp.broadcast_shapes(*(part.shape[:-1] for part in parts))
        return jnp.concatenate([jnp.broadcast_to(part, (*shape, part.shape[-1])) for part in parts], -1)


NUMPYRO = NumPyro()


def _look(model: Model, args: Arguments, unplated: bool) -> tuple[Run, dict[str, Facts]]:
    """A run without arrays, and the facts of its latents."""
    run = programs.run(model, args)
    latents = {name: site for name, site in run.latents.items() if not site.enumerated}
    moving = any(_bounds(programs.support_of(site.fn, site.value)) for site in latents.values())
    again, unplated = programs.run(model, args, key=1) if moving else run, unplated and not run.plates
    facts = {name: _facts(site, again.get(name), unplated) for name, site in latents.items()}
    return Run((_bare(site) for site in run.values()), programs.to_numpy), facts


def _limited(facts: Mapping[str, Facts], run: Run) -> dict[str, Facts]:
    """The facts, with the states that priors leave out, of which numbers tell, not shapes."""
    masses = {n: programs.unwrapped(run[n].fn).probs for n, each in facts.items() if each.states == "categorical"}
    return {n: each._replace(limited=n in masses and bool((masses[n] == 0).any())) for n, each in facts.items()}


def _bare(site: Site) -> Site:
    shape = jax.ShapeDtypeStruct(site.shape, jnp.result_type(site.value))
    return replace(site, value=shape, fn=None, mask=None, scale=1.0)


def _bounds(support: Any) -> dict[str, Array | np.ndarray]:
    """Those attributes of a constraint that are arrays."""
    own = vars(programs.elementwise(support))
    return {key: value for key, value in own.items() if isinstance(value, (jax.Array, np.ndarray))}


def _facts(site: Site, again: Site | None, unplated: bool) -> Facts:
    support = programs.support_of(site.fn, site.value)
    batch = site.shape[: len(site.shape) - site.event_dim]
    if support.is_discrete:
        event = site.shape if unplated else site.event_shape
        own = programs.unwrapped(site.fn)
        states, shape = _states(own, event)
        return Facts(support, "", True, False, shape, False, altered(site, np.asarray), states=states)
    base, found, moving = programs.elementwise(support), _bounds(support), ""
    event = site.shape if unplated else site.event_shape
    if found:
        other = _bounds(programs.support_of(again.fn, again.value)) if again else {}
        base, moving = fixed(base, found, other, site.shape, event, lambda b, s: np.broadcast_to(np.asarray(b), s))
        support = constraints.independent(base, len(event)) if event else base
    elif unplated and batch:
        support = constraints.independent(support, len(batch))
    shape = () if moving else tuple(biject_to(support).inverse_shape(event))
    is_real = isinstance(base, type(constraints.real))
    own = programs.unwrapped(site.fn)
    encodes = own.encodes if isinstance(own, EncoderMixture) else 0
    is_gaussian = gaussian_base(site.fn) is not None
    return Facts(support, moving, False, is_real, shape, is_gaussian, altered(site, np.asarray), encodes)


def _states(fn: Any, event: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """(`Facts.states`, the shape of a code) of a discrete distribution, over events of this shape."""
    if type(fn) in (dist.CategoricalProbs, dist.CategoricalLogits):
        return "categorical", (*event, jnp.shape(fn.probs)[-1])
    return ("bernoulli", tuple(event)) if type(fn) in (dist.BernoulliProbs, dist.BernoulliLogits) else ("", ())


def _density(site: Site) -> Array:
    """The log density of a site; one that the example masks out for good is looked at without its mask."""
    hidden = site.mask is False and site.kind != "latent"
    return (programs.unmasked(site.fn) if hidden else site.fn).log_prob(site.value) * site.scale


def _factorization(model: Model, args: Arguments, run: Run, given: Sequence[Covariate]) -> Factorization:
    """The model's own factorization by provenance; every earlier latent where the model cannot be traced so."""
    floats = [each for each in given if NUMPYRO.kind(args[each.index]) == "float"]
    for traced in (given, floats, ()):
        try:
            found = _provenance(model, args, run, traced)
        except Exception:  # noqa: BLE001, S112 (a program may do anything with a tracer)
            continue
        others = tuple(each.name for each in given if each not in traced)  # of which nothing is known
        return Factorization({s: (*p, *others) for s, p in found.items()}, found.observed, (*found.given, *others))
    return every_edge(list(run.latents), list(run.observed), given)


def _provenance(model: Model, args: Arguments, run: Run, given: Sequence[Covariate]) -> Factorization:
    """As `ppl_models.factorization.probing.recover.provenance`, but from shapes alone: nothing is computed."""
    order: list[str] = []
    arrays = {f"@{each.index}": args[each.index] for each in given}
    shapes = {f"_{name}": site.value for name, site in {**run.latents, **run.observed}.items()}

    def log_densities(**values: Array) -> dict[str, Array]:
        """Of each site given all others, factors included: masks and scales count, too."""
        held = handlers.substitute(model, data={name[1:]: values[name] for name in shapes})
        sites = programs.run(held, [values.get(f"@{i}", a) for i, a in enumerate(args)])
        found = {name: _density(s) for name, s in sites.of("latent", "observed", "factor").items()}
        deltas: dict[str, Any] = {name: programs.unwrapped(site.fn) for name, site in sites.of("point").items()}
        found |= {f"{name} (density)": delta.log_density * sites[name].scale for name, delta in deltas.items()}
        order.extend(name for site in sites for name in (site, f"{site} (density)") if name in found)
        return found

    reached = eval_provenance(log_densities, **shapes, **arrays)
    order = [n for n in order if n in run or reached[n]]  # most point masses have a density of one
    read = {tag for name in order for tag in reached[name]}
    known = {f"@{each.index}": each.name for each in given if f"@{each.index}" in read}
    parents = {
        n: (*(u for u in order[:i] if f"_{u}" in reached[n]), *(c for tag, c in known.items() if tag in reached[n]))
        for i, n in enumerate(order)
    }
    return Factorization(parents, tuple(n for n in order if n not in run.latents), tuple(known.values()))
