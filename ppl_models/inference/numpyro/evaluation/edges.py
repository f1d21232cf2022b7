"""`price_edges`: what each latent edge that a guide lacks is worth, measured by training the guide with it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
from jax import random
from numpyro import handlers

from ppl_models.factorization import Report, compare
from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count

from ...config import Config, FitOptions, configured, shows_options
from ...evaluation.prices import Pair, Prices, check_pair, measured, of_each
from ..feeding.batches import columns_of, drawn
from ..training.fit import fit
from .evaluate import evaluate


@shows_options
@checked
def price_edges(
    pair: Pair,
    train: Any,
    test: Any,
    config: Config = None,
    *,
    parents: str | Mapping[str, Any] = "none",
    seeds: Count = 1,
    draws: Count = 100,
    progress: bool = True,
    **options: Unpack[FitOptions],
) -> Prices:
    """Measure what the latent edges that a guide lacks are worth, each alone and all together.

        price(u -> z) = ELBO(guide with u among the parents of z) - ELBO(guide),     both trained alike

    See `ppl_models.inference.price_edges`. A pair of the collection's ports takes its keys from `numpyro.prng_key()`,
    which gives other ones for each seed: `SelfReflective(model, x[:3], parents=parents, key=numpyro.prng_key())`.

    Args:
        pair: makes a (model, guide), given parents: latent -> the latents that it is given.
        train, test, config, parents, seeds, draws, progress, options: as there.

    Raises:
        ValueError: see there.
    """
    config = configured(config, options)
    first = config.seed or 0

    def built(chosen: Any, seed: int) -> tuple[Any, Any]:
        with handlers.seed(rng_seed=seed):
            return check_pair(pair(chosen))

    def look(chosen: Any) -> Report:
        model, guide = built(chosen, first)
        columns = columns_of(train, "price_edges: train", model)
        return compare(model, guide, *drawn(columns, [column.values[:3] for column in columns], random.key(0)))

    def trained(chosen: Any, seed: int) -> np.ndarray:
        run = fit(*built(chosen, seed), train, replace(config, seed=seed), progress=progress)
        return of_each(evaluate(run.model, run.guide, test, particles=draws, progress=progress).elbos)

    return measured(look, trained, parents, range(first, first + seeds))
