"""`vectorizes`: a trial of whether a pair may run many particles in one pass; `difference`: of two passes."""

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from pyro.poutine import Trace
from torch import Tensor

from ppl_models.programs.noise import structure_of
from ppl_models.programs.pyro import PARTICLES, nodes_of

from .expectation import Expectation
from .messengers import Among, Inner, Substitute
from .terms import Terms, collect, plate_of, traces


def vectorizes(
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    nesting: int,
    tolerance: float = 1e-3,
    plate: str | None = None,
    single: tuple[Trace, Trace] | None = None,
    sums: bool = False,
    inner: bool = False,
) -> str | None:
    """None if a draw among a few particles in one pass has the densities that it has alone; else the reason why not.

    A program that is right with one particle can be silently wrong with many: a reduction over dim 0, a reshape to a
    fixed size. So a draw that was made alone is put among those of a vectorized pass, and every term compared. It is
    neither the first nor the last one there, nor in the middle, so that it is told from any that a program may take for
    all. Of a refined guide the one that it refines is tried, whose runs are all that its own are made of.

    Args:
        model, guide, args: the pair and a small batch.
        nesting: number of plate dims of the pair.
        tolerance: largest difference of a term, relative to 1 + its size.
        plate, sums: see `terms`.
        single: traces of model and guide on these arguments; None runs them once more.
        inner: whether the particles share the latent that is drawn first (`Inner`).
    """
    rows = len(args[0]) if args and isinstance(args[0], Tensor) else 0
    if (base := structure_of(guide)) is not guide:
        if inner:
            return "a refined guide moves all latents of a draw together"
        guide, single = base, None
    particles, k = 5 if rows == 4 else 4, 1  # not the batch size: a mix-up of the two dims must not look right
    dim = -1 - nesting
    try:
        alone = traces(model, guide, args, {}, sums)[:2] if single is None else single
        plate = plate_of(alone[0], next(iter(args), None)) if plate is None else plate
        drawn = {name: node["value"] for name, node in nodes_of(alone[1], "latent").items()}
        several = pyro.plate(PARTICLES, particles, dim=dim)
        with Among(drawn, k, dim), Inner(several) if inner else several:
            together = collect(*traces(model, guide, args, {}, sums)[:2], dim, False, plate)
        site = difference(together, collect(*alone, None, False, plate), lambda t: t[min(k, len(t) - 1)], tolerance)
        if site is not None:
            return f"site {site!r} has another density when particles are vectorized"
    except Exception as error:  # noqa: BLE001 (whatever a program does with a dimension that it does not expect)
        return f"the programs do not take a particle dimension ({str(error).splitlines()[0][:120]})"
    return None


def broadcasts(
    model: Callable, guide: Callable, args: Sequence[Any], nesting: int, plate: str, single: tuple[Trace, Trace]
) -> str | None:
    """None if a draw has the densities among all states that the guide enumerates which it has alone; else why not.

    A program may be right with a draw and silently wrong with all states, which have dims of their own: an index
    `probs[i, k]` of two arrays, a reshape. So the densities of the states that were drawn alone are taken out.

    Args:
        model, guide, args, nesting, plate: the pair, and a batch, as for `vectorizes`.
        single: traces of model and guide on these arguments, with draws in place of states.
    """
    try:
        drawn = {name: node["value"] for name, node in nodes_of(single[1], "latent").items()}
        states = {n for n, node in nodes_of(single[1], "latent").items() if node["infer"].get("enumerate")}
        with Substitute({name: value for name, value in drawn.items() if name not in states}):
            both = traces(model, guide, args, {}, states=-2 - nesting)[:2]
        together = collect(*both, None, False, plate, Expectation.of(both[1], drawn))
        site = difference(together, collect(*single, None, False, plate), lambda t: t[0])
        if site is not None:
            return f"site {site!r} has another density when states are side by side"
    except Exception as error:  # noqa: BLE001 (whatever a program does with a dimension that it does not expect)
        return f"the programs do not take their dims ({str(error).splitlines()[0][:120]})"
    return None


def difference(many: Terms, few: Terms, part: Callable[[Tensor], Tensor], tolerance: float = 1e-3) -> str | None:
    """The first site of which that part of the many terms is not the few ones, None if all are."""
    for name in ("log_likelihood", "log_p", "log_q"):
        of_many, of_few = getattr(many, name), getattr(few, name)
        for site in of_few:
            a, b = part(of_many[site]), of_few[site][0]
            if len(a) not in (1, len(b)):
                return site
            if not torch.allclose(a.expand(b.shape), b, rtol=tolerance, atol=tolerance, equal_nan=True):
                return site
    return None
