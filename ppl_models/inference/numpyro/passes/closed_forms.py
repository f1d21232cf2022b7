"""`closed_form(q, p)`: the divergence of two distributions by a formula that is known to be right, None without one.

NumPyro registers a formula for two classes and for all that are derived from them, whatever those add. So only the
pairs of `KNOWN` are asked for, of exactly these classes; `tests/numpyro/test_numpyro_closed_forms.py` holds each
against draws.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import Distribution
from numpyro.distributions.kl import kl_divergence

from ppl_models.numpyro.parts.distributions import RankOneNormal
from ppl_models.programs.numpyro import layers
from ppl_models.programs.record import Layers, Mask

VECTOR = "vector of Normals"
# q -> the p of which KL(q || p) is known
KNOWN: Mapping[str, tuple[str, ...]] = {
    "Beta": ("Beta",),
    "CategoricalProbs": ("CategoricalProbs",),
    "Dirichlet": ("Dirichlet",),
    "Gamma": ("Gamma",),
    "MultivariateNormal": ("MultivariateNormal", VECTOR),
    "Normal": ("Normal",),
    "RankOneNormal": ("RankOneNormal", VECTOR),
    "Weibull": ("Gamma",),
}
_NAMES = {getattr(dist, name): name for name in KNOWN if hasattr(dist, name)} | {RankOneNormal: "RankOneNormal"}


def closed_form(q: Distribution, p: Distribution) -> Array | None:
    """KL(q || p), of the batch shape of both; None where no formula is known to be right.

    Bijections that both share change nothing, a mask that both have leaves out what it masks.
    """
    if q.event_shape != p.event_shape:
        return None
    for transforms in (False, True):
        one, other = layers(q, transforms), layers(p, transforms)
        alike = same_transforms(one, other) and same_masks(one, other)
        if alike and (found := _summed(one, other)) is not None:
            return found
    return None


def between(q: Distribution, p: Distribution) -> Array | None:
    """KL(q || p) of two distributions that nothing wraps, None where it is not known."""
    return kl_divergence(q, p) if _name(p) in KNOWN.get(_name(q) or "", ()) else None


def same_transforms(one: Layers, other: Layers) -> bool:
    """Whether two distributions push their bases through the same transforms: the same objects, or without numbers."""
    pairs = zip(one.transforms, other.transforms, strict=False)
    return len(one.transforms) == len(other.transforms) and all(a is b or _same(a, b) for a, b in pairs)


def same_masks(one: Layers, other: Layers) -> bool:
    """Whether two distributions leave out the same, by the same masks at the same places; no mask is read."""
    pairs = zip(one.masks, other.masks, strict=False)
    return len(one.masks) == len(other.masks) and all(a.kept is b.kept and a[1:] == b[1:] for a, b in pairs)


def masked(density: Array, found: Layers, events: int) -> Array:
    """A density of the shape of what is inside, its first `events` event dims apart, less what masks leave out."""
    for mask in found.masks:
        density = density if mask.kept is True else jnp.where(_raised(mask, events), density, 0.0)
    return density


def _summed(one: Layers, other: Layers) -> Array | None:
    events = min(one.events, other.events)
    if any(mask.events > events for mask in one.masks):
        return None
    closed = between(_of_events(one, events), _of_events(other, events))
    if closed is None:
        return None
    shapes = [found.shape[: len(found.shape) - found.events + events] for found in (one, other)]
    closed = masked(jnp.broadcast_to(closed, jnp.broadcast_shapes(*shapes)), one, events)
    return closed.sum(tuple(range(-events, 0))) if events else closed


def _of_events(found: Layers, events: int) -> Any:
    """What is inside, with all but the first `events` event dims its own."""
    rest = found.events - events
    return found.base.expand(found.shape).to_event(rest) if rest else found.base


def _raised(mask: Mask, events: int) -> Any:
    kept = mask.kept
    return kept if isinstance(kept, bool) else jnp.reshape(kept, jnp.shape(kept) + (1,) * (events - mask.events))


def _name(fn: Any) -> str | None:
    if isinstance(fn, dist.Independent) and fn.reinterpreted_batch_ndims == 1:
        base = layers(fn.base_dist, transforms=False)
        return VECTOR if type(base.base) is dist.Normal and not base.masks and not base.events else None
    return _NAMES.get(type(fn))


def _same(a: Any, b: Any) -> bool:
    (leaves, structure), (others, other) = jax.tree.flatten(a), jax.tree.flatten(b)
    return type(a) is type(b) and structure == other and all(x is y for x, y in zip(leaves, others, strict=True))
