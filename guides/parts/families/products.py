"""`shifted_means`: the numbers of a product with a prior, of those by which a paper gives the mean of the estimate."""

from array_api_compat import array_namespace

from ..looks.evidence import Array

LEAST_VARIANCE = 1e-5  # of an estimate that a product is taken with


def shifted_means(raw: Array, n: int, scale: Array) -> Array:
    """Raw numbers with the shift (m / v) s^2 in place of the mean m of the estimate, in its first n."""
    xp = array_namespace(raw)
    mean, spread = raw[..., :n], raw[..., n : 2 * n]
    tau = 1 / (xp.logaddexp(spread, xp.zeros_like(spread)) + LEAST_VARIANCE)
    return xp.concat([mean * tau / (tau + scale**-2), raw[..., n:]], axis=-1)
