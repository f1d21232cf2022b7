"""Draws of pairs of NumPyro programs; see `draws`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers

from ppl_models.inference.numpyro.passes.divergences import log_density, per_datum, scaled
from ppl_models.inference.numpyro.passes.messengers import Redraw
from ppl_models.inference.numpyro.passes.rows import refuse_others
from ppl_models.inference.numpyro.passes.terms import check_model, weights
from ppl_models.programs.doubts import mismatches, weighed
from ppl_models.programs.numpyro import Drawable, Trace, as_arrays, nodes_of, read, runs
from ppl_models.programs.pairs import INSTEAD_OF_PORT, PROPER, Pair, Undrawn, check_order, check_whole
from ppl_models.programs.rows import fits, rows_in
from ppl_models.programs.state.jax import tidied

from .draws import NARROW, PREDICTIVE, UNDRAWN, Arrays, Dims, Draws, constants, gather, named_arguments

LEFT_OUT = "leave the predictive groups out, groups=('posterior', 'log_likelihood')"


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
    args = as_arrays(args, "to_arviz")
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
        with tidied(model, guide):
            found = gather(several, draws, at_once)
    except Exception as error:  # noqa: BLE001 (whatever a program does with a value it cannot look at)
        done = 0
        notes.append(f"draws made one by one: the programs do not run under jax.vmap ({_first_line(error)})")
        found = gather(one, draws, 1)
    densities = found.pop("densities")
    found = {group: {n: pair.arrange(n, group, v) for n, v in arrays.items()} for group, arrays in found.items()}
    observed = {n: pair.dims[n].arrange(np.asarray(v)[None])[0] for n, v in pair.observed.items()}
    return Draws(
        found,
        np.asarray(densities["log_p"]),
        np.asarray(densities["log_q"]),
        observed,
        constants(named_arguments(model, args, lambda a: np.asarray(a) if isinstance(a, jax.Array) else a), observed),
        pair.dims,
        pair.plate,
        ("numpyro", numpyro.__version__),
        [*notes, *([] if pair.left_out is None else [pair.left_out])],
        pair.doubts,
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
        try:
            q = self._trace(guide, first)
            self._keep(q)
            p = self._trace(model, second, _values_of(q))
            self._keep(p)
        except Exception:
            refuse_others("to_arviz", model, guide, args, self.params)
            raise
        found, drawn = read(p), read(q)
        if not fits((found, drawn), rows_in(args)):
            refuse_others("to_arviz", model, guide, args, self.params)
        check_order(guide, drawn.observed, "numpyro")
        pair = Pair.of(found, drawn, args[0] if args else None)
        pair.check("to_arviz", model, language="numpyro")
        check_whole("to_arviz", found, INSTEAD_OF_PORT)
        self.plate, self.shared = pair.data, pair.shared
        self.doubts = [*mismatches(pair, runs(guide, args, self.params)), *weighed(pair)]
        self.observed = {name: site.value for name, site in found.observed.items()}
        self.dims = {n: Dims.of(s) for n, s in {**found.latents, **found.observed, **found.computed}.items()}
        self.left_out: str | None = None
        self.size = 1 if self.plate is None else self.plate.size

    def run(self, key: jax.Array) -> dict[str, dict[str, jax.Array]]:
        """Groups of one draw, and its densities."""
        keys = jax.random.split(key, 4)
        q = self._trace(self.guide, keys[0])
        latent = _values_of(q)
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
            found["posterior_predictive"] = self._values(self._predicted(keys[2], latent), observed=True)
        if set(self.groups) & set(PREDICTIVE[1:]):
            prior = self._predicted(keys[3], None)
            found["prior"] = self._values(prior, observed=False)
            found["prior_predictive"] = self._values(prior, observed=True)
        return found if self.left_out is None else {g: v for g, v in found.items() if "predictive" not in g}

    def _predicted(self, key: jax.Array, latent: Mapping[str, Any] | None) -> Trace:
        """A run that draws what is observed anew; where that cannot be drawn it stays, and `left_out` says so."""
        if self.left_out is None:
            try:
                with Drawable(*UNDRAWN):
                    return self._trace(self.model, key, latent, True)
            except Undrawn as error:
                self.left_out = str(error)
        with Drawable("to_arviz", PROPER):
            return self._trace(self.model, key, latent)

    def arrange(self, name: str, group: str, values: np.ndarray) -> np.ndarray:
        """(draws, *dims) of what runs gave."""
        return values if group == "log_likelihood" else self.dims[name].arrange(values)

    def _trace(
        self, program: Callable, key: jax.Array, latent: Mapping[str, Any] | None = None, redraw: bool = False
    ) -> Trace:
        values = {**self.params, **(latent or {})}
        with handlers.trace() as trace, handlers.seed(rng_seed=key), handlers.substitute(data=values):
            if redraw:
                with Redraw(NARROW, "to_arviz", LEFT_OUT):
                    program(*self.args)
            else:
                program(*self.args)
        return trace

    def _keep(self, trace: Trace) -> None:
        for name, site in trace.items():
            if site["type"] in ("param", "mutable"):
                self.params.setdefault(name, site["value"])

    def _values(self, trace: Trace, observed: bool) -> dict[str, jax.Array]:
        names = [n for n in self.dims if n in trace and (n in self.observed) == observed]
        return {name: jnp.asarray(trace[name]["value"]) for name in names}

    def _per_datum(self, site: dict[str, Any]) -> jax.Array:
        """The log density of a site, (n,), or (1,) for what is outside the data plate."""
        dim = None if site["name"] in self.shared else self.plate.dim
        return jnp.broadcast_to(per_datum(scaled(log_density(site), site), dim), (1 if dim is None else self.size,))


def _values_of(trace: Trace) -> dict[str, Any]:
    return {name: node["value"] for name, node in nodes_of(trace, "latent").items()}


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
