"""Draws of pairs of NumPyro programs; see `draws`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers
from numpyro.distributions import Delta, Distribution, ExpandedDistribution, Independent, MaskedDistribution, Unit
from numpyro.primitives import Messenger

from ppl_models.inference.numpyro.passes.terms import check_model, weights

from .draws import (
    PREDICTIVE,
    Around,
    Arrays,
    Draws,
    Frame,
    Layout,
    choose_data_plate,
    constants,
    gather,
    named_arguments,
)

Site = dict[str, Any]
Trace = Mapping[str, Site]


def draw(
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    draws: int,
    rows: int,
    seed: int | None,
    groups: Collection[str],
    params: Mapping[str, Any] | None = None,
) -> Draws:
    """Draw from a pair; see `arviz.to_arviz` for the arguments. NumPy's global generator goes on without a seed."""
    key = jax.random.key(np.random.randint(2**31) if seed is None else seed)
    pair = _Pair(model, guide, args, params or {}, groups, jax.random.fold_in(key, 0))
    keys = jax.random.split(jax.random.fold_in(key, 1), draws)
    at_once = max(1, rows // max(pair.size, 1))
    at_once, done, notes = min(at_once, draws), 0, []
    together = jax.jit(jax.vmap(pair.run))

    def several(count: int) -> Mapping[str, Arrays]:
        nonlocal done
        # every call is of one size, so that the last one compiles nothing
        chosen = keys[jnp.minimum(done + jnp.arange(at_once), draws - 1)]
        done += count
        return jax.tree.map(lambda v: np.asarray(v)[:count], together(chosen))

    def one(count: int) -> Mapping[str, Arrays]:
        nonlocal done
        done += 1
        return jax.tree.map(lambda v: np.asarray(v)[None], pair.run(keys[done - 1]))

    try:
        found = gather(several, draws, at_once)
    except Exception as error:  # noqa: BLE001 (whatever a program does with a value it cannot look at)
        done = 0
        notes.append(f"draws made one by one: the programs do not run under jax.vmap ({_first_line(error)})")
        found = gather(one, draws, 1)
    densities = found.pop("densities")
    found = {group: {n: pair.arrange(n, group, v) for n, v in arrays.items()} for group, arrays in found.items()}
    observed = {n: pair.layouts[n].arrange(np.asarray(v)[None])[0] for n, v in pair.observed.items()}
    return Draws(
        found,
        np.asarray(densities["log_p"]),
        np.asarray(densities["log_q"]),
        observed,
        constants(named_arguments(model, args, lambda a: np.asarray(a) if isinstance(a, jax.Array) else a), observed),
        pair.layouts,
        pair.plate,
        ("numpyro", numpyro.__version__),
        notes,
    )


class _Pair:
    """A pair looked at once, with the values of its parameters; `run` gives one draw.

    Args:
        key: of the first run.

    Raises:
        ValueError: a guide that observes, that lacks a latent or has one too many; a model that observes nothing or
            subsamples its data, or whose observations are in a loop that cannot draw them.
    """

    def __init__(
        self,
        model: Callable,
        guide: Callable,
        args: Sequence[Any],
        params: Mapping[str, Any],
        groups: Collection[str],
        key: jax.Array,
    ) -> None:
        self.model, self.guide, self.args, self.groups = model, guide, args, groups
        # what the first run finds: a parameter that a program draws would be another one in every run
        self.params: dict[str, Any] = {**weights(model), **params}  # a guide's copy of the model takes the model's own
        check_model(model, guide)
        first, second = jax.random.split(key)
        q = self._trace(guide, first)
        self._keep(q)
        latent = {name: site["value"] for name, site in q.items() if _is_latent(site)}
        p = self._trace(model, second, latent)
        self._keep(p)
        _check(model, guide, p, q)
        _check_whole(p)
        drawn = {name: site for name, site in p.items() if _is_latent(site) or _is_data(site)}
        frames = {name: _frames(site) for name, site in drawn.items()}
        self.observed = {name: site["value"] for name, site in drawn.items() if _is_data(site)}
        self.plate = choose_data_plate(
            [Around(frames[n], np.shape(v), drawn[n]["fn"].event_dim) for n, v in self.observed.items()],
            [frames[n] for n in drawn if n not in self.observed],
            np.shape(args[0]) if args and hasattr(args[0], "shape") else None,
        )
        self.layouts = {n: Layout.of(np.shape(s["value"]), s["fn"].event_dim, frames[n]) for n, s in drawn.items()}
        computed = {name: site for name, site in p.items() if site["type"] == "deterministic"}
        self.layouts |= {n: Layout.computed(np.shape(s["value"]), _frames(s)) for n, s in computed.items()}
        dense = [s for t in (p, q) for s in t.values() if s["type"] == "sample"]
        self.shared = {s["name"] for s in dense if self.plate is None or self.plate not in _frames(s)}
        self.size = 1 if self.plate is None else self.plate.size

    def run(self, key: jax.Array) -> dict[str, dict[str, jax.Array]]:
        """Groups of one draw, and its densities."""
        keys = jax.random.split(key, 4)
        q = self._trace(self.guide, keys[0])
        latent = {name: site["value"] for name, site in q.items() if _is_latent(site)}
        p = self._trace(self.model, keys[1], latent)
        found = {"posterior": self._values(p, observed=False)}
        log_p, log_q = ({n: self._per_datum(s) for n, s in t.items() if s["type"] == "sample"} for t in (p, q))
        found["log_likelihood"] = {n: log_p[n][0] if n in self.shared else log_p[n] for n in self.observed}
        # all data are one where they share something
        total = {name: sum(terms.values()) for name, terms in (("log_p", log_p), ("log_q", log_q))}
        if self.shared:
            total = {"log_p": sum(t.sum() for t in log_p.values()), "log_q": sum(t.sum() for t in log_q.values())}
        found["densities"] = total
        if "posterior_predictive" in self.groups:
            found["posterior_predictive"] = self._values(self._trace(self.model, keys[2], latent, True), observed=True)
        if set(self.groups) & set(PREDICTIVE[1:]):
            prior = self._trace(self.model, keys[3], None, True)
            found["prior"] = self._values(prior, observed=False)
            found["prior_predictive"] = self._values(prior, observed=True)
        return found

    def arrange(self, name: str, group: str, values: np.ndarray) -> np.ndarray:
        """(draws, *dims) of what runs gave."""
        return values if group == "log_likelihood" else self.layouts[name].arrange(values)

    def _trace(
        self, program: Callable, key: jax.Array, latent: Mapping[str, Any] | None = None, redraw: bool = False
    ) -> Trace:
        values = {**self.params, **(latent or {})}
        with handlers.trace() as trace, handlers.seed(rng_seed=key), handlers.substitute(data=values):
            if redraw:
                with _Redraw():
                    program(*self.args)
            else:
                program(*self.args)
        return trace

    def _keep(self, trace: Trace) -> None:
        for name, site in trace.items():
            if site["type"] in ("param", "mutable"):
                self.params.setdefault(name, site["value"])

    def _values(self, trace: Trace, observed: bool) -> dict[str, jax.Array]:
        names = [n for n in self.layouts if n in trace and (n in self.observed) == observed]
        return {name: jnp.asarray(trace[name]["value"]) for name in names}

    def _per_datum(self, site: Site) -> jax.Array:
        """The log density of a site, (n,), or (1,) for what is outside the data plate."""
        fn, hints = site["fn"], site.get("intermediates")
        value = fn.log_prob(site["value"], hints) if hints else fn.log_prob(site["value"])
        value = value if site["scale"] is None else value * site["scale"]
        if site["name"] in self.shared:
            return value.sum()[None]
        value = value.reshape((1,) * (-self.plate.dim - value.ndim) + value.shape)
        keep = value.ndim + self.plate.dim
        value = value.sum([d for d in range(value.ndim) if d != keep])
        return jnp.broadcast_to(value, (self.plate.size,))


class _Redraw(Messenger):
    """Draw what is observed anew; factors stay."""

    def process_message(self, msg: Site) -> None:
        if msg["type"] == "control_flow":
            raise ValueError(
                "to_arviz: observations inside of a numpyro scan or cond are not drawn anew; leave the predictive "
                "groups out, groups=('posterior', 'log_likelihood'), or write the loop in Python"
            )
        if msg["type"] == "sample" and _is_data(msg):
            msg["is_observed"], msg["value"] = False, None


def _check(model: Callable, guide: Callable, p: Trace, q: Trace) -> None:
    """Raise ValueError for programs that are no pair."""
    needed, given = ([name for name, site in t.items() if _is_latent(site)] for t in (p, q))
    for name, site in q.items():
        if _is_data(site):
            raise ValueError(
                f"the guide, {_called(guide)}, observes the site {name!r}; are model and guide in this order? A guide "
                "draws every latent and observes nothing but a numpyro.factor"
            )
    if not any(_is_data(site) for site in p.values()):
        raise ValueError(
            f"to_arviz: the model {_called(model)} observes nothing (it draws "
            f"{', '.join(map(repr, needed)) or 'nothing'}); are model and guide in this order? If so, pass it the data "
            "that it observes"
        )
    for name in given:
        if name not in needed and not q[name]["infer"].get("is_auxiliary"):
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


def _check_whole(trace: Trace) -> None:
    for name, site in trace.items():
        if site["type"] == "plate" and site["args"][0] != len(site["value"]):
            raise ValueError(
                f"to_arviz: the plate {name!r} draws {len(site['value'])} of {site['args'][0]} data, want every datum; "
                "take a model of the same parameters whose plate does not subsample"
            )


def _frames(site: Site) -> tuple[Frame, ...]:
    return tuple(Frame(f.name, f.dim, f.size) for f in site["cond_indep_stack"])


def _is_latent(site: Site) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


def _is_data(site: Site) -> bool:
    """Whether a site or message is an observation: no factor, and no constant under a name."""
    return site["type"] == "sample" and site["is_observed"] and not isinstance(_bare(site["fn"]), (Unit, Delta))


def _bare(fn: Distribution) -> Distribution:
    while isinstance(fn, (ExpandedDistribution, Independent, MaskedDistribution)):
        fn = fn.base_dist
    return fn


def _called(program: Callable) -> str:
    return getattr(program, "__name__", type(program).__name__)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
