"""`semi_supervised`: a bound with the log mass that a guide gives to states which are known."""

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count, NotNegative

from .bounds import elbo
from .terms import Array, Beta, Terms


@checked
def semi_supervised(
    terms: Terms,
    beta: Beta = 1.0,
    data_size: Count | None = None,
    *,
    alpha: NotNegative,
) -> Array:
    """The evidence lower bound, and the log mass of what is known of a discrete latent, a scalar in nats per datum.

        elbo + alpha * mean_n log q(y_n in S_n | x_n)

    S_n are the states of y that the prior does not leave out at datum n (`SemiSupervisedVAE`: the label, where there is
    one), and q is the factor of the guide before it leaves out the others. Where they are all states the term is 0. So
    it trains q(y | x) to classify, which the bound alone does not: given the label it does not read q(y | x).

    Args:
        terms, beta, data_size: as for `elbo`.
        alpha: weight of the term of one datum. Kingma et al. take 0.1 N / L, where L of N data have labels.

    Raises:
        ValueError: no discrete latent of the guide whose prior leaves states out.

    Source: Kingma et al. 2014 (arXiv 1406.5298), eq. 9.
    """
    if not terms.log_support:
        raise ValueError(
            "semi_supervised: found no discrete latent whose prior leaves states out, want one (SemiSupervisedVAE with "
            "labels), and a guide in the model's order, built on an example with labels; try SelfReflective"
        )
    size = terms.full_size or terms.seen
    known = sum(value.mean(0).sum() for value in terms.log_support.values())
    return elbo(terms, beta, data_size) + alpha * known / size
