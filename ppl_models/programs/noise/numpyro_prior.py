"""`Prior`: the prior of a NumPyro model as a guide, p(z) in place of q(z | x)."""

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from numpyro import handlers
from numpyro.primitives import Messenger


class Prior:
    """See `noise.pyro_prior.Prior`."""

    def __init__(self, model: Callable, latents: Collection[str]) -> None:
        self.prior_of, self.latents = model, frozenset(latents)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Sample the latents from their prior."""
        with suppress(_Ended), handlers.block(hide_fn=_observed), _Ending(self.latents):
            self.prior_of(*args, **kwargs)


class _Ended(BaseException):
    """The last latent is drawn. Not an Exception, so that no program catches it."""


class _Ending(Messenger):
    """End a run with the last of some latents."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self.left = set(names)

    def postprocess_message(self, msg: Any) -> None:
        """Note that a latent is drawn."""
        self.left.discard(msg["name"])
        if not self.left:
            raise _Ended


def _observed(msg: Any) -> bool:
    return msg["type"] == "sample" and msg["is_observed"]
