"""`ancestral`, `decode`: draws of data from the prior downwards, and means of data given codes."""

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
from jax import Array, random
from numpyro import handlers

from ppl_models.parts.arguments.checked import check, checked
from ppl_models.parts.arguments.kinds import Is, Seed
from ppl_models.programs import numpyro as programs
from ppl_models.programs.arguments import takes
from ppl_models.programs.numpyro import Drawable, Trace, is_point, unwrapped
from ppl_models.programs.pairs import NO_DATA, refuse_undrawn

from ...evaluation.generated import check_codes, rows_from

ROWS = Is("an array of rows", lambda x: isinstance(x, Array | np.ndarray) and x.ndim > 0 and x.dtype.kind in "biuf")
Rows = Annotated[Any, ROWS]
OfOne = Annotated[Callable[..., Any], Is("a program of one argument", partial(takes, 1))]


@checked
def ancestral(model: OfOne, x: Rows, *, draws: bool = True, seed: Seed | None = 0) -> Array:
    """Rows drawn from a model, from its prior to its data: one for each row of x.

    See `ppl_models.inference.ancestral`, whose arguments these are. With the seed None one is drawn.

    Raises:
        ValueError: observed sites that do not make rows.
    """
    return generate(model, jnp.asarray(x), {}, draws, key_of(seed))


@checked
def decode(model: OfOne, codes: Mapping[str, Any], x: Rows, *, draws: bool = False, seed: Seed | None = 0) -> Array:
    """Means of a model's data given its latents, one row for each code.

    See `ppl_models.inference.decode`, whose arguments these are.

    Raises:
        ValueError: no codes, codes of what the model does not draw, or of another shape.
    """
    if not codes:
        raise ValueError("decode: found no codes, want those of one latent at least, {'z1': z}")
    codes = {name: jnp.asarray(check("decode", f"codes[{name!r}]", code, ROWS)) for name, code in codes.items()}
    n = len(next(iter(codes.values())))
    like = jnp.asarray(x)[jnp.arange(n) % len(x)]
    known = programs.run(model, (like,)).latents
    check_codes("decode", codes, n, {name: site.event_shape for name, site in known.items()})
    return generate(model, like, codes, draws, key_of(seed))


def key_of(seed: int | None) -> Array:
    """The key of a seed, a new one for None."""
    return random.key(int(np.random.default_rng().integers(2**31)) if seed is None else seed)


def generate(model: Callable, x: Array, values: Mapping[str, Array], draws: bool, key: Array) -> Array:
    """Rows of the shape of x that a model draws with its latents at values: all that it observes is drawn."""
    keys = random.split(key)
    program = handlers.substitute(handlers.uncondition(model), data=dict(values))
    with handlers.block(), Drawable(*NO_DATA):
        trace = handlers.trace(handlers.seed(program, keys[0])).get_trace(x)
    parts = parts_of(trace, len(x), draws, keys[1], lambda site: site.get("infer", {}).get("was_observed"))
    return rows_from(parts, prod(x.shape[1:]), getattr(model, "join", None)).reshape(x.shape)


def parts_of(
    trace: Trace, n: int, draws: bool, key: Array, chosen: Callable[[Mapping[str, Any]], Any]
) -> dict[str, Array]:
    """Those of the data's sites that have a row for each of n data: their values, or the means of their distributions.

    Args:
        trace: of a model.
        n: number of data.
        draws: take values.
        key: of draws in place of means that there are not.
        chosen: whether a site is one of the data's.
    """
    parts: dict[str, Array] = {}
    for i, (name, site) in enumerate(trace.items()):
        if site["type"] != "sample" or not chosen(site) or is_point(site["fn"]):
            continue
        value = site["value"]
        if jnp.ndim(value) and jnp.size(value) and len(value) == n:
            found = value if draws else jnp.broadcast_to(_mean(site, random.fold_in(key, i)), jnp.shape(value))
            parts[name] = found.reshape(n, -1)
    return parts


def _mean(site: Mapping[str, Any], key: Array) -> Array:
    """The mean of a site's distribution, or a draw where there is none."""
    fn = site["fn"]
    try:
        return fn.mean
    except NotImplementedError:
        pass
    try:
        return fn.sample(key)
    except NotImplementedError as error:
        refuse_undrawn("data given latents", site["name"], type(unwrapped(fn)).__name__, error, "give it a mean")
