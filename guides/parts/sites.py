"""Sample sites and plates as one run of a model left them, and their values as vectors."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import biject_to, constraints

from .readings import Plate


@dataclass(frozen=True)
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
        return is_real(self.support)

    @cached_property
    def unconstrained_shape(self) -> tuple[int, ...]:
        """Event shape of the values once mapped to all of R^n."""
        return tuple(biject_to(self.support).inverse_shape(torch.Size(self.event_shape)))


def is_real(support: Any) -> bool:
    """Whether `support` is all of R^n, up to reinterpreted dimensions."""
    while isinstance(support, type(constraints.real_vector)):
        support = support.base_constraint
    return support is constraints.real


def features(value: Tensor, event_dim: int, plates: tuple[Plate, ...], keep: frozenset[str]) -> Tensor:
    """Values drawn in `plates` as vectors, one for each index of the plates in `keep`: the others are folded in.

    Dimensions further left (particles) stay. (*particles, *plates, *event) -> (*particles, *kept plates, features);
    a folded plate leaves a dimension of size 1, so that the kept ones stay where they are.
    """
    value = value.unsqueeze(-1) if event_dim == 0 else value.flatten(-event_dim)
    for plate in plates:
        dim = plate.dim
        if plate.name not in keep and value.dim() > -dim:
            value = value.transpose(dim - 1, -2).flatten(-2).unsqueeze(-2).transpose(dim - 1, -2)
    return value


def read_site(
    node: Mapping[str, Any],
    data: frozenset[str] | None = None,
    guide: str = "",
    again: Mapping[str, Any] | None = None,
    rows: str | None = None,
    loose: bool = False,
    classical: bool = False,
    joint: bool = False,
) -> Site:
    """The `Site` of a node of a trace. `data` are the plates around what is observed, all of its own if None.

    `rows` names the one of them that enumerates the data: a latent outside of it is global, and the others it is in are
    private, even if observed sites are in them, too. With None every one of `data` counts. `loose` takes batch dims for
    event dims. Where nothing is in a plate, a latent is local to the one datum there is, or global if `classical`.
    `joint` gives the copies of a global one factor.

    Raises:
        ValueError: bounds of a latent's support that differ from datum to datum, or from those of another run, `again`.
    """
    fn = node["fn"]
    frames = [f for f in node["cond_indep_stack"] if f.vectorized]
    plates = tuple(Plate(f.name, f.dim, f.size, f.full_size or f.size) for f in frames)
    names = frozenset(plate.name for plate in plates)
    if data is None:
        return Site(node["name"], tuple(fn.event_shape), fn.support, plates, names)
    event = tuple(fn.shape() if loose else fn.event_shape)
    support = _support(guide, node, again, event)
    keep = names & data if rows is None or rows in names else frozenset()
    is_global = (bool(data) or classical) and not keep
    whole = joint and is_global and bool(plates) and all(plate.size == plate.full_size for plate in plates)
    return Site(node["name"], event, support, plates, keep, is_global, len(event) - len(fn.event_shape), whole)


def bounds(support: Any) -> tuple[Any, dict[str, Tensor]]:
    """A constraint without reinterpreted dims, and those of its attributes that are tensors."""
    while isinstance(support, type(constraints.real_vector)):
        support = support.base_constraint
    return support, {key: value for key, value in vars(support).items() if isinstance(value, Tensor)}


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
        rows = bound.expand(fn.shape()).reshape(-1, *event)
        moved = key not in other or not torch.equal(other[key].expand(fn.shape()), bound.expand(fn.shape()))
        if moved or not (rows == rows[0]).all():
            raise ValueError(
                f"guide {guide}: site {node['name']!r} ({type(fn).__name__}) has a support whose "
                f"{key.replace('_', ' ')} differs between data or runs, want a fixed one; draw a unit variable "
                "and scale it in the model"
            )
        setattr(base, key, rows[0].clone())
    return constraints.independent(base, len(event)) if event else base


def check_latent(guide: str, node: Mapping[str, Any], loose_too: bool = False) -> None:
    """Raise ValueError for what the guide cannot draw; `loose_too` lets batch dims outside all plates pass."""
    name, fn = node["name"], node["fn"]
    if fn.support.is_discrete:
        raise ValueError(
            f"guide {guide}: site {name!r} is discrete ({type(fn).__name__}), the guides here draw "
            "continuous values; sum it out (infer={'enumerate': 'parallel'}, a BottomUp guide, TraceEnum_ELBO)"
        )
    dims = {f.dim for f in node["cond_indep_stack"] if f.vectorized}
    shape = fn.batch_shape
    loose = [dim for dim in range(-len(shape), 0) if shape[dim] > 1 and dim not in dims]
    if loose and not loose_too:
        raise ValueError(
            f"guide {guide}: site {name!r} has batch shape {tuple(shape)}, of which dim {loose[0]} is in no plate; "
            "put it in a pyro.plate, make it part of the event by .to_event, or, if nothing is in a plate, take a "
            "guide with an order of its own (Faithful, BottomUp)"
        )


def altered(node: Mapping[str, Any]) -> str:
    """What stands between the site and its plain density: a mask, a scale, or nothing ("")."""
    if node["mask"] is not None or isinstance(node["fn"], MaskedDistribution):
        return "mask"
    expected = prod((f.full_size or f.size) / f.size for f in node["cond_indep_stack"])
    return "" if abs(float(node["scale"]) / expected - 1) < 1e-4 else "scale"
