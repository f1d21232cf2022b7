"""`Simulator`: data with the latents that they were drawn from, by a model, as arguments of its own."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from ppl_models.programs.pairs import PROPER
from ppl_models.programs.places import Observed, Places, mixed
from ppl_models.programs.pyro import Drawable, frame_of, nodes_of, to_numpy, to_tensor

from ..passes.messengers import Redraw

NARROW = ": the site {!r} observes {} by a distribution of {}; expand that to it"


class Simulator:
    """Draws z ~ p(z) and x ~ p(x | z), and puts x where the model reads it in its arguments.

    Other arguments, covariates, stay as they are.

    Args:
        asks: the function that asks, what a message starts with.
        model: a model all of whose latents are in the plate of the data.
        args: rows of data.
        plate: the name of the plate of the data.

    Raises:
        ValueError: see `Places.find`.
    """

    def __init__(self, asks: str, model: Callable, args: Sequence[Any], plate: str) -> None:
        self.asks, self.model, self.plate = asks, model, plate
        arrays = _arrays(args)
        with suppress(Exception):  # what a program does with rows that are none of the data
            probes = mixed(arrays, np.random.default_rng(0))
            self.places = Places.find(asks, self._observed(self._run(_tensors(args, dict(enumerate(probes))))), probes)
            return
        self.places = Places.find(asks, self._observed(self._run(args)), arrays)

    def draw(self, args: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Tensor]]:
        """(arguments with what was drawn in place of the data, latent -> its value) of as many data as there are rows.

        Raises:
            ValueError: a site that cannot be drawn.
        """
        with Redraw(self.asks + NARROW), Drawable(f"{self.asks}: no data can be drawn from the model", PROPER):
            trace = self._run(args)
        drawn = {n: node for n, node in nodes_of(trace, "latent").items() if "redrawn" not in node["infer"]}
        new = {name: node for name, node in trace.nodes.items() if "redrawn" in (node.get("infer") or {})}
        arrays = self.places.put(_arrays(args), {name: self._of(node) for name, node in new.items()})
        return _tensors(args, arrays), {name: node["value"] for name, node in drawn.items()}

    def _run(self, args: Sequence[Any]) -> Trace:
        with poutine.trace() as capture:
            self.model(*args)
        return capture.trace

    def _observed(self, trace: Trace) -> dict[str, Observed]:
        return {name: self._of(node) for name, node in nodes_of(trace, "observed").items()}

    def _of(self, node: Mapping[str, Any]) -> Observed:
        return Observed(to_numpy(node["value"]), frame_of(node, self.plate).dim - node["fn"].event_dim)


def _arrays(args: Sequence[Any]) -> list[np.ndarray | None]:
    return [to_numpy(arg) if isinstance(arg, Tensor) and arg.dim() else None for arg in args]


def _tensors(args: Sequence[Any], arrays: Mapping[int, np.ndarray | None]) -> tuple[Any, ...]:
    """The arguments, with these arrays in place of some."""
    found = list(args)
    for i, array in arrays.items():
        if array is not None:
            found[i] = to_tensor(array, args[i].dtype).to(args[i].device, args[i].dtype)
    return tuple(found)
