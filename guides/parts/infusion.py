"""`rates_of`, `channels_of`, `refuse_prior`: the rates of `Infused`, and what it wants of latents and images."""

from collections.abc import Sequence
from math import prod
from typing import NoReturn

from ppl_models.parts.arguments.sizes import image_size

from .looks.layout import Layout


def rates_of(order: Sequence[str], rate: float) -> dict[str, float]:
    """a_t of every latent in the order in which they are drawn: rate, rate, 2 rate, 3 rate, ..., at most 1/2.

    >>> rates_of(("z1", "z2", "z3"), 0.1)
    {'z1': 0.1, 'z2': 0.1, 'z3': 0.2}
    """
    return {name: min(rate * max(t, 1), 0.5) for t, name in enumerate(order)}


def channels_of(layout: Layout, image: Sequence[int] | None) -> int:
    """Channels of a pixel, 1 without an image, once every latent is known to be a Gaussian of the shape of a datum.

    Args:
        layout: the guide's, of either language.
        image: (channels, height, width) as the user gives it, or None.

    Raises:
        ValueError: a latent of another shape than the datum's, whose prior is no diagonal Gaussian, or that is no such
            image.
    """
    shape = None if image is None else image_size("guide Infused", image, name="image")
    for name, latent in layout.latents.items():
        size = layout.sizes.get(layout.key(name))
        if len(latent.event_shape) != 1 or size != latent.event_shape[0]:
            found = "no data" if size is None else f"{size} values a datum"
            raise ValueError(
                f"guide Infused: site {name!r} has the event shape {latent.event_shape}, with {found}, want latents "
                "of the shape of a datum (the model Infusion); try SelfReflective"
            )
        if shape is not None and prod(shape) != size:
            raise ValueError(f"guide Infused: found image={image}, want one of the {size} values of site {name!r}")
    for name, latent in layout.latents.items():
        if not latent.facts.is_gaussian:
            refuse_prior(name, latent.site.family)
    return 1 if shape is None else shape[0]


def refuse_prior(name: str, family: str) -> NoReturn:
    """Raise ValueError for a site whose prior is of another family than `Infused` takes."""
    raise ValueError(f"guide Infused: site {name!r} has a {family} prior, want a diagonal Gaussian; try SelfReflective")
