"""Every model of the collection in small, and the guides that fit it."""

from math import prod
from typing import Any

import torch
from torch import Tensor

from ppl_models.parts.sizes import all_sizes
from ppl_models.runs import names

WIDTH = 6
SIZES: dict[str, dict[str, Any]] = {  # of every model: tests fail for one without an entry
    "vae": {"event": WIDTH, "latent": 2, "hidden": 4},
    "vamp-vae": {"event": WIDTH, "latent": 2, "layers": 2, "hidden": 4, "components": 3},
    "biva": {"event": WIDTH, "latent": (2, 2), "hidden": 4},
    "dlgm": {"event": WIDTH, "latent": (2, 2), "hidden": 4},
    "matnet": {"event": WIDTH, "latent": (2, 2), "hidden": 4},
    "hierarchical-vae": {"event": WIDTH, "latent": (2, 2), "hidden": 4},
    "sere-vae": {"event": WIDTH, "layers": 2, "latent": 2, "hidden": 8},
    "sere-maf": {"event": WIDTH, "layers": 2, "latent": 2, "hidden": 8, "code_hidden": 4},
    "linear-gaussian": {"event": WIDTH, "latent": (2, 2)},
    "pixel-vae": {"event": (1, 2, 3), "latent": 2, "hidden": 4, "depth": 2, "radius": 1},
    "hierarchical-pixel-vae": {"event": (1, 2, 3), "latent": (2, 1), "hidden": 4, "depth": 2, "radius": 1},
    "sequential-vae": {"event": WIDTH, "steps": 2, "latent": 2, "hidden": 4},
    "infusion": {"event": WIDTH, "steps": 2, "hidden": 4},
    "draw": {"event": WIDTH, "steps": 2, "latent": 2, "hidden": 4},
    "maf": {"event": WIDTH, "hidden": 8, "steps": 2},
    "nsf": {"event": WIDTH, "hidden": 8, "steps": 2, "bins": 3},
    "real-nvp": {"event": (1, 4, 4), "hidden": 4, "levels": 1},
    "glow": {"event": (2, 2, 4), "hidden": 4, "steps": 2},
    "pixel-cnn": {"event": (1, 2, 3), "hidden": 4, "depth": 2, "radius": 1},
}
DENSITIES = ["maf", "nsf", "real-nvp", "glow", "pixel-cnn"]  # without latents: no guide but None
GUIDE_SIZES: dict[str, dict[str, Any]] = {name: {"hidden": 4} for name in names.catalogue("guide")}
GUIDE_SIZES |= {"infused": {"rate": 0.4}}
FITS = {"infused": {"infusion"}}  # the models of a guide that is not for all
REFUSED = {("vamp-vae", "ladder")}  # it merges with Gaussian priors
PAIRED = [model for model in SIZES if model not in DENSITIES]
PAIRS = [(model, guide) for model in PAIRED for guide in GUIDE_SIZES if model in FITS.get(guide, SIZES)]
PAIRS = [pair for pair in PAIRS if pair not in REFUSED]


def data_of(model: str, n: int) -> Tensor:
    """Rows that a model takes: real numbers for a flow, else zeros and ones."""
    width = prod(all_sizes(model, "event", SIZES[model]["event"]))
    flow = model in DENSITIES and model != "pixel-cnn"
    return torch.randn(n, width) if flow else torch.bernoulli(torch.full((n, width), 0.5))
