"""`vhp`: the bound of a hierarchical prior, importance-weighted in its divergence; `inner_draws` of an objective."""

from dataclasses import dataclass
from math import log
from typing import Any

from array_api_compat import array_namespace

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count

from .bounds import elbo, log_sum_exp, log_weights
from .terms import Array, Beta, Terms


@checked
@dataclass(frozen=True, kw_only=True)
class vhp:
    """The bound of a variational hierarchical prior, a scalar in nats per datum.

        E_q(z | x) [ log p(x | z) - beta * ( log q(z | x) - log p_K(z) ) ],       mean over data and particles
        log p_K(z) = log 1/K sum_k p(z | zeta_k) p(zeta_k) / q(zeta_k | z),       zeta_k ~ q(zeta | z)

    E log p_K(z) <= log p(z) = log int p(z | zeta) p(zeta) dzeta, so that this is a bound on the evidence at beta = 1.
    For K = 1 it is the ELBO of p(zeta) p(z | zeta) p(x | z), and it rises with K, at most to what the ELBO would be
    with the exact q(zeta | z).

        fit(model, guide, data, steps=2000, objective=vhp(inner=16))       # of the pair below

    z is the latent that the guide draws first, once a particle; zeta are all others, drawn K times for each z. In
    general, where x and the other factors may read any of them, it is

        (1 - beta) E log p(x | z, zeta) + beta * E_z [ log 1/K sum_k p(x, z, zeta_k) / q(zeta_k | z, x) - log q(z | x) ]

    The weights are sampled, so that `analytic` changes nothing for K > 1. In Pyro several particles are as many passes.

    Args:
        inner: K.

    Raises:
        ValueError: when called, fewer than two latents; terms of other inner draws (see `terms`); as for
            `importance_weighted`.

    Source: Klushyn et al. 2019, "Learning hierarchical priors in VAEs" (arXiv 1905.04982). Their pair, p(zeta) p(z |
    zeta) p(x | z) and q(z | x) q(zeta | z), is a hierarchy of two layers, whose z1 is zeta and whose z2 is z:

    >>> import torch
    >>> from guides import Faithful
    >>> from ppl_models import HierarchicalVAE
    >>> from ppl_models.factorization import compare
    >>> model, x = HierarchicalVAE(event=4, latent=(2, 2), hidden=8), torch.eye(4)[:3]
    >>> report = compare(model, Faithful(model, x, order="bottom-up", hidden=8), x)
    >>> print(report.model, report.guide, report.verdict, sep="\\n")
    p(z1) p(z2 | z1) p(x | z2)
    q(z2 | x) q(z1 | z2)
    faithful, minimal, perfect
    """

    inner: Count = 16

    def __call__(self, terms: Terms, beta: Beta = 1.0, data_size: Count | None = None) -> Array:
        """The bound, a scalar."""
        return within(terms, beta, data_size, self.inner)


def within(terms: Terms, beta: Beta, data_size: Count | None, inner: int) -> Array:
    """The bound of `vhp` with so many inner draws; with one, `elbo`.

    Raises:
        ValueError: as for `vhp`.
    """
    names = [name for name in terms.log_p if name not in terms.auxiliary]
    if terms.inner != inner:
        raise ValueError(f"vhp: found terms of {terms.inner} inner draws, want {inner}; try terms(..., inner={inner})")
    if inner == 1:
        return elbo(terms, beta, data_size)
    if len(names) < 2:
        raise ValueError(
            f"vhp: found {f'the latent {names[0]!r} alone' if names else 'no latents'}, want two or more, as those of "
            "HierarchicalVAE(latent=(32, 32)); try elbo, or inner=1 of geco and rewo"
        )
    log_w, size = log_weights(terms, 1.0, data_size)
    xp = array_namespace(log_w)
    groups = xp.permute_dims(xp.reshape(log_w, (-1, inner, log_w.shape[1])), (1, 0, 2))
    bound = (log_sum_exp(groups) - log(inner)).mean(0).sum() / size
    whole = isinstance(beta, float | int) and beta == 1
    return bound if whole else (1 - beta) * elbo(terms, 0.0, data_size) + beta * bound


def inner_draws(objective: Any) -> int:
    """The draws that an objective wants of the latents behind the first one, for each draw of that one."""
    return getattr(objective, "inner", 1)
