"""`Factor`: of which family one factor q(z | parents, evidence) is, and the sizes of its network; `plan` finds all."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, Protocol, runtime_checkable

from ppl_models.parts.arguments.checked import told
from ppl_models.parts.arguments.sizes import worded
from ppl_models.programs.record import Mask

from ..checks import Mean, refuse_alone, refuse_product
from ..looks.evidence import Array, EvidenceKey
from ..looks.latents import Latent
from ..looks.layout import Layout
from ..parents import check_latent
from .products import shifted_means

Distribution = Any
# on the first weights of a global's factor, which begins where its start says. Those of data have a network's usual
# weights: beside a factor that begins as its prior, the generator learns to do without the latent, and the latent dies.
GLOBAL_GAIN = 0.1
FLAT = 1e3  # as wide, in scales of a prior, is a density that a product takes for flat


@runtime_checkable
class Family(Protocol):
    """A family over R^n; `raw` are `count` unbounded numbers a network gives, (*batch, count)."""

    def count(self, n: int, precision_weighted: bool = False) -> int:
        """The number of raw numbers that a factor over R^n takes, alone or as a product with a prior."""
        ...

    def residual(self, raw: Array, loc: Array | float, scale: Array | float) -> Distribution:
        """The density that raw = 0 leaves at N(loc, scale^2): raw shifts the mean and shapes the covariance."""
        ...

    def precision_weighted(self, raw: Array, loc: Array, scale: Array) -> Distribution:
        """The product, normalized, of the estimate that raw encodes and the prior N(loc, scale^2)."""
        ...


@runtime_checkable
class Weighted(Protocol):
    """A family whose factors have weights of their own."""

    def count(self, n: int, precision_weighted: bool = False) -> int:
        """See `Family`."""
        ...

    def over(self, n: int, *args: Any, **kwargs: Any) -> Any:
        """The family as a module, for one factor over R^n; NumPyro's guides give the `key` of its weights, too."""
        ...


Families = str | Family | Weighted | Mapping[str, str | Family | Weighted]


class Factor(NamedTuple):
    """One factor of a guide.

    Attributes:
        network: the name of its network.
        family: of its density, None for the masses of a discrete latent.
        inputs: widths of what the network reads, the evidence's features first with covariates beside them, then each
            parent's.
        outputs: how many numbers it gives a datum.
        size: n of the R^n that the family is over.
        flow: the name of the module that the family is, "" for one without weights.
        top: whether it is the estimate alone, where others are products with their priors.
        estimate: whether the network gives the mean of the estimate, and not the shift of the product's mean.
    """

    network: str
    family: Family | Weighted | None
    inputs: tuple[int, ...]
    outputs: int
    size: int
    flow: str = ""
    top: bool = False
    estimate: bool = False

    @property
    def units(self) -> str:
        """The units that the family of a global lives in: "diagonal", "full", "copula" (a flow), "" for one's own."""
        return getattr(self.family, "units", "")

    def merged(self, family: Family, raw: Array, loc: Array, scale: Array) -> Distribution:
        """The product with the prior N(loc, scale^2); at the top one with a prior `FLAT` times as wide.

        There a family with a square root of any form (`rooted`), singular for some data where no prior holds it, is
        `residual` instead.
        """
        if self.top and getattr(family, "rooted", False):
            return family.residual(raw, loc, scale)
        scale = FLAT * scale if self.top else scale
        if self.estimate and getattr(self.family, "estimated", False):
            raw = shifted_means(raw, self.size, scale)
        return family.precision_weighted(raw, loc, scale)


