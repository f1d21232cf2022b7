"""`Start`: where the factor of a global latent begins; `split`: the units of factors by the curvature at a mode."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy import ndarray

from ppl_models.parts.arguments.kinds import Is

from ..looks.evidence import features
from ..looks.latents import Latent
from ..looks.layout import Layout
from .factors import Factor, sloped

OfSite = Annotated[Callable[[Any], Any], Is("a function of a site", instead="init_to_median", error=ValueError)]
INIT_SCALE = 0.1  # that of Pyro's and NumPyro's AutoNormal
OLD_WIDTH = 0.1  # with which factors of `small_init` began when files had no units
DRAWS, MOST_DRAWN = 1000, 10**6  # of a prior that is no Gaussian, for its median and its spread


class Start(NamedTuple):
    """The start of a global latent, in unconstrained coordinates.

    Attributes:
        loc: its location, (*plates, *event).
        scale: the unit of each entry, of the same shape.
        width: the standard deviation to begin with, None for the unit.
    """

    loc: ndarray
    scale: ndarray
    width: float | None = None


class Units(NamedTuple):
    """The units of a factor, found at a mode; see `guides.parts.families.units.Units` for the letters.

    Attributes:
        root: (*plates, n), or (*plates, n, n) where the family has correlated entries.
        slope: (n, parents), in units of the factor and of its parents.
        spread: (*plates, n), the marginal standard deviations.
    """

    root: ndarray
    slope: ndarray
    spread: ndarray


@dataclass(frozen=True)
class Block:
    """One global latent as `split` knows it.

    Attributes:
        places: of its entries among those of all, (*plates, n): a factor for each row of n, one row where it is joint.
        parents: the latents it is given.
        read: the places of the entries of its parents, in the order in which its network reads them.
        kind: of the units of its family (`Factor.units`).
    """

    places: ndarray
    parents: Sequence[str]
    read: Sequence[int] = ()
    kind: str = "diagonal"


def mean_and_spread(loc: ndarray, scale: ndarray) -> tuple[ndarray, ndarray]:
    """Mean and standard deviation of a mixture of Gaussians N(loc, diag scale^2), one a row: (*batch, n) -> (n,).

    Rows that are not finite, as a mask may hide them, do not count. The numbers are those of single precision, so that
    a file holds the same whatever the precision of the pair.
    """
    finite = np.isfinite(loc + scale).all(-1)
    if not finite.any():
        return np.zeros(loc.shape[-1]), np.ones(loc.shape[-1])
    loc, scale = loc[finite].astype(float), scale[finite].astype(float)
    mean, spread = loc.mean(0), np.sqrt((scale**2).mean(0) + loc.var(0))
    return mean.astype(np.float32).astype(float), spread.astype(np.float32).astype(float)


def start_width(init_loc_fn: Callable | None, init_scale: float | None) -> float | None:
    """The standard deviation to begin with, None for that of the priors."""
    return INIT_SCALE if init_loc_fn is not None and init_scale is None else init_scale


def check_given(guide: str, site: str, found: Sequence[int], want: Sequence[int]) -> None:
    """Raise ValueError for a location by `init_loc_fn` of another shape than the site's."""
    if tuple(found) != tuple(want):
        raise ValueError(
            f"guide {guide}: found a value of shape {tuple(found)} from init_loc_fn for the site {site!r}, want "
            f"{tuple(want)}"
        )


def batch_of(latent: Latent) -> tuple[int, ...]:
    """The dims of the plates of a global latent, 1 where none of its plates is."""
    sizes = {plate.dim: plate.size for plate in latent.plates}
    return tuple(sizes.get(dim, 1) for dim in range(-latent.site.rank, 0))


def shape_of(latent: Latent) -> tuple[int, ...]:
    """The shape of an unconstrained value of a global latent, (*plates, *event)."""
    return (*batch_of(latent), *latent.facts.unconstrained_shape)


def units_shape(latent: Latent) -> tuple[int, ...]:
    """(*plates, n): the shape of the locations of its factors; (n,) where one is over all copies."""
    n = prod(latent.facts.unconstrained_shape)
    batch = batch_of(latent)
    return (prod(batch) * n,) if latent.joint_over_plates or prod(batch) == 1 else (*batch, n)


