"""The doubly-reparametrized gradient of the importance-weighted bound, for guides of any order (`losses.estimate`)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppl_models.programs.pairs import refuse_rough
from ppl_models.programs.pyro import unwrapped

from ...objectives.bounds import importance_weighted, log_weights
from .terms import Terms, concatenated


class Cut(Messenger):
    """Each latent's draw goes on as a leaf: what depends on it does not depend on what drew it.

    Outermost, so that every trace holds the leaf. Point masses are left: their value is no draw but a parameter, or a
    function of draws that were cut already.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drawn: dict[str, tuple[Tensor, Tensor]] = {}  # site -> (its draw, the leaf), in the order of drawing
        self.met: set[str] = set()

    def _pyro_post_sample(self, msg: dict) -> None:
        name, fn = msg["name"], msg["fn"]
        if msg["is_observed"] or site_is_subsample(msg) or name in self.met:
            return  # met before: the model, run on what the guide drew
        self.met.add(name)
        if isinstance(unwrapped(fn), Delta):
            return
        if not fn.has_rsample:
            family = type(unwrapped(fn)).__name__
            refuse_rough(name, family, "want reparametrized latents for gradient='doubly-reparametrized'")
        leaf = msg["value"].detach().requires_grad_()
        self.drawn[name], msg["value"] = (msg["value"], leaf), leaf


def doubly_reparametrized(
    found: Sequence[Terms],
    drawn: Sequence[dict[str, tuple[Tensor, Tensor]]],
    beta: float | Tensor,
    data_size: int | None,
) -> Tensor:
    """The importance-weighted bound, in nats per datum, with the gradient that `losses.estimate` states.

    Args:
        found: the terms of each pass, run inside a `Cut`.
        drawn: what each pass drew.
        beta, data_size: see `importance_weighted`.
    """
    whole = concatenated(found)
    log_w, size = log_weights(whole, beta, data_size)
    share = log_w.detach().softmax(0)
    # without the guide's score: its density stays as a number where the draw was cut
    scoreless = {n: q.detach() if any(n in d for d in drawn) else q for n, q in whole.log_q.items()}
    surrogate = (share * log_weights(replace(whole, log_q=scoreless), beta, data_size)[0]).sum()
    leaves = [leaf for cut in drawn for _, leaf in cut.values()]
    weight = share * (1 - beta + beta * share)
    slopes = iter(torch.autograd.grad(log_w, leaves, weight, retain_graph=True, allow_unused=True) if leaves else ())
    for cut in drawn:
        pairs = [(draw, leaf, next(slopes)) for draw, leaf in cut.values()]
        surrogate = surrogate + _along(pairs)
    return importance_weighted(whole, beta, data_size).detach() + (surrogate - surrogate.detach()) / size


def _along(cut: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> Tensor | float:
    """sum_l <slope_l, draw_l>, where a slope counts what later draws make of the leaf, too; last draw first."""
    total, slopes = 0.0, [slope for _, _, slope in cut]
    for i in reversed(range(len(cut))):
        draw, slope = cut[i][0], slopes[i]
        if slope is None or not draw.requires_grad:
            continue
        total = total + (slope * draw).sum()
        earlier = [leaf for _, leaf, _ in cut[:i]]
        passed = torch.autograd.grad(draw, earlier, slope, retain_graph=True, allow_unused=True) if earlier else ()
        slopes[:i] = [a if b is None else b if a is None else a + b for a, b in zip(slopes[:i], passed, strict=True)]
    return total
