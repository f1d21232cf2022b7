"""Sample sites and plates as one run of the model left them, and their values as vectors."""

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property, reduce
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import (
    Distribution,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
    biject_to,
    constraints,
)

from ...parts.readings import Plate


class Table(dict):
    """A mapping that is hashable, as all has to be that is static in an Equinox module; it is not written to."""

    def __hash__(self) -> int:
        return hash(tuple(self.items()))


@dataclass(frozen=True, eq=False)
class Site:
    """A sample site as one run of the model drew it.

    `keep` names the plates it shares with the data: one value a datum there; none if it is outside the data plate.
    The first `loose` of its event dims are batch dims in no plate of the model, taken together as one factor.
    `private` are its other plates, whose sizes belong to the site as an event dimension does; a `joint` site has one
    factor for all copies in them. Plates are told apart by name: two may use one dim in turn.
    """

    name: str
    event_shape: tuple[int, ...]
    support: Any
    plates: tuple[Plate, ...]
    keep: frozenset[str] = frozenset()
    is_global: bool = False
    loose: int = 0
    joint: bool = False

    @cached_property
    def rank(self) -> int:
        """How many dims its plates take, gaps included."""
        return max((-plate.dim for plate in self.plates), default=0)

    @cached_property
    def private(self) -> tuple[Plate, ...]:
        """The plates it does not share with the data."""
        return tuple(plate for plate in self.plates if plate.name not in self.keep)

    @cached_property
    def is_real(self) -> bool:
        """Whether its support is all of R^n."""
        return isinstance(bounds(self.support)[0], type(constraints.real))

    @cached_property
    def unconstrained_shape(self) -> tuple[int, ...]:
        """Event shape of the values once mapped to all of R^n."""
        return tuple(biject_to(self.support).inverse_shape(self.event_shape))


def features(value: Array, event_dim: int, plates: tuple[Plate, ...], keep: frozenset[str]) -> Array:
    """Values drawn in `plates` as vectors, one for each index of the plates in `keep`: the others are folded in.

    Dimensions further left (particles) stay. (*particles, *plates, *event) -> (*particles, *kept plates, features);
    a folded plate leaves a dimension of size 1, so that the kept ones stay where they are.
    """
    value = jnp.asarray(value)
    value = value.reshape(*value.shape[: value.ndim - event_dim], -1) if event_dim else value[..., None]
    for plate in plates:
        dim = plate.dim
        if plate.name not in keep and value.ndim > -dim:
            value = value.swapaxes(dim - 1, -2)
            value = value.reshape(*value.shape[:-2], 1, -1).swapaxes(dim - 1, -2)
    return value


def read_site(
    node: Mapping[str, Any],
    full: Mapping[str, int],
    data: frozenset[str] | None = None,
    guide: str = "",
    again: Mapping[str, Any] | None = None,
    rows: str | None = None,
    loose: bool = False,
    classical: bool = False,
    joint: bool = False,
) -> Site:
    """The `Site` of a node of a trace. `data` are the plates around what is observed, all of its own if None.

    `full` are the sizes of the plates, of which a node shows those of the subsamples. `rows` names the plate that
    enumerates the data: a latent outside of it is global, and the others it is in are private, even if observed sites
    are in them, too. With None every one of `data` counts. `loose` takes batch dims for event dims. Where nothing is in
    a plate, a latent is local to the one datum there is, or global if `classical`. `joint` gives the copies of a global
    one factor.

    Raises:
        ValueError: bounds of a latent's support that differ from datum to datum, or from those of another run, `again`.
    """
    fn = node["fn"]
    plates = tuple(Plate(f.name, f.dim, f.size, full[f.name]) for f in reversed(node["cond_indep_stack"]))
    names = frozenset(plate.name for plate in plates)
    if data is None:
        return Site(node["name"], tuple(fn.event_shape), None, plates, names)  # of data nobody asks for the support
    event = tuple(fn.shape() if loose else fn.event_shape)
    support = _support(guide, node, again, event)
    keep = names & data if rows is None or rows in names else frozenset()
    is_global = (bool(data) or classical) and not keep
    whole = joint and is_global and bool(plates) and all(plate.size == plate.full_size for plate in plates)
    return Site(node["name"], event, support, plates, keep, is_global, len(event) - len(fn.event_shape), whole)


