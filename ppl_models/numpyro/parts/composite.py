"""Port of `ppl_models.parts.composite`: one model whose codes are the data of another, as one program."""

from typing import Any

from jax import Array
from numpyro import handlers
from numpyro.primitives import Messenger

from ppl_models.parts.checks import check_batch
from ppl_models.parts.codes import DATA, refuse_codes, renamed, slice_of

from .likelihoods import ARRAYS
from .program import Program


class Composite(Program):
    """Port of `ppl_models.parts.Composite`: same sites and names of parameters."""

    first: Program
    second: Program

    def __init__(self, first: Program, second: Program) -> None:
        self.first, self.second = first, second

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x, or generate n of them; returns them."""
        if x is not None:  # by its rows here, and by what the first model wants of a row there
            check_batch(ARRAYS, "x", x, tuple(getattr(x, "shape", ()))[1:], None)
        own = handlers.block(hide_fn=lambda msg: msg["type"] == "param")  # the parameters are those of this program
        with own, _AsPrior():
            codes = self.second(n=n if x is None else len(x))
        given = _Given(codes)
        with own, given:
            rows = self.first(x, n)
        if given.taken < codes.shape[-1]:
            refuse_codes(codes.shape[-1], "fewer")
        return rows


class _AsPrior(Messenger):
    """Inside, sites have the names that they have above another model, whose plate of data is theirs."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] in ("sample", "deterministic"):
            msg["name"] = renamed(msg["name"])


class _Given(Messenger):
    """Inside, the latents of a model are the parts of these codes, in their order, and handlers around see none."""

    def __init__(self, codes: Array) -> None:
        super().__init__()
        self.codes, self.taken = codes, 0

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or msg["is_observed"] or msg["name"] == DATA:
            return
        event = tuple(msg["fn"].event_shape)
        part = slice_of(self.taken, event, self.codes.shape[-1])
        self.taken, value = part.stop, self.codes[..., part]
        msg["value"], msg["stop"] = value.reshape(value.shape[:-1] + event), True
