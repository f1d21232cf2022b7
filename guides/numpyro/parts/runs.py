"""Runs of a model that nothing else sees, and what they show: sites, plates, and which site is computed from which."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jax import Array
from numpyro.ops.provenance import eval_provenance

from ppl_models.factorization import Factorization

Trace = dict[str, dict[str, Any]]


def run(
    model: Callable,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    seed: Array | int | None = 0,
    plates: bool = False,
) -> Trace:
    """The trace of a run that nothing else sees, but for its `plates`, whose subsamples others may then choose.

    Raises:
        ValueError: a site cannot be drawn.
    """
    block = numpyro.handlers.block(hide_fn=lambda msg: not (plates and msg["type"] == "plate"))
    own = numpyro.handlers.seed(rng_seed=0 if seed is None else seed, hide_types=["plate"] if plates else [])
    with block, own, numpyro.handlers.trace() as trace:
        try:
            model(*args, **kwargs)
        except NotImplementedError as error:  # an ImproperUniform
            raise ValueError(f"the model cannot be run: {error}; give the site a proper prior") from error
    return trace


def sample_nodes(trace: Trace) -> Trace:
    """The sites that draw or observe something (no factors), `sample_shape` among the batch dims of distributions."""
    nodes = {n: node for n, node in trace.items() if node["type"] == "sample" and jnp.size(node["value"])}
    return {n: {**node, "fn": _whole(node)} for n, node in nodes.items()}


def observed_values(trace: Trace) -> dict[str, Array]:
    """What the sites of a trace observe."""
    return {n: jnp.asarray(node["value"]) for n, node in sample_nodes(trace).items() if node["is_observed"]}


def full_sizes(trace: Trace) -> dict[str, int]:
    """The sizes of the plates, of which subsamples may be taken."""
    return {n: node["args"][0] for n, node in trace.items() if node["type"] == "plate"}


def is_enumerated(node: Mapping[str, Any]) -> bool:
    """Whether a site is to be summed over, not drawn."""
    return node["fn"].has_enumerate_support and node["infer"].get("enumerate") is not None


def shape_of(value: Any) -> jax.ShapeDtypeStruct:
    """An array without its numbers."""
    return jax.ShapeDtypeStruct(jnp.shape(value), jnp.result_type(value))


def factorization(
    model: Callable, args: tuple[Any, ...], latent: Mapping[str, Any], observed: Mapping[str, Any]
) -> Factorization:
    """The model's own factorization by provenance; every earlier latent where the model cannot be traced so.

    As `ppl_models.factorization.probing.recover.provenance` finds it, but from shapes alone: nothing is computed.

    Args:
        model, args: the model, and an example.
        latent, observed: the shapes of its sites (`shape_of`) by name, in model order.
    """
    order: list[str] = []

    def log_densities(**values: Array) -> dict[str, Array]:
        """Of each site given all others, factors included: masks and scales count, too."""
        held = numpyro.handlers.substitute(model, data={name[1:]: value for name, value in values.items()})
        sites = {n: node for n, node in run(held, args, {}).items() if node["type"] == "sample"}
        order.extend(sites)
        densities = {n: node["fn"].log_prob(node["value"]) for n, node in sites.items()}
        return {n: d if sites[n]["scale"] is None else d * sites[n]["scale"] for n, d in densities.items()}

    try:
        reached = eval_provenance(log_densities, **{f"_{n}": shape for n, shape in {**latent, **observed}.items()})
    except Exception:  # noqa: BLE001 (a program may do anything with a tracer): more parents are never wrong
        names = tuple(latent)
        everything = {n: names[: names.index(n)] if n in latent else names for n in (*latent, *observed)}
        return Factorization(everything, tuple(observed))
    parents = {n: tuple(u for u in order[:i] if f"_{u}" in reached[n]) for i, n in enumerate(order)}
    return Factorization(parents, tuple(n for n in order if n not in latent))


def _whole(node: Mapping[str, Any]) -> Any:
    extra = tuple(node["kwargs"].get("sample_shape") or ())
    return node["fn"].expand(extra + node["fn"].batch_shape) if extra else node["fn"]