def bounds(support: Any) -> tuple[Any, dict[str, Array | np.ndarray]]:
    """A constraint without reinterpreted dims, and those of its attributes that are arrays."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support, {key: v for key, v in vars(support).items() if isinstance(v, (jax.Array, np.ndarray))}


def _support(guide: str, node: Mapping[str, Any], again: Mapping[str, Any] | None, event: tuple[int, ...]) -> Any:
    """The support of any one datum: bounds lose their batch dims, along which they must not vary."""
    fn = node["fn"]
    base, found = bounds(fn.support)
    if not found:
        loose = len(event) - len(fn.event_shape)
        return constraints.independent(fn.support, loose) if loose else fn.support
    base = copy(base)
    other = bounds(again["fn"].support)[1] if again else {}
    for key, bound in found.items():
        bound = np.broadcast_to(np.asarray(bound), fn.shape())
        rows = bound.reshape(-1, *event)
        moved = key not in other or not np.array_equal(np.broadcast_to(np.asarray(other[key]), fn.shape()), bound)
        if moved or not (rows == rows[0]).all():
            raise ValueError(
                f"guide {guide}: site {node['name']!r} ({type(unwrapped(fn)).__name__}) has a support whose "
                f"{key.replace('_', ' ')} differs between data or runs, want a fixed one; draw a unit variable "
                "and scale it in the model"
            )
        setattr(base, key, rows[0].copy())
    return constraints.independent(base, len(event)) if event else base


def check_latent(guide: str, node: Mapping[str, Any], loose_too: bool = False) -> None:
    """Raise ValueError for what the guide cannot draw; `loose_too` lets batch dims outside all plates pass."""
    name, fn = node["name"], node["fn"]
    if fn.support.is_discrete:
        raise ValueError(
            f"guide {guide}: site {name!r} is discrete ({type(unwrapped(fn)).__name__}), the guides here draw "
            "continuous values; sum it out (infer={'enumerate': 'parallel'}, a BottomUp guide, TraceEnum_ELBO)"
        )
    dims = {f.dim for f in node["cond_indep_stack"]}
    shape = fn.batch_shape
    loose = [dim for dim in range(-len(shape), 0) if shape[dim] > 1 and dim not in dims]
    if loose and not loose_too:
        raise ValueError(
            f"guide {guide}: site {name!r} has batch shape {tuple(shape)}, of which dim {loose[0]} is in no plate; "
            "put it in a numpyro.plate, make it part of the event by .to_event, or, if nothing is in a plate, take a "
            "guide with an order of its own (Faithful, BottomUp)"
        )


def altered(node: Mapping[str, Any], full: Mapping[str, int]) -> str:
    """What stands between the site and its plain density: a mask, a scale, or nothing ("")."""
    if mask_of(node["fn"]) is not None:
        return "mask"
    expected = prod(full[f.name] / f.size for f in node["cond_indep_stack"])
    scale = 1.0 if node["scale"] is None else node["scale"]
    return "" if (abs(np.asarray(scale) / expected - 1) < 1e-4).all() else "scale"


def mask_of(fn: Distribution) -> Array | bool | None:
    """Which of the copies of a site count, None where all do: NumPyro keeps masks in distributions."""
    masks = []
    while isinstance(fn, (MaskedDistribution, ExpandedDistribution)):
        if isinstance(fn, MaskedDistribution):
            masks.append(fn._mask)
        fn = fn.base_dist
    return reduce(lambda a, b: a & b, masks) if masks else None


def unwrapped(fn: Distribution) -> Distribution:
    """A distribution without reinterpreted and expanded dims and masks."""
    while isinstance(fn, (Independent, MaskedDistribution, ExpandedDistribution)):
        fn = fn.base_dist
    return fn


def data_plate(
    latents: Iterable[Mapping[str, Any]],
    observed: Iterable[Mapping[str, Any]],
    full: Mapping[str, int],
    first: Any = None,
    places: Mapping[str, np.ndarray] | None = None,
) -> Any:
    """The frame of the plate that enumerates the data, or None: then nothing is local to a datum.

    It is around every observed site that is in a plate at all, and its size (or full size, if it subsamples) is the
    number of rows of the first argument. Of several such plates it is the one named "data", else the one along which an
    observed value steps through the rows of that argument, else the one that holds most latents. Where the rows are
    unknown or no plate has their number, it is the plate named "data" or the only one there is; of others one cannot
    know, and none is taken.

    Args:
        latents, observed: nodes of a trace of the model.
        full: the sizes of its plates.
        first: the first argument of the run, None where it is unknown.
        places: of the observed values that are taken from the first argument as they are: the place there of each
            element.
    """
    places = places or {}
    stacks = {node["name"]: stack for node in observed if (stack := _stack(node))}
    common = [f for f in next(iter(stacks.values()), {}).values() if all(f.name in s for s in stacks.values())]
    rows = len(first) if hasattr(first, "__len__") and getattr(first, "ndim", 1) else None
    found = [f for f in common if rows is not None and rows in (f.size, full[f.name])]
    if not found:
        found = [f for f in common if f.name == "data" or len(common) == 1]
    if len(found) < 2:
        return next(iter(found), None)
    held = [_stack(node) for node in latents]
    event_dims = {node["name"]: node["fn"].event_dim for node in observed}

    def steps(frame: Any) -> bool:
        for name, place in places.items():
            axis = frame.dim - event_dims[name]
            if place.ndim >= -axis and (np.diff(place, axis=axis) == prod(np.shape(first)[1:])).all():
                return True
        return False

    def rank(frame: Any) -> tuple[bool, bool, int, int]:
        return frame.name == "data", steps(frame), sum(frame.name in h for h in held), -frame.dim

    return max(found, key=rank)


def _stack(node: Mapping[str, Any]) -> dict[str, Any]:
    return {f.name: f for f in reversed(node["cond_indep_stack"])}
