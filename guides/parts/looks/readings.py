"""`Reading`: what every step of a recurrent guide reads of the model's run, and how wide it is; `reading` finds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import cast

from ppl_models.parts.arguments.sizes import image_size
from ppl_models.programs.record import Site

from .evidence import EvidenceKey
from .layout import Layout

MEAN = "mean"  # how the names of sites begin where a model tells what it expects of the datum


@dataclass(frozen=True, eq=False)
class Reading:
    """What a step reads besides the data: what the model told since the latent before, or that latent itself.

    Attributes:
        key: of the evidence, the same for all latents.
        data: features of a datum, covariates last.
        observed: those of them that are observed.
        size: n of the R^n that each factor is over.
        means: latent -> the sites whose values are read as errors.
        states: latent -> the sites, or the latent, whose values are the state; none at the first step of a model that
            tells nothing.
        state: length of the state.
        told: the sites of means and states, by name, less the latents.
        image: (channels, height, width) of what is observed, for a window; () without.
    """

    key: EvidenceKey
    data: int
    observed: int
    size: int
    means: Mapping[str, tuple[str, ...]]
    states: Mapping[str, tuple[str, ...]]
    state: int
    told: Mapping[str, Site]
    image: tuple[int, ...]

    @property
    def errors(self) -> int:
        """How many means a step reads."""
        return len(next(iter(self.means.values())))

    @property
    def has_state(self) -> bool:
        """Whether any step has one: not the only step of a model that tells nothing."""
        return any(self.states.values())

    @property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """Latent -> the sites whose values a step is given."""
        return {name: (*self.means[name], *states) for name, states in self.states.items()}

    def inputs(self, window: int | None) -> tuple[int, ...]:
        """Widths of what the network of a step reads: data and errors or their patches, then the state, if any."""
        state = (self.state,) if self.has_state else ()
        if window is None:
            return (self.data, *[self.observed] * self.errors, *state)
        patches = (1 + self.errors) * self.image[0] * window**2
        return (patches, *([self.data - self.observed] if self.data > self.observed else ()), *state)


def reading(layout: Layout, window: int | None, image: Sequence[int] | None) -> Reading:
    """The reading of every step of a guide.

    Args:
        layout: of the model, each latent reading its evidence.
        window: size of the grid that reads images, or None.
        image: (channels, height, width) as the user gives it.

    Raises:
        ValueError: latents that are not alike, since one network serves them all; sites told before some latents and
            not before others, or that have not one value for each datum; a mean of another width than the data; a
            window without an image of the right size.
    """
    where, latents = f"guide {layout.guide}", layout.latents
    first, *others = latents.values()
    key, shape = layout.key(first.name), first.facts.unconstrained_shape
    for latent in latents.values():
        if key is None or layout.key(latent.name) is None or latent.private_plates:
            raise ValueError(
                f"{where}: site {latent.name!r} has not one value for each datum, want latents that do; try Faithful"
            )
    for latent in others:
        if (layout.key(latent.name), latent.facts.unconstrained_shape) != (key, shape):
            raise ValueError(
                f"{where}: found sites {first.name!r} of shape {first.event_shape} and {latent.name!r} of "
                f"{latent.event_shape}, want latents alike in shape and plates, since one network serves all; try "
                "SelfReflective"
            )
    key = cast(EvidenceKey, key)
    observed, size = next(size for names, size in layout.trunks.items() if first.name in names), prod(shape)
    told = _told(layout, key, where, observed)
    if window is not None and (image is None or prod(image_size(where, image, name="image")) != observed):
        raise ValueError(
            f"{where}: found window={window} and image={image}, want the image (channels, height, width) of the "
            f"{observed} observed values, which the window reads"
        )
    means = {name: tuple(s.name for s, _ in sites if _is_mean(s)) for name, sites in told.items()}
    states = {name: tuple(s.name for s, _ in sites if not _is_mean(s)) for name, sites in told.items()}
    state = sum(width for site, width in told[first.name] if not _is_mean(site))
    if not state:  # then the latents before are all that there is to know
        order = [*latents]
        states, state = {name: tuple(order[max(i - 1, 0) : i]) for i, name in enumerate(order)}, size
    shown = () if window is None or image is None else tuple(image)
    sites = {site.name: site for sites in told.values() for site, _ in sites}
    return Reading(key, layout.sizes[key], observed, size, means, states, state, sites, shown)


def _is_mean(site: Site) -> bool:
    return site.name.startswith(MEAN)


def _told(layout: Layout, key: EvidenceKey, where: str, observed: int) -> dict[str, list[tuple[Site, int]]]:
    """Latent -> the sites in the plate of the data that the model tells before it, and values a datum of each."""
    found: dict[str, list[tuple[Site, int]]] = {}
    for name, sites in layout.told.items():
        found[name] = []
        for site in sites:
            if layout.rows not in site.plates:
                continue
            for plate in site.plates:
                if len(site.batch_shape) < -plate.dim or site.batch_shape[plate.dim] != plate.size:
                    raise ValueError(
                        f"{where}: found shape {site.shape} at the site {site.name!r}, want {plate.size} along the "
                        f"plate {plate.name!r}, a value for each datum; expand it, or tell it outside the plate"
                    )
            folded = [plate.size for plate in site.plates if plate.name not in key.shared_plates]
            found[name].append((site, prod(site.event_shape) * prod(folded)))
    first, *others = layout.latents
    alike = [(_is_mean(site), width) for site, width in found[first]]
    for name in others:
        if [(_is_mean(site), width) for site, width in found[name]] != alike:
            told = {n: {site.name: width for site, width in found[n]} for n in (first, name)}
            raise ValueError(
                f"{where}: the model tells {told[first]} before {first!r} and {told[name]} before {name!r} (values a "
                "datum), want sites of the same kinds and sizes before each latent"
            )
    for site, width in found[first]:
        if _is_mean(site) and width != observed:
            raise ValueError(
                f"{where}: found {width} values a datum at the site {site.name!r}, want the mean of the {observed} "
                "observed ones, as its name says"
            )
    return found
