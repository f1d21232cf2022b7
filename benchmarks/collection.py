"""The rows of the matrix: every model and guide of the collection in small, and what is expected of each pair.

`tests/models/test_matrix.py` builds each pair and holds it to that. A new model is a row of `MODELS`, a new guide one
of `GUIDES`, and pairs that do not fit are a row of `HOLES`. Where a row says nothing of a guide, it is faithful,
minimal, perfect. Sizes are the smallest with which that holds of larger ones, too: three layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

PERFECT = "faithful, minimal, perfect"
SPARE = "faithful, not minimal, perfect"
WIDE = "faithful, not minimal, not perfect"
UNFAITHFUL = "unfaithful"
Lacks = Mapping[str, tuple[str, ...]]  # site -> parents that the factor of an unfaithful guide lacks


@dataclass(frozen=True)
class Model:
    """A model: its density in words, its sizes in small, the guide of its paper, and what is to be said of its pairs.

    Args:
        density: for the table.
        sizes: of its constructor.
        guide: the one that its paper has; None without latents, or where the posterior is known.
        verdicts: by guide, where it is another than `PERFECT`: the words, or what an unfaithful guide lacks.
        data: zeros and ones, or real numbers.
        latent: whether there are latents; a density without has the guide `None` alone.
    """

    density: str
    sizes: Mapping[str, Any]
    guide: str | None = None
    verdicts: Mapping[str, str | Lacks] = field(default_factory=dict)
    data: Literal["bits", "reals"] = "bits"
    latent: bool = True


@dataclass(frozen=True)
class Hole:
    """Pairs that are refused: the sentence that says why, and a part of the error's message."""

    models: tuple[str, ...]
    guides: tuple[str, ...]
    why: str
    says: str


WIDTH, IMAGE = 6, (1, 2, 3)
VECTOR, THREE = {"event": WIDTH, "hidden": 4}, {"latent": (2, 2, 2)}
STEPS = {**VECTOR, "steps": 3}
PIXELS = {"event": IMAGE, "hidden": 4, "depth": 2, "radius": 1}

# of latents in a chain, of which the data read the last one
CHAIN = {"mean-field": {"z2": ("z1",), "z3": ("z2",)}, "bottom-up": SPARE, "merging": WIDE, "recurrent": WIDE}
# of latents that meet in the data
MEETING = {"mean-field": {"z2": ("z1",), "z3": ("z1", "z2")}}
# and of those that are independent: they are one layer, of which `Bidirectional` infers the last one first
APART = {**MEETING, "bidirectional": {"z1": ("z3",), "z2": ("z3",)}}
# of a chain whose data are blocks: the last codes read more of them than they need
BLOCKS = {**CHAIN, **dict.fromkeys(("bidirectional", "ladder", "self-reflective"), SPARE)}
TWO = {"mean-field": {"z2": ("z1",)}}

