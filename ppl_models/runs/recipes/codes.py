"""`write_codes`: the codes of a run's data, as data of another run: means and standard deviations of q(z | x)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ppl_models.data import Data, Redrawn
from ppl_models.inference.pyro.evaluation.densities import looking
from ppl_models.inference.pyro.passes.terms import run_pair
from ppl_models.inference.storage.files import write_atomically
from ppl_models.parts.distributions import diagonal_moments
from ppl_models.programs.pyro import nodes_of

from ..backends import columns
from ..folders.loaded import LoadedRun

FILE, TRANSFORM = "codes.npz", "redraw"
ROWS = 1000  # a batch


def moments(model: Any, guide: Any, x: Tensor) -> Tensor:
    """Mean and standard deviation of the one code of each datum, side by side, (n, 2 latent).

    Raises:
        ValueError: several latents, whose codes depend on each other, or a factor that is no diagonal Gaussian.
    """
    with looking(model, guide, 0, x):
        found = [node["fn"] for node in nodes_of(run_pair(model, guide, (x,), {})[1], "latent").values()]
    known = diagonal_moments(found[0]) if len(found) == 1 else None
    if known is None:
        told = f"{len(found)} latents" if len(found) != 1 else f"a {type(found[0]).__name__} for q(z | x)"
        raise ValueError(f"codes: found {told}, want one latent with a diagonal Gaussian of its own for each datum")
    return torch.cat([part.expand(len(x), -1) for part in known], -1).float().cpu()


def write_codes(run: LoadedRun, path: Path) -> None:
    """Write the moments of the codes of train and test to a .npz file, to be read with the transform "redraw".

    Each datum is encoded once, as the data give it then; the codes are drawn anew from their moments at each access.

    Raises:
        ValueError: see `moments`.
    """
    parts, device = run.load_data(), columns(run.example)[0].device
    if not isinstance(parts[0], Data):
        raise ValueError("codes: found data of several arguments, want rows of one")
    found = {}
    for name, part in (("train", parts[0]), ("test", parts[-1])):
        batches = (cast(Tensor, part[slice(i, i + ROWS)]).to(device) for i in range(0, len(part), ROWS))
        found[name] = torch.cat([moments(run.model, run.guide, x) for x in batches]).numpy()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **found)

    write_atomically(path, write)


def unknown_codes(model: Any, guide: Any, example: Tensor, rows: int) -> tuple[Data, Data]:
    """Data of the shape that the codes of a pair will have, before it is trained: to build what will read them.

    Raises:
        ValueError: see `moments`.
    """
    width = moments(model, guide, example).shape[1]
    values = torch.cat([torch.zeros(rows, width // 2), torch.ones(rows, width // 2)], -1)
    train, test = (Data(values, (width // 2,), None, Redrawn(), f"codes {part}") for part in ("train", "test"))
    return train, test
