"""The one reader of Pyro's traces: `read(trace)` and `run(program, args)` give a `Run`, `site_of(node)` a `Site`.

Inside a step, where no record is built, the passes ask `nodes_of` and `frame_of` instead.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, cast

import numpy as np
import torch
from pyro import poutine
from pyro.distributions import Delta, ExpandedDistribution, MaskedDistribution, constraints
from pyro.poutine import Trace
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, TransformedDistribution

from .arguments import example_array
from .pairs import PROPER, refuse_undrawn
from .plates import sized
from .record import Kind, Layers, Mask, Plate, Run, Site, Wrappers

UNSIZED = -1  # size of a plate that was given none
PARTICLES = "_particles"  # the plate of the draws that a pass makes at once: none of the program's
Node = Mapping[str, Any]


def run(program: Callable, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> Run:
    """Run a program, unseen by handlers around and without gradients, on draws of the global generator.

    Raises:
        ValueError: a site that cannot be drawn.
    """
    with torch.no_grad(), poutine.block(), Drawable("the model cannot be run", PROPER), poutine.trace() as capture:
        program(*args, **(kwargs or {}))
    return read(capture.trace)


def read(trace: Trace) -> Run:
    """The record of a run that was traced. A trace whose subsample sites are pruned does without these."""
    return Run(sized(site_of(node) for node in trace.nodes.values() if kind_of(node)), to_numpy)


def site_of(node: Node) -> Site:
    """The record of a node of a trace, or of the message of a sample statement that was run; see `plates.sized`."""
    kind, fn, value, infer = cast(Kind, kind_of(node)), node["fn"], node["value"], node["infer"] or {}
    if kind == "subsample":
        return Site(name=node["name"], kind=kind, shape=tuple(value.shape), value=value)
    frames = [f for f in node["cond_indep_stack"] if f.vectorized]
    event_dim, bare = fn.event_dim, unwrapped(fn)
    if kind == "deterministic" and event_dim == value.dim():  # what Pyro takes where nothing is said
        event_dim = max(value.dim() - max((-f.dim for f in frames), default=0), 0)
    return Site(
        name=node["name"],
        kind=kind,
        shape=tuple(value.shape),
        event_dim=event_dim,
        plates=tuple(_plate(f, node, event_dim) for f in frames if f.name != PARTICLES),
        family=type(bare).__name__,
        reparametrized=fn.has_rsample,
        auxiliary=bool(infer.get("is_auxiliary")),
        enumerated=infer.get("enumerate") is not None and bare.has_enumerate_support,
        scale=node["scale"],
        mask=mask_of(node),
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

    def _pyro_sample(self, msg: Any) -> None:
        self._last = msg

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        last = self._last
        if isinstance(raised[1], NotImplementedError) and last is not None and last["value"] is None:
            refuse_undrawn(self.asks, last["name"], type(unwrapped(last["fn"])).__name__, raised[1], self.instead)


def kind_of(node: Node) -> Kind | None:
    """The kind of a node or message, None for what is no site (parameters, the arguments of the run)."""
    if node["type"] != "sample" or not isinstance(node["value"], Tensor):
        return None
    if site_is_subsample(cast(Any, node)):
        return "subsample"
    if (node["infer"] or {}).get("_deterministic"):
        return "deterministic"
    if not node["is_observed"]:
        return "latent"
    if is_point(node["fn"]):  # as reparametrized sites are left, and as values were given names before `deterministic`
        return "deterministic" if mask_of(node) is False else "point"
    return "observed" if prod(node["value"].shape) else "factor"


def nodes_of(trace: Trace, *kinds: Kind) -> dict[str, Node]:
    """The nodes of a trace of these kinds, by name; for inside a step."""
    return {name: node for name, node in trace.nodes.items() if kind_of(node) in kinds}


def frame_of(node: Node, plate: str | None) -> CondIndepStackFrame | None:
    """The plate of this name around a node (`dim`, `size`, `full_size`), None if there is none; for inside a step."""
    return next((f for f in node["cond_indep_stack"] if f.name == plate and f.vectorized), None)


def outside(nodes: Mapping[str, Node], plate: str | None) -> frozenset[str]:
    """The nodes that are in no plate of this name; for inside a step. Of one without a size see `plates.sized`."""
    frames = {name: frame_of(node, plate) for name, node in nodes.items()}
    unsized = {name: frame for name, frame in frames.items() if frame is not None and frame.size == UNSIZED}
    copies = {n: _copies(nodes[n], frame, nodes[n]["fn"].event_dim) for n, frame in unsized.items()}
    size = next((n for n in copies.values() if n > 1), 1)
    return frozenset(name for name, frame in frames.items() if frame is None or copies.get(name, size) != size)


def _plate(frame: Any, node: Node, event_dim: int) -> Plate:
    if frame.size == UNSIZED:
        return Plate(frame.name, frame.dim, _copies(node, frame, event_dim), 0)
    return Plate(frame.name, frame.dim, frame.size, frame.full_size or frame.size)


def _copies(node: Node, frame: Any, event_dim: int) -> int:
    """The number of values that a node has along the dim of a plate."""
    shapes = (frame.dim, node["fn"].batch_shape), (frame.dim - event_dim, node["value"].shape)
    return max(shape[dim] if len(shape) >= -dim else 1 for dim, shape in shapes)


def _only_pushes(fn: Distribution) -> bool:
    if not isinstance(fn, TransformedDistribution) or type(fn).log_prob is not TransformedDistribution.log_prob:
        return False
    return all(transform.bijective for transform in fn.transforms)


_WRAPPERS = Wrappers(Independent, MaskedDistribution, ExpandedDistribution, _only_pushes)


def layers(fn: Distribution, transforms: bool = True) -> Layers:
    """A distribution without what only wraps it: independent and expanded dims, masks and, if asked for, bijections.

    A transformed distribution with a density of its own (`FoldedDistribution`) is no wrapper.
    """
    return _WRAPPERS.layers(fn, transforms)


def unwrapped(fn: Distribution) -> Distribution:
    """A distribution without independent and expanded dims and masks: what gives it its name."""
    return layers(fn, transforms=False).base


def is_point(fn: Distribution) -> bool:
    """Whether a distribution has one value alone, so that what it gives is computed, even if it is observed."""
    return isinstance(unwrapped(fn), Delta)


def mask_of(node: Node) -> Tensor | bool | None:
    """The entries of a value that count, by the program and by the distribution; None where all do.

    It broadcasts to the value. Beneath transforms an event counts where all of its entries do.
    """
    fn, found = node["fn"], None
    for kept, events, above in [Mask(node["mask"], 0, 0), *layers(getattr(fn, "masks_of", fn)).masks]:
        if kept is False:
            return False
        if kept is None or kept is True:
            continue
        if above and events:
            kept, events = kept.flatten(-events).all(-1), 0
        kept = kept.reshape(*kept.shape, *(1,) * (fn.event_dim - events))
        found = kept if found is None else found & kept
    return found


def unmasked(fn: Any) -> Any:
    """A distribution without its masks."""
    if isinstance(fn, MaskedDistribution):
        return unmasked(fn.base_dist)
    return unmasked(fn.base_dist).to_event(fn.reinterpreted_batch_ndims) if isinstance(fn, Independent) else fn


def support_of(fn: Any, value: Tensor) -> Any:
    """The support of a distribution; where it states none, as flows may, all numbers of a value's type."""
    try:
        return fn.support
    except (AttributeError, NotImplementedError):
        base = constraints.real if value.is_floating_point() else constraints.integer
        return constraints.independent(base, fn.event_dim) if fn.event_dim else base


