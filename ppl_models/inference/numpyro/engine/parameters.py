"""The parameters of a pair of NumPyro programs: found, made unconstrained for an optimizer, and named for files."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import keystr, tree_flatten_with_path
from numpyro import handlers
from numpyro.distributions import biject_to, constraints

from ppl_models.numpyro.parts.program import Program, named_parameters
from ppl_models.programs.arguments import refuse_call
from ppl_models.programs.numpyro import nodes_of, read
from ppl_models.programs.pairs import Pair, check_order
from ppl_models.programs.rows import fits, rows_in
from ppl_models.programs.state.jax import attributes_of, hold_tracers

from ...resuming.training_record import checked
from ..passes.rows import refuse_others
from ..passes.terms import check_model, runs_model, weights

Params = dict[str, Any]  # name of a numpyro.param -> array, or a pytree of arrays


@dataclass(frozen=True)
class Parameters:
    """Facts of the `numpyro.param`s of a pair, but for their values.

    Attributes:
        transforms: param -> the bijection from the reals onto its support.
        names: param -> the names of its arrays, in the order of its leaves: "model.decoder.first.0.weight" and
            "guide. ..." of `Program`s, as torch calls them, and "params.<param>. ..." of all others.
    """

    transforms: dict[str, Callable]
    names: dict[str, list[str]]

    def constrained(self, free: Params) -> Params:
        """The values that programs see, of those that an optimizer moves."""
        return {name: self.transforms[name](value) for name, value in free.items()}

    def named(self, params: Params) -> dict[str, Array]:
        """Every array by its name."""
        pairs = [zip(self.names[param], jax.tree.leaves(value), strict=True) for param, value in params.items()]
        return {name: leaf for each in pairs for name, leaf in each}

    def restored(self, like: Params, arrays: Mapping[str, Any]) -> Params:
        """Params of the structure of `like`, of arrays by their names.

        Raises:
            ValueError: an array that is missing or of another shape or dtype.
        """
        for name, value in self.named(like).items():
            checked(name, arrays.get(name), value)
        return {
            param: jax.tree.unflatten(jax.tree.structure(value), [jnp.asarray(arrays[n]) for n in self.names[param]])
            for param, value in like.items()
        }

    def programs(self, model: Callable, guide: Callable, params: Params) -> tuple[Callable, Callable]:
        """The pair with these (constrained) values.

        `Program`s are new ones, the model inside a guide too; other functions get theirs by `handlers.substitute`.
        """
        trained = _trained(model, params)
        new = _trained(guide, params)
        own = getattr(guide, "model", None)
        if isinstance(guide, Program) and callable(own):
            new = eqx.tree_at(lambda program: program.model, new, _trained(own, params))
        return trained, new


def find(
    model: Callable, guide: Callable, args: Sequence[Any], key: Array, asks: str = "fit"
) -> tuple[Params, Parameters, Pair]:
    """(where the params of a pair start from, unconstrained; what is known of them; its record), of one run of it.

    The record holds shapes, and no numbers. A program that keeps what its first run shows, as NumPyro's autoguides do,
    is run outside of any transformation, so that what it keeps are arrays. Errors start with the name of the function
    that `asks`.

    Raises:
        ValueError: model and guide that share one name for parameters of their own; state of `numpyro_mutable`; a guide
            that observes something, or runs another model; a pair that was made for another number of rows.
    """
    refuse_call(asks, model, guide, args, None)
    try:
        found = _find(model, guide, args, key)
    except Exception:
        refuse_others(asks, model, guide, args, {})
        raise
    if not fits((found[2].model, found[2].guide), rows_in(args)):
        refuse_others(asks, model, guide, args, {})
    return found


def _find(model: Callable, guide: Callable, args: Sequence[Any], key: Array) -> tuple[Params, Parameters, Pair]:
    _checknames_of(model, guide)
    check_model(model, guide)
    transforms, records = {}, []

    def start(key: Array, args: Sequence[Any]) -> tuple[Params, dict[str, Array]]:
        keys = jax.random.split(key)
        first = weights(model)
        with handlers.trace() as guide_trace, handlers.seed(rng_seed=keys[0]), handlers.substitute(data=first):
            both = guide.traces(*args) if runs_model(guide) else guide(*args)
        if runs_model(guide):
            model_trace = both[0]
        else:
            check_order(guide, nodes_of(guide_trace, "observed"), "numpyro")
            first |= {name: site["value"] for name, site in guide_trace.items() if site["type"] == "param"}
            with handlers.trace() as model_trace, handlers.seed(rng_seed=keys[1]), handlers.substitute(data=first):
                with handlers.replay(trace=guide_trace):
                    model(*args)
        records.extend(read(trace) for trace in (model_trace, both[1] if runs_model(guide) else guide_trace))
        _check_own(model, model_trace, {guide.param} if isinstance(guide, Program) else set())
        _check_own(guide, guide_trace, model_trace.keys())
        values = {}
        for site in (*model_trace.values(), *guide_trace.values()):
            name = site.get("name")
            if site["type"] == "mutable":
                raise ValueError(
                    f"the programs keep the state {name!r} from run to run (numpyro_mutable), which is not carried "
                    "here; pass it as an argument, or normalize without running statistics"
                )
            if site["type"] == "param" and name not in values:
                for leaf in jax.tree.leaves(site["value"]):
                    if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
                        raise ValueError(
                            f"fit: found the param {name!r} of {jnp.result_type(leaf)}, want floating numbers, which "
                            "have gradients; try 0.0 for 0"
                        )
                transforms[name] = biject_to(site["kwargs"].get("constraint", constraints.real))
                values[name] = transforms[name].inv(site["value"])
        # numbers of Python are of no fixed type: a step would compile twice
        values = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), values)
        return values, {name: site.value for name, site in records[0].of("observed", "subsample").items()}

    given, put_back = (key, tuple(args)), attributes_of([model, guide])
    # one compilation of next to nothing, where eagerly every operation of the programs would be one
    traced = jax.jit(start).trace(*given)
    if hold_tracers([model, guide]):
        put_back()
        transforms.clear()
        records.clear()
        values, seen = start(*given)
    else:
        values, seen = traced.lower().compile()(*given)
    names = {name: names_of(f"params.{name}", value) for name, value in values.items()}
    for label, program in (("model", model), ("guide", guide)):
        if isinstance(program, Program) and program.param in names:
            names[program.param] = [f"{label}.{name}" for name in named_parameters(program)]
    return values, Parameters(transforms, names), Pair.of(*records, next(iter(args), None), lambda: seen)


def of_program(free: Params, program: Callable) -> Params:
    """The params with those of a `Program` in its own structure, which its constants are part of."""
    if not isinstance(program, Program) or program.param not in free:
        return free
    own = eqx.partition(program.own(), eqx.is_inexact_array)[0]
    leaves = jax.tree.leaves(free[program.param])
    return {**free, program.param: jax.tree.unflatten(jax.tree.structure(own), leaves)}


def _trained(program: Callable, params: Params) -> Callable:
    if not isinstance(program, Program):
        return handlers.substitute(program, data=params) if params else program
    if program.param not in params:
        return program
    constants = eqx.partition(program.own(), eqx.is_inexact_array)[1]
    return program.restored(eqx.combine(params[program.param], constants))


def names_of(start: str, value: Any) -> list[str]:
    paths = [keystr(path, simple=True, separator=".") for path, _ in tree_flatten_with_path(value)[0]]
    return [f"{start}.{path}" if path else start for path in paths]


def _checknames_of(model: Callable, guide: Callable) -> None:
    """Raise ValueError for two programs of one class: NumPyro goes by name, and would train them as one."""
    if isinstance(model, Program) and isinstance(guide, Program) and model.param == guide.param:
        raise ValueError(
            f"model and guide are both of a class {type(model).__name__}, and their parameters would be one, "
            f"{model.param!r}; rename one of the classes"
        )


def _check_own(program: Callable, trace: Mapping[str, Any], others: Collection[str]) -> None:
    """Raise ValueError for a `Program` that makes params in its run: they would be trained, but be no part of it."""
    for name, site in trace.items() if isinstance(program, Program) else ():
        if site["type"] == "param" and name != program.param and name not in others:
            raise ValueError(
                f"fit: found the param {name!r} in a run of the Program {type(program).__name__}, want its arrays in "
                "its fields; make it one, or write the program as a function"
            )
