"""`check_values`: look at every row once before the work starts; and a check of a loss of NumPyro's."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import handlers
from numpyro.infer.elbo import ELBO

from ppl_models.numpyro.data import Rows
from ppl_models.programs.numpyro import Trace, frame_of, layers, nodes_of, support_of
from ppl_models.programs.state.jax import tidied

from ..feeding.batches import drawn
from .rounding import rounded
from .terms import traces

CHUNK = 1000  # rows


def check_loss(loss: Any) -> None:
    """Raise TypeError unless `loss` is one of NumPyro's objectives."""
    working = "Trace_ELBO, TraceMeanField_ELBO and TraceGraph_ELBO work"
    if isinstance(loss, type):
        raise TypeError(f"fit: loss is the class {loss.__name__}, want an instance; try {loss.__name__}()")
    if not isinstance(loss, ELBO):
        if hasattr(loss, "differentiable_loss"):
            working = f"that is one of Pyro's; {working}"
        raise TypeError(f"fit: loss is a {type(loss).__name__}, want an objective of NumPyro's; {working}")


def check_values(
    name: str,
    model: Callable,
    guide: Callable,
    columns: Sequence[Rows],
    size: int,
    params: Mapping[str, Any],
    plate: str,
) -> None:
    """Look at every row once, so that a wrong value in the last of them speaks up before the first step.

    The model alone runs on chunks of rows with latents of its prior, and what it observes is held against the support
    of its distribution, unless that was made with `validate_args=False`. Where that finds a value, or the model cannot
    be run so (one of a fixed size, one that subsamples), the pair runs on batches of the work to come, and what it
    finds is the answer.

    Args:
        name: what an error starts with, "fit".
        model, guide: the pair.
        columns: the data.
        size: rows of a batch of the work to come.
        params: of the pair.
        plate: name of the data plate, "" where there is none.

    Raises:
        ValueError: a value outside the support of its distribution.
    """
    n, key = len(columns[0]), jax.random.key(0)
    told: dict[str, str] = {}

    def alone(params: Mapping[str, Any], args: Sequence[Any]) -> Trace:
        with handlers.trace() as trace, handlers.seed(rng_seed=key), handlers.substitute(data=dict(params)):
            model(*args)
        return trace

    def together(params: Mapping[str, Any], args: Sequence[Any]) -> Trace:
        return traces(model, guide, args, key=key, params=params)[0]

    def look(run: Callable, rows: int, last: bool) -> tuple[str, int] | None:
        """The first observed site and row with a value that its distribution does not take."""

        @jax.jit
        def inside(params: Mapping[str, Any], values: Sequence[Array]) -> dict[str, Array]:
            args = drawn(columns, values, key)
            trace = run(params, args)
            supports = {n: support_of(node["fn"], node["value"]) for n, node in nodes_of(trace, "observed").items()}
            told.update({name: str(support) for name, support in supports.items()})
            return _inside(trace, plate)

        for start in range(0, n, rows):
            start = min(start, max(n - rows, 0)) if last else start  # no rest of another size
            found = inside(params, [column.values[start : start + rows] for column in columns])
            for site, good in found.items():
                if not good.all():
                    return site, start + int(np.flatnonzero(~np.asarray(good))[0])
        return None

    with tidied(model, guide), rounded():
        try:
            if look(alone, CHUNK, False) is None:
                return
        except Exception:  # noqa: BLE001 (what it means, the pair will tell)
            pass
        found = look(together, size, True)
    if found is not None:
        site, row = found
        raise ValueError(
            f"{name}: the site {site!r} observes values outside the support of its distribution, {told[site]} (first "
            f"in row {row}); look at the data and their transform, or choose another likelihood"
        )


def _inside(trace: Trace, plate: str) -> dict[str, Array]:
    """Observed site -> whether its values are in the support, (n,); (1,) where it has no row for each datum."""
    found = {}
    for name, site in nodes_of(trace, "observed").items():
        if vars(layers(site["fn"]).base).get("_validate_args") is False:
            continue
        good, frame = jnp.asarray(support_of(site["fn"], site["value"])(site["value"])), frame_of(site, plate, trace)
        if frame is None or frame.size != frame.full_size:
            found[name] = good.all()[None]
        else:
            dim = frame.dim
            good = good.reshape((1,) * (-dim - good.ndim) + good.shape)
            found[name] = good.all([d for d in range(good.ndim) if d != good.ndim + dim])
    return found
