"""Latents, observed sites and the data plate of a Pyro trace."""

from collections.abc import Mapping
from typing import Any

from pyro.poutine import Trace
from torch import Tensor

PARTICLES = "_particles"


def latents(trace: Trace) -> list[str]:
    """Names of the sites of a trace that were drawn, not observed."""
    return [n for n, node in trace.nodes.items() if node["type"] == "sample" and not node["is_observed"]]


def observations(trace: Trace) -> list[str]:
    """Names of the sites of a trace that were measured: no factors, which draw nothing, nor what is deterministic."""
    sites = {n: node for n, node in trace.nodes.items() if node["type"] == "sample" and node["is_observed"]}
    return [n for n, node in sites.items() if node["value"].numel() and not is_deterministic(node)]


def is_deterministic(node: Mapping[str, Any]) -> bool:
    """Whether a node is a `pyro.deterministic`: it has a value, but no density."""
    return bool(node["infer"].get("_deterministic"))


def data_plate(trace: Trace, first: Any = None) -> Any:
    """The plate that enumerates the data, or None: then nothing is local to a datum.

    It is around every observed site that is in a plate at all, and its size (or full size, if it subsamples) is the
    number of rows of the first argument. Of several such plates it is the one named "data", else the one along which an
    observed value steps through the rows of that argument, else the one that holds most latents. Where the rows are
    unknown or no plate has their number, it is the plate named "data" or the only one there is; of others one cannot
    know, and none is taken.

    Args:
        trace: of the model.
        first: the first argument of the run, None where it is unknown.
    """
    stacks = [stack for name in observations(trace) if (stack := _stack(trace.nodes[name]))]
    common = [f for f in stacks[0].values() if all(f.name in stack for stack in stacks)] if stacks else []
    rows = len(first) if hasattr(first, "__len__") and getattr(first, "ndim", 1) else None
    found = [f for f in common if rows is not None and rows in (f.size, f.full_size)]
    if not found:
        found = [f for f in common if f.name == "data" or len(common) == 1]
    if len(found) < 2:
        return next(iter(found), None)
    held = [set(_stack(trace.nodes[name])) for name in latents(trace)]

    def rank(f: Any) -> tuple[bool, bool, int, int]:
        return f.name == "data", _steps(trace, f, first), sum(f.name in h for h in held), -f.dim

    return max(found, key=rank)


def is_local(node: Mapping[str, Any], plate: Any) -> bool:
    """Whether a node has a value for each datum: it is in the plate of `data_plate`, if there is one."""
    return plate is not None and plate.name in [f.name for f in node["cond_indep_stack"]]


def _steps(trace: Trace, frame: Any, first: Any) -> bool:
    """Whether a value observed in this plate is a view of `first` whose rows lie along the dim of the plate."""
    if not isinstance(first, Tensor):
        return False
    for node in (trace.nodes[name] for name in observations(trace)):
        value, dim = node["value"], frame.dim - node["fn"].event_dim
        same = value.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if same and value.dim() >= -dim and value.stride(dim) == first.stride(0):
            return True
    return False


def _stack(node: Mapping[str, Any]) -> dict[str, Any]:
    return {f.name: f for f in node["cond_indep_stack"] if f.vectorized and f.name != PARTICLES}