def draws_of(shape: Sequence[int]) -> int:
    """How many draws of a prior over values of this shape are taken."""
    return max(min(DRAWS, MOST_DRAWN // max(prod(shape), 1)), 15)


def median_and_spread(draws: ndarray) -> tuple[ndarray, ndarray]:
    """Location and scale of draws (N, *shape): the median, and half the range in which 68 % are (of a Gaussian, sigma).

    >>> loc, scale = median_and_spread(np.random.default_rng(0).normal(5.0, 2.0, (100_000, 1)))
    >>> loc.round(1), scale.round(1)
    (array([5.]), array([2.]))
    """
    low, loc, high = np.quantile(draws.astype(float), [0.158655, 0.5, 0.841345], axis=0)
    scale = (high - low) / 2
    return loc, np.where(np.isfinite(scale) & (scale > 0), scale, 1.0)


def split(blocks: Mapping[str, Block], precision: ndarray) -> dict[str, Units]:
    """The units of each factor of a guide, given the precision of all globals at their mode.

    A factor is the Gaussian of its entries and its parents', with all that follows it in the guide integrated out and
    all else held fixed: exact where the posterior is Gaussian and the guide faithful, and for independent factors the
    Gaussian that is best in KL(q || p), whose variances are those of the conditionals.

        z | parents  ~  N(loc + S A (parents - their loc), S),      S^-1 and A blocks of that precision

    Where entries are independent, their precisions are the diagonal of S^-1.

    Args:
        blocks: latent -> what is known of it, in the order of the guide.
        precision: (D, D), positive definite.
    """
    unit = 1 / np.sqrt(np.diag(precision))
    whole = precision * unit * unit[:, None]  # the scales of parameters may differ by many orders
    covariance = np.linalg.inv(whole)
    spread = np.sqrt(np.diag(covariance))
    found = {}
    for i, (name, block) in enumerate(blocks.items()):
        later = {name}
        for other, each in list(blocks.items())[i + 1 :]:
            if later & {*each.parents}:
                later.add(other)
        gone = {place for other in later - {name} for place in blocks[other].places.flatten().tolist()}
        kept = [place for place in range(len(unit)) if place not in gone]
        held = np.linalg.inv(covariance[np.ix_(kept, kept)]) if gone else whole
        index = np.full(len(unit), -1)
        index[kept] = np.arange(len(kept))
        at = index[block.places]
        inverse = held[at[..., :, None], at[..., None, :]]  # (*plates, n, n), of S
        if block.kind in ("full", "copula"):
            local = np.linalg.cholesky(np.linalg.inv(inverse))
            root = unit[block.places][..., None] * local
        else:
            local = 1 / np.sqrt(np.diagonal(inverse, axis1=-2, axis2=-1))
            root = unit[block.places] * local
        slope = np.zeros((block.places.shape[-1], len(block.read)))
        if len(block.read):  # parents are read in units of their spread, shifts are in units of the root
            read = [*block.read]
            slope = np.linalg.solve(inverse, -held[np.ix_(at, index[read])] * spread[read])
            if block.kind == "full":
                slope = np.linalg.solve(local, slope)
            else:
                slope /= np.linalg.norm(local.reshape(len(slope), -1), axis=-1, keepdims=True)
        found[name] = Units(root, slope, (unit * spread)[block.places])
    return found


def blocks_of(
    layout: Layout, parents: Mapping[str, Sequence[str]], plan: Mapping[str, Factor], names: Collection[str]
) -> tuple[dict[str, ndarray], dict[str, Block]]:
    """(the places of the entries of each global among those of all, (*plates, *event); what `split` asks)."""
    places, blocks, total = {}, {}, 0
    for name in (name for name in parents if name in names):
        latent, factor = layout.latents[name], plan[name]
        shape = shape_of(latent)
        places[name] = np.arange(total, total + prod(shape)).reshape(shape)
        total += prod(shape)
        read: list[int] = []
        for above in (layout.latents[u] for u in parents[name] if sloped(factor, latent)):
            event = len(above.facts.unconstrained_shape)
            read += features(places[above.name], event, above.plates, latent.shared_plates).flatten().tolist()
        blocks[name] = Block(places[name].reshape(units_shape(latent)), parents[name], read, factor.units)
    return places, blocks


@dataclass(frozen=True)
class Beginning:
    """The globals of a guide whose start is still to be found: what `fit` asks of `guide.factors.beginning()`.

    Attributes:
        latents: their names, in the order of the guide.
        apart: the names of latents that are none of them.
        loc, scale: where a search begins, and in what units it goes, (D,): all of them one after another.
        values: (D,) -> ({site: value}, log |det|) in the language of the guide.
        at: puts the factors at a mode (D,), in the units of the precision (D, D) there.
        narrow: leaves them at the location of their priors, with a standard deviation of 0.1 at most.
    """

    latents: Sequence[str]
    apart: Sequence[str]
    loc: ndarray
    scale: ndarray
    values: Callable[[Any], tuple[dict[str, Any], Any]]
    at: Callable[[ndarray, ndarray], Any]
    narrow: Callable[[], Any]
