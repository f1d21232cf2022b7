"""`price_edges`: what each latent edge that a guide lacks is worth, measured by training the guide with it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import pyro
from torch import Tensor

from ppl_models.factorization import Report, compare
from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count
from ppl_models.programs.state.torch import modules_of

from ...config import Config, FitOptions, configured, shows_options
from ...evaluation.prices import Pair, Prices, check_fresh, check_pair, measured, of_each
from ..feeding.columns import Columns
from ..passes.checks import forked
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

    in nats per test datum, paired datum by datum. It goes for any model, where the prices of a report are of
    linear-Gaussian ones, which it agrees with there: the difference of the two guides' `Report.gap.elbo`. A price holds
    for this family, these networks and this length of training; it may be negative. A model that is trained along can
    make up for an edge, or suffer more from it; with `requires_grad_(False)` it is the guide's price alone.

    Args:
        pair: makes a fresh (model, guide), given parents: latent -> the latents that it is given. It is called for each
            training, after Pyro's generators are seeded, and makes both: what one training has trained is no start of
            another.
        train, test: data, as for `fit`.
        parents: those of the guide that is priced, as `pair` takes them: of the guides of the collection also a word.
        seeds: how many trainings of each guide, by `seed`, `seed + 1`, ...; each time all begin with the same one.
        draws: of the guide, a test datum, of which its bound is the mean.
        config, progress, options: as for `fit`; `seed` is 0 by default.

    Raises:
        ValueError: a pair that gets no verdict, or that is the same whatever parents it is given; weights that are
            given twice; all data as one datum; what `fit` and `evaluate` object to.

    >>> import pyro.distributions as dist, torch
    >>> from guides import SelfReflective
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z1 = pyro.sample("z1", dist.Normal(0.0, 1.0))
    ...         z2 = pyro.sample("z2", dist.Normal(z1, 0.5))
    ...         pyro.sample("x", dist.Normal(z2, 0.3), obs=x)
    >>> x = torch.randn(200, generator=torch.Generator().manual_seed(0))
    >>> def pair(parents):
    ...     return model, SelfReflective(model, x[:3], parents=parents, hidden=8)
    >>> prices = price_edges(pair, x, x, steps=150, lr=0.05, batch_size=50, draws=20, progress=False)
    >>> [(row.edges, row.verdict) for row in prices.edges]
    [((('z1', 'z2'),), 'faithful, minimal, perfect')]
    >>> closed_form = compare(*pair("none"), x[:3]).gap.elbo
    >>> abs(prices.edges[0].nats - closed_form) < 0.15 * closed_form
    True
    """
    config = configured(config, options)
    first, moved = config.seed or 0, dict[int, Tensor]()  # by the trainings so far

    def built(chosen: Any, seed: int) -> tuple[Any, Any]:
        pyro.set_rng_seed(seed)
        return check_pair(pair(chosen))

    def look(chosen: Any) -> Report:
        with forked(()), pyro.get_param_store().scope():
            model, guide = built(chosen, first)
            rows = Columns(train, "price_edges: train", model, guide).rows(slice(0, 3), None)
            return compare(model, guide, *rows)

    def trained(chosen: Any, seed: int) -> np.ndarray:
        with forked(()), pyro.get_param_store().scope():
            model, guide = built(chosen, seed)
            weights = [p for module in modules_of(model, guide) for p in module.parameters() if p.requires_grad]
            check_fresh(any(id(p) in moved for p in weights))
            moved.update((id(p), p) for p in weights)
            fit(model, guide, train, replace(config, seed=seed), progress=progress)
            return of_each(evaluate(model, guide, test, particles=draws, progress=progress).elbos)

    return measured(look, trained, parents, range(first, first + seeds))
