"""General criteria: what is reconstructed, and any regularizer of q; objectives beyond the ELBO.

They are those of `ppl_models.inference.criteria`, which also say what each is for and where from, number by number.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from ppl_models.parts.criteria import check_local, check_weight, info_weights

from .discrepancies import mmd, moments
from .objectives import elbo
from .terms import Terms

Discrepancy = Callable[[Array, Array], Array]


def unregularized(terms: Terms, beta: float | Array = 1.0, data_size: int | None = None) -> Array:
    """The criterion with R = 0, a scalar in nats per datum: no bound of log p(x).

        E_q [log p(x | z)],       mean over data and particles

    Args:
        terms: of one pass.
        beta: there is nothing that it could weigh.
        data_size: as for `elbo`.
    """
    return elbo(terms, 0.0, data_size)


def info_vae(
    terms: Terms,
    beta: float | Array = 1.0,
    data_size: int | None = None,
    *,
    alpha: float,
    lambda_: float,
    discrepancy: Discrepancy = mmd,
) -> Array:
    """The InfoVAE criterion, a scalar in nats per datum.

        E_q [log p(x | z)] - (1 - alpha) E KL(q(z | x) || p(z)) - (alpha + lambda_ - 1) D(q(z), p(z))

    Args:
        terms: of one pass, of at least two codes.
        beta: weight of both regularizers, below 1 during a warm-up.
        data_size: as for `elbo`.
        alpha: weight of the information; lambda_: of the marginal's divergence.
        discrepancy: D, of draws (m, d) and (n, d): `mmd`, `partial(mmd, kernel="imq")`, `moments`, one of yours.

    Raises:
        ValueError: alpha above 1, or alpha + lambda_ below 1; latents outside the plate of the data, or masked; see the
            discrepancy.
    """
    own, marginal = info_weights(alpha, lambda_)
    value = elbo(terms, beta * own if own else 0.0, data_size)
    return value - beta * marginal * aggregate(terms, discrepancy) if marginal else value


def moment_matching(
    terms: Terms, beta: float | Array = 1.0, data_size: int | None = None, *, weight: float = 1.0
) -> Array:
    """Codes whose mean and covariance are those of the prior, a scalar in nats per datum.

        E_q [log p(x | z)] - weight * (|m_q - m_p|^2 + |C_q - C_p|_F^2)

    Args:
        terms, beta, data_size: as for `info_vae`.
        weight: of the discrepancy.

    Raises:
        ValueError: a negative weight; see `info_vae`.
    """
    check_weight(weight)
    return info_vae(terms, beta, data_size, alpha=1.0, lambda_=weight, discrepancy=moments)


def aggregate(terms: Terms, discrepancy: Discrepancy) -> Array:
    """The discrepancy of the codes of a pass from as many draws of the prior, all latents as one vector.

    The mean over particles, of each of which there is one code a datum.

    Raises:
        ValueError: a latent outside the plate of the data, or with a mask.
    """
    names = [name for name in terms.log_p if name not in terms.auxiliary]
    check_local(names, terms.shared)
    codes, prior = (jnp.concatenate([side[name] for name in names], -1) for side in (terms.drawn, terms.prior))
    return sum(discrepancy(c, p) for c, p in zip(codes, prior, strict=True)) / len(codes)