MODELS = {
    "vae": Model("p(z) p(x | z)", {**VECTOR, "latent": 2}, "mean-field"),
    "vamp-vae": Model(
        "(1/K) sum_k q(z | u_k) p(x | z), or a layer more: the prior is the encoder at learned pseudo-inputs u_k",
        {**VECTOR, "latent": 2, "layers": 2, "components": 3},
        "self-reflective",
        TWO,
    ),
    "bit-vae": Model("prod_i p(z_i) p(x | z), logits of relaxed bits", {**VECTOR, "latent": 3}, "mean-field"),
    "semi-supervised-vae": Model(
        "p(y) p(z) p(x | y, z), a class and a code; labels of some rows",
        {**VECTOR, "latent": 2, "classes": 2},
        "self-reflective",
        {"mean-field": {"z1": ("y",)}, "bidirectional": {"y": ("z1",)}},
    ),
    "dlgm": Model("prod_l p(z_l) p(x | z_1..z_L)", {**VECTOR, **THREE}, "mean-field", APART),
    "hierarchical-vae": Model(
        "p(z_1) prod_l p(z_l | z_{l-1}) p(x | z_L), or p(x | z_1..z_L)", {**VECTOR, **THREE}, "ladder", CHAIN
    ),
    "biva": Model(
        "p(top) prod_l p(td_l | above) p(bu_l | above) p(x | all), two latents a layer",
        {**VECTOR, **THREE},
        "bidirectional",
        {
            "bidirectional": {"td2": ("bu2",), "td1": ("bu1",)},
            "mean-field": {
                "td2": ("top",),
                "bu2": ("top", "td2"),
                "td1": ("top", "td2", "bu2"),
                "bu1": ("top", "td2", "bu2", "td1"),
            },
        },
    ),
    "matnet": Model(
        "p(z_1) prod_l p(z_l | z_<l) p(x | z_1..z_L), latents along a deterministic state",
        {**VECTOR, **THREE},
        "merging",
        MEETING,
    ),
    "sere-vae": Model(
        "p(z_1) p(x_1 | z_1) prod_l p(z_l | z_{l-1}) p(x_l | z_l, x_{l-1})",
        {"event": WIDTH, "layers": 3, "latent": 2, "hidden": 8},
        "self-reflective",
        BLOCKS,
    ),
    "sere-maf": Model(
        "the same, each block of real data by masked autoregressive steps given z_l and x_{l-1}",
        {"event": WIDTH, "layers": 3, "latent": 2, "hidden": 8, "code_hidden": 4},
        "self-reflective",
        BLOCKS,
        "reals",
    ),
    "pixel-vae": Model(
        "p(z) prod_i p(x_i | x_<i, z), a gated PixelCNN with a cached sampler", {**PIXELS, "latent": 2}, "mean-field"
    ),
    "hierarchical-pixel-vae": Model(
        "p(z_1) prod_i p(z_2i | z_2<i, z_1) prod_j p(x_j | x_<j, z_2), z_2 a map",
        {**PIXELS, "event": (1, 5, 5), "latent": (2, 1)},  # of which the map has two rows and columns
        "mean-field",
        {**TWO, "bottom-up": SPARE},
    ),
    "sequential-vae": Model(
        "prod_t p(z_t) p(x | z_1..z_T), an image refined step by step", {**STEPS, "latent": 2}, "mean-field", APART
    ),
    "draw": Model(
        "prod_t p(z_t) p(x | z_1..z_T), strokes of a recurrent network, with or without attention",
        {**STEPS, "latent": 2},
        "recurrent",
        APART,
    ),
    "infusion": Model(
        "p(z_1) prod_t p(z_t | z_{t-1}) p(x | z_T), a chain of noisy images", STEPS, "infused", CHAIN, "reals"
    ),
    "linear-gaussian": Model(
        "any depth and skips, with `log_evidence(x)` and `posterior(x)`",
        {"event": WIDTH, **THREE},
        None,
        CHAIN,
        "reals",
    ),
    "maf": Model(
        "N(T(x); 0, I) |det dT/dx|, T of masked networks",
        {"event": WIDTH, "hidden": 8, "steps": 2},
        data="reals",
        latent=False,
    ),
    "nsf": Model(
        "the same with monotone splines, autoregressive or by couplings",
        {"event": WIDTH, "hidden": 8, "steps": 2, "bins": 3},
        data="reals",
        latent=False,
    ),
    "real-nvp": Model(
        "the same with affine couplings, of images in scales",
        {"event": (1, 4, 4), "hidden": 4, "levels": 1},
        data="reals",
        latent=False,
    ),
    "glow": Model(
        "the same with 1 x 1 convolutions between the couplings",
        {"event": (2, 2, 4), "hidden": 4, "steps": 2},
        data="reals",
        latent=False,
    ),
    "pixel-cnn": Model("prod_i p(x_i | x_<i), what `PixelVAE` decodes by", PIXELS, latent=False),
}

GUIDES: dict[str, dict[str, Any]] = {  # options of each
    "mean-field": {"hidden": 4},
    "bottom-up": {"hidden": 4},
    "ladder": {"hidden": 4},
    "self-reflective": {"hidden": 4},
    "faithful": {"hidden": 4},
    "bidirectional": {"hidden": 4},
    "merging": {"hidden": 4},
    "recurrent": {"hidden": 4},
    "infused": {"rate": 0.4},
}

LATENT = tuple(name for name, model in MODELS.items() if model.latent)
HOLES = (
    Hole(
        tuple(name for name in MODELS if name not in LATENT),
        (*GUIDES,),
        "There are no latents to infer, so that the guide is `None` and the density is exact.",
        "the model has no latent site to infer",
    ),
    Hole(
        tuple(name for name in LATENT if name != "infusion"),
        ("infused",),
        "`Infused` puts entries of the datum into latents, which have to be of its shape, as those of `Infusion` are.",
        "want latents of the shape of a datum",
    ),
    Hole(
        ("vamp-vae",),
        ("ladder",),
        "`Ladder` multiplies an estimate with the prior, which here is a mixture and no Gaussian.",
        "site 'z1' has a EncoderMixture prior, precision weighting wants a diagonal Gaussian",
    ),
    Hole(
        ("bit-vae",),
        ("ladder",),
        "Here the prior is that of relaxed bits.",
        "site 'z1' has a RelaxedBits prior, precision weighting wants a diagonal Gaussian",
    ),
    Hole(
        ("semi-supervised-vae",),
        ("ladder", "merging", "recurrent"),
        "These guides have factors of Gaussians alone, and the class is discrete.",
        "site 'y' is discrete",
    ),
    Hole(
        ("hierarchical-pixel-vae",),
        ("recurrent",),
        "`Recurrent` has one network for all latents, and here the second is a map, of another size than the first.",
        "found sites 'z1' of shape (2,) and 'z2' of (4,), want latents alike in shape",
    ),
)


def hole(model: str, guide: str) -> Hole | None:
    """The one that a pair falls into, or None: it fits."""
    return next((each for each in HOLES if model in each.models and guide in each.guides), None)


def expected(model: str, guide: str) -> tuple[str, Lacks]:
    """(verdict, what the factors lack) of a pair that fits."""
    found = MODELS[model].verdicts.get(guide, PERFECT)
    return (found, {}) if isinstance(found, str) else (UNFAITHFUL, found)


PAIRS = [(model, guide) for model in MODELS for guide in GUIDES if hole(model, guide) is None]
REFUSED = [(model, guide) for model in MODELS for guide in GUIDES if hole(model, guide) is not None]
