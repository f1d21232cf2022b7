"""`Expectation`: the exact mean of log densities over the states of discrete sites that a guide enumerates."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.primitives import Messenger

from ppl_models.programs.numpyro import Trace, nodes_of, unmasked

from ...objectives.states import refuse_copies
from .divergences import log_density

FIRST = -12  # the dim of the first site's states, left of all plates


class AllStates(Messenger):
    """See `ppl_models.inference.pyro.passes.expectation.AllStates`."""

    def __init__(self) -> None:
        super().__init__()
        self.next = FIRST

    def process_message(self, msg: Any) -> None:
        """Give a site that is marked all of its states."""
        if msg["type"] != "sample" or msg["value"] is not None or not msg["infer"].get("enumerate"):
            return
        fn = msg["fn"]
        if not fn.has_enumerate_support:
            return
        states = fn.enumerate_support(expand=False)
        msg["value"] = states.reshape(len(states), *[1] * (-self.next - 1), *states.shape[states.ndim - fn.event_dim :])
        msg["infer"] = {**msg["infer"], "_enumerate_dim": self.next}
        self.next -= 1


class States(NamedTuple):
    """See `ppl_models.inference.pyro.passes.expectation.States`."""

    name: str
    dim: int
    masses: Array
    plates: frozenset[str]


class Expectation:
    """See `ppl_models.inference.pyro.passes.expectation.Expectation`."""

    def __init__(self, sites: Sequence[States]) -> None:
        self.sites = sites

    @classmethod
    def of(cls, guide_trace: Trace, drawn: Mapping[str, Array] | None = None) -> Self:
        """That of the sites whose states an `AllStates` gave; see the other language's for `drawn`."""
        found = []
        for name, node in nodes_of(guide_trace, "latent").items():
            dim = node["infer"].get("_enumerate_dim")
            if dim is None:
                continue
            value, fn = node["value"], node["fn"]
            if drawn is None:
                masses = jnp.exp(log_density({**node, "fn": unmasked(fn)}))
            else:
                masses = (value == drawn[name]).all(tuple(range(-fn.event_dim, 0))).astype(jnp.result_type(float))
            found.append(States(name, dim, masses, _plates(node)))
        return cls(found)

    @property
    def names(self) -> frozenset[str]:
        """Those of the sites."""
        return frozenset(site.name for site in self.sites)

    def mean(self, value: Array, node: Mapping[str, Any], events: int = 0) -> Array:
        """See `ppl_models.inference.pyro.passes.expectation.Expectation.mean`."""
        for site in reversed(self.sites):
            dim = site.dim - events
            if value.ndim < -dim or value.shape[dim] == 1:  # its masses sum to one
                continue
            outside = site.plates - _plates(node)
            if outside:
                refuse_copies(node["name"], site.name, min(outside))
            masses = site.masses.reshape(*site.masses.shape, *[1] * events)
            value = (jnp.where(masses > 0, value, 0.0) * masses).sum(dim, keepdims=True)  # 0 log 0 = 0
        return value


def broadcasts(
    alone: tuple[Trace, Trace],
    run: Callable[[Mapping[str, Array]], tuple[Trace, Trace]],
    density: Callable[[Trace, Trace, Expectation], Mapping[str, Array]],
) -> str | None:
    """See `ppl_models.inference.pyro.passes.particles.broadcasts`.

    Args:
        alone: traces of a model and a guide with draws.
        run: gives their traces with all states, and the other latents at these values.
        density: of two such traces, by name.
    """
    try:
        nodes = nodes_of(alone[1], "latent")
        drawn = {name: node["value"] for name, node in nodes.items()}
        both = run({name: drawn[name] for name, node in nodes.items() if not node["infer"].get("enumerate")})
        many, few = density(*both, Expectation.of(both[1], drawn)), density(*alone, Expectation([]))
        for name, value in few.items():
            want = jax.device_get(value)
            if many[name].shape not in ((1,), want.shape) or not jnp.allclose(
                many[name], want, rtol=1e-3, atol=1e-3, equal_nan=True
            ):
                return f"site {name.split()[-1]!r} has another density when states are side by side"
    except Exception as error:  # noqa: BLE001 (whatever a program does with a dimension that it does not expect)
        return f"the programs do not take their dims ({str(error).splitlines()[0][:120]})"
    return None


def _plates(node: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(f.name for f in node["cond_indep_stack"] if f.dim is not None and f.size != 1)
