"""`Prior`: the prior of a Pyro model as a guide, p(z) in place of q(z | x)."""

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from pyro import poutine
from pyro.poutine.messenger import Messenger

from .pyro import Ended


class Prior:
    """A model that ends with its last latent, and of which nothing that it observes is seen.

    Args:
        model: any Pyro program.
        latents: the names of its latents.
    """

    def __init__(self, model: Callable, latents: Collection[str]) -> None:
        self.prior_of, self.latents = model, frozenset(latents)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Sample the latents from their prior."""
        with suppress(Ended), poutine.block(hide_fn=_observed), _Ending(self.latents):
            self.prior_of(*args, **kwargs)


class _Ending(Messenger):
    """End a run with the last of some latents."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self.left = set(names)

    def _pyro_post_sample(self, msg: Any) -> None:
        self.left.discard(msg["name"])
        if not self.left:
            raise Ended


def _observed(msg: Any) -> bool:
    return msg["type"] == "sample" and msg["is_observed"]
