"""Discrepancies of two samples: maximum mean discrepancies and moments, from draws alone.

A discrepancy is any `discrepancy(x, y) -> scalar` of draws x (m, d) and y (n, d) of two distributions. Options by
`functools.partial(mmd, kernel=InverseMultiquadric(), estimator="linear")`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, get_args

import numpy as np
from array_api_compat import array_namespace

from ppl_models.parts.arguments.checked import checked, told
from ppl_models.parts.arguments.kinds import Count, Is, Positive
from ppl_models.programs.arguments import takes

from .terms import Array

Estimator = Literal["unbiased", "biased", "linear"]
ESTIMATORS = get_args(Estimator)
Word = Literal["gaussian", "laplace", "imq", "polynomial", "energy"]
Kernel = Callable[[Array, Array], Array]


@checked
@dataclass(frozen=True)
class Gaussian:
    """k(x, y) = exp(-|x - y|^2 / (2 width^2)).

    Args:
        width: the length at which the kernel has fallen to exp(-1/2); None takes d / sqrt 2 for vectors of d entries,
            which is exp(-mean_i (x_i - y_i)^2 / d), as in the code of Zhao et al. (ShengjiaZhao/MMD-Variational-
            Autoencoder).
    """

    width: Positive | None = None

    def __call__(self, x: Array, y: Array) -> Array:
        """(*batch, d) and (*batch, d) -> (*batch,)."""
        width = x.shape[-1] / 2**0.5 if self.width is None else self.width
        squared = ((x - y) ** 2).sum(-1)
        return array_namespace(squared).exp(-squared / (2 * width**2))


@checked
@dataclass(frozen=True)
class Laplace:
    """k(x, y) = exp(-|x - y|_1 / width), with d for a width of None."""

    width: Positive | None = None

    def __call__(self, x: Array, y: Array) -> Array:
        """(*batch, d) and (*batch, d) -> (*batch,)."""
        width = x.shape[-1] if self.width is None else self.width
        distance = abs(x - y).sum(-1)
        return array_namespace(distance).exp(-distance / width)


@checked
@dataclass(frozen=True)
class InverseMultiquadric:
    """k(x, y) = c / (c + |x - y|^2), with c = 2 d for a scale of None: heavy tails, so that far codes are pulled, too.

    Source: Tolstikhin et al. 2018, "Wasserstein auto-encoders" (arXiv 1711.01558), section 4.
    """

    scale: Positive | None = None

    def __call__(self, x: Array, y: Array) -> Array:
        """(*batch, d) and (*batch, d) -> (*batch,)."""
        c = 2 * x.shape[-1] if self.scale is None else self.scale
        return c / (c + ((x - y) ** 2).sum(-1))


@checked
@dataclass(frozen=True)
class Polynomial:
    """k(x, y) = (1 + x . y / d)^degree: it sees the moments up to its degree and no others."""

    degree: Count = 2

    def __call__(self, x: Array, y: Array) -> Array:
        """(*batch, d) and (*batch, d) -> (*batch,)."""
        return (1 + (x * y).sum(-1) / x.shape[-1]) ** self.degree


@dataclass(frozen=True)
class Energy:
    """k(x, y) = -|x - y|: the discrepancy is the energy distance 2 E|x - y| - E|x - x'| - E|y - y'|, with no width.

    Source: Sejdinovic et al. 2013, "Equivalence of distance-based and RKHS-based statistics" (arXiv 1207.6076).
    """

    def __call__(self, x: Array, y: Array) -> Array:
        """(*batch, d) and (*batch, d) -> (*batch,)."""
        squared = ((x - y) ** 2).sum(-1)
        xp = array_namespace(squared)
        return -xp.sqrt(xp.where(squared < 1e-30, 1e-30, squared))  # the root has a slope at zero distance, too


KERNELS: dict[Word, Kernel] = {
    "gaussian": Gaussian(),
    "laplace": Laplace(),
    "imq": InverseMultiquadric(),
    "polynomial": Polynomial(),
    "energy": Energy(),
}


@checked
def mmd(
    x: Array,
    y: Array,
    *,
    kernel: Word | Annotated[Kernel, Is("a function of two arrays", partial(takes, 2))] = "gaussian",
    estimator: Estimator = "unbiased",
) -> Array:
    """The squared maximum mean discrepancy of two distributions, from draws of each, a scalar.

        MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)

    zero only for equal distributions where the kernel is characteristic (all but "polynomial").

    It is meant for batches: but for "linear", memory is that of m n d numbers.

    Args:
        x, y: (m, d) and (n, d).
        kernel: "gaussian", "laplace", "imq", "polynomial", "energy", or a function of two arrays (*batch, d) to
            (*batch,).
        estimator: "unbiased" leaves out k(x_i, x_i) and may fall below zero; "biased" has them, and is the squared
            distance of the two samples' mean embeddings; "linear" is the unbiased mean of k(x, x') + k(y, y') -
            k(x, y') - k(x', y) over disjoint pairs: O(m), not O(m^2), and noisier. It takes min(m, n) of each.

    Raises:
        ValueError: an unknown word; samples of different widths, or of fewer than two draws.

    Source: Gretton et al. 2012, "A kernel two-sample test", JMLR 13, lemma 6, eq. 5 and lemma 14.
    """
    kernel = KERNELS[kernel] if isinstance(kernel, str) else kernel
    _check("mmd", x, y)
    m, n = len(x), len(y)
    if estimator == "linear":
        pairs = min(m, n) // 2
        (x, x2), (y, y2) = ((t[0 : 2 * pairs : 2], t[1 : 2 * pairs : 2]) for t in (x, y))
        return (_values(kernel, x, x2) + kernel(y, y2) - kernel(x, y2) - kernel(x2, y)).mean()
    within = []
    for sample, count in ((x, m), (y, n)):
        table = _values(kernel, sample[:, None], sample[None])
        if estimator == "unbiased":
            within.append((table.sum() - table.diagonal().sum()) / (count * (count - 1)))
        else:
            within.append(table.mean())
    return within[0] + within[1] - 2 * kernel(x[:, None], y[None]).mean()


def _values(kernel: Kernel, a: Array, b: Array) -> Array:
    """What a kernel gives for each pair of rows."""
    found, want = kernel(a, b), np.broadcast_shapes(a.shape, b.shape)[:-1]
    if getattr(found, "shape", None) != want:
        raise ValueError(f"mmd: found {told(found)} from kernel={told(kernel)}, want an array of shape {want}")
    return found


@checked
def moments(x: Array, y: Array) -> Array:
    """Squared differences of means and covariances, |m_x - m_y|^2 + |C_x - C_y|_F^2, a scalar.

    No kernel, and nothing learned against it; distributions with equal first and second moments are the same to it.
    Sampling noise adds a positive bias of O(1/m + 1/n).

    Args:
        x, y: (m, d) and (n, d).

    Raises:
        ValueError: samples of different widths, or of fewer than two draws.

    Source: the regularizer "moment matching" of the code of Zhao et al. (ShengjiaZhao/Generalized-PixelVAE).
    """
    _check("moments", x, y)
    centers = [t.mean(0) for t in (x, y)]
    covariances = [(t - c).mT @ (t - c) / (len(t) - 1) for t, c in zip((x, y), centers, strict=True)]
    return ((centers[0] - centers[1]) ** 2).sum() + ((covariances[0] - covariances[1]) ** 2).sum()


def _check(called: str, x: Array, y: Array) -> None:
    whole = [hasattr(sample, "shape") and not getattr(sample, "is_sparse", False) for sample in (x, y)]
    found = [tuple(t.shape) if good else told(t) for good, t in zip(whole, (x, y), strict=True)]
    widths = {shape[1:] for shape in found if isinstance(shape, tuple) and len(shape) == 2 and shape[0] > 1}
    if len(widths) != 1 or any(isinstance(shape, str) or len(shape) != 2 or shape[0] < 2 for shape in found):
        raise ValueError(
            f"{called}: found samples of shapes {found[0]} and {found[1]}, want (m, d) and (n, d) with at least two "
            "draws each"
        )
