"""What is looked at once, before the work starts: the pair, and the values of every row."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import handlers
from numpyro.infer.elbo import ELBO

from ppl_models.numpyro.data import Rows

from ..feeding.batches import drawn
from .plates import Trace, data_plate, is_local, latents, observations, subsampled
from .terms import traces

CHUNK = 1000  # rows


def check_loss(loss: Any) -> None:
    """Raise TypeError unless `loss` is one of NumPyro's objectives."""
    working = "Trace_ELBO, TraceMeanField_ELBO and TraceGraph_ELBO work"
    if isinstance(loss, type):
        raise TypeError(f"fit: loss is the class {loss.__name__}, want an instance; try {loss.__name__}()")
    if not isinstance(loss, ELBO):
        raise TypeError(f"fit: loss is a {type(loss).__name__}, want an objective of NumPyro's; {working}")


def check_pair(
    name: str,
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    params: Mapping[str, Any],
    reparametrized: bool = False,
) -> Trace:
    """The model's trace of one abstract run of a pair that can be trained: its values have shapes, and no numbers.

    Args:
        name: what an error starts with, "fit".
        model, guide: the pair.
        args: a batch.
        params: of the pair.
        reparametrized: whether every latent of the guide must be, as the pathwise gradient wants it.

    Raises:
        ValueError: a model that observes nothing, a guide that observes something (they may be swapped), or a latent
            that is not reparametrized; the message names the site.
    """
    kept: list[tuple[Trace, Trace]] = []

    def run(key: Array, params: Mapping[str, Any], args: Sequence[Any]) -> None:
        kept.append(traces(model, guide, args, key=key, params=params)[:2])

    jax.eval_shape(run, jax.random.key(0), params, tuple(args))
    model_trace, guide_trace = kept[-1]
    if not any(site["type"] == "sample" and site["is_observed"] for site in model_trace.values()):
        called = getattr(model, "__name__", type(model).__name__)
        sites = ", ".join(map(repr, latents(model_trace))) or "nothing"
        raise ValueError(
            f"{name}: the model {called} observes nothing (it draws {sites}); are model and guide in this "
            "order? If so, pass it the data that it observes"
        )
    for site in latents(guide_trace) if reparametrized else ():
        fn = _innermost(guide_trace[site]["fn"])
        if not fn.has_rsample:
            raise ValueError(
                f"{name}: the guide draws the site {site!r} from a {type(fn).__name__}, not reparametrized, so that no "
                "gradient goes through the draw; pass loss=numpyro.infer.TraceGraph_ELBO(), which does without"
            )
    return model_trace


def check_whole(trace: Trace) -> None:
    """Raise ValueError for a model that saw some of its data only: its weights, raised to N / B, bound nothing."""
    for plate in subsampled(trace):
        raise ValueError(
            f"evaluate: the plate {plate.name!r} draws {plate.size} of {plate.full_size} data, want every datum; "
            "evaluate a model of the same parameters whose plate does not subsample"
        )


def check_values(
    name: str, model: Callable, guide: Callable, columns: Sequence[Rows], size: int, params: Mapping[str, Any]
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
            told.update({site: str(trace[site]["fn"].support) for site in observations(trace)})
            return _inside(trace, args[0])

        for start in range(0, n, rows):
            start = min(start, max(n - rows, 0)) if last else start  # no rest of another size
            found = inside(params, [column.values[start : start + rows] for column in columns])
            for site, good in found.items():
                if not good.all():
                    return site, start + int(np.flatnonzero(~np.asarray(good))[0])
        return None

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


def _inside(trace: Trace, first: Any) -> dict[str, Array]:
    """Observed site -> whether its values are in the support, (n,); (1,) where it has no row for each datum."""
    data, found = data_plate(trace, first), {}
    for name in observations(trace):
        site = trace[name]
        if vars(_innermost(site["fn"])).get("_validate_args") is False:
            continue
        good = jnp.asarray(site["fn"].support(site["value"]))
        dim = data.dim if is_local(site, data) and data.size == data.full_size else None
        if dim is None:
            found[name] = good.all()[None]
        else:
            good = good.reshape((1,) * (-dim - good.ndim) + good.shape)
            found[name] = good.all([d for d in range(good.ndim) if d != good.ndim + dim])
    return found


def _innermost(fn: Any) -> Any:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn
