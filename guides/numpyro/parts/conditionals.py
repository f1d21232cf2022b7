"""`Conditionals`: the factors q(z | parents, evidence) of a guide, one network a latent over what it conditions on."""

from collections.abc import Collection, Mapping
from copy import copy
from typing import Any, Self, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from numpy import ndarray
from numpyro.distributions import Distribution, biject_to

from guides.parts.families.factors import (
    GLOBAL_GAIN,
    Factor,
    Families,
    Family,
    Weighted,
    encoded,
    placed as in_plates,
    plan,
    sloped,
)
from guides.parts.families.starts import OLD_WIDTH, Beginning, Start, blocks_of, split
from guides.parts.families.states import Discrete, check_states
from guides.parts.looks.evidence import EvidenceKey, features
from guides.parts.looks.layout import Layout
from ppl_models.numpyro.parts.nets import Net
from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count, Image, Whole
from ppl_models.programs.numpyro import unwrapped

from ...parts.checks import Mean, check_known, refuse_product
from ...parts.parents import (
    Parents as Parents,
    Reads as Reads,
    choose_evidence as choose_evidence,
    choose_parents as choose_parents,
    choose_tied as choose_tied,
)
from .bits import AutoregressiveBits, Bits, Masked
from .encoders import BottomUpChain, Pyramids, Separate, Shared, encoder as evidence_network
from .families import Diagonal, Flow, Full, RankOne, gaussian_base, on_support, reshaped
from .flows import Autoregressive, Steps
from .masses import coded, masses
from .table import Table
from .units import Base, Units

FAMILIES: dict[str, Family | Weighted] = {
    "diagonal": Diagonal(),
    "rank-one": RankOne(),
    "full": Full(),
    "flow": Flow(),
    "iaf": Autoregressive("gate"),
    "maf": Autoregressive("affine", backward=True),
    "nsf": Autoregressive("spline"),
    "bits": Bits(),
    "autoregressive-bits": AutoregressiveBits(),
}


