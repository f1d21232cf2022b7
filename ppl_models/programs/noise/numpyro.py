"""`Noised`: a NumPyro guide whose noise is given; `weights`: the log weight of a pair as a function of it.

See `noise.pyro`. Particles are mapped over by `jax.vmap`, so that no plate is around a guide.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, cast

import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular
from numpyro import distributions as dist, handlers
from numpyro.primitives import Messenger

from ..numpyro import Node, Trace, full_sizes, is_point, layers, nodes_of, unwrapped
from ..pairs import DENSE
from .structure import FAMILIES, check_partial, refused


def noise_shape(fn: Any) -> tuple[int, ...] | None:
    """See `noise.pyro.noise_shape`."""
    found = layers(fn)
    base = found.base
    if hasattr(base, "joint"):
        return noise_shape(base.joint)
    if type(base) is dist.Normal:
        return tuple(found.shape)
    if isinstance(base, dist.LowRankMultivariateNormal):
        n, rank = base.cov_factor.shape[-2:]
        return (*found.shape, n + rank)
    if isinstance(base, dist.MultivariateNormal) or hasattr(base, "of_noise"):
        return (*found.shape, *base.event_shape)
    return None


def of_noise(fn: Any, noise: Array) -> tuple[Array, list[Any]]:
    """The draw that is made of this noise, and the intermediates of its transforms."""
    found = layers(fn)
    base = found.base
    if hasattr(base, "joint"):
        return of_noise(base.joint, noise)
    if hasattr(base, "of_noise"):
        value = base.of_noise(noise)
    elif isinstance(base, dist.LowRankMultivariateNormal):
        low, own = jnp.split(noise, [base.cov_factor.shape[-1]], -1)
        value = base.loc + (base.cov_factor @ low[..., None])[..., 0] + jnp.sqrt(base.cov_diag) * own
    elif isinstance(base, dist.MultivariateNormal):
        value = base.loc + (base.scale_tril @ noise[..., None])[..., 0]
    else:
        value = base.loc + base.scale * noise
    intermediates = []
    for transform in found.transforms:
        before = value
        value, inside = transform.call_with_intermediates(before)
        intermediates.append([before, inside])
    outermost = layers(fn, transforms=False).base
    whole = not found.transforms or len(getattr(outermost, "transforms", ())) == len(found.transforms)
    return value, intermediates if whole else []


def noise_of(fn: Any, value: Array) -> Array | None:
    """See `noise.pyro.noise_of`."""
    found = layers(fn)
    base = found.base
    if hasattr(base, "joint"):
        return noise_of(base.joint, value)
    for transform in reversed(found.transforms):
        value = transform.inv(value)
    if hasattr(base, "noise_of"):
        return base.noise_of(value)
    if isinstance(base, dist.MultivariateNormal):
        delta = (value - base.loc)[..., None]
        tril = jnp.broadcast_to(base.scale_tril, (*delta.shape[:-2], *base.scale_tril.shape[-2:]))
        return solve_triangular(tril, delta, lower=True)[..., 0]
    return (value - base.loc) / base.scale if type(base) is dist.Normal else None


class Noised(Messenger):
    """See `noise.pyro.Noised`."""

    def __init__(
        self,
        noise: Mapping[str, Array] | None = None,
        wrap: Callable[[str, Any, Array, list[Any]], Any] | None = None,
        indices: Mapping[str, Array] | None = None,
    ) -> None:
        super().__init__()
        self.given, self.wrap = noise, wrap
        self.noise, self.indices = dict(noise or {}), dict(indices or {})
        self.values: dict[str, Array] = {}
        self.events: dict[str, int] = {}

    def process_message(self, msg: dict[str, Any]) -> None:
        """Give a latent its value, and a plate its indices."""
        name = msg.get("name", "")
        if msg["type"] == "plate":
            if msg["value"] is None and name in self.indices:
                msg["value"] = self.indices[name]
            return
        if msg["type"] != "sample" or msg["is_observed"] or msg["value"] is not None or is_point(msg["fn"]):
            return
        fn = msg["fn"]
        if self.given is None:
            self.noise[name], self.events[name] = _zeros(name, fn), event_dims(fn)
        value, intermediates = of_noise(fn, self.noise[name])
        if self.wrap is not None:
            msg["fn"], intermediates = self.wrap(name, fn, value, intermediates), []
        msg["value"], msg["intermediates"], self.values[name] = value, intermediates, value

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        """Remember the data that a plate has drawn."""
        if msg["type"] == "plate":
            self.indices[msg["name"]] = msg["value"]


class Inverted(Messenger):
    """See `noise.pyro.Inverted`."""

    def __init__(self, values: Mapping[str, Array]) -> None:
        super().__init__()
        self.values = values
        self.noise: dict[str, Array | None] = {}

    def process_message(self, msg: dict[str, Any]) -> None:
        """Give a latent its value, and find its noise."""
        if msg["type"] == "sample" and msg["name"] in self.values and not msg["is_observed"]:
            msg["value"] = self.values[msg["name"]]
            self.noise[msg["name"]] = noise_of(msg["fn"], msg["value"])


def _zeros(name: str, fn: Any) -> Array:
    shape = noise_shape(fn)
    if shape is None:
        refused(f"the latent {name!r} drawn from a {type(unwrapped(fn)).__name__}", FAMILIES, "another guide for it")
    base = layers(fn).base
    base = layers(getattr(base, "joint", base)).base
    return jnp.zeros(shape, jnp.result_type(base.loc, float))


def of_events(fn: Any, entries: Array) -> Array:
    """Numbers for the entries of a noise, summed to one for each copy of a site."""
    spread = layers(fn).base
    if hasattr(spread, "joint"):
        total, shares = of_events(spread.joint, entries), spread.joint.event_shape[: spread.dims]
        return jnp.broadcast_to((total / prod(shares))[(..., *[None] * spread.dims)], (*total.shape, *shares))
    return entries.sum(tuple(range(-event_dims(fn), 0)))


def event_dims(fn: Any) -> int:
    """How many dims of the noise of a distribution, from the right, are those of one event."""
    fn = getattr(layers(fn).base, "joint", fn)
    return len(noise_shape(fn) or ()) - len(fn.batch_shape)


def weights(
    model: Callable, guide: Callable, args: Sequence[Any], kwargs: Mapping[str, Any], noised: Noised
) -> Iterator[tuple[Node, Trace, Array]]:
    """(site, its trace, its share of log p(x, z) - log q(z | x)) of a run with this noise; see `noise.pyro.weights`."""
    if callable(both := getattr(guide, "traces", None)):
        with noised:
            of_model, of_guide = cast(Any, both)(*args, **kwargs)
    else:
        with handlers.trace() as of_guide, noised:
            guide(*args, **kwargs)
        with handlers.trace() as of_model, handlers.replay(trace=of_guide):
            model(*args, **kwargs)
    p, q = nodes_of(of_model, *DENSE), nodes_of(of_guide, *DENSE)
    sizes = {**full_sizes(of_model), **full_sizes(of_guide)}
    plates = {n: {f.name: (f.size, sizes.get(f.name, f.size)) for f in s["cond_indep_stack"]} for n, s in p.items()}
    check_partial({name: plates[name] for name, site in p.items() if not site["is_observed"]}, plates, q)
    for sign, trace, sites in ((1, of_model, p), (-1, of_guide, q)):
        for site in sites.values():
            more = [site["intermediates"]] if site["intermediates"] else []
            yield site, trace, sign * site["fn"].log_prob(site["value"], *more)


def total_weight(
    model: Callable, guide: Callable, args: Sequence[Any], kwargs: Mapping[str, Any], noised: Noised
) -> Array:
    """The sum of `weights`, over all data."""
    return cast(Array, sum(share.sum() for _, _, share in weights(model, guide, args, kwargs, noised)))
