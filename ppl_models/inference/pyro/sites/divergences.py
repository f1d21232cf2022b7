"""Densities and divergences of single sites: in closed form, and coordinate by coordinate.

The pairs that most programs are made of, diagonal Gaussians and Bernoulli pixels, take a shorter way to the numbers of
`log_prob` and `closed_form`: no dispatch, and nothing computed again for each particle that is the same for all.
"""

from collections.abc import Mapping
from math import log, pi, sqrt
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from ppl_models.programs.pyro import layers, unwrapped
from ppl_models.programs.record import Layers

from ...objectives.terms import refuse_units
from .closed_forms import between, closed_form, masked, same_mask, same_masks


def divergence(q: Mapping[str, Any], p: Mapping[str, Any]) -> Tensor | None:
    """KL of two sites in closed form, None where there is none or where it would not be the mean of log q - log p."""
    if not _weighed_alike(q, p):
        return None
    closed = _of_vectors(q["fn"], p["fn"])
    closed = closed_form(q["fn"], p["fn"]) if closed is None else closed
    if closed is None or closed.dim() > max(len(q["fn"].batch_shape), len(p["fn"].batch_shape)):
        return None
    return closed


def weighed_divergence(q: Mapping[str, Any], p: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]] | None:
    """(`divergence`, the site whose scale and mask it is to have), also of masks that were computed apart.

    Nothing is read of those: where they are equal it is the formula, elsewhere what the mask of q leaves of log q less
    what that of p leaves of log p, at the draw.
    """
    if (closed := divergence(q, p)) is not None:
        return closed, q
    if q["scale"] is not p["scale"] and _number(q["scale"]) != _number(p["scale"]):
        return None
    (one, kept), (other, also) = _unmasked(q), _unmasked(p)
    if kept is None or also is None:  # masked in one program alone
        return None
    closed = divergence({**q, "fn": one, "mask": None}, {**p, "fn": other, "mask": None})
    if closed is None:
        return None
    kept, also = (torch.as_tensor(mask, device=closed.device) for mask in (kept, also))
    drawn = torch.where(kept, log_density(one, q["value"]), -log_density(other, p["value"]))
    return torch.where(kept == also, closed, drawn), {**q, "mask": kept | also}


def _unmasked(node: Mapping[str, Any]) -> tuple[Distribution, Any]:
    """A distribution without the masks that are outermost, and their product with that of the site; None for none."""
    fn, mask = node["fn"], node["mask"]
    while type(fn) is dist.MaskedDistribution:
        mask = fn._mask if mask is None else mask & fn._mask
        fn = fn.base_dist
    return fn, mask


def _of_vectors(q: Distribution, p: Distribution) -> Tensor | None:
    """The closed form for diagonal Gaussians, under bijections that both share."""
    while type(q) is type(p) is dist.TransformedDistribution and q.transforms == p.transforms:
        if q.event_shape != p.event_shape or not all(t.bijective for t in q.transforms):
            return None
        q, p = q.base_dist, p.base_dist
    of_q, of_p = _vectors(q, dist.Normal), _vectors(p, dist.Normal)
    if of_q is None or of_p is None:
        return None
    loc, scale = _once(of_p.loc), _once(of_p.scale)
    ratio = (_once(of_q.scale) / scale).pow(2)
    shift = ((_once(of_q.loc) - loc) / scale).pow(2)
    closed = (0.5 * (ratio + shift - 1 - ratio.log())).sum(-1)
    shape = _joint(q.batch_shape, p.batch_shape)
    return closed if closed.shape == shape else closed.expand(shape)


def log_density(fn: Distribution, value: Tensor) -> Tensor:
    """fn.log_prob(value), the same numbers."""
    normal, bernoulli = _vectors(fn, dist.Normal), _vectors(fn, dist.Bernoulli)
    if fn._validate_args or (normal is None and bernoulli is None):
        return fn.log_prob(value)
    if normal is not None:
        scale = _once(normal.scale)
        density = -((value - _once(normal.loc)) ** 2) / (2 * scale**2) - scale.log() - log(sqrt(2 * pi))
    elif "logits" not in vars(bernoulli):
        return fn.log_prob(value)
    elif bernoulli.logits.requires_grad:  # the sign last: one number a row
        value = value.expand(_joint(value.shape, bernoulli.logits.shape))
        return -binary_cross_entropy_with_logits(bernoulli.logits.expand(value.shape), value, reduction="none").sum(-1)
    else:  # the terms of the cross entropy, of which those of the values are the same for all particles
        density, others = logsigmoid(bernoulli.logits), (1 - _once(value)) * bernoulli.logits
        # in place: another tensor of all particles and pixels costs as much as the subtraction
        density = density.sub_(others) if density.shape == others.shape else density - others
    shape = _joint(value.shape[:-1], fn.batch_shape)
    density = density.sum(-1)
    return density if density.shape == shape else density.expand(shape)


