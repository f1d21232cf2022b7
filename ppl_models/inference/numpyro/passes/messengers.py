"""Effect handlers of a pass: an end at the last latent."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from numpyro import handlers
from numpyro.primitives import Messenger


class Drawn(BaseException):
    """All latents are drawn: the rest of the run is not needed. Not an Exception, so that no program catches it."""


class UntilDrawn(Messenger):
    """Keep what the latents `names` are drawn from, and end the run as soon as the last one is drawn.

    Args:
        names: the latents.

    Attributes:
        sites: latent -> its site, in the order of the run.
    """

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self.names = frozenset(names)
        self.sites: dict[str, dict[str, Any]] = {}

    def postprocess_message(self, msg: dict) -> None:
        """Keep the site of a latent."""
        if msg["type"] == "sample" and msg["name"] in self.names and not msg["is_observed"]:
            self.sites[msg["name"]] = msg.copy()
            if len(self.sites) == len(self.names):
                raise Drawn

    def run(
        self, program: Callable, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Run a program so far, unseen by the handlers outside; returns `sites`."""
        try:
            with handlers.block(), self:
                program(*args, **(kwargs or {}))
        except Drawn:
            pass
        return self.sites
