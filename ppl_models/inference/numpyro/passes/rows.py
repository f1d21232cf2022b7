"""`fewer`: a trial of whether a pair takes other numbers of rows; `made_for`, `refuse_others`: the number it takes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from numpyro import handlers

from ppl_models.numpyro.parts.program import Program
from ppl_models.programs.noise import structure_of
from ppl_models.programs.numpyro import frame_of, full_sizes, nodes_of, read
from ppl_models.programs.pairs import Pair
from ppl_models.programs.rows import fits, refuse_rows, rows_taken

from .terms import single, traces

FEW, SMALL = 5, 100  # rows of a trial, and those among which they are compared with themselves
Terms = dict[str, Array]


def fewer(
    model: Callable, guide: Callable, args: Sequence[Array], pair: Pair, params: Mapping[str, Any], key: Array
) -> str | None:
    """None if a few rows by themselves have the densities that they have among others; else the reason why not.

    A plate of a fixed size or a parameter for each datum takes no other rows: shapes tell, and nothing is computed. A
    table that is cut to the length of the data takes them and gives other numbers: functions of the user's are run, at
    the draws that were made for the last rows of more.

    Args:
        model, guide, params: the pair, all of whose sites are in the plate of the data.
        args: a batch, two rows at least.
        pair: their record.
        key: of the draws.
    """
    count, guide = min(FEW, len(args[0]) - 1), structure_of(guide)  # of whose runs those of a refined one are made
    few, some = ([arg[-k:] for arg in args] for k in (count, SMALL))
    how = {"key": key, "params": params, "plate": pair.plate}

    def run(rows: Sequence[Array], held: Mapping[str, Array] | None = None) -> Terms:
        found = single(model, guide, rows, analytic=False, held=held, **how)
        return {f"{k} {n}": v for k in ("log_likelihood", "log_p", "log_q") for n, v in getattr(found, k).items()}

    try:
        shapes = jax.eval_shape(run, few)
        if any(found.shape not in ((1,), (count,)) for found in shapes.values()):
            return "they do not take other numbers of rows (a plate is of a fixed size)"
        if isinstance(model, Program) and isinstance(guide, Program):
            return None
        model_trace, guide_trace, _ = traces(model, guide, some, key=key, params=params)
        drawn = nodes_of(guide_trace, "latent")
        dims = {n: frame_of(s, pair.plate, guide_trace).dim - s["fn"].event_dim for n, s in drawn.items()}
        draws = {name: site["value"] for name, site in drawn.items()}
        last = {n: jnp.take(v, jnp.arange(v.shape[dims[n]])[-count:], dims[n]) for n, v in draws.items()}
        together, alone = run(some, draws), run(few, last)
    except Exception as error:  # noqa: BLE001 (whatever a program does with rows that it does not expect)
        return f"they do not take other numbers of rows ({str(error).splitlines()[0][:120]})"
    for name, value in alone.items():
        if not np.allclose(together[name][-count:], value, rtol=1e-3, atol=1e-3, equal_nan=True):
            return f"site {name.split()[-1]!r} has another density when some of the rows are left out"
    return None


def made_for(
    model: Callable, guide: Callable, args: Sequence[Any], params: Mapping[str, Any]
) -> tuple[str, int] | None:
    """(the program, "model" or "guide", and the rows that it takes) for a pair that takes others than these alone.

    None where the number of rows is not what is wrong: then the pair does not run on any other one, either.
    """
    if not args or not all(getattr(arg, "ndim", 0) and len(arg) == len(args[0]) > 0 for arg in args):
        return None
    n = len(args[0])

    def runs(count: int, of: int, alone: bool) -> bool:
        rows = [jnp.asarray(arg)[jnp.arange(count) % min(of, n)] for arg in args]
        records = []

        def run() -> Array:
            if alone:
                found = (_trace(model, rows, params),)
            else:
                found = traces(model, guide, rows, key=random.key(0), params=params)[:2]
            records.extend(map(read, found))
            sites = [site for trace in found for site in nodes_of(trace, "latent", "observed").values()]
            return sum(jnp.sum(site["fn"].log_prob(site["value"])) for site in sites)

        try:
            jax.eval_shape(run)
        except Exception:  # noqa: BLE001 (it is asked whether there is one)
            return False
        return fits(records, count)

    return rows_taken(n, _sizes(model, guide, args, params), runs)


def refuse_others(asks: str, model: Callable, guide: Callable, args: Sequence[Any], params: Mapping[str, Any]) -> None:
    """Raise ValueError if it is their number for which these rows do not fit a pair; asked where something failed."""
    taken = made_for(model, guide, args, params)
    if taken is not None:
        refuse_rows(asks, len(args[0]), *taken)


def _trace(program: Callable, args: Sequence[Any], params: Mapping[str, Any]) -> dict[str, Any]:
    with handlers.trace() as trace, handlers.seed(rng_seed=0), handlers.substitute(data=dict(params)):
        program(*args)
    return trace


def _sizes(model: Callable, guide: Callable, args: Sequence[Any], params: Mapping[str, Any]) -> list[int]:
    """The sizes of plates, as far as a pair runs, and those of its parameters."""
    found: list[int] = []
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(dict(params))]

    def run(program: Callable) -> None:
        with handlers.trace() as trace, handlers.seed(rng_seed=0), handlers.substitute(data=dict(params)):
            try:
                program(*args)
            except Exception:  # noqa: BLE001 (it was seen already)
                pass
        found.extend(full_sizes(trace).values())
        found.extend(f.size for site in trace.values() for f in site.get("cond_indep_stack", ()))
        values = [site["value"] for site in trace.values() if site["type"] == "param"]
        shapes.extend(jnp.shape(leaf) for leaf in jax.tree.leaves(values) if hasattr(leaf, "shape"))

    for program in (guide, model):
        jax.eval_shape(lambda program=program: run(program))
    return found + sorted({size for shape in shapes for size in shape}, reverse=True)