def plan(
    layout: Layout,
    parents: Mapping[str, tuple[str, ...]],
    widths: Mapping[str, int],
    spec: Families,
    known: Mapping[str, Family | Weighted],
    merge: Mean | None,
    tops: Collection[str] = (),
) -> dict[str, Factor]:
    """The factors of a guide by latent, less those that are tied to a prior.

    Args:
        layout: of the model.
        parents: latent -> the latents it is given.
        widths: latent -> how many features its encoder gives, where it has one.
        spec: a family by name, or the object itself; or a mapping latent -> family.
        known: the families by name.
        merge: for products with a prior, what the networks give of the means; None for other factors.
        tops: the latents whose factors are the estimate alone, all the same.

    Raises:
        ValueError: a family of no latent; see `choose_family`; a prior that has no product.
    """
    for name in spec if isinstance(spec, Mapping) else ():
        check_latent(layout, "family", name)
    found, observed = {}, {name: size for names, size in layout.trunks.items() for name in names}
    for name, latent in layout.latents.items():
        key = layout.key(name)
        evidence = 0 if key is None else widths.get(name, 0) + layout.sizes[key] - observed.get(name, 0)
        inputs = (
            *([evidence] if evidence else ()),
            *(_width(layout.latents[u], latent) for u in parents[name]),
        )
        if name in layout.tied:
            continue
        copies, n = prod(plate.size for plate in latent.private_plates), prod(latent.facts.unconstrained_shape)
        n, copies = (n * copies, 1) if latent.joint_over_plates else (n, copies)
        if latent.facts.is_discrete:
            found[name] = Factor(network_of(name), None, inputs, copies * n, n)
            continue
        own = spec.get(name, "diagonal") if isinstance(spec, Mapping) else spec
        family = choose_family(own, n, layout.guide, known, merge is not None)
        top, network = name in tops, network_of(name)
        product = merge is not None and not (top and getattr(family, "rooted", False))
        flow = f"flow_{network}" if isinstance(family, Weighted) else ""
        found[name] = Factor(
            network, family, inputs, copies * family.count(n, product), n, flow, top, merge == "estimate"
        )
    for name, latent in layout.latents.items() if merge is not None else ():
        if not latent.facts.is_gaussian:  # known now, so it must not wait for the training
            refuse_product(layout, name, latent.site.family)
    return found


def shifted(factors: Mapping[str, Factor]) -> frozenset[str]:
    """The latents whose networks give the shift of a product's mean, and could give the mean of the estimate."""
    able = {name: factor for name, factor in factors.items() if getattr(factor.family, "estimated", False)}
    return frozenset(name for name, factor in able.items() if not (factor.top or factor.estimate))


def encoded(
    layout: Layout, evidence: Mapping[EvidenceKey, Array], encoders: Iterable[Callable[[Array], Mapping[str, Array]]]
) -> dict[str, Array]:
    """Features of the evidence by latent: what encoders make of what is observed, and covariates as they are beside it.

    An encoder thus reads images as images whatever they are given with, and is shared by latents that differ in their
    covariates alone.

    Args:
        layout: of the model.
        evidence: (*plates, features) by key, those of covariates last.
        encoders: for each of `Layout.trunks`.
    """
    arrays = {name: evidence[key] for name in layout.latents if (key := layout.key(name))}
    found: dict[str, Array] = {}
    observed = dict.fromkeys(arrays, 0)
    for (names, size), encoder in zip(layout.trunks.items(), encoders, strict=True):
        array, observed = arrays[names[0]], observed | dict.fromkeys(names, size)
        found |= encoder(array if array.shape[-1] == size else array[..., :size])
    for name, array in arrays.items():
        if array.shape[-1] > observed[name]:
            beside = array[..., observed[name] :]
            found[name] = layout.language.join([found[name], beside]) if name in found else beside
    return found


