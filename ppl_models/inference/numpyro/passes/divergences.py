"""Densities and divergences of single sites: in closed form, and coordinate by coordinate."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import (
    Distribution,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
    TransformedDistribution,
)
from numpyro.distributions.kl import kl_divergence

from ppl_models.programs.numpyro import mask_of, unwrapped

from .rounding import rounded

Site = Mapping[str, Any]


def log_density(site: Site) -> Array:
    """log p(value) of a site, as it is drawn: not yet scaled."""
    more = [site["intermediates"]] if site["intermediates"] else []
    with rounded():
        return site["fn"].log_prob(site["value"], *more)


def divergence(q: Site, p: Site) -> Array | None:
    """KL of two sites in closed form, None where there is none or where it would not be the mean of log q - log p."""
    if not _scaled_alike(q, p):
        return None
    shape = jnp.broadcast_shapes(q["fn"].batch_shape, p["fn"].batch_shape)
    try:
        with rounded():
            closed = _closed(q["fn"], p["fn"])
    except NotImplementedError:
        return None
    return None if closed is None or closed.ndim > len(shape) else jnp.broadcast_to(closed, shape)


def _closed(q: Distribution, p: Distribution) -> Array | None:
    q, p = unwrapped(q, ExpandedDistribution), unwrapped(p, ExpandedDistribution)
    if isinstance(q, MaskedDistribution) or isinstance(p, MaskedDistribution):
        masks = [fn._mask if isinstance(fn, MaskedDistribution) else None for fn in (q, p)]
        if masks[0] is not masks[1]:
            return None
        closed = _closed(q.base_dist, p.base_dist)
        return closed if closed is None else jnp.where(masks[0], closed, 0.0)
    if isinstance(q, TransformedDistribution) and isinstance(p, TransformedDistribution) and _move_alike(q, p):
        return _closed(q.base_dist, p.base_dist)
    return kl_divergence(q, p)


def unit_divergence(name: str, q: Site, p: Site, analytic: bool) -> tuple[Array, int]:
    """Divergence of each coordinate of a site, (*batch, *event), and the number of its event dims.

    Raises:
        ValueError: factor and prior are not both products over coordinates.
    """
    found = _coordinates(q["fn"], p["fn"], q["value"])
    if found is None:
        raise ValueError(
            f"site {name!r} has no divergences by unit: found the factor {_kind(q['fn'])} and the prior "
            f"{_kind(p['fn'])}, want products over coordinates (diagonal families), with the transforms of the prior "
            "if it has any; try per='layer', or another family"
        )
    one, other, value, events = found
    batch = jnp.broadcast_shapes(q["fn"].batch_shape, p["fn"].batch_shape) + (1,) * events

    def weighed(density: Array, site: Site) -> Array:
        density = jnp.broadcast_to(density, jnp.broadcast_shapes(density.shape, batch))
        return scaled(density, site, events)

    if analytic and _scaled_alike(q, p):
        try:
            return weighed(kl_divergence(one, other), q), events
        except NotImplementedError:
            pass
    return weighed(one.log_prob(value), q) - weighed(other.log_prob(value), p), events


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


def _coordinates(
    q: Distribution, p: Distribution, value: Array
) -> tuple[Distribution, Distribution, Array, int] | None:
    """The factors of two products over coordinates, the value in them and its event dims; None for other pairs."""
    events = 0
    q, p = unwrapped(q, ExpandedDistribution), unwrapped(p, ExpandedDistribution)
    while q.event_shape or p.event_shape or isinstance(q, TransformedDistribution):
        if isinstance(q, Independent) and isinstance(p, Independent):
            if q.reinterpreted_batch_ndims != p.reinterpreted_batch_ndims:
                break
            events += q.reinterpreted_batch_ndims
        elif isinstance(q, TransformedDistribution) and isinstance(p, TransformedDistribution) and _move_alike(q, p):
            for transform in reversed(q.transforms):
                value = transform.inv(value)
        else:
            break
        q, p = unwrapped(q.base_dist, ExpandedDistribution), unwrapped(p.base_dist, ExpandedDistribution)
    return None if q.event_shape or p.event_shape else (q, p, value, events)


def _move_alike(q: TransformedDistribution, p: TransformedDistribution) -> bool:
    """Whether two distributions push their bases through the same transforms: the same objects, or without numbers."""
    pairs = zip(q.transforms, p.transforms, strict=False)
    return len(q.transforms) == len(p.transforms) and all(a is b or _same(a, b) for a, b in pairs)


def _same(a: Any, b: Any) -> bool:
    (leaves, structure), (others, other) = jax.tree.flatten(a), jax.tree.flatten(b)
    return type(a) is type(b) and structure == other and all(x is y for x, y in zip(leaves, others, strict=True))


def _kind(fn: Distribution) -> str:
    """The name of a distribution, and of what it is made of."""
    fn = unwrapped(fn, ExpandedDistribution)
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
            raise ValueError(
                f"site {name!r}: found a mask on this latent, want a code for every datum where all codes are looked "
                "at together; drop the rows that are masked out"
            )
