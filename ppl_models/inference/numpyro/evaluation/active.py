"""`active_units`: the units of a guide's latents that tell of the data."""

from typing import Annotated, Any

import jax
import numpy as np
from jax import Array, random

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyProgram, Number, Seed
from ppl_models.programs.state.jax import tidied

from ...evaluation.active import NO_UNITS, ActiveUnits, counted_units
from ...objectives.terms import NoUnits
from ..engine.parameters import find
from ..feeding.batches import columns_of, drawn
from ..passes.checks import CHUNK
from ..passes.terms import terms
from .encode import Encoder


@checked
def active_units(
    model: AnyProgram,
    guide: AnyProgram,
    data: Any,
    *,
    threshold: Annotated[float, Number(above=0)] = 0.01,
    particles: Annotated[int, Number(whole=True, least=2)] = 16,
    seed: Seed | None = 0,
) -> ActiveUnits:
    """Count the units of each latent that are in use, by the variance of their means and by their divergences.

    See `ppl_models.inference.active_units`, whose arguments these are.

    Raises:
        ValueError: what `encode` raises.
    """
    means, errors = Encoder(model, guide, data, particles, "active_units").means(slice(None), seed)
    columns = columns_of(data, "active_units: data", model)
    key, n = random.key(0 if seed is None else seed), len(columns[0])

    def rows(start: int, key: Array) -> tuple[Array, ...]:
        return drawn(columns, [column.values[start : start + CHUNK] for column in columns], key)

    free, parameters, pair = find(model, guide, rows(0, key), key, "active_units")
    params = parameters.constrained(free)

    @jax.jit
    def sums(batch: tuple[Array, ...], key: Array) -> dict[str, Array]:
        units = terms(model, guide, batch, plate=pair.plate, key=key, params=params).kl_units
        return {name: value.mean(0).sum(0) for name, value in units.items()}

    kl, notes = {}, ()
    try:
        with tidied(model, guide):
            for start in range(0, n, CHUNK):
                of_data, of_pass = random.split(random.fold_in(key, start))
                for name, value in sums(rows(start, of_data), of_pass).items():
                    kl[name] = kl.get(name, 0.0) + np.asarray(value, np.float64) / n
    except NoUnits:
        kl, notes = {}, (NO_UNITS,)
    means, errors = ({name: np.asarray(value) for name, value in each.items()} for each in (means, errors))
    return counted_units(means, errors, kl, threshold, notes)
