"""The one reader of Pyro's traces: `read(trace)` and `run(program, args)` give a `Run`, `site_of(node)` a `Site`.

Inside a step, where no record is built, the passes ask `nodes_of` and `frame_of` instead.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, cast

import numpy as np
import torch
from pyro import poutine
from pyro.distributions import ExpandedDistribution, MaskedDistribution
from pyro.poutine import Trace
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Distribution, Independent, TransformedDistribution, constraints

from .record import Kind, Layers, Mask, Plate, Run, Site

PARTICLES = "_particles"  # the plate of the draws that a pass makes at once: none of the program's
Node = Mapping[str, Any]


def run(program: Callable, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> Run:
    """Run a program, unseen by handlers around and without gradients, on draws of the global generator.

    Raises:
        ValueError: a site that cannot be drawn.
    """
    with torch.no_grad(), poutine.block(), poutine.trace() as capture:
        try:
            program(*args, **(kwargs or {}))
        except NotImplementedError as error:  # an ImproperUniform
            raise ValueError(f"the model cannot be run: {error}; give the site a proper prior") from error
    return read(capture.trace)


def read(trace: Trace) -> Run:
    """The record of a run that was traced. A trace whose subsample sites are pruned does without these."""
    return Run([site_of(node) for node in trace.nodes.values() if kind_of(node)], to_numpy)


def site_of(node: Node) -> Site:
    """The record of a node of a trace, or of the message of a sample statement that was run."""
    kind, fn, value, infer = cast(Kind, kind_of(node)), node["fn"], node["value"], node["infer"] or {}
    if kind == "subsample":
        return Site(name=node["name"], kind=kind, shape=tuple(value.shape), value=value)
    frames = [f for f in node["cond_indep_stack"] if f.vectorized]
    plates = [Plate(f.name, f.dim, f.size, f.full_size or f.size) for f in frames if f.name != PARTICLES]
    event_dim, bare = fn.event_dim, unwrapped(fn)
    if kind == "deterministic" and event_dim == value.dim():  # what Pyro takes where nothing is said
        event_dim = max(value.dim() - max((-f.dim for f in frames), default=0), 0)
    return Site(
        name=node["name"],
        kind=kind,
        shape=tuple(value.shape),
        event_dim=event_dim,
        plates=tuple(plates),
        family=type(bare).__name__,
        reparametrized=fn.has_rsample,
        auxiliary=bool(infer.get("is_auxiliary")),
        enumerated=infer.get("enumerate") is not None and bare.has_enumerate_support,
        scale=node["scale"],
        mask=mask_of(node),
        value=value,
        fn=fn,
    )


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
    return "observed" if prod(node["value"].shape) else "factor"


def nodes_of(trace: Trace, *kinds: Kind) -> dict[str, Node]:
    """The nodes of a trace of these kinds, by name; for inside a step."""
    return {name: node for name, node in trace.nodes.items() if kind_of(node) in kinds}


def frame_of(node: Node, plate: str | None) -> CondIndepStackFrame | None:
    """The plate of this name around a node (`dim`, `size`, `full_size`), None if there is none; for inside a step."""
    return next((f for f in node["cond_indep_stack"] if f.name == plate and f.vectorized), None)


def layers(fn: Distribution, transforms: bool = True) -> Layers:
    """A distribution without what only wraps it: independent and expanded dims, masks and, if asked for, bijections.

    A transformed distribution with a density of its own (`FoldedDistribution`) is no wrapper.
    """
    found: Any = fn
    shape, events = fn.batch_shape, 0
    through: list[Any] = []
    masks: list[Mask] = []
    while True:
        if isinstance(found, Independent):
            dims, inner = found.reinterpreted_batch_ndims, found.base_dist.batch_shape
            shape, events = shape + inner[len(inner) - dims :], events + dims
        elif isinstance(found, MaskedDistribution):
            masks.append(Mask(found._mask, events, len(through)))
        elif transforms and _only_pushes(found):
            through = [*found.transforms, *through]
        elif not isinstance(found, ExpandedDistribution):
            return Layers(found, shape, events, through, masks)
        found = found.base_dist


def _only_pushes(fn: Distribution) -> bool:
    if not isinstance(fn, TransformedDistribution) or type(fn).log_prob is not TransformedDistribution.log_prob:
        return False
    return all(transform.bijective for transform in fn.transforms)


def unwrapped(fn: Distribution) -> Distribution:
    """A distribution without independent and expanded dims and masks: what gives it its name."""
    return layers(fn, transforms=False).base


def mask_of(node: Node) -> Tensor | bool | None:
    """The entries of a value that count, by the program and by the distribution; None where all do.

    It broadcasts to the value. Beneath transforms an event counts where all of its entries do.
    """
    fn, found = node["fn"], None
    for kept, events, above in [Mask(node["mask"], 0, 0), *layers(fn).masks]:
        if kept is False:
            return False
        if kept is None or kept is True:
            continue
        if above and events:
            kept, events = kept.flatten(-events).all(-1), 0
        kept = kept.reshape(*kept.shape, *(1,) * (fn.event_dim - events))
        found = kept if found is None else found & kept
    return found


def support_of(support: Any) -> Any:
    """A constraint without reinterpreted dims."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def to_numpy(value: Any) -> np.ndarray | None:
    """A tensor as an array, None for what holds no numbers that can be read."""
    if not isinstance(value, Tensor) or value.is_meta:
        return None
    value = value.detach()
    try:
        return (value.float() if value.dtype in (torch.bfloat16, torch.half) else value).cpu().numpy()
    except (RuntimeError, TypeError):  # a tensor that is being traced, or of a subclass
        return None
