"""Losses for an optimizer: an objective of a pair with its gradient, or one of NumPyro's own ELBOs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
from jax import Array
from jax.lax import stop_gradient
from jax.nn import softmax
from numpyro.distributions import Delta

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyGuide, AnyProgram, Count
from ppl_models.programs.numpyro import nodes_of, unwrapped

from ...config import Gradient
from ...objectives.bounds import is_doubly, log_weights
from ...objectives.nested import inner_draws
from ...objectives.stateful import begun, has_state
from ...objectives.terms import Beta
from .terms import Terms, single, stacked, terms, traces

Objective = Callable[..., Array]


@checked
def estimate(
    objective: Objective,
    model: AnyProgram,
    guide: AnyGuide,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    key: Array,
    params: Mapping[str, Any],
    beta: Beta = 1.0,
    data_size: Count | None = None,
    particles: Count = 1,
    analytic: bool = True,
    gradient: Gradient = "reparametrized",
    plate: str | None = None,
    states: bool = False,
) -> tuple[Array, Terms]:
    """(the negative objective, to be minimized, in nats per datum; the `Terms` that it was made of).

    Differentiate it with respect to `params`. "doubly-reparametrized" has the value of `importance_weighted` and
    another gradient of the same mean, without the guide's score: with w~_k = w_k / sum_j w_j,

        sum_k  w~_k d log p(x, z_k) + c_k (d log w_k / d z_k) d z_k,      c_k = (1 - beta) w~_k + beta w~_k^2

    See `ppl_models.inference.pyro.passes.losses.estimate`. Here it is the gradient of

        sum_k  w~_k log w_k(params of p, draws fixed) + c_k log w_k(params fixed, draws),       w~_k and c_k fixed

    Args:
        objective: of `Terms`, to be maximized.
        model, guide, args, kwargs, key, params, particles, analytic, plate, states: see `terms`; latents that are drawn
            are reparametrized.
        beta, data_size: see the objective.
        gradient: the word.

    Raises:
        ValueError: another word; "doubly-reparametrized" with another objective; see `terms` and the objective.

    Source: Tucker et al. 2019 (arXiv 1810.04152); for hierarchies Bauer & Mnih 2021 (arXiv 2101.11046).
    """
    if not is_doubly(objective, gradient):
        how = {"analytic": analytic, "key": key, "params": params, "plate": plate, "inner": inner_draws(objective)}
        how["states"] = states
        found = terms(model, guide, args, kwargs, particles, **how)
        return -objective(found, beta, data_size), found
    if states:
        raise ValueError(
            f"found gradient={gradient!r} with discrete sites that the guide enumerates, want draws; try elbo, or a "
            "guide with discrete='relax'"
        )
    keys = key[None] if particles == 1 else jax.random.split(key, particles)
    fixed = stop_gradient(params)

    def draw(key: Array) -> dict[str, Array]:
        sites = traces(model, guide, args, kwargs, key=key, params=params)[1]
        drawn = nodes_of(sites, "latent")
        # a point mass is no draw but a parameter, or a function of other draws
        return {name: site["value"] for name, site in drawn.items() if not isinstance(unwrapped(site["fn"]), Delta)}

    def run(params: Mapping[str, Any], held: Mapping[str, Array]) -> Terms:
        def at(key: Array, held: Mapping[str, Array]) -> Terms:
            how = {"analytic": analytic, "plate": plate, "held": held}
            return single(model, guide, args, kwargs, key=key, params=params, **how)

        return stacked(at, keys, held)

    draws = jax.tree.map(lambda t: t[None], draw(keys[0])) if particles == 1 else jax.vmap(draw)(keys)
    at_draws = run(params, stop_gradient(draws))
    scores = {name: stop_gradient(q) if name in draws else q for name, q in at_draws.log_q.items()}
    log_w, size = log_weights(replace(at_draws, log_q=scores), beta, data_size)
    along, _ = log_weights(run(fixed, draws), beta, data_size)
    share = stop_gradient(softmax(log_w, 0))
    surrogate = (share * log_w + share * (1 - beta + beta * share) * along).sum() / size
    value = stop_gradient(objective(at_draws, beta, data_size))
    return -(value + surrogate - stop_gradient(surrogate)), at_draws


def initial_state(
    objective: Any,
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    *,
    key: Array,
    params: Mapping[str, Any],
    data_size: int | None = None,
    particles: int = 1,
    analytic: bool = True,
    plate: str | None = None,
    states: bool = False,
) -> dict[str, Array]:
    """The state that an objective begins with (`objectives.stateful`), of one run of a pair; {} where it has none.

    The arguments are those of `estimate`.
    """
    if not has_state(objective):
        return {}

    @jax.jit  # where only its shapes are asked for, nothing is run
    def state(key: Array, params: Mapping[str, Any], args: Sequence[Any]) -> dict[str, Array]:
        how = {"analytic": analytic, "plate": plate, "inner": inner_draws(objective), "states": states}
        found = terms(model, guide, args, None, particles, key=key, params=params, **how)
        return begun(objective, found, data_size)

    return state(key, params, tuple(args))
