"""`reconstruct`, `interpolate`, `traverse`: rows of data by way of their codes, and by codes beside theirs."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Annotated, Any

import jax.numpy as jnp
from jax import Array, random
from numpyro import handlers

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Number, Seed
from ppl_models.programs import numpyro as programs
from ppl_models.programs.numpyro import layers, nodes_of
from ppl_models.programs.record import Layers

from ...evaluation import generated
from ..evaluation.encode import encode
from ..passes.checks import CHUNK
from ..passes.terms import traces
from .sampling import OfOne, Rows, decode, key_of, parts_of

STEPS, VALUES = 9, (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
AtLeastTwo = Annotated[int, Number(whole=True, least=2)]


@checked
def reconstruct(
    model: OfOne,
    guide: OfOne,
    x: Rows,
    *,
    latents: Sequence[str] | None = None,
    seed: Seed | None = 0,
) -> Array:
    """Means of the data given latents that the guide draws for x: E[x' | z], z ~ q(z | x).

    See `ppl_models.inference.reconstruct`, whose arguments these are.

    Raises:
        ValueError: a latent that there is not, observed sites that do not make rows.
    """
    x, found = jnp.asarray(x), []
    names = generated.chosen("reconstruct", latents, programs.run(model, (x[: min(len(x), CHUNK)],)).latents)
    for i in range(0, len(x), CHUNK):
        rows, keys = x[i : i + CHUNK], random.split(random.fold_in(key_of(seed), i), 3)
        drawn = traces(model, guide, (rows,), key=keys[0], params={})[1] if names else {}
        values = {name: drawn[name]["value"] for name in names}
        with handlers.block():
            program = handlers.seed(handlers.substitute(model, data=values), keys[1])
            trace = handlers.trace(program).get_trace(rows)
        observed = nodes_of(trace, "observed")
        parts = parts_of(trace, len(rows), False, keys[2], lambda site: site["name"] in observed)  # noqa: B023
        found.append(generated.rows_from(parts, prod(x.shape[1:]), getattr(model, "join", None)).reshape(rows.shape))
    return jnp.concatenate(found)


@checked
def interpolate(
    model: OfOne, guide: OfOne, x: Rows, y: Rows, *, steps: AtLeastTwo = STEPS, seed: Seed | None = 0
) -> Array:
    """Means of the data on the straight lines from the codes of x to those of y, in all latents at once.

    See `ppl_models.inference.interpolate`, whose arguments these are.

    Raises:
        ValueError: x and y of other shapes, a discrete latent; see `encode` and `decode`.
    """
    return generated.interpolated(_Tools(), model, guide, jnp.asarray(x), jnp.asarray(y), steps, seed)


@checked
def traverse(
    model: OfOne,
    guide: OfOne,
    x: Rows,
    latent: str,
    *,
    units: Sequence[int] | None = None,
    values: Sequence[float] = VALUES,
    codes: Mapping[str, Any] | None = None,
    seed: Seed | None = 0,
) -> Array:
    """Means of the data where one unit of a latent is moved, and what depends on it goes along.

    See `ppl_models.inference.traverse`, whose arguments these are.

    Raises:
        ValueError: a latent or unit that there is not, one that is discrete or has no known variance under the model;
            see `encode` and `decode`.
    """
    codes = codes and {name: jnp.asarray(code) for name, code in codes.items()}
    return generated.traversed(_Tools(), model, guide, jnp.asarray(x), latent, units, values, codes, seed)


class _Tools:
    """See `generated.Tools`."""

    def encode(self, model: Any, guide: Any, data: Any, *, seed: int | None) -> dict[str, Array]:
        return encode(model, guide, data, seed=seed)

    def decode(self, model: Any, codes: Mapping[str, Array], x: Array, *, seed: int | None) -> Array:
        return decode(model, codes, x, seed=seed)

    def visit(self, model: Any, x: Array, value: Callable[[str, Any], Array]) -> None:
        def put(site: dict[str, Any]) -> Array | None:
            latent = site["type"] == "sample" and not site["is_observed"]
            return value(site["name"], site["fn"]) if latent else None

        with handlers.block():
            handlers.seed(handlers.substitute(model, substitute_fn=put), random.key(0))(x)

    def layers(self, fn: Any) -> Layers:
        return layers(fn)
