"""`found_start`: puts the globals of a guide at the mode of their density, before a training."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppl_models.programs.noise import structure_of
from ppl_models.programs.pyro import frame_of, kind_of
from ppl_models.programs.state.torch import ProgramSnapshot, modules_of, seed_generators

from ...training.start import MOST_ROWS, Beginning, Mode, climb, failed, refused, told
from ...training.weighing import Weighing
from ..feeding.columns import Columns
from ..sites.rounding import rounded


def found_start(
    model: Callable, guide: Callable, data: Columns, weighing: Weighing, batch: int, device: torch.device | None
) -> list[str]:
    """The line on the start of the globals of a guide, which is put there; none if there is nothing to be found.

    The density is that of all rows; above `MOST_ROWS` that of a fixed sample, scaled up.

    Args:
        model, guide: the pair.
        data: of the training.
        weighing: who weighs a batch.
        batch: rows of a batch, all that count where no plate is around the data.
        device: of the guide.
    """
    # a function, a partial or a handler may stand between `fit` and the guide
    found_in = [m.factors for m in modules_of(structure_of(guide)) if hasattr(getattr(m, "factors", None), "beginning")]
    wanted: Beginning | None = found_in[0].beginning() if len(found_in) == 1 else None
    if wanted is None:
        return []
    alone = not weighing.plate or weighing.scales  # programs that scale know the size of a batch
    rows = min(data.size, batch if alone else MOST_ROWS)
    found: Mode | str = refused(wanted, weighing.full_size is not None)
    if not found:
        index: Any = slice(0, rows)
        if rows < data.size and not alone:
            index = torch.randperm(data.size, generator=torch.Generator().manual_seed(0))[:rows].sort().values
        with torch.random.fork_rng([]):
            args = data.rows(index, device)
        found = _searched(model, args, wanted, weighing, data.size / rows if not alone else 1.0)
    if isinstance(found, Mode):
        wanted.at(found.place, found.precision)
    else:
        wanted.narrow()
    return [told(wanted, found, rows, data.size)]


def _searched(model: Callable, args: Sequence[Any], wanted: Beginning, weighing: Weighing, up: float) -> Mode | str:
    """The mode, in double precision, or in single if the model fails there."""
    reason = ""
    for double in (True, False):
        try:
            with _density(model, args, wanted, weighing, up, double) as density:
                return climb(density, wanted.loc, wanted.scale)
        except Exception as error:  # noqa: BLE001 (a program may do anything in a precision that is not its own)
            reason = reason or failed(error)
    return reason


@contextmanager
def _density(
    model: Callable, args: Sequence[Any], wanted: Beginning, weighing: Weighing, up: float, double: bool
) -> Iterator["_Density"]:
    snapshot = ProgramSnapshot([model, *(a for a in args if not isinstance(a, Tensor))], double, grad=True)
    wide = [a.double() if double and isinstance(a, Tensor) and a.is_floating_point() else a for a in args]
    device = next((a.device for a in args if isinstance(a, Tensor)), None)

    def log_density(v: Tensor) -> Tensor:
        values, volume = wanted.values(v if double else v.float())
        with _Sum(values, weighing.plate, up) as sum_:
            seed_generators(0)
            model(*wide)
        return (sum_.total + volume).to(v)

    with snapshot.held(), rounded():
        snapshot.settle()
        yield _Density(log_density, device)


class _Density:
    """See `ppl_models.inference.training.start.Density`."""

    def __init__(self, log_density: Callable[[Tensor], Tensor], device: torch.device | None) -> None:
        self.log_density, self.device = log_density, device

    def value_and_gradient(self, v: np.ndarray) -> tuple[float, np.ndarray]:
        """See `Density`."""
        at = torch.tensor(v, device=self.device, requires_grad=True)
        value = self.log_density(at)
        return float(value.detach()), torch.autograd.grad(value, at)[0].cpu().numpy()

    def hessian(self, v: np.ndarray) -> np.ndarray:
        """See `Density`."""
        found = torch.autograd.functional.hessian(self.log_density, torch.tensor(v, device=self.device))
        found = found.cpu().numpy()
        return (found + found.T) / 2


class _Sum(Messenger):
    """Hold the globals, and add up the log densities of all sites, those of the data plate scaled up."""

    def __init__(self, held: dict[str, Tensor], plate: str, up: float) -> None:
        super().__init__()
        self.held, self.plate, self.up, self.total = held, plate, up, torch.zeros(())

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] in self.held and not msg["is_observed"]:
            msg["value"], msg["done"] = self.held[msg["name"]], True

    def _pyro_post_sample(self, msg: dict) -> None:
        if kind_of(msg) in ("subsample", None):
            return
        density = scale_and_mask(msg["fn"].log_prob(msg["value"], *msg["args"]), msg["scale"], msg["mask"]).sum()
        self.total = self.total + (density * self.up if frame_of(msg, self.plate) else density)
