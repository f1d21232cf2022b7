"""`reconstruct`, `interpolate`, `traverse`: rows of data by way of their codes, and by codes beside theirs."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Annotated, Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Number, Seed
from ppl_models.programs.pyro import layers
from ppl_models.programs.record import Layers

from ...evaluation import generated
from ..evaluation.densities import device_of, looking
from ..evaluation.encode import encode
from ..passes.checks import CHUNK
from ..passes.messengers import Substitute, UntilDrawn
from ..passes.pair_info import pair_info
from .sampling import OfOne, Rows, decode, parts_of

STEPS, VALUES = 9, (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
AtLeastTwo = Annotated[int, Number(whole=True, least=2)]


@checked
def reconstruct(
    model: OfOne,
    guide: OfOne,
    x: Rows,
    *,
    latents: Sequence[str] | None = None,
    seed: Seed | None = 0,
) -> Tensor:
    """Means of the data given latents that the guide draws for x: E[x' | z], z ~ q(z | x).

    With some of the latents alone it samples layer by layer: these are the guide's, and the model draws the others
    given them. The first latents of a hierarchy hold what the data have in common with what is drawn then.

    Args:
        model, guide: any Pyro programs of one argument.
        x: rows, (n, *event).
        latents: names of those that the guide draws; None for all of them, [] for samples of the model.
        seed: the global generator is as before afterwards; None continues it.

    Returns:
        (n, *event); where a site of the data reads another one, it reads what is observed there.

    Raises:
        ValueError: a latent that there is not, observed sites that do not make rows.
    """
    device, found = device_of(model, guide), []
    x = x if device is None else x.to(device)
    with looking(model, guide, seed, x):
        few = x[: min(len(x), CHUNK)]
        known = pair_info("reconstruct", model, guide, (few,), paired=False).pair.model.latents
        names = generated.chosen("reconstruct", latents, known)
        for rows in x.split(CHUNK):
            nodes = UntilDrawn(names).run(guide, (rows,)) if names else {}
            values = {name: node["value"] for name, node in nodes.items()}
            with poutine.block(), poutine.trace() as capture, Substitute(values):
                model(rows)
            parts = parts_of(capture.trace, len(rows), draws=False)
            means = generated.rows_from(parts, prod(x.shape[1:]), getattr(model, "join", None))
            found.append(means.reshape(rows.shape))
    return torch.cat(found)


@checked
def interpolate(
    model: OfOne, guide: OfOne, x: Rows, y: Rows, *, steps: AtLeastTwo = STEPS, seed: Seed | None = 0
) -> Tensor:
    """Means of the data on the straight lines from the codes of x to those of y, in all latents at once.

        z_t = (1 - t) E_q[z | x] + t E_q[z | y],      t = 0, 1 / (steps - 1), ..., 1

    Args:
        model, guide: any Pyro programs of one argument, whose latents are in the plate of the data.
        x, y: rows, (n, *event) each.
        steps: points of a line, its ends among them.
        seed: the global generator is as before afterwards; None continues it.

    Returns:
        (steps, n, *event).

    Raises:
        ValueError: x and y of other shapes, a discrete latent; see `encode` and `decode`.
    """
    device = device_of(model, guide)
    x, y = (rows if device is None else rows.to(device) for rows in (x, y))
    return generated.interpolated(_Tools(), model, guide, x, y, steps, seed)


@checked
def traverse(
    model: OfOne,
    guide: OfOne,
    x: Rows,
    latent: str,
    *,
    units: Sequence[int] | None = None,
    values: Sequence[float] = VALUES,
    codes: Mapping[str, Tensor] | None = None,
    seed: Seed | None = 0,
) -> Tensor:
    """Means of the data where one unit of a latent is moved, and what depends on it goes along.

        z_l = f_l(mean(z_<l) + deviation(z_<l) e_l)

    All e_l are those of the codes of x, but for one entry of one of them, which is put at `values`. So a latent that
    depends on the moved one stays as many standard deviations from its new mean as it was from its old one: the rest
    of the datum is kept. f are the bijections that a factor ends with, if any.

    Args:
        model, guide: any Pyro programs of one argument, whose latents are in the plate of the data.
        x: rows, (n, *event).
        latent: its name.
        units: which of its entries to move, one after the other; None for all.
        values: where to, in standard deviations.
        codes: where to start, latent -> (n, *event); None for those of x, as `encode` gives them.
        seed: the global generator is as before afterwards; None continues it.

    Returns:
        (units, values, n, *event).

    Raises:
        ValueError: a latent or unit that there is not, one that is discrete or has no known variance under the model;
            see `encode` and `decode`.
    """
    device = device_of(model, guide)
    x = x if device is None else x.to(device)
    return generated.traversed(_Tools(), model, guide, x, latent, units, values, codes, seed)


class _Visit(Messenger):
    """Put each latent where a function of its name and distribution says."""

    def __init__(self, value: Callable[[str, Any], Tensor]) -> None:
        super().__init__()
        self.value = value

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not site_is_subsample(msg):
            msg["value"], msg["done"] = self.value(msg["name"], msg["fn"]), True


class _Tools:
    """See `generated.Tools`."""

    def encode(self, model: Any, guide: Any, data: Any, *, seed: int | None) -> dict[str, Tensor]:
        return encode(model, guide, data, seed=seed)

    def decode(self, model: Any, codes: Any, x: Tensor, *, seed: int | None) -> Tensor:
        return decode(model, codes, x, seed=seed)

    def visit(self, model: Any, x: Tensor, value: Callable[[str, Any], Tensor]) -> None:
        with looking(model, model, 0, x), poutine.block(), _Visit(value):
            model(x)

    def layers(self, fn: Any) -> Layers:
        return layers(fn)
