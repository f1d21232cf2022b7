"""`Latent`: a latent site, and what guides decide of it: local or global, its plates, what one factor is over."""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ppl_models.programs.plates import is_scaled
from ppl_models.programs.record import Plate, Run, Site

KNOWN_STATES = "a Categorical, a OneHotCategorical or a Bernoulli, alone or in vectors,"


class Facts(NamedTuple):
    """Facts of a latent site that the language tells.

    Attributes:
        support: the constraint on any one datum.
        moving: the bound of the support that differs between data or runs, "" if none does.
        is_discrete: whether the support is.
        is_real: whether it is all of R^n.
        unconstrained_shape: of an event once mapped to all of R^n.
        is_gaussian: whether the prior is a diagonal Gaussian, pushed through bijections or not.
        altered: what stands between the site and its plain density: "mask", "scale" or nothing, "".
        encodes: how many values of a row the encoder reads that the prior is made of, 0 for a prior of no encoder.
        states: of a discrete site what its entries are: "categorical" (0 .. K - 1), "one-hot" or "bernoulli"; "" else.
            `unconstrained_shape` is then that of its code, in which an entry of K states has K numbers.
        limited: whether its prior leaves some state out, at some datum of the example.
    """

    support: Any
    moving: str
    is_discrete: bool
    is_real: bool = False
    unconstrained_shape: tuple[int, ...] = ()
    is_gaussian: bool = False
    altered: str = ""
    encodes: int = 0
    states: str = ""
    limited: bool = False


@dataclass(frozen=True, eq=False)
class Latent:
    """A latent site of a model, and what a guide makes of it. Plates are told apart by name: two may share a dim.

    Attributes:
        site: without value and distribution.
        facts: of the language.
        shared_plates: names of the plates it shares with the data, one value a datum there; none if it is global.
        is_global: whether it has one value for all data.
        unplated_dims: how many of its event dims, from the left, are batch dims in no plate, taken together as one
            factor.
        joint_over_plates: whether one factor is over all copies in its plates.
    """

    site: Site
    facts: Facts
    shared_plates: frozenset[str] = frozenset()
    is_global: bool = False
    unplated_dims: int = 0
    joint_over_plates: bool = False

    @property
    def name(self) -> str:
        """The name of the site."""
        return self.site.name

    @property
    def plates(self) -> tuple[Plate, ...]:
        """The plates around it, of the sizes of the example."""
        return self.site.plates

    @cached_property
    def event_shape(self) -> tuple[int, ...]:
        """Shape that one factor is over: an event of the site, and its dims in no plate."""
        return self.site.shape[len(self.site.shape) - self.site.event_dim - self.unplated_dims :]

    @cached_property
    def private_plates(self) -> tuple[Plate, ...]:
        """The plates it does not share with the data, whose sizes belong to it as an event dim does."""
        return tuple(plate for plate in self.plates if plate.name not in self.shared_plates)

    @cached_property
    def copies(self) -> tuple[int, ...]:
        """The dims of its plates in a factor over all of them, () for any other."""
        sizes = {plate.dim: plate.size for plate in self.private_plates}
        return tuple(sizes.get(dim, 1) for dim in range(-self.site.rank, 0)) if self.joint_over_plates else ()


def decide(
    guide: str,
    language: str,
    site: Site,
    facts: Facts,
    data: frozenset[str],
    rows: Plate | None,
    unplated: bool,
    all_global: bool,
    joint: bool,
) -> Latent:
    """The decisions of a guide on a latent.

    Args:
        guide, language: their names, for messages.
        site, facts: what is known of it.
        data: names of the plates around what is observed.
        rows: the one of them that enumerates the data: a latent outside of it is global, and the others it is in are
            private, even if observed sites are in them, too. With None every one of `data` counts.
        unplated: take batch dims for event dims.
        all_global: where nothing is in a plate, take it for global, not for local to the one datum there is.
        joint: give the copies of a global one factor.

    Raises:
        ValueError: it is discrete without states that are known, has batch dims outside of plates, or a support that
            moves.
    """
    batch, dims = site.shape[: len(site.shape) - site.event_dim], {plate.dim for plate in site.plates}
    if facts.is_discrete and not facts.states:
        raise ValueError(
            f"guide {guide}: site {site.name!r} is discrete ({site.family}), want {KNOWN_STATES} or a continuous "
            f"family; write it as one of these, or give it a guide of your own, loss={language.lower()}.infer."
            "Trace_ELBO()"
        )
    loose = [dim for dim in range(-len(batch), 0) if batch[dim] > 1 and dim not in dims]
    if loose and not unplated:
        raise ValueError(
            f"guide {guide}: site {site.name!r} has batch shape {batch}, of which dim {loose[0]} is in no plate; "
            f"put it in a {language.lower()}.plate, make it part of the event by .to_event, or, if nothing is in a "
            "plate, take a guide with an order of its own (Faithful, BottomUp)"
        )
    if facts.moving:
        raise ValueError(
            f"guide {guide}: site {site.name!r} ({site.family}) has a support whose "
            f"{facts.moving.replace('_', ' ')} differs between data or runs, want a fixed one; draw a unit variable "
            "and scale it in the model"
        )
    names = frozenset(plate.name for plate in site.plates)
    shared = names & data if rows is None or rows.name in names else frozenset()
    is_global = (bool(data) or all_global) and not shared
    whole = (
        joint
        and is_global
        and not facts.is_discrete
        and bool(names)
        and all(plate.size == plate.full_size for plate in site.plates)
    )
    return Latent(site, facts, shared, is_global, len(batch) if unplated else 0, whole)


def told_before(run: Run) -> dict[str, tuple[Site, ...]]:
    """Latent -> the deterministic sites of a run between the latent before it and itself, in their order."""
    told: dict[str, tuple[Site, ...]] = {}
    since: list[Site] = []
    for site in run.values():
        if site.kind == "deterministic":
            since.append(site)
        elif site.kind == "latent":
            told[site.name], since = tuple(since), []
    return told


def altered(site: Site, to_numpy: Callable[[Any], np.ndarray]) -> str:
    """See `Facts.altered`."""
    if site.mask is not None:
        return "mask"
    return "scale" if is_scaled(site, to_numpy) else ""


def fixed(
    support: Any,
    bounds: Mapping[str, Any],
    again: Mapping[str, Any],
    shape: tuple[int, ...],
    event: tuple[int, ...],
    broadcast: Callable[[Any, tuple[int, ...]], Any],
) -> tuple[Any, str]:
    """The support of any one datum, whose bounds have no batch dims; and the bound that moves along them, if one does.

    Args:
        support: a constraint without reinterpreted dims.
        bounds: those of its attributes that are arrays.
        again: the same of another run: bounds that depend on a latent move.
        shape: of the values of the site.
        event: the part of it that one factor is over.
        broadcast: an array to a shape.
    """
    support = copy(support)
    for key, bound in bounds.items():
        bound = broadcast(bound, shape)
        rows = bound.reshape(-1, *event)
        if key not in again or not ((broadcast(again[key], shape) == bound).all() and (rows == rows[0]).all()):
            return support, key
        setattr(support, key, rows[0] * 1)  # a copy: the batch is let go
    return support, ""
