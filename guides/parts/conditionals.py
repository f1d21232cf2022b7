"""`Conditionals`: the factors q(z | parents, evidence) of a guide, one network a latent over what it conditions on."""

from collections.abc import Collection, Mapping
from typing import cast

import pyro.distributions as dist
import torch
from numpy import ndarray
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import biject_to

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count, Image, Whole
from ppl_models.parts.nets import Net
from ppl_models.programs.pyro import unwrapped

from .checks import Mean, check_known, refuse_product
from .encoders import encoder as evidence_network
from .families.bits import AutoregressiveBits, Bits
from .families.continuous import Diagonal, Flow, Full, RankOne, gaussian_base, on_support, reshaped
from .families.factors import GLOBAL_GAIN, Factor, Families, Family, Weighted, encoded, placed, plan, sloped
from .families.flows import Autoregressive
from .families.masses import coded, masses
from .families.starts import OLD_WIDTH, Beginning, Start, blocks_of, split
from .families.states import Discrete, check_states
from .families.units import Base, Units
from .looks.evidence import EvidenceKey, features
from .looks.layout import Layout
from .parents import (
    Parents as Parents,
    Reads as Reads,
    choose_evidence as choose_evidence,
    choose_parents as choose_parents,
    choose_tied as choose_tied,
)

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
class Conditionals(nn.Module):
    """All factors of a guide: for each a network gives numbers from features of the evidence and values of parents.

    Locals read their own evidence and their parents; globals have free numbers, or a network of their global parents.

    Args:
        layout: of the model.
        parents: latent -> the latents it is given, from `choose_parents`.
        family: of every factor, or a mapping latent -> family.
        encoder, hidden, depth, image: see `encoders.encoder`; hidden and depth are the factors' networks' too.
        merge: what the networks give of the means, where the guide calls `precision_weighted`; None where it does not.
        tops: the latents where it gives the estimate alone.
        small_init: for globals, normalize what networks make of parents (a rare draw of a parent then never makes a
            wild one of its child).
        starts: of the globals, from `units.prior_starts`.
        bases: of the latents whose factors have a base of their own, from `units.prior_bases`.
        norm: normalize what all networks make of what they read, so that draws of a long chain do not grow along it.
        discrete: how factors of discrete latents are trained, None where the guide takes none.

    Raises:
        ValueError: an unknown family or encoder, a family of no latent, a prior that is no diagonal Gaussian where the
            guide calls `precision_weighted`, or a size that is not a positive integer.
    """

    def __init__(
        self,
        layout: Layout,
        parents: Mapping[str, tuple[str, ...]],
        family: Families = "diagonal",
        encoder: str | nn.Module = "separate",
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
    ) -> None:
        super().__init__()
        self.layout, self.parents, self.small_init = layout, dict(parents), small_init
        check_states(layout, self.parents, discrete)
        self.discrete: Discrete = discrete or "enumerate"
        self.encoders = nn.ModuleList()
        widths: dict[str, int] = {}
        check_known(layout.guide, encoder, nn.Module)  # also where no factor of the guide's own reads data
        for names, size in layout.trunks.items():
            network = evidence_network(encoder, names, size, hidden, depth, image, layout.guide)
            self.encoders.append(network)
            widths |= network.widths
        self.plan = plan(layout, self.parents, widths, family, FAMILIES, merge, tops)
        for name, factor in self.plan.items():
            is_global = layout.latents[name].is_global
            sizes = (factor.inputs, factor.outputs, hidden, depth, GLOBAL_GAIN if is_global else 1.0)
            self.add_module(factor.network, Net(*sizes, norm=norm or (small_init and is_global)))
            if factor.flow:
                self.add_module(factor.flow, cast(Weighted, factor.family).over(factor.size))
        self.based = tuple(bases or ())
        for name, base in (bases or {}).items():
            self.add_module(_base_of(self.plan[name]), Base(*base))
        self.globals, self.begun = tuple(starts or ()), dict[str, Tensor]()
        for name, start in (starts or {}).items():
            factor, latent = self.plan[name], layout.latents[name]
            read = sum(factor.inputs) if sloped(factor, latent) else 0
            old_width = OLD_WIDTH if small_init else 1.0
            self.add_module(_units_of(factor), Units(latent, start, factor.units, read, old_width))
            if start.width is None:  # of numbers that nothing has trained
                self.begun[name] = getattr(self, factor.network).bias.detach().clone()

    def encode(self, evidence: Mapping[EvidenceKey, Tensor]) -> dict[str, Tensor]:
        """Features of the evidence by latent, run once for all of them; read in the dtype of the networks."""
        return encoded(self.layout, {key: evidence[key].to(self.dtype) for key in self.layout.sizes}, self.encoders)

    @property
    def dtype(self) -> torch.dtype | None:
        """That of the networks, None where all factors are tied."""
        return next((getattr(self, factor.network).bias.dtype for factor in self.plan.values()), None)

    def inputs(self, name: str, encoded: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> list[Tensor]:
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

    def raw(self, name: str, encoded: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Tensor:
        """The raw numbers of a factor, (*particles, *plates, count), from encoded evidence and upstream values."""
        inputs, units = self.inputs(name, encoded, values), self.units(name)
        raw = getattr(self, self.plan[name].network)(*inputs)
        return placed(raw if units is None else units.shifted(raw, inputs), self.layout.latents[name])

    def free(self, name: str, raw: Tensor) -> TorchDistributionMixin:
        """A factor of its own: one of the family in unconstrained coordinates, pushed to the support of the site."""
        if self.layout.latents[name].facts.is_discrete:
            return masses(self.layout.latents[name], raw, self.discrete)
        family, units = self.family(name), self.units(name)
        q = family.residual(raw, 0.0, 1.0) if units is None else units(family.residual(raw, 0.0, units.width))
        return on_support(q, self.layout.latents[name])

    def family(self, name: str) -> Family:
        """That of a factor: a module where it has weights."""
        factor = self.plan[name]
        return cast(Family, self.get_submodule(factor.flow) if factor.flow else factor.family)

    def units(self, name: str) -> Units | None:
        """Those of the factor of a global; None for a local one."""
        return cast(Units, self.get_submodule(_units_of(self.plan[name]))) if name in self.globals else None

    def beginning(self) -> Beginning | None:
        """What a search for the start of the globals must know; None where none is to be found.

        None is where the user has said where to begin, and once the factors were trained, loaded or put at a mode.
        """
        now = {name: getattr(self, self.plan[name].network).bias.detach() for name in self.begun}
        if not now or any(not torch.equal(bias, self.begun[name].to(bias)) for name, bias in now.items()):
            return None
        places, blocks = blocks_of(self.layout, self.parents, self.plan, self.globals)

        def values(v: Tensor) -> tuple[dict[str, Tensor], Tensor]:
            found, total = {}, v.new_zeros(())
            for name, place in places.items():
                free, bijection = v[torch.as_tensor(place)], biject_to(self.layout.latents[name].facts.support)
                found[name] = bijection(free)
                total = total + bijection.log_abs_det_jacobian(free, found[name]).sum()
            return found, total

        units = {name: cast(Units, self.units(name)) for name in places}

        def at(mode: ndarray, precision: ndarray) -> None:
            found, self.begun = split(blocks, precision), {}
            for name, place in places.items():
                units[name].begin(mode[place], found[name])

        def narrow() -> None:
            self.begun = {}
            for each in units.values():
                each.narrow()

        apart = [name for name in self.layout.factorization.latents if name not in places]
        loc, scale = (
            torch.stack([torch.cat([getattr(u, what).flatten() for u in units.values()]) for what in ("loc", "spread")])
            .double()
            .cpu()
            .numpy()
        )
        return Beginning(tuple(places), apart, loc, scale, values, at, narrow)

    def residual(self, name: str, raw: Tensor, prior: TorchDistributionMixin) -> TorchDistributionMixin:
        """A factor that shares the prior's transforms, its base around one of its own (`bases`), or else the prior's.

        It is free where the prior has no Gaussian base.
        """
        base = gaussian_base(prior)
        if base is None:
            return self.free(name, raw)
        loc, scale, shape, transforms = base
        if name in self.based:
            own = cast(Base, self.get_submodule(_base_of(self.plan[name])))
            loc, scale = own.loc, own.spread
        q = reshaped(self.family(name).residual(raw, loc, scale), shape)
        return dist.TransformedDistribution(q, transforms) if transforms else q

    def precision_weighted(self, name: str, raw: Tensor, prior: TorchDistributionMixin) -> TorchDistributionMixin:
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
    """The name of the module of a factor's units."""
    return f"units_{factor.network}"


def _base_of(factor: Factor) -> str:
    """The name of the module of a factor's own base."""
    return f"base_{factor.network}"
