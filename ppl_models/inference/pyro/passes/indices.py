"""`Indices`: which data a batch holds, for guides whose plates would draw others than the model observes."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppl_models.programs.pairs import Pair
from ppl_models.programs.plates import subsampled

from .checks import forked
from .messengers import Drawn


@dataclass(frozen=True)
class Indices:
    """The plates of a pair whose indices are not for the guide to draw.

    An autoguide keeps numbers for every datum, and draws which of them are due unless it is told (its `create_plates`).
    The model may observe others: those that it was given as `subsample=`, or the rows of the batch itself, where
    its plate is of all the data and says only how many of them there are.

    Attributes:
        given: plates whose indices the model is given by its arguments.
        numbered: the data plate whose indices are the rows of the batch, the last entry of one; "" for none.
    """

    given: tuple[str, ...] = ()
    numbered: str = ""

    @classmethod
    def of(cls, pair: Pair, model: Callable, guide: Callable, args: Sequence[Any], size: int | None) -> Self:
        """Those of a pair that has seen a batch `args` of so many data."""
        names = {plate.name for plate in subsampled(pair.guide)}
        if not names:
            return cls()
        with forked(args), torch.no_grad():
            names -= _given(guide, args, names).keys()
            given = tuple(_given(model, args, names))
        told = pair.plate in names and pair.plate not in given and pair.counts(len(args[0]), size)
        return cls(given, pair.plate if told else "")

    def arguments(self, batch: Sequence[Any]) -> Sequence[Any]:
        """A batch as the programs take it."""
        return batch[:-1] if self.numbered else batch

    def around(self, model: Callable, batch: Sequence[Any]) -> AbstractContextManager:
        """Inside, a pass over this batch draws no indices that are known."""
        if self.numbered:
            return _Told({self.numbered: batch[-1]})
        return _Told(_given(model, batch, self.given)) if self.given else nullcontext()


class _Told(Messenger):
    """Plates take these indices in place of drawn ones."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is None and msg["name"] in self.values and site_is_subsample(msg):
            msg["value"], msg["done"] = self.values[msg["name"]], True


class _Looking(Messenger):
    """Take down the indices that plates were given, and end the run when all are known."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self.missing, self.values = set(names), dict[str, Tensor]()

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.missing and site_is_subsample(msg):
            self.missing.remove(msg["name"])
            if msg["value"] is not None:
                self.values[msg["name"]] = msg["value"]
            if not self.missing:
                raise Drawn


def _given(program: Callable, args: Sequence[Any], names: Collection[str]) -> dict[str, Tensor]:
    """Plate -> the indices that the program gives it, of those named; one run as far as they go."""
    look = _Looking(names)
    if not names:
        return {}
    try:
        with poutine.block(), look:
            program(*args)
    except Drawn:
        pass
    if isinstance(program, GuideMessenger):
        program.trace = Trace()  # else it would keep what it has drawn until its next run
    return look.values
