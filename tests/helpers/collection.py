"""Every model of the collection in small, and the guides that fit it."""

from typing import Any

from ppl_models.runs import names

WIDTH = 6
SIZES: dict[str, dict[str, Any]] = {  # of every model: tests fail for one without an entry
    "vae": {"event": WIDTH, "latent": 2, "hidden": 4},
    "dlgm": {"event": WIDTH, "latent": (2, 2), "hidden": 4},
    "hierarchical-vae": {"event": WIDTH, "latent": (2, 2), "hidden": 4},
    "sere-vae": {"event": WIDTH, "layers": 2, "latent": 2, "hidden": 8},
    "sere-maf": {"event": WIDTH, "layers": 2, "latent": 2, "hidden": 8, "code_hidden": 4},
    "linear-gaussian": {"event": WIDTH, "latent": (2, 2)},
    "pixel-vae": {"event": (1, 2, 3), "latent": 2, "hidden": 4, "depth": 2, "radius": 1},
    "sequential-vae": {"event": WIDTH, "steps": 2, "latent": 2, "hidden": 4},
    "infusion": {"event": WIDTH, "steps": 2, "hidden": 4},
}
GUIDE_SIZES: dict[str, dict[str, Any]] = {name: {"hidden": 4} for name in names.catalogue("guide")}
GUIDE_SIZES |= {"infused": {"rate": 0.4}}
FITS = {"infused": {"infusion"}}  # the models of a guide that is not for all
PAIRS = [(model, guide) for model in SIZES for guide in GUIDE_SIZES if model in FITS.get(guide, SIZES)]
