"""Objectives: small pure functions of the `Terms` of one pass."""

from torch import Tensor

from .terms import Terms


def elbo(terms: Terms, beta: float | Tensor = 1.0, data_size: int | None = None) -> Tensor:
    """The evidence lower bound, a scalar in nats per datum.

        E_q [log p(x | z)] - beta * sum_l KL(q(z_l | .) || p(z_l | .)),       mean over data and particles

    A shared site (a global latent) counts once for the whole data set: its term is divided by `data_size`.

    Args:
        terms: of one pass.
        beta: weight of the divergences, below 1 during a warm-up.
        data_size: number of data of which the pass saw a batch; by default what it saw.

    Source: Kingma & Welling 2014, eq. 3; warm-up by Bowman et al. 2016 (arXiv 1511.06349).
    """
    sites = [(n, t) for n, t in terms.log_likelihood.items()] + [(n, -beta * t) for n, t in terms.kl.items()]
    seen = max(t.shape[1] for _, t in sites)
    local, shared = 0.0, 0.0
    for name, value in sites:
        if name in terms.shared:
            shared = shared + value.mean(0).sum()
        else:
            local = local + value.mean(0).sum()
    # a program that subsamples has scaled its local terms up to its full size already
    local = local / (terms.full_size or seen)
    return local + shared / (terms.full_size or data_size or seen)
