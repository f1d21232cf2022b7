"""`Conditionals`: the factors q(z | parents, evidence) of a guide, one network a latent over what it conditions on."""

from collections.abc import Mapping, Sequence

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import biject_to

from ppl_models.parts.nets import Net
from ppl_models.programs.pyro import unwrapped

from .checks import check_sizes, no_product
from .encoders import encoder as evidence_network
from .evidence import EvidenceKey, features
from .factors import Families, placed, plan
from .families import FAMILIES, Spread, gaussian_base, reshaped
from .layout import Layout
from .parents import Parents as Parents, choose_parents as choose_parents


class Conditionals(nn.Module):
    """All factors of a guide: raw numbers by a network of the evidence's features and the parents' values.

    Locals read their own evidence and their parents; globals have free numbers, or a network of their global parents.

    Args:
        layout: of the model.
        parents: latent -> the latents it is given, from `choose_parents`.
        family: of every factor, or a mapping latent -> family.
        encoder, hidden, depth, image: see `encoders.encoder`; hidden and depth are the factors' networks' too.
        gain: factor on the initial weights of the last layers.
        precision_weighted: whether the guide calls `precision_weighted`, for which a family may take other numbers.
        small_init: for globals, start from a standard deviation of 0.1 instead of 1 in unconstrained coordinates (draws
            that no datum allows have huge gradients, which an optimizer remembers for long), and normalize what
            networks make of parents (a rare draw of a parent then never makes a wild one of its child).

    Raises:
        ValueError: an unknown family or encoder, a family of no latent, a prior that is no diagonal Gaussian where the
            guide is `precision_weighted`, or a size that is not a positive integer.
    """

    def __init__(
        self,
        layout: Layout,
        parents: Mapping[str, tuple[str, ...]],
        family: Families = "diagonal",
        encoder: str | nn.Module = "separate",
        hidden: int = 256,
        depth: int = 1,
        image: Sequence[int] | None = None,
        gain: float = 0.1,
        precision_weighted: bool = False,
        small_init: bool = False,
    ) -> None:
        super().__init__()
        hidden, depth = check_sizes(layout.guide, hidden, depth)
        self.layout, self.parents, self.small_init = layout, dict(parents), small_init
        self.encoders = nn.ModuleList()
        widths: dict[str, int] = {}
        for key, size in layout.sizes.items():
            names = [name for name in layout.latents if layout.key(name) == key]
            network = evidence_network(encoder, names, size, hidden, depth, image, layout.guide)
            self.encoders.append(network)
            widths |= network.widths
        self.plan = plan(layout, self.parents, widths, family, FAMILIES, precision_weighted)
        for name, factor in self.plan.items():
            norm = small_init and layout.latents[name].is_global
            self.add_module(factor.network, Net(factor.inputs, factor.outputs, hidden, depth, gain, norm=norm))

    def encode(self, evidence: Mapping[EvidenceKey, Tensor]) -> dict[str, Tensor]:
        """Features of the evidence by latent, run once for all of them; read in the dtype of the networks."""
        encoded: dict[str, Tensor] = {}
        dtype = getattr(self, next(iter(self.plan.values())).network).bias.dtype
        for key, module in zip(self.layout.sizes, self.encoders, strict=True):
            encoded |= module(evidence[key].to(dtype))
        return encoded

    def raw(self, name: str, encoded: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Tensor:
        """The raw numbers of a factor, (*particles, *plates, count), from encoded evidence and upstream values."""
        latent = self.layout.latents[name]
        inputs = [encoded[name]] if name in encoded else []
        for parent in (self.layout.latents[u] for u in self.parents[name]):
            value, facts = values[parent.name], parent.facts
            value = value if facts.is_real else biject_to(facts.support).inv(value)
            inputs.append(features(value, len(facts.unconstrained_shape), parent.plates, latent.shared_plates))
        return placed(getattr(self, self.plan[name].network)(*inputs), latent)

    def free(self, name: str, raw: Tensor) -> TorchDistributionMixin:
        """A factor of its own: one of the family in unconstrained coordinates, pushed to the support of the site."""
        latent = self.layout.latents[name]
        scale, facts = 0.1 if self.small_init and latent.is_global else 1.0, latent.facts
        q = self.plan[name].family.residual(raw, 0.0, scale)
        q = reshaped(q, (*latent.copies, *facts.unconstrained_shape))
        q = q if facts.is_real else dist.TransformedDistribution(q, [biject_to(facts.support).with_cache()])
        dims = latent.unplated_dims + len(latent.copies)
        return Spread(q, dims) if dims else q

    def residual(self, name: str, raw: Tensor, prior: TorchDistributionMixin) -> TorchDistributionMixin:
        """A factor around the prior: its base shifted and scaled, its transforms shared. Free without such a base."""
        base = gaussian_base(prior)
        if base is None:
            return self.free(name, raw)
        loc, scale, shape, transforms = base
        q = reshaped(self.plan[name].family.residual(raw, loc, scale), shape)
        return dist.TransformedDistribution(q, transforms) if transforms else q

    def precision_weighted(self, name: str, raw: Tensor, prior: TorchDistributionMixin) -> TorchDistributionMixin:
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
