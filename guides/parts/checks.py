"""`check_followed`, `check_unaltered` and others: what guides refuse, of models, of arguments and of runs."""

from collections.abc import Sequence
from math import prod
from typing import Literal, NoReturn

import numpy as np

from ppl_models.parts.arguments.checked import told
from ppl_models.parts.flows.orders import levels_of, reads_of

from .looks.layout import Layout

Top = Literal["estimate", "product"]
Mean = Literal["shift", "estimate"]
Bases = Literal["own", "prior"]
TEMPERATURE = 2 / 3  # of relaxed bits
MERGED = ""  # where a state that factors hand on is kept, among features by latent: no site has this name
ENCODERS = ("separate", "shared", "bottom-up", "conv", "pyramid", "linear")


def check_followed(layout: Layout) -> None:
    """Raise ValueError for latents with which no guide can follow the model's order: enumerated ones, or in a scan."""
    for name in layout.factorization.latents:
        if name not in layout.latents:
            raise ValueError(
                f"guide {layout.guide}: found the enumerated site {name!r}, want none: {layout.language.name} "
                "enumerates with guides that do not run the model; try BottomUp, with TraceEnum_ELBO"
            )
        if layout.latents[name].site.scanned:
            raise ValueError(
                f"guide {layout.guide}: found the site {name!r} in a scan, where nothing can take the place of its "
                "prior; write the loop in Python, or take a guide with an order of its own (Faithful, BottomUp)"
            )


def check_unaltered(layout: Layout) -> None:
    """Raise ValueError for masks and scales, which a guide in an order of its own does not see."""
    for name, latent in layout.latents.items():
        if latent.facts.altered:
            raise ValueError(
                f"guide {layout.guide}: site {name!r} has a {latent.facts.altered} in the model, which a guide with an "
                "order of its own cannot follow; take one in the model's order (SelfReflective, Ladder, MeanField)"
            )


def check_drawn(layout: Layout, name: str) -> None:
    """Raise ValueError for a site that the model draws in a run, but did not draw on the example."""
    if name not in layout.latents:
        raise ValueError(
            f"guide {layout.guide}: the model drew the site {name!r}, which it did not draw on the example (latents: "
            f"{', '.join(layout.latents)}); observe it, or build the guide on an example where it is latent"
        )


def check_finite(layout: Layout, finite: bool) -> None:
    """Raise ValueError for data that are not finite."""
    if not finite:
        sites = ", ".join(layout.evidence_sites)
        raise ValueError(f"guide {layout.guide}: NaN or infinite values observed (sites {sites})")


def check_merged(layout: Layout) -> None:
    """Raise ValueError for latents that are not all in the plate of the data, or that read different data."""
    keys = {name: layout.key(name) for name in layout.latents}
    first = next(iter(keys))
    for name, key in keys.items():
        if key is None or key != keys[first]:
            found = "no data" if key is None else f"other data than {first!r}"
            raise ValueError(
                f"guide {layout.guide}: found the site {name!r}, which reads {found}, want latents that all read the "
                "same, in the plate of the data; try SelfReflective"
            )


def check_known(guide: str, spec: object, module: type) -> None:
    """Raise ValueError for an unknown encoder, or a module without its number of features."""
    if isinstance(spec, module):
        if not hasattr(spec, "output"):
            raise ValueError(
                f"guide {guide}: encoder {type(spec).__name__} lacks the attribute `output`, its number of features"
            )
    elif spec not in ENCODERS:
        raise ValueError(
            f"guide {guide}: found encoder {told(spec)}, want {', '.join(map(repr, ENCODERS))} or a module"
        )


def check_encoder(guide: str, spec: object, module: type, inputs: int, image: Sequence[int] | None) -> Sequence[int]:
    """The shape of an image, () without one. Raise ValueError for an unknown encoder, or one that does not fit.

    Args:
        guide: for messages.
        spec: the argument `encoder`, a name or a module with its number of features, `output`.
        module: the type of modules.
        inputs: values in a row.
        image: the shape of a row, (channels, height, width).
    """
    check_known(guide, spec, module)
    shaped = isinstance(image, tuple) and len(image) == 3 and prod(image) == inputs
    if not isinstance(spec, module) and spec in ("conv", "pyramid") and not shaped:
        raise ValueError(
            f"guide {guide}: encoder {spec!r} reads rows of {inputs} values as images, found image={image}; "
            "pass image=(channels, height, width)"
        )
    return image or ()


def choose_tops(layout: Layout, top: Top) -> frozenset[str]:
    """The latents that are not multiplied with their priors: those whose priors read no latent, or none."""
    parents, latents = layout.factorization.parents, layout.latents if top == "estimate" else {}
    return frozenset(z for z in latents if not any(u in latents for u in parents[z]))


def refuse_product(layout: Layout, name: str, prior: str) -> NoReturn:
    """Raise ValueError for a site with whose prior there is no product."""
    raise ValueError(
        f"guide {layout.guide}: site {name!r} has a {prior} prior, precision weighting wants a diagonal "
        "Gaussian (transformed or not); try SelfReflective, BottomUp or MeanField"
    )


def refuse_alone(where: str, family: str) -> NoReturn:
    """Raise ValueError for a family that has no precision to add up, where a product with a prior is wanted."""
    raise ValueError(
        f"{where}: found family {family!r}, which has no product with a prior, want a Gaussian; try 'full', or "
        f"SelfReflective with {family!r}"
    )


def entries_of(reads: Sequence[Sequence[bool]] | None, n: int) -> np.ndarray:
    """Whether each entry of a latent is given each other, (n, n); all before it for None.

    Raises:
        ValueError: other than n rows of n; entries that read themselves.
    """
    if reads is None:
        return reads_of(levels_of(n))
    if len(reads) != n or any(not isinstance(row, Sequence) or len(row) != n for row in reads):
        raise ValueError(
            f"family 'autoregressive-bits': found {len(reads)} rows of reads, want {n} of {n}, as many as the latent "
            "has entries; try parents.needed_entries(model, x), or leave it out"
        )
    return reads_of(np.array(reads, bool))


def refuse_coupled(layout: Layout, name: str) -> NoReturn:
    """Raise ValueError for a factor that couples entries of an event, some of which the model masks out."""
    raise ValueError(
        f"guide {layout.guide}: site {name!r} has a mask of single entries of its events in the model, want a factor "
        "that is a product over them; try family='diagonal', or mask whole events, .to_event(1).mask(m)"
    )
