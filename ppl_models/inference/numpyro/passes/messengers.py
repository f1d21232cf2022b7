"""Effect handlers of a pass: an end at the last latent, the weight of a batch, and which data it holds."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array
from numpyro import handlers
from numpyro.distributions import Independent
from numpyro.primitives import Messenger

from ppl_models.programs.numpyro import kind_of
from ppl_models.programs.pairs import Undrawn

from ...training.weighing import Weighing


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


class Redraw(Messenger):
    """Draw what is observed anew; factors stay.

    Args:
        narrow: the message for a site whose value is wider than its distribution, with places for name and shapes.
        asks: the function that asks, what a message starts with.
        instead: what is to be tried where observations are in a loop, beside a loop of Python's.
    """

    def __init__(self, narrow: str, asks: str, instead: str) -> None:
        super().__init__()
        self.narrow, self.asks, self.instead = narrow, asks, instead

    def process_message(self, msg: dict[str, Any]) -> None:
        """Take the value of what is observed away."""
        if msg["type"] == "control_flow":
            raise ValueError(
                f"{self.asks}: observations inside of a numpyro scan or cond are not drawn anew; {self.instead}, or "
                "write the loop in Python"
            )
        if msg["type"] == "sample" and kind_of(msg) == "observed":
            msg["fn"] = self._widened(msg["name"], msg["fn"], jnp.shape(msg["value"]))
            msg["is_observed"], msg["value"] = False, None

    def _widened(self, name: str, fn: Any, shape: tuple[int, ...]) -> Any:
        """A distribution that draws what is of this shape as its `log_prob` reads it, each entry by itself.

        Raises:
            Undrawn: it has fewer entries, and cannot be expanded to so many.
        """
        wide = jnp.broadcast_shapes(own := fn.shape(), shape)
        batch = wide[: len(wide) - fn.event_dim]
        if wide == own:
            return fn
        if fn.event_shape == wide[len(batch) :]:
            return fn.expand(batch)
        if isinstance(fn, Independent):
            return Independent(self._widened(name, fn.base_dist, shape), fn.reinterpreted_batch_ndims)
        raise Undrawn(self.narrow.format(name, tuple(shape), tuple(own)))


class First(Messenger):
    """Draw the latent that comes first with a key of its own, which other runs may share. It goes inside their seed.

    Args:
        key: of that draw.
    """

    def __init__(self, key: Array) -> None:
        super().__init__()
        self.key, self.met = key, False

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and not msg["is_observed"] and not self.met:
            self.met, msg["kwargs"]["rng_key"] = True, self.key


class Weighed(Messenger):
    """Scale what is in the data plate by size / seen, as a plate that subsamples does, or undo what the programs scale.

    It goes around a pass, whose own scales it multiplies (`Weighing.factors`).

    Args:
        weighing: of the pair.
        seen: rows of the pass.
        loss: that of NumPyro which is computed; None for one of our objectives.
    """

    def __init__(self, weighing: Weighing, seen: int, loss: Any = None) -> None:
        super().__init__()
        self.weighing, self.loss, self.seen = weighing, loss, seen

    def process_message(self, msg: Any) -> None:
        if msg["type"] != "sample":
            return
        plate = self.weighing.plate
        frame = next((f for f in msg["cond_indep_stack"] if f.name == plate and f.dim is not None), None)
        factor = self.weighing.factor(frame, self.seen, self.loss)
        if factor != 1:
            msg["scale"] = factor if msg["scale"] is None else msg["scale"] * factor


class Numbered(Messenger):
    """Let a plate that subsamples take these indices in place of drawn ones: the rows of a batch.

    An autoguide keeps numbers for every datum, and draws which of them are due, while the model observes the batch.

    Args:
        plate: name of the plate.
        indices: of the data, (size,).
    """

    def __init__(self, plate: str, indices: Array) -> None:
        super().__init__()
        self.plate, self.indices = plate, indices

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "plate" and msg["name"] == self.plate and msg["value"] is None:
            msg["value"] = self.indices
