"""What is drawn and observed in a trace of a NumPyro model, and which of its plates enumerates the data."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

Trace = Mapping[str, Mapping[str, Any]]


class Plate(NamedTuple):
    """A plate as a site sees it: how much of it there is in a pass, and how much there is in all."""

    name: str
    dim: int
    size: int
    full_size: int


def latents(trace: Trace) -> list[str]:
    """Names of the sites of a trace that were drawn, not observed."""
    return [name for name, site in trace.items() if site["type"] == "sample" and not site["is_observed"]]


def observations(trace: Trace) -> list[str]:
    """Names of the sites of a trace that were measured: no factors, which draw nothing."""
    observed = {name: site for name, site in trace.items() if site["type"] == "sample" and site["is_observed"]}
    return [name for name, site in observed.items() if jnp.size(site["value"])]


def subsampled(trace: Trace) -> list[Plate]:
    """The plates around the sites of a trace that drew some of their elements only."""
    stacks = [_stack(trace, site) for site in trace.values() if site["type"] == "sample"]
    return [plate for stack in stacks for plate in stack.values() if plate.size != plate.full_size]


def data_plate(trace: Trace, first: Any = None) -> Plate | None:
    """The plate that enumerates the data, or None: then nothing is local to a datum.

    See `ppl_models.parts.plates.data_plate`. Of several plates of that many rows it is the one named "data", else the
    one along which an observed value of the shape of the first argument has its rows, else the one that holds most
    latents.

    Args:
        trace: of the model.
        first: the first argument of the run, None where it is unknown.
    """
    stacks = [stack for name in observations(trace) if (stack := _stack(trace, trace[name]))]
    common = [plate for plate in stacks[0].values() if all(plate.name in s for s in stacks)] if stacks else []
    rows = jnp.shape(first)[0] if first is not None and jnp.ndim(first) else None
    found = [plate for plate in common if rows is not None and rows in (plate.size, plate.full_size)]
    if not found:
        found = [plate for plate in common if plate.name == "data" or len(common) == 1]
    if len(found) < 2:
        return next(iter(found), None)
    held = [_stack(trace, trace[name]) for name in latents(trace)]

    def rank(plate: Plate) -> tuple[bool, bool, int, int]:
        return plate.name == "data", _steps(trace, plate, first), sum(plate.name in h for h in held), -plate.dim

    return max(found, key=rank)


def is_local(site: Mapping[str, Any], plate: Plate | None) -> bool:
    """Whether a site is inside this plate."""
    return plate is not None and any(frame.name == plate.name for frame in site["cond_indep_stack"])


def _steps(trace: Trace, plate: Plate, first: Any) -> bool:
    """Whether a value observed in this plate has the shape of `first`, and its first axis along the plate."""
    observed = [trace[name] for name in observations(trace)]
    shapes = [(jnp.shape(site["value"]), plate.dim - site["fn"].event_dim) for site in observed]
    return any(shape == jnp.shape(first) and -dim == len(shape) for shape, dim in shapes)


def _stack(trace: Trace, site: Mapping[str, Any]) -> dict[str, Plate]:
    """The plates around a site by name; of one that was not traced the full size is unknown, and taken for its size."""
    frames = [frame for frame in site["cond_indep_stack"] if frame.dim is not None]
    full = {f.name: trace[f.name]["args"][0] if f.name in trace else f.size for f in frames}
    return {f.name: Plate(f.name, f.dim, f.size, full[f.name]) for f in frames}
