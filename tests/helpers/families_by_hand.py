"""`FACTORS`: factors of each family worked out with pencil and paper, which both languages must give."""

from collections.abc import Sequence
from math import atanh, exp, expm1, log
from statistics import fmean, pvariance
from typing import NamedTuple

LOC, SCALE = (1.0, -2.0), (0.2, 3.0)  # of the prior: neither scale is its own square or inverse


def inverse_softplus(y: float) -> float:
    """The number whose softplus is y."""
    return log(expm1(y))


def unbounded(y: float) -> float:
    """The raw number that `bounded_exp` takes to y."""
    return 5 * atanh(log(y) / 5)


class ByHand(NamedTuple):
    """A factor.

    Attributes:
        family, method: what makes it.
        raw: the numbers that a network gives.
        loc, scale: of the prior.
        mean, covariance: of the factor.
    """

    family: str
    method: str
    raw: tuple[float, ...]
    loc: tuple[float, ...] | float
    scale: tuple[float, ...] | float
    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]


TWO = unbounded(2.0)  # a factor on the scale of the prior
TWENTY = unbounded(20.0)  # where the bound bends: exp of the raw number is 41

FACTORS = {
    # variances 0.04 and 9 of the prior, 0.04 and 1 of the estimate: precisions 25 + 25 and 1/9 + 1
    "diagonal, product": ByHand(
        "Diagonal",
        "precision_weighted",
        (2.0, 4.0, inverse_softplus(0.04 - 1e-5), inverse_softplus(1 - 1e-5)),
        LOC,
        SCALE,
        (2 + 1 * 25 / 50, 4 - 2 / 9 / (10 / 9)),
        ((0.02, 0.0), (0.0, 0.9)),
    ),
    # the least variance of an estimate is 1e-5: precision 1e5 beside the prior's 1/9
    "diagonal, product with a sharp estimate": ByHand(
        "Diagonal",
        "precision_weighted",
        (4.0, -800.0),
        (-2.0,),
        (3.0,),
        (4 - 2 / 9 / (1e5 + 1 / 9),),
        ((1 / (1e5 + 1 / 9),),),
    ),
    "diagonal": ByHand(
        "Diagonal", "residual", (0.5, 1.0, TWO, TWENTY), LOC, SCALE, (1.5, -1.0), ((0.16, 0.0), (0.0, 3600.0))
    ),
    "diagonal, free": ByHand(
        "Diagonal", "residual", (0.5, 1.0, TWO, TWENTY), 0.0, 0.1, (0.5, 1.0), ((0.04, 0.0), (0.0, 4.0))
    ),
    # precision diag(1 / 0.16, 1 / 36) + u u^T with u = (1 / 0.2, 1 / 3), of determinant 1.5625
    "rank one": ByHand(
        "RankOne",
        "residual",
        (0.5, 1.0, TWO, TWO, 1.0, 1.0),
        LOC,
        SCALE,
        (1.5, -1.0),
        ((5 / 36 / 1.5625, -5 / 3 / 1.5625), (-5 / 3 / 1.5625, 31.25 / 1.5625)),
    ),
    # precision diag(5 + 25, 8/9 + 1/9) + (1, 2) (1, 2)^T = [[31, 2], [2, 5]], of determinant 151
    "rank one, product": ByHand(
        "RankOne",
        "precision_weighted",
        (0.5, 1.0, inverse_softplus(5 - 1e-5), inverse_softplus(8 / 9 - 1e-5), 1.0, 2.0),
        LOC,
        SCALE,
        (0.5 + (5 * 25 + 2 * 2 / 9) / 151, 1.0 + (-2 * 25 - 31 * 2 / 9) / 151),
        ((5 / 151, -2 / 151), (-2 / 151, 31 / 151)),
    ),
    # the least precision of an estimate is 1e-5, beside the prior's 1e-6
    "rank one, product with a vague estimate": ByHand(
        "RankOne", "precision_weighted", (0.5, -800.0, 0.0), (11.0,), (1e3,), (1.5,), ((1 / 1.1e-5,),)
    ),
    # L = diag(0.2, 3) [[2, 0], [0.5, 2]] = [[0.4, 0], [1.5, 6]]
    "full": ByHand("Full", "residual", (0.5, 1.0, TWO, TWO, 0.5), LOC, SCALE, (1.5, -1.0), ((0.16, 0.6), (0.6, 38.25))),
    # L = 0.1 [[2, 0, 0], [1, 2, 0], [3, 4, 2]], the lower part row by row
    "full, free": ByHand(
        "Full",
        "residual",
        (0.5, 1.0, 1.5, TWO, TWO, TWO, 1.0, 3.0, 4.0),
        0.0,
        0.1,
        (0.5, 1.0, 1.5),
        ((0.04, 0.02, 0.06), (0.02, 0.05, 0.11), (0.06, 0.11, 0.29)),
    ),
    # T = [[1, 2], [0, 3]] less 0.7 I; P = T T^T + diag(25, 1/9) = [[30, 6], [6, 82/9]], of determinant 2136 / 9
    "full, product": ByHand(
        "Full",
        "precision_weighted",
        (0.5, 1.0, 0.3, 2.0, 0.0, 2.3),
        LOC,
        SCALE,
        (0.5 + (82 / 9 * 25 + 6 * 2 / 9) * 9 / 2136, 1.0 + (-6 * 25 - 30 * 2 / 9) * 9 / 2136),
        ((82 / 2136, -54 / 2136), (-54 / 2136, 270 / 2136)),
    ),
    # splines at rest; rows (1, 0) and (0.75, 1) / 1.25 = (0.6, 0.8): a correlation of 0.6; deviations 0.4 and 6
    "flow at rest": ByHand(
        "Flow",
        "residual",
        (0.5, 1.0, TWO, TWO, 0.75, *[0.0] * 46),
        LOC,
        SCALE,
        (1.5, -1.0),
        ((0.16, 0.6 * 0.4 * 6), (0.6 * 0.4 * 6, 36.0)),
    ),
}

