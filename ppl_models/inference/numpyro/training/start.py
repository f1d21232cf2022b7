"""`found_start`: a pair whose guide has its globals at the mode of their density, for a training to begin with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from numpyro import handlers
from numpyro.primitives import Messenger

from ppl_models.numpyro.data import Rows
from ppl_models.programs.numpyro import kind_of

from ...training.start import MOST_ROWS, Beginning, Mode, climb, failed, refused, told
from ...training.weighing import Weighing
from ..feeding.batches import drawn
from ..passes.rounding import rounded


def found_start(
    model: Callable, guide: Callable, data: Sequence[Rows], params: Mapping[str, Any], weighing: Weighing, batch: int
) -> tuple[Callable, list[str]]:
    """(the guide with its globals at their start, the line on it); the guide itself if there is nothing to be found.

    See `ppl_models.inference.pyro.training.start.found_start`.
    """
    factors: Any = getattr(guide, "factors", None)
    wanted: Beginning | None = factors.beginning() if hasattr(factors, "beginning") else None
    if wanted is None:
        return guide, []
    alone, size = not weighing.plate or weighing.scales, len(data[0])  # programs that scale know the size of a batch
    rows = min(size, batch if alone else MOST_ROWS)
    found: Mode | str = refused(wanted, weighing.full_size is not None)
    if not found:
        index: Any = slice(0, rows)
        if rows < size and not alone:
            index = np.sort(np.random.default_rng(0).permutation(size)[:rows])
        args = drawn(data, [column.values[index] for column in data], random.key(0))
        found = _searched(model, args, params, wanted, weighing, 1.0 if alone else size / rows)
    factors = wanted.at(found.place, found.precision) if isinstance(found, Mode) else wanted.narrow()
    guide = eqx.tree_at(lambda g: g.factors, guide, factors)
    return guide, [told(wanted, found, rows, size)]


def _searched(
    model: Callable,
    args: Sequence[Array],
    params: Mapping[str, Any],
    wanted: Beginning,
    weighing: Weighing,
    up: float,
) -> Mode | str:
    """The mode, in double precision."""
    with jax.enable_x64(True):
        wide = [_wide(a) for a in args]
        held = jax.tree.map(_wide, dict(params))

        def log_density(v: Array) -> Array:
            values, volume = wanted.values(v)
            adding = _Sum(values, weighing.plate, up)
            with rounded(), handlers.block(), adding, handlers.seed(rng_seed=0), handlers.substitute(data=held):
                model(*wide)
            return adding.total + volume

        try:
            return climb(_Density(log_density), wanted.loc, wanted.scale)
        except Exception as error:  # noqa: BLE001 (a program may do anything in a precision that is not its own)
            return failed(error)


class _Density:
    """See `ppl_models.inference.training.start.Density`."""

    def __init__(self, log_density: Callable[[Array], Array]) -> None:
        self._both = jax.jit(jax.value_and_grad(log_density))
        self._second = jax.jit(jax.hessian(log_density))

    def value_and_gradient(self, v: np.ndarray) -> tuple[float, np.ndarray]:
        """See `Density`."""
        value, slope = self._both(jnp.asarray(v))
        return float(value), np.asarray(slope)

    def hessian(self, v: np.ndarray) -> np.ndarray:
        """See `Density`."""
        found = np.asarray(self._second(jnp.asarray(v)))
        return (found + found.T) / 2


class _Sum(Messenger):
    """Hold the globals, and add up the log densities of all sites, those of the data plate scaled up."""

    def __init__(self, held: Mapping[str, Array], plate: str, up: float) -> None:
        super().__init__()
        self.held, self.plate, self.up, self.total = held, plate, up, jnp.zeros(())

    def process_message(self, msg: dict[str, Any]) -> None:
        """Hold a global."""
        if msg["type"] == "sample" and msg["name"] in self.held and not msg["is_observed"]:
            msg["value"] = self.held[msg["name"]]

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        """Add up."""
        if msg["type"] != "sample" or kind_of(msg) is None:
            return
        density = msg["fn"].log_prob(msg["value"])
        density = (density if msg["scale"] is None else density * msg["scale"]).sum()
        inside = any(frame.name == self.plate and frame.dim is not None for frame in msg["cond_indep_stack"])
        self.total = self.total + (density * self.up if inside else density)


def _wide(leaf: Any) -> Any:
    floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
    return jnp.asarray(leaf, jnp.float64) if floating else leaf
