"""General criteria: what is reconstructed, and any regularizer of q; objectives beyond the ELBO.

        E_q(x, z) [log p(x | z)] + R(q)

A decoder that can be any distribution learns q(x | z), the data of a code, whatever R is: what R decides is which code.
Only the ELBO (`objectives.elbo`) is known to bound log p(x). Where q(z), the mean of q(z | x) over the data, is not the
prior, draw from the model by `markov_chain` rather than from the prior.

Source: Zhao, Song, Ermon 2017 (arXiv 1702.08658), sections 2 and 5.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated

from array_api_compat import array_namespace

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count, Is, NotNegative
from ppl_models.programs.arguments import takes

from .bounds import elbo
from .discrepancies import mmd, moments
from .terms import Array, Beta, Terms

Discrepancy = Callable[[Array, Array], Array]


def unregularized(terms: Terms, beta: Beta = 1.0, data_size: Count | None = None) -> Array:
    """The criterion with R = 0, a scalar in nats per datum: no bound of log p(x).

        E_q [log p(x | z)],       mean over data and particles

    There is nothing to stop at: validation and `patience` in `fit` go by the ELBO, which it does not maximize.

    With an unlimited decoder of discrete data its largest value is I_q(x; z) - H(x): it wants all the information that
    there is, and the chain x -> z -> x' then keeps the distribution of the data whatever q is.

    Args:
        terms: of one pass.
        beta: there is nothing that it could weigh.
        data_size: as for `elbo`.

    Source: Zhao, Song, Ermon 2017 (arXiv 1702.08658), "no_reg".
    """
    return elbo(terms, 0.0, data_size)


@checked
def info_vae(
    terms: Terms,
    beta: Beta = 1.0,
    data_size: Count | None = None,
    *,
    alpha: float,
    lambda_: float,
    discrepancy: Annotated[Discrepancy, Is("a function of two samples", partial(takes, 2))] = mmd,
) -> Array:
    """The InfoVAE criterion, a scalar in nats per datum.

        E_q [log p(x | z)] - (1 - alpha) E KL(q(z | x) || p(z)) - (alpha + lambda_ - 1) D(q(z), p(z))

    With D = KL(q(z) || p(z)) this is the ELBO plus alpha I_q(x; z) - (lambda_ - 1) KL(q(z) || p(z)); that divergence is
    replaced by one that draws tell. alpha + lambda_ = 1 is a beta-VAE with beta = lambda_, alpha = 0 and lambda_ = 1
    the ELBO, alpha = 1 an MMD-VAE, with nothing of the divergence of a single datum.

    q(z) is seen through the codes of the batch, one a datum and all latents as one vector (of several particles the
    mean is taken: codes of one datum are no independent draws of q(z)); the prior's draws are made by running the model
    as far as its last latent. So it works for hierarchies, and with a prior that is learned.

    Args:
        terms: of one pass, of at least two codes.
        beta: weight of both regularizers, below 1 during a warm-up.
        data_size: as for `elbo`.
        alpha: weight of the information; lambda_: of the marginal's divergence.
        discrepancy: D, of draws (m, d) and (n, d): `mmd`, `partial(mmd, kernel="imq")`, `moments`, one of yours.

    Raises:
        ValueError: alpha above 1, or alpha + lambda_ below 1; latents outside the plate of the data, or masked; see the
            discrepancy.

    Source: Zhao, Song, Ermon 2019, "InfoVAE" (arXiv 1706.02262), eq. 6.
    """
    own, marginal = _info_weights(alpha, lambda_)
    value = elbo(terms, beta * own if own else 0.0, data_size)
    return value - beta * marginal * aggregate(terms, discrepancy) if marginal else value


@checked
def moment_matching(
    terms: Terms, beta: Beta = 1.0, data_size: Count | None = None, *, weight: NotNegative = 1.0
) -> Array:
    """Codes whose mean and covariance are those of the prior, a scalar in nats per datum.

        E_q [log p(x | z)] - weight * (|m_q - m_p|^2 + |C_q - C_p|_F^2)

    Args:
        terms, beta, data_size: as for `info_vae`.
        weight: of the discrepancy.

    Raises:
        ValueError: a negative weight; see `info_vae`.

    Source: as for `discrepancies.moments`.
    """
    return info_vae(terms, beta, data_size, alpha=1.0, lambda_=weight, discrepancy=moments)


def aggregate(terms: Terms, discrepancy: Discrepancy) -> Array:
    """The discrepancy of the codes of a pass from as many draws of the prior, all latents as one vector.

    The mean over particles, of each of which there is one code a datum.

    Raises:
        ValueError: a latent outside the plate of the data, or with a mask.
    """
    names = [name for name in terms.log_p if name not in terms.auxiliary]
    for name in names:
        if name in terms.shared:
            raise ValueError(
                f"discrepancy of q(z): found the latent {name!r} outside the plate of the data, want a code for each "
                "datum: of a global latent there is one posterior, and no aggregate of many"
            )
    sides = [[side[name] for name in names] for side in (terms.drawn, terms.prior)]
    count = max(len(values) for side in sides for values in side)
    xp = array_namespace(sides[0][0])
    codes, prior = (xp.concat([xp.broadcast_to(v, (count, *v.shape[1:])) for v in s], axis=-1) for s in sides)
    return sum(discrepancy(c, p) for c, p in zip(codes, prior, strict=True)) / count


def _info_weights(alpha: float, lambda_: float) -> tuple[float, float]:
    """The weights of InfoVAE's two divergences: (1 - alpha) of each datum's, (alpha + lambda_ - 1) of the marginal one.

    Raises:
        ValueError: one of them is negative.

    >>> _info_weights(1.0, 10.0)
    (0.0, 10.0)
    """
    marginal = alpha + lambda_ - 1
    marginal = 0.0 if abs(marginal) < 1e-9 else marginal  # of a beta-VAE it is 0 up to rounding
    if not alpha <= 1 or not marginal >= 0:
        raise ValueError(
            f"info_vae: found alpha={alpha}, lambda_={lambda_}, want alpha at most 1 and alpha + lambda_ at least 1: "
            "neither divergence can have a negative weight"
        )
    return 1 - alpha, marginal
