"""The one reader of NumPyro's traces: `read(trace)` and `run(program, args)` give a `Run`, `site_of(node)` a `Site`.

Inside a step, where no record is built, the passes ask `nodes_of` and `frame_of` instead.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from numpyro import handlers
from numpyro.distributions import (
    Delta,
    Distribution,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
    TransformedDistribution,
    constraints,
)
from numpyro.distributions.transforms import AbsTransform
from numpyro.primitives import Messenger

from .arguments import example_array
from .pairs import PROPER, refuse_undrawn
from .record import Kind, Layers, Plate, Run, Site, Wrappers

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
        with Drawable("the model cannot be run", PROPER), handlers.trace() as trace:
            program(*args, **(kwargs or {}))
    return read(trace)


def runs(program: Callable, args: Sequence[Any], params: Mapping[str, Any] | None = None) -> Callable[[], Run]:
    """A function that gives another run of a program at each call, on random numbers of its own."""
    keys = count()
    return lambda: run(program, args, key=next(keys), params=params)


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
    if node["type"] == "deterministic":  # its event dims are not known: the leftmost are those of the plates
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


class Drawable(Messenger):
    """Inside, a site that cannot be drawn is told of by its name; an error of the program's own stays as it is.

    Args:
        asks: what the message starts with.
        instead: what is to be tried.

    Raises:
        Undrawn: a site whose distribution has no `sample`, as an ImproperUniform.
    """

    def __init__(self, asks: str, instead: str) -> None:
        super().__init__()
        self.asks, self.instead = asks, instead
        self._last: Any = None

    def process_message(self, msg: Any) -> None:
        self._last = msg if msg["type"] == "sample" else None

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        last = self._last
        if isinstance(raised[1], NotImplementedError) and last is not None and last["value"] is None:
            refuse_undrawn(self.asks, last["name"], type(unwrapped(last["fn"])).__name__, raised[1], self.instead)


def kind_of(node: Node) -> Kind | None:
    """The kind of a node or message, None for what is no site (parameters, plates that take all of their copies)."""
    kind, value = node["type"], node["value"]
    if kind == "plate":
        return "subsample" if len(value) != node["args"][0] else None
    if kind == "deterministic":
        return "deterministic" if _is_array(value) else None
    if kind != "sample" or not _is_array(value):
        return None
    if not node["is_observed"]:
        return "latent"
    if is_point(node["fn"]):
        return "deterministic" if mask_of(node["fn"]) is False else "point"
    return "observed" if jnp.size(value) else "factor"


def nodes_of(trace: Trace, *kinds: Kind) -> dict[str, Node]:
    """The nodes of a trace of these kinds, by name; for inside a step."""
    return {name: node for name, node in trace.items() if kind_of(node) in kinds}


def frame_of(node: Node, plate: str | None, trace: Trace) -> Frame | None:
    """The plate of this name around a node of a trace, None if there is none; for inside a step."""
    found = next((f for f in node["cond_indep_stack"] if f.name == plate and f.dim is not None), None)
    if found is None:
        return None
    return Frame(*found, trace[found.name]["args"][0] if found.name in trace else found.size)


def _only_pushes(fn: Distribution) -> bool:
    if not isinstance(fn, TransformedDistribution) or type(fn).log_prob is not TransformedDistribution.log_prob:
        return False
    return not any(isinstance(transform, AbsTransform) for transform in fn.transforms)


_WRAPPERS = Wrappers(Independent, MaskedDistribution, ExpandedDistribution, _only_pushes)


def layers(fn: Distribution, transforms: bool = True) -> Layers:
    """A distribution without what only wraps it: independent and expanded dims, masks and, if asked for, bijections.

    A transformed distribution with a density of its own (`FoldedDistribution`) is no wrapper.
    """
    return _WRAPPERS.layers(fn, transforms)


def unwrapped(fn: Distribution) -> Any:
    """A distribution without independent and expanded dims and masks: what gives it its name."""
    return layers(fn, transforms=False).base


def is_point(fn: Distribution) -> bool:
    """Whether a distribution has one value alone, so that what it gives is computed, even if it is observed."""
    return isinstance(unwrapped(fn), Delta)


def mask_of(fn: Distribution) -> Array | bool | None:
    """The entries of a value that count, None where all do: NumPyro keeps masks in distributions.

    It broadcasts to the value. Beneath transforms an event counts where all of its entries do.
    """
    found = None
    for kept, events, above in layers(getattr(fn, "masks_of", fn)).masks:
        if kept is False:
            return False
        if kept is True:
            continue
        if above and events:
            kept, events = kept.all(tuple(range(-events, 0))), 0
        kept = kept.reshape(*kept.shape, *(1,) * (fn.event_dim - events))
        found = kept if found is None else found & kept
    return found


def unmasked(fn: Any) -> Any:
    """A distribution without its masks."""
    if isinstance(fn, MaskedDistribution):
        return unmasked(fn.base_dist)
    if isinstance(fn, ExpandedDistribution):
        return unmasked(fn.base_dist).expand(fn.batch_shape)
    return unmasked(fn.base_dist).to_event(fn.reinterpreted_batch_ndims) if isinstance(fn, Independent) else fn


def support_of(fn: Any, value: Any) -> Any:
    """The support of a distribution; where it states none, all numbers of a value's type."""
    try:
        found = fn.support
    except (AssertionError, AttributeError, NotImplementedError):  # wrappers assert that there is one
        found = None
    if found is None:
        whole = jnp.issubdtype(jnp.result_type(value), jnp.inexact)
        found = constraints.real if whole else constraints.integer_interval(-(2**31), 2**31 - 1)
        found = constraints.independent(found, fn.event_dim) if fn.event_dim else found
    return found


def in_support(fn: Any, value: Any) -> Callable[[Any], bool] | None:
    """A test of whether values are in the support of a distribution that gave one; None where any number is.

    A relaxed value of a discrete site is in its support where the nearest whole numbers are; one of vectors always is.
    """
    support = support_of(fn, value)
    if elementwise(support) is constraints.real:
        return None

    def test(other: Any) -> bool:
        relaxed = support.is_discrete and jnp.issubdtype(jnp.result_type(other), jnp.inexact)
        if relaxed and elementwise(support).event_dim:
            return True
        try:
            return bool(jnp.all(support(jnp.round(other) if relaxed else other)))
        except (NotImplementedError, TypeError, ValueError):
            return True

    return test


def elementwise(support: Any) -> Any:
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