def log_support(fn: Distribution) -> Tensor | None:
    """log of the mass that a discrete factor gave to the states of its prior, None for one that is of all states."""
    return None if fn.has_rsample else getattr(unwrapped(fn), "log_support", None)


def _vectors(fn: Distribution, kind: type) -> Any:
    """The base of independent entries of one kind along one dim, None for all else, subclasses among them."""
    if not isinstance(fn, dist.Independent) or fn.reinterpreted_batch_ndims != 1 or type(fn.base_dist) is not kind:
        return None
    return fn.base_dist


def _joint(one: torch.Size, other: torch.Size) -> torch.Size:
    return one if one == other else torch.broadcast_shapes(one, other)


def _once(value: Tensor) -> Tensor:
    """Without what `expand` repeats. Left as it is under autograd, whose zeros for the rest would be more work."""
    if value.requires_grad or 0 not in value.stride()[:-1]:
        return value
    kept = [slice(1) if step == 0 else slice(None) for step in value.stride()[:-1]]
    return value[tuple(kept)]


def _weighed_alike(q: Mapping[str, Any], p: Mapping[str, Any]) -> bool:
    same = q["scale"] is p["scale"] or _number(q["scale"]) == _number(p["scale"])
    return same and same_mask(q["mask"], p["mask"])


def unit_divergence(name: str, q: Mapping[str, Any], p: Mapping[str, Any], analytic: bool) -> tuple[Tensor, int]:
    """Divergence of each coordinate of a site, (*batch, *event), and the number of its event dims.

    Raises:
        ValueError: factor and prior are not both products over coordinates.
    """
    one, other = layers(q["fn"]), layers(p["fn"])
    alike = same_masks(one, other)
    whole = one.base.event_shape or other.base.event_shape or one.events != other.events
    if whole or one.transforms != other.transforms or (one.transforms and not alike):
        refuse_units(name, _kind(q["fn"]), _kind(p["fn"]))
    value, events = q["value"], one.events
    for transform in reversed(one.transforms):
        value = transform.inv(value)

    def weighed(density: Tensor, node: Mapping[str, Any], found: Layers) -> Tensor:
        density = scale_and_mask(density, *(_lifted(node[key], events) for key in ("scale", "mask")))
        return masked(density, found, events)

    closed = between(one.base, other.base) if analytic and alike and _weighed_alike(q, p) else None
    if closed is not None:
        return weighed(closed, q, one), events
    return weighed(one.base.log_prob(value), q, one) - weighed(other.base.log_prob(value), p, other), events


def _lifted(weight: Any, events: int) -> Any:
    """A scale or mask of a batch for the coordinates of its events."""
    return weight[(..., *[None] * events)] if isinstance(weight, Tensor) else weight


def _kind(fn: Distribution) -> str:
    """The name of a distribution, and of what it is made of."""
    inner = getattr(fn, "base_dist", None)
    return type(fn).__name__ + (f"({_kind(inner)})" if isinstance(inner, Distribution) else "")


def _number(scale: Any) -> Any:
    """A scale that can be compared without reading a tensor: tensors are compared by identity."""
    return id(scale) if isinstance(scale, Tensor) else scale


def per_unit(value: Tensor, events: int, data_dim: int | None, particle_dim: int | None) -> Tensor:
    """Every dim but particles and data in one, the last: (particles, n, units), with 1 for what is not there."""
    places = [d - events for d in (particle_dim, data_dim) if d is not None]
    rank = max([value.dim(), *(-d for d in places)])
    value = value.reshape((1,) * (rank - value.dim()) + value.shape)
    value = value.movedim(places, list(range(len(places))))
    value = value.flatten(len(places)) if rank > len(places) else value.unsqueeze(-1)
    if particle_dim is None:
        value = value.unsqueeze(0)
    return value if data_dim is not None else value.unsqueeze(1)


def per_datum(value: Tensor, data_dim: int | None, particle_dim: int | None) -> Tensor:
    """Sum a log-density over every plate but data and particles: (particles, n), with 1 for what is not there."""
    rank = max(-(data_dim or 0), -(particle_dim or 0))
    if value.dim() < rank:
        value = value.reshape((1,) * (rank - value.dim()) + value.shape)
    keep = {value.dim() + d for d in (data_dim, particle_dim) if d is not None}
    if len(keep) < value.dim():
        value = value.sum([d for d in range(value.dim()) if d not in keep])
    if particle_dim is None:
        value = value.unsqueeze(0)
    return value if data_dim is not None else value.unsqueeze(-1)
