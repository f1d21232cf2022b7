"""The factors q(z | parents, evidence) of a guide: one network a latent, over features of what it conditions on."""

from collections.abc import Mapping, Sequence
from math import prod

import equinox as eqx
import jax
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import Distribution, biject_to

from ppl_models.numpyro.parts.nets import Net
from ppl_models.parts.sizes import one_size

from ...parts.parents import Parents as Parents, check_latent, choose_parents as choose_parents
from ...parts.readings import Reading, network_of
from . import encoders, families
from .families import Family, Spread, gaussian_base, reshaped
from .layout import Layout
from .sites import Site, Table, features, unwrapped


class Conditionals(eqx.Module):
    """All factors of a guide: raw numbers by a network of the evidence's features and the parents' values.

    Locals read their own evidence and their parents; globals have free numbers, or a network of their global parents.
    `children` holds the networks, by names that their parameters have in torch, too.

    Args:
        layout: of the model.
        parents: latent -> the latents it is given, from `choose_parents`.
        family: of every factor, or a mapping latent -> family.
        encoder, hidden, depth, image: see `encoders.encoder`; hidden and depth are the factors' networks' too.
        gain: factor on the initial weights of the last layers.
        merged: whether the guide calls `merged`, for which a family may take other numbers.
        tame: for globals, start from a standard deviation of 0.1 instead of 1 in unconstrained coordinates (draws that
            no datum allows have huge gradients, which an optimizer remembers for long), and normalize what networks
            make of parents (a rare draw of a parent then never makes a wild one of its child).
        key: of the initial weights.

    Raises:
        ValueError: an unknown family or encoder, a family of no latent, or sizes that are none.
    """

    encoders: tuple[eqx.Module, ...]
    children: dict[str, Net]
    layout: Layout = eqx.field(static=True)
    parents: Table = eqx.field(static=True)
    families: Table = eqx.field(static=True)
    tame: bool = eqx.field(static=True)

    def __init__(
        self,
        layout: Layout,
        parents: Mapping[str, tuple[str, ...]],
        family: str | Family | Mapping[str, str | Family] = "diagonal",
        encoder: str | eqx.Module = "separate",
        hidden: int = 256,
        depth: int = 1,
        image: Sequence[int] | None = None,
        gain: float = 0.1,
        merged: bool = False,
        tame: bool = False,
        *,
        key: Array,
    ) -> None:
        hidden = one_size(f"guide {layout.guide}", "hidden", hidden)
        depth = one_size(f"guide {layout.guide}", "depth", depth, least=0)
        for name in family if isinstance(family, Mapping) else ():
            check_latent(layout, "family", name)
        self.layout, self.parents, self.tame = layout, Table(parents), tame
        keys = iter(jax.random.split(key, len(layout.sizes) + len(layout.latents)))
        found, widths, chosen, networks = [], {}, {}, {}
        for reading, size in layout.sizes.items():
            names = [n for n in layout.latents if layout.reading(n) == reading]
            found.append(encoders.encoder(encoder, names, size, hidden, depth, image, layout.guide, key=next(keys)))
            widths |= found[-1].widths
        for name, site in layout.latents.items():
            inputs = [widths[name]] if name in widths else []
            inputs += [self._width(layout.latents[u], site) for u in parents[name]]
            copies = prod(plate.size for plate in site.private)
            n = prod(site.unconstrained_shape) * (copies if site.joint else 1)
            spec = family.get(name, "diagonal") if isinstance(family, Mapping) else family
            chosen[name] = families.family(spec, n, layout.guide, merged)
            count = chosen[name].count(n, merged)
            outputs, norm = count if site.joint else copies * count, tame and site.is_global
            networks[network_of(name)] = Net(inputs, outputs, hidden, depth, gain, norm, key=next(keys))
        self.encoders, self.children, self.families = tuple(found), networks, Table(chosen)

    @staticmethod
    def _width(parent: Site, child: Site) -> int:
        folded = prod(plate.size for plate in parent.plates if plate.name not in child.keep)
        return folded * prod(parent.unconstrained_shape)

    def encode(self, evidence: Mapping[Reading, Array]) -> dict[str, Array]:
        """Features of the evidence by latent, run once for all of them; read in the dtype of the networks."""
        encoded: dict[str, Array] = {}
        dtype = next(iter(self.children.values())).bias.dtype
        for reading, module in zip(self.layout.sizes, self.encoders, strict=True):
            encoded |= module(evidence[reading].astype(dtype))
        return encoded

    def raw(self, name: str, encoded: Mapping[str, Array], values: Mapping[str, Array]) -> Array:
        """The raw numbers of a factor, (*particles, *plates, count), from encoded evidence and upstream values."""
        site = self.layout.latents[name]
        inputs = [encoded[name]] if name in encoded else []
        for parent in (self.layout.latents[u] for u in self.parents[name]):
            value = values[parent.name]
            if not parent.is_real:
                value = biject_to(parent.support).inv(value)
            inputs.append(features(value, len(parent.unconstrained_shape), parent.plates, site.keep))
        raw = self.children[network_of(name)](*inputs)
        if site.joint:  # one factor for all copies: no dims of theirs
            ones = min(site.rank, raw.ndim - 1)
            return raw.reshape(raw.shape[: raw.ndim - 1 - ones] + raw.shape[-1:])
        for plate in site.private:  # each copy in a private plate has numbers of its own: move them to its dim
            batch = raw.shape[:-1]
            if len(batch) < -plate.dim:
                raw = raw.reshape((1,) * (-plate.dim - len(batch)) + raw.shape)
            raw = raw.reshape(*raw.shape[:-1], plate.size, -1).swapaxes(plate.dim - 2, -2).squeeze(-2)
        return raw

    def free(self, name: str, raw: Array) -> Distribution:
        """A factor of its own: one of the family in unconstrained coordinates, pushed to the support of the site."""
        site = self.layout.latents[name]
        scale = 0.1 if self.tame and site.is_global else 1.0
        sizes = {plate.dim: plate.size for plate in site.private} if site.joint else {}
        copies = tuple(sizes.get(dim, 1) for dim in range(-site.rank, 0)) if site.joint else ()
        q = reshaped(self.families[name].around(raw, 0.0, scale), (*copies, *site.unconstrained_shape))
        q = q if site.is_real else dist.TransformedDistribution(q, [biject_to(site.support)])
        return Spread(q, site.loose + len(copies)) if site.loose or copies else q

    def residual(self, name: str, raw: Array, prior: Distribution) -> Distribution:
        """A factor around the prior: its base shifted and scaled, its transforms shared. Free without such a base."""
        base = gaussian_base(prior)
        if base is None:
            return self.free(name, raw)
        loc, scale, shape, transforms = base
        q = reshaped(self.families[name].around(raw, loc, scale), shape)
        return dist.TransformedDistribution(q, transforms) if transforms else q

    def merged(self, name: str, raw: Array, prior: Distribution) -> Distribution:
        """A factor that is the precision-weighted product with the prior, in the prior's base coordinates.

        Raises:
            ValueError: the prior is no diagonal Gaussian, transformed or not.
        """
        base = gaussian_base(prior)
        if base is None:
            raise self.no_merge(name, type(unwrapped(prior)).__name__)
        loc, scale, shape, transforms = base
        q = reshaped(self.families[name].merged(raw, loc, scale), shape)
        return dist.TransformedDistribution(q, transforms) if transforms else q

    def no_merge(self, name: str, prior: str) -> ValueError:
        """The error that a site's prior cannot be merged with."""
        return ValueError(
            f"guide {self.layout.guide}: site {name!r} has a {prior} prior, precision weighting wants a diagonal "
            "Gaussian (transformed or not); try SelfReflective, BottomUp or MeanField"
        )
