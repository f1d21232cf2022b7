"""Objectives: small pure functions of the `Terms` of one pass, each a bound in nats per datum to be maximized.

Any `objective(terms, beta=1.0, data_size=None) -> scalar` is one; give options with `functools.partial`:
`partial(free_bits, nats=0.5, per="unit")`. They are those of `ppl_models.inference.objectives`, which also say where
each is from, number by number.
"""

from collections.abc import Callable, Iterable
from math import log

import jax.numpy as jnp
from jax import Array
from jax.nn import softplus
from jax.scipy.special import logsumexp

from .terms import Terms


def elbo(terms: Terms, beta: float | Array = 1.0, data_size: int | None = None) -> Array:
    """The evidence lower bound, a scalar in nats per datum.

        E_q [log p(x | z)] - beta * sum_l KL(q(z_l | .) || p(z_l | .)),       mean over data and particles

    A shared site (a global latent) counts once for the whole data set: its term is divided by `data_size`.

    Args:
        terms: of one pass; with `analytic` they hold divergences in closed form, else sampled ones.
        beta: weight of the divergences, below 1 during a warm-up.
        data_size: number of data of which the pass saw a batch; by default what it saw.
    """
    signed = [(name, value) for name, value in terms.log_likelihood.items()]
    if not (isinstance(beta, float | int) and beta == 0):  # an infinite divergence without weight counts for nothing
        signed += [(name, -beta * value) for name, value in terms.kl.items()]
    size = terms.full_size or terms.seen
    whole = terms.full_size or data_size or size
    return sum(value.mean(0).sum() / (whole if name in terms.shared else size) for name, value in signed)


def free_bits(
    terms: Terms, beta: float | Array = 1.0, data_size: int | None = None, *, nats: float = 0.5, per: str = "layer"
) -> Array:
    """The evidence lower bound in which no group of latents gains by a divergence below `nats`, in nats per datum.

        E_q [log p(x | z)] - beta * sum_j max(nats, mean_n KL_jn),       mean over data and particles inside the maximum

    Args:
        terms, beta, data_size: as for `elbo`.
        nats: the floor of a group.
        per: "layer", a group for each latent site, or "unit", one for each coordinate (see `Terms.kl_units`).

    Raises:
        ValueError: another word for per, a negative floor; per="unit" with a factor that is no product.
    """
    _at_least_zero("free_bits", nats=nats)
    # at the floor itself, as torch's clamp, the gradient is that of the divergence
    return _floored("free_bits", terms, beta, data_size, per, lambda kl: jnp.where(kl >= nats, kl, nats))


def soft_free_bits(
    terms: Terms,
    beta: float | Array = 1.0,
    data_size: int | None = None,
    *,
    nats: float = 0.5,
    width: float = 0.1,
    per: str = "layer",
) -> Array:
    """`free_bits` with a smooth maximum, a scalar in nats per datum.

        E_q [log p(x | z)] - beta * sum_j { nats + width log(1 + exp[(mean_n KL_jn - nats) / width]) }

    Args:
        terms, beta, data_size, nats, per: as for `free_bits`.
        width: of the transition, in nats.

    Raises:
        ValueError: as for `free_bits`; a width that is not positive.
    """
    _at_least_zero("soft_free_bits", nats=nats)
    if not width > 0:
        raise ValueError(f"soft_free_bits: found width={width}, want more than 0; free_bits has a sharp floor")
    return _floored(
        "soft_free_bits", terms, beta, data_size, per, lambda kl: nats + width * softplus((kl - nats) / width)
    )


def importance_weighted(terms: Terms, beta: float | Array = 1.0, data_size: int | None = None) -> Array:
    """The importance-weighted bound of K particles, a scalar in nats per datum.

        log 1/K sum_k w_k,      log w_k = log p(x | z_k) + beta * [log p(z_k) - log q(z_k | x)],       mean over data

    With a shared site (a global latent) all data are one datum with one weight, and the bound is divided by their
    number.

    Args:
        terms: of one pass with K particles.
        beta: weight of the divergences, below 1 during a warm-up.
        data_size: as for `elbo`.

    Raises:
        ValueError: shared sites, and a pass that saw some of the data only.
    """
    log_w, size = log_weights(terms, beta, data_size)
    return (logsumexp(log_w, 0) - log(len(log_w))).sum() / size


def log_weights(terms: Terms, beta: float | Array = 1.0, data_size: int | None = None) -> tuple[Array, int]:
    """(log w of every particle and datum, (particles, n), the number that their sum over data is divided by).

    Weights of one datum each, whatever a subsampling program scales its terms by; (particles, 1) with shared sites.

    Raises:
        ValueError: as for `importance_weighted`.
    """
    seen, names = terms.seen, {*terms.log_likelihood, *terms.kl}
    parts = [*terms.log_likelihood.values(), *(beta * (terms.log_p[n] - terms.log_q[n]) for n in terms.log_p)]
    if not terms.shared:
        log_w = sum(parts)
        return (log_w if terms.full_size is None else log_w * (seen / terms.full_size)), seen
    if terms.shared >= names:  # no plate around the data: one datum, whatever the length of the arguments
        return sum(parts), data_size or 1
    if terms.full_size is not None or data_size not in (None, seen):
        raise ValueError(
            f"importance_weighted: found the sites {', '.join(sorted(terms.shared))} outside the data plate and "
            f"{seen} of {terms.full_size or data_size} data; all data have one weight then, want every datum in every "
            "pass; take a batch of all the data, or elbo"
        )
    return sum(t.sum(1, keepdims=True) for t in parts), seen


def mean_kl(terms: Terms, names: Iterable[str], data_size: int | None = None) -> list[Array]:
    """The divergence of each of these latents, scalars in nats per datum: the mean over data and particles."""
    size = terms.full_size or terms.seen
    whole = terms.full_size or data_size or size
    return [terms.kl[name].mean(0).sum() / (whole if name in terms.shared else size) for name in names]


def _floored(
    called: str,
    terms: Terms,
    beta: float | Array,
    data_size: int | None,
    per: str,
    floor: Callable[[Array], Array],
) -> Array:
    """The bound with `floor` applied to the mean divergence of every group."""
    if per not in ("layer", "unit"):
        raise ValueError(f"{called}: found per={per!r}, want 'layer' or 'unit'")
    size = terms.full_size or terms.seen
    whole = terms.full_size or data_size or size
    total = 0.0
    for name, value in terms.log_likelihood.items():
        total = total + value.mean(0).sum() / (whole if name in terms.shared else size)
    units = {name: value[..., None] for name, value in terms.kl.items()} if per == "layer" else terms.kl_units
    for name, value in terms.kl.items():
        shared = name in terms.shared
        if name in terms.auxiliary:
            penalty = value.mean(0).sum() / (whole if shared else size)
        else:
            groups = units[name].mean(0).sum(0)
            penalty = floor(groups).sum() / whole if shared else floor(groups / size).sum()
        total = total - beta * penalty
    return total


def _at_least_zero(called: str, **values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{called}: found {name}={value}, want at least 0")