@checked
class Conditionals(eqx.Module):
    """See `guides.parts.conditionals.Conditionals`; `key` is of the initial weights.

    `children` holds the networks, by names that their parameters have in torch, too.
    """

    encoders: tuple[Separate | Shared | BottomUpChain | Pyramids, ...]
    children: dict[str, Net | Steps | Masked | Units | Base]
    layout: Layout = eqx.field(static=True)
    parents: Table = eqx.field(static=True)
    plan: Table = eqx.field(static=True)
    small_init: bool = eqx.field(static=True)
    globals: tuple[str, ...] = eqx.field(static=True)
    based: tuple[str, ...] = eqx.field(static=True)
    discrete: Discrete = eqx.field(static=True)
    begun: Table = eqx.field(static=True)  # numbers that nothing has trained, of globals whose start is to be found

    def __init__(
        self,
        layout: Layout,
        parents: Mapping[str, tuple[str, ...]],
        family: Families = "diagonal",
        encoder: str | eqx.Module = "separate",
        hidden: Count = 256,
        depth: Whole = 1,
        image: Image | None = None,
        merge: Mean | None = None,
        tops: Collection[str] = (),
        small_init: bool = False,
        starts: Mapping[str, Start] | None = None,
        bases: Mapping[str, tuple[ndarray, ndarray]] | None = None,
        norm: bool = False,
        discrete: Discrete | None = None,
        *,
        key: Array,
    ) -> None:
        self.layout, self.parents, self.small_init = layout, Table(parents), small_init
        check_states(layout, parents, discrete)
        self.discrete = discrete or "enumerate"
        keys = iter(jax.random.split(key, len(layout.trunks) + len(layout.latents)))
        found, widths, networks = [], {}, {}
        check_known(layout.guide, encoder, eqx.Module)  # also where no factor of the guide's own reads data
        for names, size in layout.trunks.items():
            found.append(evidence_network(encoder, names, size, hidden, depth, image, layout.guide, key=next(keys)))
            widths |= found[-1].widths
        self.plan = Table(plan(layout, parents, widths, family, FAMILIES, merge, tops))
        for name, factor in self.plan.items():
            is_global = layout.latents[name].is_global
            sizes = (factor.inputs, factor.outputs, hidden, depth, GLOBAL_GAIN if is_global else 1.0)
            networks[factor.network] = Net(*sizes, norm or (small_init and is_global), key=(own := next(keys)))
            if factor.flow:
                flow = cast(Weighted, factor.family).over(factor.size, key=jax.random.fold_in(own, 1))
                networks[factor.flow] = flow
        self.based = tuple(bases or ())
        for name, base in (bases or {}).items():
            networks[_base_of(self.plan[name])] = Base(*base)
        self.globals, begun = tuple(starts or ()), {}
        for name, start in (starts or {}).items():
            factor, latent = self.plan[name], layout.latents[name]
            read = sum(factor.inputs) if sloped(factor, latent) else 0
            old_width = OLD_WIDTH if small_init else 1.0
            networks[_units_of(factor)] = Units(latent, start, factor.units, read, old_width)
            if start.width is None:
                begun[name] = _numbers(networks[factor.network].bias)
        self.encoders, self.children, self.begun = tuple(found), networks, Table(begun)

    def encode(self, evidence: Mapping[EvidenceKey, Array]) -> dict[str, Array]:
        """Features of the evidence by latent, run once for all of them; read in the dtype of the networks."""
        dtype = self.dtype
        read = {key: evidence[key] if dtype is None else evidence[key].astype(dtype) for key in self.layout.sizes}
        return encoded(self.layout, read, self.encoders)

    @property
    def dtype(self) -> Any:
        """That of the networks, None where all factors are tied."""
        return next((self._network(name).bias.dtype for name in self.plan), None)

    def inputs(self, name: str, encoded: Mapping[str, Array], values: Mapping[str, Array]) -> list[Array]:
        """What the network of a factor reads: its features of the evidence, if any, then its parents in R^n."""
        latent = self.layout.latents[name]
        found = [encoded[name]] if name in encoded else []
        for parent in (self.layout.latents[u] for u in self.parents[name]):
            value, facts = values[parent.name], parent.facts
            if facts.is_discrete:
                value = coded(parent, value, self.dtype)
            elif not facts.is_real:
                value = biject_to(facts.support).inv(value)
            if (units := self.units(parent.name)) is not None:
                value = units.read(value)
            found.append(features(value, len(facts.unconstrained_shape), parent.plates, latent.shared_plates))
        return found

    def raw(self, name: str, encoded: Mapping[str, Array], values: Mapping[str, Array]) -> Array:
        """The raw numbers of a factor, (*particles, *plates, count), from encoded evidence and upstream values."""
        inputs, units = self.inputs(name, encoded, values), self.units(name)
        raw = self._network(name)(*inputs)
        return in_plates(raw if units is None else units.shifted(raw, inputs), self.layout.latents[name])

    def free(self, name: str, raw: Array) -> Distribution:
        """A factor of its own: one of the family in unconstrained coordinates, pushed to the support of the site."""
        if self.layout.latents[name].facts.is_discrete:
            return masses(self.layout.latents[name], raw, self.discrete)
        family, units = self.family(name), self.units(name)
        q = family.residual(raw, 0.0, 1.0) if units is None else units.of(family.residual, raw)
        return on_support(q, self.layout.latents[name])

    def family(self, name: str) -> Family:
        """That of a factor: a module where it has weights."""
        factor = self.plan[name]
        return cast(Family, self.children[factor.flow] if factor.flow else factor.family)

    def units(self, name: str) -> Units | None:
        """Those of the factor of a global; None for a local one."""
        return cast(Units, self.children[_units_of(self.plan[name])]) if name in self.globals else None

    def _network(self, name: str) -> Net:
        return cast(Net, self.children[self.plan[name].network])

    def beginning(self) -> Beginning | None:
        """See `guides.parts.conditionals.Conditionals.beginning`; `at` gives other factors, as these do not change."""
        now = {name: _numbers(self._network(name).bias) for name in self.begun}
        if not now or now != self.begun:
            return None
        places, blocks = blocks_of(self.layout, self.parents, self.plan, self.globals)
        units = {name: cast(Units, self.units(name)) for name in places}

        def values(v: Array) -> tuple[dict[str, Array], Array]:
            found, total = {}, jnp.zeros((), v.dtype)
            for name, place in places.items():
                free, bijection = v[place], biject_to(self.layout.latents[name].facts.support)
                found[name] = bijection(free)
                total = total + bijection.log_abs_det_jacobian(free, found[name]).sum()
            return found, total

        def at(mode: ndarray, precision: ndarray) -> Self:
            found = split(blocks, precision)
            return self._begun({n: units[n].begun(mode[place], found[n]) for n, place in places.items()})

        def narrow() -> Self:
            return self._begun({name: each.narrow() for name, each in units.items()})

        apart = [name for name in self.layout.factorization.latents if name not in places]
        loc, scale = (
            np.concatenate([np.ravel(getattr(u, what).value) for u in units.values()]) for what in ("loc", "spread")
        )
        return Beginning(tuple(places), apart, loc, scale, values, at, narrow)

    def _begun(self, units: Mapping[str, Units]) -> Self:
        """The same with other units, which are settled."""
        new, put = copy(self), {_units_of(self.plan[name]): each for name, each in units.items()}
        object.__setattr__(new, "children", self.children | put)  # as Equinox itself fills a module
        object.__setattr__(new, "begun", Table())
        return new

    def residual(self, name: str, raw: Array, prior: Distribution) -> Distribution:
        """A factor that shares the prior's transforms, its base around one of its own (`bases`), or else the prior's.

        It is free where the prior has no Gaussian base.
        """
        base = gaussian_base(prior)
        if base is None:
            return self.free(name, raw)
        loc, scale, shape, transforms = base
        if name in self.based:
            loc, scale = cast(Base, self.children[_base_of(self.plan[name])]).like(raw)
        q = reshaped(self.family(name).residual(raw, loc, scale), shape)
        return dist.TransformedDistribution(q, transforms) if transforms else q

    def precision_weighted(self, name: str, raw: Array, prior: Distribution) -> Distribution:
        """A factor that is the precision-weighted product with the prior, in the prior's base coordinates.

        At the `tops` it is the estimate alone (`Factor.merged`).

        Raises:
            ValueError: the prior is no diagonal Gaussian, transformed or not.
        """
        base = gaussian_base(prior)
        if base is None:
            refuse_product(self.layout, name, type(unwrapped(prior)).__name__)
        loc, scale, shape, transforms = base
        q = reshaped(self.plan[name].merged(self.family(name), raw, loc, scale), shape)
        return dist.TransformedDistribution(q, transforms) if transforms else q


def _units_of(factor: Factor) -> str:
    """The name of a factor's units among the children."""
    return f"units_{factor.network}"


def _base_of(factor: Factor) -> str:
    """The name of a factor's own base among the children."""
    return f"base_{factor.network}"


def _numbers(bias: Array) -> bytes:
    """An array as it is compared, of whatever precision."""
    return np.asarray(bias, np.float32).tobytes()
