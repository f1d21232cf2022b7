"""`encoder`: a guide as a module from data to codes, without Pyro's and its own checks, as `torch.export` takes it."""

from typing import Any

import pyro
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyProgram
from ppl_models.programs.pyro import layers, unwrapped

from ...evaluation import generated


@checked
def encoder(guide: AnyProgram, *, draws: bool = False) -> nn.Module:
    """A guide as a module: data -> {latent: code}, with nothing of Pyro's around it that a compiler would meet.

    A code is where the noise of its factor is zero, given the codes before: the mean of a Gaussian, pushed through the
    bijections of a flow. Below other latents this is not the mean over their draws, which `encode` gives.

    An exported program takes as many rows as it was exported with: the size of a plate is a number of Python's.

    Args:
        guide: any Pyro program.
        draws: draws in place of these points, by torch's generator.

    Returns:
        A module whose `forward` takes the arguments of the guide. Its weights are the guide's own, and it is in
        evaluation mode.

    Raises:
        ValueError: when it is called, a factor that is discrete, or has no noise that is known, where `draws` is False.

    >>> import torch, pyro.distributions as dist
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
    >>> program = torch.export.export(encoder(guide), (torch.zeros(2),), strict=False)
    >>> program.module()(torch.tensor([1.0, -3.0]))
    {'z': tensor([ 0.5000, -1.5000])}
    """
    return _Encoder(guide, draws).eval()


class _Encoder(nn.Module):
    def __init__(self, guide: Any, draws: bool) -> None:
        super().__init__()
        self.guide, self.draws = guide, draws

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The codes of data."""
        with pyro.validation_enabled(False), poutine.block(), _Kept(self.draws) as found:
            self.guide(*args, **kwargs)
        return found.values


class _Kept(Messenger):
    """Keep each latent, put where the noise of its factor is zero unless it is drawn."""

    def __init__(self, draws: bool) -> None:
        super().__init__()
        self.draws = draws
        self.values: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if not self.draws and _is_latent(msg):
            msg["value"], msg["done"] = _center(msg["name"], msg["fn"]), True

    def _pyro_post_sample(self, msg: Any) -> None:
        if _is_latent(msg):
            self.values[msg["name"]] = msg["value"]


def _is_latent(msg: Any) -> bool:
    return not (msg["is_observed"] or site_is_subsample(msg) or (msg["infer"] or {}).get("_deterministic"))


def _center(name: str, fn: Any) -> Tensor:
    """The draw of a factor whose noise is zero."""
    try:
        if getattr(fn.support, "is_discrete", False):
            raise NotImplementedError
        return generated.made(layers(fn), 0.0).expand(fn.shape())
    except NotImplementedError:
        family = type(unwrapped(fn)).__name__
        raise ValueError(f"encoder: found a {family} for {name!r}, which has no center; try draws=True") from None