BEND = log(1e3)  # the raw numbers of a spline are bent by this


def straight(y: float, slope: float) -> float:
    """The raw number that the spline bends to y: y / (1 - slope |y| / BEND)."""
    return y / (1 - slope * abs(y) / BEND)


# A flow of two bins, whose knots are at -5, 0 and 5 and go to -5, 2.5 and 5, with the slope 1/2 at the middle one. At
# the base's 0 it is 2.5; at -2.5, in the middle of the first bin, where s = 7.5 / 5, d_0 = 1 and d_1 = 0.5:
#     -5 + 7.5 (1.5 / 4 + 1 / 4) / (1.5 + (1.5 - 3) / 4) = -5 + 4.6875 / 1.125
# and from 5 on the identity. Deviation 2 * 3, mean 1 - 2.
SPLINE = (1.0, TWO, 0.0, 0.0, straight(log(3.0), 2), 0.0, straight(log(0.5), 1))
SPLINE_LOC, SPLINE_SCALE = -2.0, 3.0
SPLINE_VALUES = {
    base: -1.0 + 6.0 * value for base, value in ((0.0, 2.5), (-2.5, -5 + 4.6875 / 1.125), (5.0, 5.0), (6.5, 6.5))
}
SPLINE_SLOPE = 0.5  # at the base's 0

# The units of a factor of two entries, for two copies in a plate
UNITS_LOC = ((1.0, 2.0), (3.0, 4.0))
UNITS_ROOT = (((2.0, 0.0), (1.0, 0.5)), ((0.3, 0.0), (-1.0, 4.0)))

# Shifts of a factor of two entries given a parent of one number and a parent of two: raw + slope parents
SLOPE = ((2.0, 1.0, 0.0), (3.0, 0.0, -1.0))
PARENTS = (10.0,), (0.5, 4.0)
RAW, SHIFTED = (0.1, 0.2, 7.0, 8.0), (20.6, 26.2, 7.0, 8.0)

# The ladder's chain of two latents: d_1 = W_1 x, of which the last latent reads r_1 = silu(norm(d_1)), and from it the
# next level goes on: d_2 = d_1 + W_2 r_1, of which the first latent reads r_2
CHAIN_X = (1.0, 1.0)
CHAIN_W1 = ((2.0, 1.0), (1.0, 0.0), (-1.0, 3.0))  # d_1 = (3, 1, 2)
CHAIN_W2 = ((-4.0, 0.0, 1.0), (0.0, 2.0, 0.0), (1.0, 0.0, -3.0))


def read(d: Sequence[float]) -> list[float]:
    """silu of what has been shifted to mean 0 and scaled to variance 1, but for 1e-5."""
    mean, variance = fmean(d), pvariance(d)
    normed = [(v - mean) / (variance + 1e-5) ** 0.5 for v in d]
    return [v / (1 + exp(-v)) for v in normed]


LAST = read((3.0, 1.0, 2.0))
FIRST = read(
    [v + sum(w * r for w, r in zip(row, LAST, strict=True)) for v, row in zip((3, 1, 2), CHAIN_W2, strict=True)]
)
CHAIN_FEATURES = {"z2": LAST, "z1": FIRST}
