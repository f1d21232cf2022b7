"""The one reader of NumPyro's traces: `read(trace)` and `run(program, args)` give a `Run`, `site_of(node)` a `Site`.

Inside a step, where no record is built, the passes ask `nodes_of` and `frame_of` instead.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from numpyro import handlers
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, MaskedDistribution, constraints

from .arguments import example_array
from .blame import is_users
from .record import Kind, Plate, Run, Site

Node = Mapping[str, Any]
Trace = Mapping[str, Node]


class Frame(NamedTuple):
    """A plate around a node."""

    name: str
    dim: int
    size: int
    full_size: int


def run(
    program: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    key: Array | int = 0,
    params: Mapping[str, Any] | None = None,
) -> Run:
    """Run a program, unseen by handlers around, with values of its `numpyro.param`s by name.

    Raises:
        ValueError: a site that cannot be drawn.
    """
    with handlers.block(), handlers.seed(rng_seed=key), handlers.substitute(data=dict(params or {})):
        with handlers.trace() as trace:
            try:
                program(*args, **(kwargs or {}))
            except NotImplementedError as error:  # an ImproperUniform
                if is_users(error):
                    raise
                raise ValueError(f"the model cannot be run: {error}; give the site a proper prior") from error
    return read(trace)


def read(trace: Trace) -> Run:
    """The record of a run that was traced."""
    sizes = full_sizes(trace)
    return Run([site_of(node, sizes) for node in trace.values() if kind_of(node)], to_numpy)


def full_sizes(trace: Trace) -> dict[str, int]:
    """Plate -> its size before it subsamples, which no node tells but the plate's own."""
    return {name: node["args"][0] for name, node in trace.items() if node["type"] == "plate"}


def site_of(node: Node, sizes: Mapping[str, int] | None = None) -> Site:
    """The record of a node of a trace, or of a message that was run.

    Args:
        node: the node.
        sizes: of plates before they subsample (`full_sizes`); of a plate that is not there, its size in the run.
    """
    kind, value = cast(Kind, kind_of(node)), node["value"]
    shape = tuple(jnp.shape(value))
    if kind == "subsample":
        return Site(name=node["name"], kind=kind, shape=shape, value=value)
    frames = [f for f in reversed(node["cond_indep_stack"]) if f.dim is not None]
    plates = tuple(Plate(f.name, f.dim, f.size, (sizes or {}).get(f.name, f.size)) for f in frames)
    if kind == "deterministic":  # its event dims are not known: the leftmost are those of the plates
        event_dim = max(len(shape) - max((-f.dim for f in frames), default=0), 0)
        return Site(name=node["name"], kind=kind, shape=shape, event_dim=event_dim, plates=plates, value=value)
    fn, infer = node["fn"], node["infer"]
    extra = tuple(node["kwargs"].get("sample_shape") or ())
    fn = fn.expand(extra + fn.batch_shape) if extra else fn
    return Site(
        name=node["name"],
        kind=kind,
        shape=shape,
        event_dim=fn.event_dim,
        plates=plates,
        family=type(unwrapped(fn)).__name__,
        reparametrized=fn.has_rsample,
        auxiliary=bool(infer.get("is_auxiliary")),
        enumerated=infer.get("enumerate") is not None and fn.has_enumerate_support,
        scanned=bool(node.get("_control_flow_done")),
        scale=1.0 if node["scale"] is None else node["scale"],
        mask=mask_of(fn),
        value=value,
        fn=fn,
    )


def kind_of(node: Node) -> Kind | None:
    """The kind of a node or message, None for what is no site (parameters, plates that take all of their copies)."""
    kind, value = node["type"], node["value"]
    if kind == "plate":
        return "subsample" if len(value) != node["args"][0] else None
    if kind == "deterministic":
        return "deterministic" if _is_array(value) else None
    if kind != "sample" or not _is_array(value):
        return None
    return "latent" if not node["is_observed"] else "observed" if jnp.size(value) else "factor"


def nodes_of(trace: Trace, *kinds: Kind) -> dict[str, Node]:
    """The nodes of a trace of these kinds, by name; for inside a step."""
    return {name: node for name, node in trace.items() if kind_of(node) in kinds}


def frame_of(node: Node, plate: str | None, trace: Trace) -> Frame | None:
    """The plate of this name around a node of a trace, None if there is none; for inside a step."""
    found = next((f for f in node["cond_indep_stack"] if f.name == plate and f.dim is not None), None)
    if found is None:
        return None
    return Frame(*found, trace[found.name]["args"][0] if found.name in trace else found.size)


def unwrapped(fn: Distribution, *kinds: type) -> Distribution:
    """A distribution without what only wraps it: reinterpreted and expanded dims and masks, or these kinds of it."""
    found: Any = fn
    while isinstance(found, kinds or (Independent, MaskedDistribution, ExpandedDistribution)):
        found = found.base_dist
    return found


def mask_of(fn: Distribution) -> Array | bool | None:
    """The copies of a site that count, None where all do: NumPyro keeps masks in distributions."""
    masks: list[Any] = []
    while isinstance(fn, (MaskedDistribution, ExpandedDistribution)):
        if isinstance(fn, MaskedDistribution):
            masks.append(fn._mask)
        fn = fn.base_dist
    return reduce(lambda a, b: a & b, masks) if masks else None


def support_of(support: Any) -> Any:
    """A constraint without reinterpreted dims."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def as_arrays(args: Sequence[Any], asks: str) -> tuple[Any, ...]:
    """The arguments of a model, data frames and tensors among them as arrays; `asks` is what an error starts with."""
    found = [None if isinstance(arg, jax.Array | np.ndarray) else example_array(arg, asks) for arg in args]
    return tuple(arg if array is None else array for arg, array in zip(args, found, strict=True))


def to_numpy(value: Any) -> np.ndarray | None:
    """An array as NumPy's, None for what holds no numbers that can be read."""
    if not _is_array(value) or isinstance(value, Tracer):
        return None
    return np.asarray(value.astype(jnp.float32) if jnp.result_type(value) in (jnp.bfloat16, jnp.float16) else value)


def _is_array(value: Any) -> bool:
    if isinstance(value, (float, int, np.ndarray, np.generic)):
        return True
    return isinstance(value, jax.Array) and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
