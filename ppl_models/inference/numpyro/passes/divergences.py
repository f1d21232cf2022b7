"""Densities and divergences of single sites: in closed form, and coordinate by coordinate."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from numpyro.distributions import Distribution, ExpandedDistribution, MaskedDistribution

from ppl_models.programs.numpyro import layers, mask_of, unwrapped
from ppl_models.programs.record import Layers

from ...objectives.terms import refuse_mask, refuse_units
from .closed_forms import between, closed_form, masked, same_masks, same_transforms
from .rounding import rounded

Site = Mapping[str, Any]


def log_density(site: Site) -> Array:
    """log p(value) of a site, as it is drawn: not yet scaled."""
    more = [site["intermediates"]] if site["intermediates"] else []
    with rounded():
        return site["fn"].log_prob(site["value"], *more)


def log_support(fn: Distribution) -> Array | None:
    """log of the mass that a discrete factor gave to the states of its prior, None for one that is of all states."""
    found = getattr(unwrapped(fn), "log_support", None)
    return None if found is None else jnp.broadcast_to(found, jnp.broadcast_shapes(found.shape, fn.batch_shape))


def divergence(q: Site, p: Site) -> Array | None:
    """KL of two sites in closed form, None where there is none or where it would not be the mean of log q - log p."""
    if not _scaled_alike(q, p):
        return None
    shape = jnp.broadcast_shapes(q["fn"].batch_shape, p["fn"].batch_shape)
    with rounded():
        closed = closed_form(q["fn"], p["fn"])
    closed = _masked_apart(q, p) if closed is None else closed
    return None if closed is None or closed.ndim > len(shape) else jnp.broadcast_to(closed, shape)


def _masked_apart(q: Site, p: Site) -> Array | None:
    """The divergence under masks that were computed apart, of which nothing is read; None where there is none.

    Where they are equal it is the formula, elsewhere what the mask of q leaves of log q less what that of p leaves of
    log p, at the draw.
    """
    (one, kept), (other, also) = _unmasked(q["fn"]), _unmasked(p["fn"])
    with rounded():
        closed = None if kept is None or also is None else closed_form(one, other)  # masked in one program alone
    if closed is None:
        return None
    kept, also = jnp.asarray(kept), jnp.asarray(also)
    drawn = jnp.where(kept, log_density({**q, "fn": one}), -log_density({**p, "fn": other}))
    return jnp.where(kept | also, jnp.where(kept == also, closed, drawn), 0.0)


def _unmasked(fn: Distribution) -> tuple[Distribution, Any]:
    """A distribution without the masks that are outermost, and their product; None for none."""
    mask = None
    while type(fn) is MaskedDistribution:
        mask = fn._mask if mask is None else jnp.logical_and(mask, fn._mask)
        fn = fn.base_dist
    return fn, mask


def unit_divergence(name: str, q: Site, p: Site, analytic: bool) -> tuple[Array, int]:
    """Divergence of each coordinate of a site, (*batch, *event), and the number of its event dims.

    Raises:
        ValueError: factor and prior are not both products over coordinates.
    """
    one, other = layers(q["fn"]), layers(p["fn"])
    alike, moved = same_masks(one, other), same_transforms(one, other)
    whole = one.base.event_shape or other.base.event_shape or one.events != other.events
    if whole or not moved or (one.transforms and not alike):
        refuse_units(name, _kind(q["fn"]), _kind(p["fn"]))
    value, events = q["value"], one.events
    for transform in reversed(one.transforms):
        value = transform.inv(value)
    batch = jnp.broadcast_shapes(q["fn"].batch_shape, p["fn"].batch_shape) + (1,) * events

    def weighed(density: Array, site: Site, found: Layers) -> Array:
        density = jnp.broadcast_to(density, jnp.broadcast_shapes(density.shape, batch))
        return scaled(masked(density, found, events), site, events)

    closed = between(one.base, other.base) if analytic and alike and _scaled_alike(q, p) else None
    if closed is not None:
        return weighed(closed, q, one), events
    made = [q["intermediates"]] if q["intermediates"] and one.base is q["fn"] else []  # of its own draw
    return weighed(one.base.log_prob(value, *made), q, one) - weighed(other.base.log_prob(value), p, other), events


def scaled(density: Array, site: Site, events: int = 0) -> Array:
    """A density times the scale of its site, which is one number, or one of each element of the batch."""
    scale = site["scale"]
    if scale is None or (isinstance(scale, float | int) and scale == 1):
        return density
    return density * jnp.reshape(scale, jnp.shape(scale) + (1,) * events)


def per_datum(value: Array, data_dim: int | None) -> Array:
    """Sum a log density over every plate but the data: (n,), or (1,) where there is none."""
    if data_dim is None:
        return value.sum()[None]
    value = value.reshape((1,) * (-data_dim - value.ndim) + value.shape)
    return value.sum([d for d in range(value.ndim) if d != value.ndim + data_dim])


def per_unit(value: Array, events: int, data_dim: int | None) -> Array:
    """Every dim but the data in one, the last: (n, units), or (1, units)."""
    if data_dim is None:
        return value.reshape(1, -1)
    dim = data_dim - events
    value = value.reshape((1,) * (-dim - value.ndim) + value.shape)
    value = jnp.moveaxis(value, dim, 0)
    return value.reshape(len(value), -1)


def _kind(fn: Distribution) -> str:
    """The name of a distribution, and of what it is made of."""
    fn = fn.base_dist if isinstance(fn, ExpandedDistribution) else fn
    inner = getattr(fn, "base_dist", None)
    return type(fn).__name__ + (f"({_kind(inner)})" if isinstance(inner, Distribution) else "")


def _scaled_alike(q: Site, p: Site) -> bool:
    """Whether two scales are one object or one number; arrays are not read."""
    one, other = (1.0 if site["scale"] is None else site["scale"] for site in (q, p))
    return one is other or (isinstance(one, float | int) and isinstance(other, float | int) and one == other)


def check_unmasked(sites: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError for a latent some of whose data are masked out: their values are none of the aggregate's."""
    for name, site in sites.items():
        if mask_of(site["fn"]) is not None:
            refuse_mask(name)
