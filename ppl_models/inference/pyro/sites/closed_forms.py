"""`closed_form(q, p)`: the divergence of two distributions by a formula that is known to be right, None without one.

Torch and Pyro register a formula for two classes and for all that are derived from them, and some ignore a part of a
distribution: Pyro's for a `Delta` its `log_density`, torch's for transformed distributions that two values may have one
image (`FoldedDistribution`), torch's for any two exponential families the gradient of q's parameters. So only the pairs
of `KNOWN` are asked for, of exactly these classes; `tests/inference/test_closed_forms.py` holds each against draws.
"""

from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from ppl_models.parts.distributions import RankOneNormal
from ppl_models.programs.pyro import layers
from ppl_models.programs.record import Layers, Mask

VECTOR = "vector of Normals"
# q -> the p of which KL(q || p) is known: of classes of torch and of Pyro
KNOWN: Mapping[str, tuple[str, ...]] = {
    "Bernoulli": ("Bernoulli",),
    "Beta": ("Beta", "Exponential", "Gamma", "Normal", "Uniform"),
    "Categorical": ("Categorical",),
    "Cauchy": ("Cauchy",),
    "Dirichlet": ("Dirichlet",),
    "Exponential": ("Exponential", "Gamma", "Gumbel", "Normal"),
    "Gamma": ("Gamma", "Exponential", "Gumbel", "Normal"),
    "Geometric": ("Geometric",),
    "Gumbel": ("Gumbel", "Normal"),
    "HalfNormal": ("HalfNormal",),
    "Laplace": ("Laplace", "Normal"),
    "LowRankMultivariateNormal": ("LowRankMultivariateNormal", "MultivariateNormal"),
    "MultivariateNormal": ("MultivariateNormal", "LowRankMultivariateNormal", VECTOR),
    "Normal": ("Normal", "Gumbel", "Laplace"),
    "OneHotCategorical": ("OneHotCategorical",),
    "Pareto": ("Pareto", "Exponential", "Gamma", "Normal"),
    "Poisson": ("Poisson",),
    "RankOneNormal": ("RankOneNormal", VECTOR),
    "Uniform": ("Uniform", "Beta", "Exponential", "Gamma", "Gumbel", "Normal", "Pareto"),
    VECTOR: ("MultivariateNormal",),
}
_NAMES = {getattr(where, name): name for where in (torch.distributions, dist) for name in KNOWN if hasattr(where, name)}
_NAMES[RankOneNormal] = "RankOneNormal"


def closed_form(q: Distribution, p: Distribution) -> Tensor | None:
    """KL(q || p), of the batch shape of both; None where no formula is known to be right.

    Bijections that both share change nothing, a mask that both have leaves out what it masks.
    """
    if q.event_shape != p.event_shape:
        return None
    for transforms in (False, True):  # a Pareto is an Exponential, transformed, and has a formula of its own
        one, other = layers(q, transforms), layers(p, transforms)
        alike = one.transforms == other.transforms and same_masks(one, other)
        if alike and (found := _summed(one, other)) is not None:
            return found
    return None


def between(q: Distribution, p: Distribution) -> Tensor | None:
    """KL(q || p) of two distributions that nothing wraps, None where it is not known."""
    return kl_divergence(q, p) if _name(p) in KNOWN.get(_name(q) or "", ()) else None


def same_masks(one: Layers, other: Layers) -> bool:
    """Whether two distributions leave out the same, by the same masks at the same places; no mask is read."""
    return [_place(mask) for mask in one.masks] == [_place(mask) for mask in other.masks]


def same_mask(one: Any, other: Any) -> bool:
    """Whether two masks of sites are one, or two views of the same entries of one; neither is read."""
    return one is other or _place(Mask(one, 0, 0)) == _place(Mask(other, 0, 0))


def masked(density: Tensor, found: Layers, events: int) -> Tensor:
    """A density of the shape of what is inside, its first `events` event dims apart, less what masks leave out."""
    for mask in found.masks:
        kept = mask.kept
        kept = kept[(..., *[None] * (events - mask.events))] if isinstance(kept, Tensor) else kept
        density = density if kept is True else scale_and_mask(density, mask=kept)
    return density


def _summed(one: Layers, other: Layers) -> Tensor | None:
    events = min(one.events, other.events)
    if any(mask.events > events for mask in one.masks):
        return None
    closed = between(_of_events(one, events), _of_events(other, events))
    if closed is None:
        return None
    shapes = [found.shape[: len(found.shape) - found.events + events] for found in (one, other)]
    shape = shapes[0] if shapes[0] == shapes[1] else torch.broadcast_shapes(*shapes)
    closed = masked(closed if closed.shape == shape else closed.expand(shape), one, events)
    return closed.flatten(-events).sum(-1) if events else closed


def _of_events(found: Layers, events: int) -> Any:
    """What is inside, with all but the first `events` event dims its own."""
    rest = found.events - events
    if not rest:
        return found.base
    base = found.base if found.base.batch_shape == found.shape else found.base.expand(found.shape)
    return dist.Independent(base, rest)


def _name(fn: Distribution) -> str | None:
    if isinstance(fn, Independent) and fn.reinterpreted_batch_ndims == 1:
        return VECTOR if _NAMES.get(type(fn.base_dist)) == "Normal" else None
    return _NAMES.get(getattr(fn, "density_of", type(fn)))  # of classes that differ from it in their draws alone


def _place(mask: Mask) -> Any:
    """A mask and its place, the same for two views of one tensor that repeat it, say for all particles."""
    kept = mask.kept
    if not isinstance(kept, Tensor):
        return mask
    steps = zip(range(-kept.dim(), 0), kept.shape, kept.stride(), strict=True)
    dims = [(dim - mask.events, size, step) for dim, size, step in steps if size > 1 and step]
    return kept.untyped_storage()._cdata, kept.storage_offset(), dims, mask.events, mask.above