def in_support(fn: Any, value: Tensor) -> Callable[[Tensor], bool] | None:
    """A test of whether values are in the support of a distribution that gave one; None where any number is.

    A relaxed value of a discrete site is in its support where the nearest whole numbers are; one of vectors always is.
    """
    support = support_of(fn, value)
    if elementwise(support) is constraints.real:
        return None

    def test(other: Tensor) -> bool:
        relaxed = support.is_discrete and other.is_floating_point()
        if relaxed and elementwise(support).event_dim:
            return True
        try:
            return bool(support.check(other.round() if relaxed else other).all())
        except (NotImplementedError, RuntimeError):
            return True

    return test


def elementwise(support: Any) -> Any:
    """A constraint without reinterpreted dims."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def dtype_of(*programs: Any) -> torch.dtype:
    """The floating-point type of programs: that of their first parameter, else torch's default."""
    modules = (program for program in programs if isinstance(program, nn.Module))
    found = (p.dtype for module in modules for p in module.parameters() if p.is_floating_point())
    return next(found, torch.get_default_dtype())


def to_tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    """An array as a tensor, in shared memory where that can be: real numbers in this type, all others in their own."""
    if array.dtype.itemsize > 8 and array.dtype.kind == "f":
        array = array.astype(np.float64)
    elif array.dtype.itemsize > 1 and array.dtype.kind == "u":
        array = array.astype(np.int64)
    with warnings.catch_warnings():  # of an array that is not to be written to, which nobody does here
        warnings.simplefilter("ignore", UserWarning)
        found = torch.from_numpy(np.ascontiguousarray(array))
    return found.to(dtype) if found.is_floating_point() else found


def check_dense(asks: str, value: Any) -> None:
    """Raise TypeError for a sparse tensor; `asks` is what the message starts with."""
    if isinstance(value, Tensor) and value.layout is not torch.strided:
        raise TypeError(f"{asks}: found a sparse tensor, want every value; try x.to_dense()")


def as_tensors(args: Sequence[Any], asks: str, model: Any, device: Any = None) -> tuple[Any, ...]:
    """The arguments of a model, arrays and data frames among them as tensors; `asks` is what an error starts with."""
    dtype, found = dtype_of(model), []
    for arg in args:
        check_dense(asks, arg)
        array = None if isinstance(arg, Tensor) else example_array(arg, asks)
        found.append(arg if array is None else to_tensor(array, dtype).to(device))
    return tuple(found)


def to_numpy(value: Any) -> np.ndarray | None:
    """A tensor as an array, None for what holds no numbers that can be read."""
    if not isinstance(value, Tensor) or value.is_meta:
        return None
    value = value.detach()
    try:
        return (value.float() if value.dtype in (torch.bfloat16, torch.half) else value).cpu().numpy()
    except (RuntimeError, TypeError):  # a tensor that is being traced, or of a subclass
        return None