def choose_family(
    spec: str | Family | Weighted, n: int, guide: str, known: Mapping[str, Family | Weighted], precision_weighted: bool
) -> Family | Weighted:
    """A family by name, with sizes after it or without ("iaf:steps=4"), or the object itself.

    Over R^1 one whose factors are Gaussians there (`bent` is false) is "diagonal", with analytic divergences.

    Raises:
        ValueError: an unknown name or size, an object without the methods of a `Family`, or a family that has no
            product where one is wanted.
    """
    found = None
    if isinstance(spec, str):
        name, sizes = worded(f"guide {guide}: family", spec)
        found = known.get(name)
        if found is not None and sizes:
            own = {key: value for key, value in vars(found).items() if type(value) is int}
            if sizes.keys() - own:
                has = ", ".join(own) or "none"
                raise ValueError(f"guide {guide}: found family {told(spec)}, want sizes of {name!r}, which has {has}")
            found = type(found)(**{**vars(found), **sizes})
    elif isinstance(spec, Family | Weighted) and not isinstance(spec, type):
        found = spec
    if found is None:
        told_of = repr(spec) if isinstance(spec, type) else told(spec)
        raise ValueError(
            f"guide {guide}: found family {told_of}, want one of {', '.join(map(repr, known))}, an object with "
            "count, residual and precision_weighted, or a mapping latent -> family"
        )
    if precision_weighted and (alone := getattr(found, "alone", "")):
        refuse_alone(f"guide {guide}", alone)
    if n > 1 or getattr(found, "bent", True) or isinstance(found, type(known["diagonal"])):
        return found
    return known["diagonal"]


def masked_alike(
    q: Any, masks: Sequence[Mask], uncoupled: Callable[[Any, int], Any], pushed: Callable[[Any, Any], Any]
) -> Any:
    """A factor with the masks of its prior, each at its place; None where one is within an event that q couples.

    Args:
        q: the factor.
        masks: of the prior, the outermost first.
        uncoupled: takes leftmost event dims of a distribution for batch dims, or gives None.
        pushed: a distribution of the language pushed through transforms.
    """
    for kept, events, above in reversed(masks):
        through = getattr(q, "transforms", ())
        if len(through) < above:
            return None
        first = len(through) - above
        inner = q if not above else pushed(q.base_dist, through[:first]) if first else q.base_dist
        apart = uncoupled(inner, events)
        if apart is None:
            return None
        masked = apart.mask(kept).to_event(events)
        q = pushed(masked, through[first:]) if above else masked
    return q


def network_of(name: str) -> str:
    """The name of a factor's network: no dots, which separate modules, and another one for each site."""
    return f"q_{name}" if "." not in name else "dotted_" + name.replace("~", "~0").replace(".", "~1")


def sloped(factor: Factor, latent: Latent) -> bool:
    """Whether the factor of a global has a linear part of its parents: its first n numbers are shifts."""
    return bool(factor.inputs and factor.units) and (latent.joint_over_plates or not latent.private_plates)


def placed(raw: Array, latent: Latent) -> Array:
    """The numbers of a factor in the plates of its latent: those of each copy in a private plate at its dim.

    (*particles, *plates, outputs) -> (*particles, *plates, count). One factor for all copies has no dims of theirs.
    """
    shape = tuple(raw.shape)
    if latent.joint_over_plates:
        return raw.reshape(shape[: len(shape) - 1 - min(latent.site.rank, len(shape) - 1)] + shape[-1:])
    for plate in latent.private_plates:
        *batch, outputs = raw.shape
        ones = [1] * (-plate.dim - len(batch))
        raw = raw.reshape(*ones, *batch, plate.size, outputs // plate.size).swapaxes(plate.dim - 2, -2).squeeze(-2)
    return raw


def _width(parent: Latent, child: Latent) -> int:
    folded = prod(plate.size for plate in parent.plates if plate.name not in child.shared_plates)
    return folded * prod(parent.facts.unconstrained_shape)


@dataclass(frozen=True, eq=False)
class Rows:
    """The evidence of each latent as it is, where other guides have networks (`Conditionals`)."""

    layout: Layout

    @property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """No latent has any."""
        return dict.fromkeys(self.layout.latents, ())

    def encode(self, evidence: Mapping[EvidenceKey, Array]) -> dict[str, Array]:
        """{latent: (*plates, n)}."""
        return {name: evidence[key] for name in self.layout.latents if (key := self.layout.key(name))}

    def raw(self, name: str, encoded: Mapping[str, Array], values: Mapping[str, Array]) -> Array:
        """The evidence itself, (*plates, n)."""
        return encoded[name]
