"""`SIZES`, `PAIRS`, `pair`: the models and guides of `benchmarks.collection`, for tests that go through all of them."""

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.collection import GUIDES, MODELS, PAIRS as PAIRS, WIDTH as WIDTH
from ppl_models.parts.arguments.sizes import all_sizes
from ppl_models.runs.naming import names

SIZES: dict[str, dict[str, Any]] = {name: dict(model.sizes) for name, model in MODELS.items()}
DENSITIES = [name for name, model in MODELS.items() if not model.latent]  # no guide but None
PAIRED = [name for name, model in MODELS.items() if model.latent]
GUIDE_SIZES = GUIDES


def data_of(model: str, n: int) -> Tensor:
    """Rows that a model takes."""
    width = prod(all_sizes(model, "event", SIZES[model]["event"]))
    return torch.randn(n, width) if MODELS[model].data == "reals" else torch.bernoulli(torch.full((n, width), 0.5))


def pair(model: str, guide: str | None, n: int = 4, seed: int = 0) -> tuple[nn.Module, nn.Module | None, Tensor]:
    """(model, guide, rows) of a seed."""
    torch.manual_seed(seed)
    program, x = names.catalogue("model")[model](**SIZES[model]), data_of(model, n)
    return program, guide and names.catalogue("guide")[guide](program, x[:3], **GUIDES[guide]), x
