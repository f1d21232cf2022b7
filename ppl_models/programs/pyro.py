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
from pyro.distributions import MaskedDistribution
from pyro.poutine import Trace
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints

from .arguments import example_array
from .blame import is_users
from .record import Kind, Plate, Run, Site

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
            if is_users(error):
                raise
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


def unwrapped(fn: Distribution) -> Distribution:
    """A distribution without what only wraps it: reinterpreted dims and masks."""
    while isinstance(fn, (Independent, MaskedDistribution)):
        fn = fn.base_dist
    return fn


def mask_of(node: Node) -> Tensor | bool | None:
    """The copies of a site that count, by the program and by the distribution; None where all do."""
    mask, fn = node["mask"], node["fn"]
    while isinstance(fn, MaskedDistribution):
        mask, fn = fn._mask if mask is None else mask & fn._mask, fn.base_dist
    return mask


def support_of(support: Any) -> Any:
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


def as_tensors(args: Sequence[Any], asks: str, model: Any, device: Any = None) -> tuple[Any, ...]:
    """The arguments of a model, arrays and data frames among them as tensors; `asks` is what an error starts with."""
    dtype, found = dtype_of(model), []
    for arg in args:
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
