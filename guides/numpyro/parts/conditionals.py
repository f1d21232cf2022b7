"""`Conditionals`: the factors q(z | parents, evidence) of a guide, one network a latent over what it conditions on."""

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import Distribution, biject_to

from ppl_models.numpyro.parts.nets import Net
from ppl_models.programs.numpyro import unwrapped

from ...parts.checks import check_sizes, no_product
from ...parts.evidence import EvidenceKey, features
from ...parts.factors import Families, placed as in_plates, plan
from ...parts.layout import Layout
from ...parts.parents import Parents as Parents, choose_parents as choose_parents
from .encoders import BottomUpChain, Pyramids, Separate, Shared, encoder as evidence_network
from .families import FAMILIES, Spread, gaussian_base, reshaped
from .table import Table


class Conditionals(eqx.Module):
    """See `guides.parts.conditionals.Conditionals`; `key` is of the initial weights.

    `children` holds the networks, by names that their parameters have in torch, too.
    """

    encoders: tuple[Separate | Shared | BottomUpChain | Pyramids, ...]
    children: dict[str, Net]
    layout: Layout = eqx.field(static=True)
    parents: Table = eqx.field(static=True)
    plan: Table = eqx.field(static=True)
    small_init: bool = eqx.field(static=True)

    def __init__(
        self,
        layout: Layout,
        parents: Mapping[str, tuple[str, ...]],
        family: Families = "diagonal",
        encoder: str | eqx.Module = "separate",
        hidden: int = 256,
        depth: int = 1,
        image: Sequence[int] | None = None,
        gain: float = 0.1,
        precision_weighted: bool = False,
        small_init: bool = False,
        *,
        key: Array,
    ) -> None:
        hidden, depth = check_sizes(layout.guide, hidden, depth)
        self.layout, self.parents, self.small_init = layout, Table(parents), small_init
        keys = iter(jax.random.split(key, len(layout.sizes) + len(layout.latents)))
        found, widths, networks = [], {}, {}
        for read, size in layout.sizes.items():
            names = [name for name in layout.latents if layout.key(name) == read]
            found.append(evidence_network(encoder, names, size, hidden, depth, image, layout.guide, key=next(keys)))
            widths |= found[-1].widths
        self.plan = Table(plan(layout, parents, widths, family, FAMILIES, precision_weighted))
        for name, factor in self.plan.items():
            sizes, norm = (factor.inputs, factor.outputs, hidden, depth, gain), layout.latents[name].is_global
            networks[factor.network] = Net(*sizes, small_init and norm, key=next(keys))
        self.encoders, self.children = tuple(found), networks

    def encode(self, evidence: Mapping[EvidenceKey, Array]) -> dict[str, Array]:
        """Features of the evidence by latent, run once for all of them; read in the dtype of the networks."""
        encoded: dict[str, Array] = {}
        dtype = next(iter(self.children.values())).bias.dtype
        for key, module in zip(self.layout.sizes, self.encoders, strict=True):
            encoded |= module(evidence[key].astype(dtype))
        return encoded

    def raw(self, name: str, encoded: Mapping[str, Array], values: Mapping[str, Array]) -> Array:
        """The raw numbers of a factor, (*particles, *plates, count), from encoded evidence and upstream values."""
        latent = self.layout.latents[name]
        inputs = [encoded[name]] if name in encoded else []
        for parent in (self.layout.latents[u] for u in self.parents[name]):
            value, facts = values[parent.name], parent.facts
            value = value if facts.is_real else biject_to(facts.support).inv(value)
            inputs.append(features(value, len(facts.unconstrained_shape), parent.plates, latent.shared_plates))
        return in_plates(self.children[self.plan[name].network](*inputs), latent)

    def free(self, name: str, raw: Array) -> Distribution:
        """A factor of its own: one of the family in unconstrained coordinates, pushed to the support of the site."""
        latent = self.layout.latents[name]
        scale, facts = 0.1 if self.small_init and latent.is_global else 1.0, latent.facts
        q = self.plan[name].family.residual(raw, 0.0, scale)
        q = reshaped(q, (*latent.copies, *facts.unconstrained_shape))
        q = q if facts.is_real else dist.TransformedDistribution(q, [biject_to(facts.support)])
        dims = latent.unplated_dims + len(latent.copies)
        return Spread(q, dims) if dims else q

    def residual(self, name: str, raw: Array, prior: Distribution) -> Distribution:
        """A factor around the prior: its base shifted and scaled, its transforms shared. Free without such a base."""
        base = gaussian_base(prior)
        if base is None:
            return self.free(name, raw)
        loc, scale, shape, transforms = base
        q = reshaped(self.plan[name].family.residual(raw, loc, scale), shape)
        return dist.TransformedDistribution(q, transforms) if transforms else q

    def precision_weighted(self, name: str, raw: Array, prior: Distribution) -> Distribution:
        """A factor that is the precision-weighted product with the prior, in the prior's base coordinates.

        Raises:
            ValueError: the prior is no diagonal Gaussian, transformed or not.
        """
        base = gaussian_base(prior)
        if base is None:
            raise no_product(self.layout, name, type(unwrapped(prior)).__name__)
        loc, scale, shape, transforms = base
        q = reshaped(self.plan[name].family.precision_weighted(raw, loc, scale), shape)
        return dist.TransformedDistribution(q, transforms) if transforms else q
