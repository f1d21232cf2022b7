"""`Simulator`: data with the latents that they were drawn from, by a NumPyro model, as arguments of its own."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import handlers

from ppl_models.programs.numpyro import Drawable, Trace, frame_of, nodes_of, to_numpy
from ppl_models.programs.pairs import PROPER
from ppl_models.programs.places import Observed, Places, mixed

from ..passes.messengers import Redraw

NARROW = ": the site {!r} observes {} by a distribution of {}; expand that to it"
INSTEAD = "draw them outside of it"


class Simulator:
    """See `ppl_models.inference.pyro.diagnostics.simulated.Simulator`.

    Args:
        asks, model, args, plate: as there.
        params: of the pair.
    """

    def __init__(self, asks: str, model: Callable, args: Sequence[Any], plate: str, params: Mapping[str, Any]) -> None:
        self.asks, self.model, self.plate, self.params = asks, model, plate, dict(params)
        self._drawn = jax.jit(self._draw)
        arrays, key = _arrays(args), jax.random.key(0)
        with suppress(Exception):  # what a program does with rows that are none of the data
            probes = mixed(arrays, np.random.default_rng(0))
            rows = [arg if new is None else jnp.asarray(new) for arg, new in zip(args, probes, strict=True)]
            self.places = Places.find(asks, self._observed(key, rows), probes)
            return
        self.places = Places.find(asks, self._observed(key, args), arrays)

    def draw(self, key: Array, args: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Array]]:
        """(arguments with what was drawn in place of the data, latent -> its value) of as many data as there are rows.

        Raises:
            ValueError: a site that cannot be drawn.
        """
        latents, new = self._drawn(key, args)
        observed = {name: Observed(np.asarray(value), self.axes[name]) for name, value in new.items()}
        arrays = self.places.put(_arrays(args), observed)
        return tuple(jnp.asarray(arrays[i]) if i in arrays else arg for i, arg in enumerate(args)), latents

    def _draw(self, key: Array, args: Sequence[Any]) -> tuple[dict[str, Array], dict[str, Array]]:
        with Drawable(f"{self.asks}: no data can be drawn from the model", PROPER):
            trace = self._run(key, args, Redraw(self.asks + NARROW, self.asks, INSTEAD))
        values = {name: node["value"] for name, node in nodes_of(trace, "latent").items()}
        return {n: v for n, v in values.items() if n not in self.axes}, {n: values[n] for n in self.axes}

    def _run(self, key: Array, args: Sequence[Any], inside: Any = None) -> Trace:
        with handlers.trace() as trace, handlers.seed(rng_seed=key), handlers.substitute(data=self.params):
            with inside or nullcontext():
                self.model(*args)
        return trace

    def _observed(self, key: Array, args: Sequence[Any]) -> dict[str, Observed]:
        def values(key: Array, args: Sequence[Any]) -> dict[str, Array]:
            trace = self._run(key, args)
            nodes = nodes_of(trace, "observed")
            self.axes = {name: self._axis(node, trace) for name, node in nodes.items()}
            return {name: node["value"] for name, node in nodes.items()}

        found = jax.jit(values)(key, args)  # one compilation, where eagerly every operation would be one
        return {name: Observed(to_numpy(value), self.axes[name]) for name, value in found.items()}

    def _axis(self, node: Mapping[str, Any], trace: Trace) -> int:
        return frame_of(node, self.plate, trace).dim - node["fn"].event_dim


def _arrays(args: Sequence[Any]) -> list[np.ndarray | None]:
    return [to_numpy(arg) if getattr(arg, "ndim", 0) else None for arg in args]
