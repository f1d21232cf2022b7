"""Effect handlers of a pass: values in place of draws, and an end at the last latent."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import Messenger
from torch import Tensor


class Substitute(Messenger):
    """Give latent sites these values instead of draws; unlike conditioned ones they stay latent.

    with Substitute({"z1": value}):
        guide(x)
    """

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["value"], msg["done"] = self.values[msg["name"]], True


class Among(Messenger):
    """Let one particle of every latent site have a given value; the others are drawn. It goes around their plate.

    Args:
        values: what a run with one draw has drawn, by name.
        index, dim: the place of the particle, and the dim of their plate.
    """

    def __init__(self, values: Mapping[str, Tensor], index: int, dim: int) -> None:
        super().__init__()
        self.values, self.index, self.dim = values, index, dim

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] in self.values and not (msg["done"] or msg["is_observed"]):
            value = msg["fn"](*msg["args"], **msg["kwargs"]).clone()
            value.select(self.dim - msg["fn"].event_dim, self.index).copy_(self.values[msg["name"]])
            msg["value"], msg["done"] = value, True


class Drawn(BaseException):
    """All latents are drawn: the rest of the run is not needed. Not an Exception, so that no program catches it."""


class UntilDrawn(Messenger):
    """Keep what the latents `names` are drawn from, and end the run as soon as the last one is drawn.

    Args:
        names: the latents.
        values: what they are in place of draws, for those that are named.

    Attributes:
        nodes: latent -> its message, in the order of the run.
    """

    def __init__(self, names: Collection[str], values: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.names, self.substitute = frozenset(names), Substitute(dict(values or {}))
        self.nodes: dict[str, dict[str, Any]] = {}

    def _pyro_sample(self, msg: dict) -> None:
        self.substitute._pyro_sample(msg)

    def _pyro_post_sample(self, msg: dict) -> None:
        if msg["name"] in self.names and not msg["is_observed"]:
            self.nodes[msg["name"]] = dict(msg)
            if len(self.nodes) == len(self.names):
                raise Drawn

    def run(
        self,
        program: Callable,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None = None,
        plate: AbstractContextManager | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Run a program so far, in a plate, unseen by handlers around; returns `nodes`."""
        try:
            with poutine.block(), plate or nullcontext(), self:
                program(*args, **(kwargs or {}))
        except Drawn:
            pass
        if isinstance(program, GuideMessenger):
            program.trace = Trace()  # else it would keep what it has drawn, and the graph of it, until its next run
        return self.nodes
