"""The divergence of one factor of a guide from its prior: in closed form, and coordinate by coordinate."""

from collections.abc import Mapping
from typing import Any

from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Distribution, Independent, TransformedDistribution, kl_divergence


def divergence(q: Mapping[str, Any], p: Mapping[str, Any]) -> Tensor | None:
    """KL of two sites in closed form, None where there is none or where it would not be the mean of log q - log p."""
    if not _weighed_alike(q, p):
        return None
    try:
        closed = kl_divergence(q["fn"], p["fn"])
    except NotImplementedError:
        return None
    return closed if closed.dim() <= max(len(q["fn"].batch_shape), len(p["fn"].batch_shape)) else None


def _weighed_alike(q: Mapping[str, Any], p: Mapping[str, Any]) -> bool:
    same = q["scale"] is p["scale"] or _number(q["scale"]) == _number(p["scale"])
    return same and q["mask"] is p["mask"]


def unit_divergence(name: str, q: Mapping[str, Any], p: Mapping[str, Any], analytic: bool) -> tuple[Tensor, int]:
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

    def weighed(density: Tensor, node: Mapping[str, Any]) -> Tensor:
        return scale_and_mask(density, *(_lifted(node[key], events) for key in ("scale", "mask")))

    if analytic and _weighed_alike(q, p):
        try:
            return weighed(kl_divergence(one, other), q), events
        except NotImplementedError:
            pass
    return weighed(one.log_prob(value), q) - weighed(other.log_prob(value), p), events


def _lifted(weight: Any, events: int) -> Any:
    """A scale or mask of a batch for the coordinates of its events."""
    return weight[(..., *[None] * events)] if isinstance(weight, Tensor) else weight


def _coordinates(
    q: Distribution, p: Distribution, value: Tensor
) -> tuple[Distribution, Distribution, Tensor, int] | None:
    """The factors of two products over coordinates, the value in them and its event dims; None for other pairs."""
    rank = len(q.batch_shape)
    while q.event_shape or p.event_shape or isinstance(q, TransformedDistribution):
        if isinstance(q, Independent) and isinstance(p, Independent):
            q, p = q.base_dist, p.base_dist
        elif isinstance(q, TransformedDistribution) and isinstance(p, TransformedDistribution):
            if q.transforms != p.transforms:
                break
            for transform in reversed(q.transforms):
                value = transform.inv(value)
            q, p = q.base_dist, p.base_dist
        else:
            break
    return None if q.event_shape or p.event_shape else (q, p, value, len(q.batch_shape) - rank)


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
