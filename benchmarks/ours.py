"""The collection's own training step, for as long as `ppl_models.inference.training_step` is not there."""

from collections.abc import Callable

import pyro
import torch
from torch import Tensor

from ppl_models.inference import elbo, plate_nesting, terms


def training_step(model, guide, args, *, compile=False, lr=1e-3, particles=1) -> Callable[..., Tensor]:
    """A function that does one eager step on its arguments and returns the loss.

    Raises:
        NotImplementedError: with `compile`.
    """
    if compile:
        raise NotImplementedError("this version of ppl_models has no compiled step")
    params = list(dict.fromkeys([*model.parameters(), *guide.parameters()]))
    optimizer = torch.optim.AdamW(params, lr=lr, weight_decay=0.0, fused=True)
    nesting = plate_nesting(model, guide, args, {})

    def step(*args):
        with pyro.validation_enabled(False):
            optimizer.zero_grad(set_to_none=True)
            loss = -elbo(terms(model, guide, args, particles=particles, nesting=nesting))
            loss.backward()
            optimizer.step()
        return loss

    return step
