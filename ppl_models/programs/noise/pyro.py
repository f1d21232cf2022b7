"""`Noised`: a Pyro guide whose noise is given; `weights`: the log weight of a pair as a function of that noise.

Of every latent that a guide draws, the noise is the standard normal one inside its distribution: z = f(loc + scale e).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, cast

import torch
from pyro import distributions as dist, poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.util import site_is_subsample
from torch import Size, Tensor

from ..pairs import DENSE
from ..pyro import Node, is_point, layers, nodes_of, unwrapped
from .structure import FAMILIES, check_partial, refused


def noise_shape(fn: Any) -> Size | None:
    """The shape of the noise that a draw is made of, (*batch, *entries); None where it is none that is known here."""
    found = layers(fn)
    if hasattr(found.base, "joint"):  # spread over its batch (`guides.parts.families.continuous.Spread`)
        return noise_shape(found.base.joint)
    if type(found.base) in (dist.Normal, torch.distributions.Normal):
        return Size(found.shape)
    if isinstance(found.base, torch.distributions.LowRankMultivariateNormal):
        n, rank = found.base._unbroadcasted_cov_factor.shape[-2:]
        return Size((*found.shape, n + rank))
    if isinstance(found.base, torch.distributions.MultivariateNormal) or hasattr(found.base, "of_noise"):
        return Size((*found.shape, *found.base.event_shape))
    return None


def of_noise(fn: Any, noise: Tensor) -> Tensor:
    """The draw that is made of this noise, which may have more dims on the left than the distribution."""
    found = layers(fn)
    base = found.base
    if hasattr(base, "joint"):
        return of_noise(base.joint, noise)
    if hasattr(base, "of_noise"):
        value = base.of_noise(noise)
    elif isinstance(base, torch.distributions.LowRankMultivariateNormal):
        factor, diagonal = base._unbroadcasted_cov_factor, base._unbroadcasted_cov_diag
        low, own = noise.split([factor.shape[-1], factor.shape[-2]], -1)
        value = base.loc + (factor @ low.unsqueeze(-1)).squeeze(-1) + diagonal.sqrt() * own
    elif isinstance(base, torch.distributions.MultivariateNormal):
        value = base.loc + (base._unbroadcasted_scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
    else:
        value = base.loc + base.scale * noise
    for transform in found.transforms:
        value = transform(value)
    return value


def noise_of(fn: Any, value: Tensor) -> Tensor | None:
    """The noise that a value is made of; None where more than one makes it, or none is known."""
    found = layers(fn)
    base = found.base
    if hasattr(base, "joint"):
        return noise_of(base.joint, value)
    for transform in reversed(found.transforms):
        value = transform.inv(value)
    if hasattr(base, "noise_of"):
        return base.noise_of(value)
    if isinstance(base, torch.distributions.MultivariateNormal):
        delta = (value - base.loc).unsqueeze(-1)
        return torch.linalg.solve_triangular(base._unbroadcasted_scale_tril, delta, upper=False).squeeze(-1)
    known = type(base) in (dist.Normal, torch.distributions.Normal)
    return (value - base.loc) / base.scale if known else None


class Noised(Messenger):
    """Latents are what given noise makes of their distributions. It goes right around a guide.

    Args:
        noise: site -> noise; None to find out which there is, all zeros, in the plates around the guide, too.
        wrap: gives what the site is to be drawn from, of its name, its distribution and its value.
        indices: plate -> the data that it has drawn.
        last: the last latent of the run, which then ends there; "" to go on.

    Attributes:
        noise, indices: site -> noise, plate -> indices, as they were found.
        values: site -> value.
        events: site -> how many dims of its noise, from the right, are those of one event.
        latents: the names of all latents, in order.
    """

    def __init__(
        self,
        noise: Mapping[str, Tensor] | None = None,
        wrap: Callable[[str, Any, Tensor], Any] | None = None,
        indices: Mapping[str, Tensor] | None = None,
        last: str = "",
    ) -> None:
        super().__init__()
        self.given, self.wrap, self.last = noise, wrap, last
        self.noise, self.indices = dict(noise or {}), dict(indices or {})
        self.values: dict[str, Tensor] = {}
        self.events: dict[str, int] = {}
        self.latents: list[str] = []

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if site_is_subsample(msg):
            if msg["value"] is None and name in self.indices:
                msg["value"], msg["done"] = self.indices[name], True
            return
        if msg["is_observed"] or msg["value"] is not None or is_point(msg["fn"]):
            return
        if self.given is None:
            self._in_plates(msg)
            self.noise[name] = self._zeros(name, msg["fn"])
            self.events[name] = event_dims(msg["fn"])
        fn = msg["fn"]
        value = of_noise(fn, self.noise[name])
        if self.wrap is not None:
            msg["fn"] = self.wrap(name, fn, value)
        msg["value"], msg["done"], self.values[name] = value, True, value

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            self.indices[msg["name"]] = msg["value"]
        elif not msg["is_observed"]:
            self.latents.append(msg["name"])
            if msg["name"] == self.last:
                raise Ended

    def _in_plates(self, msg: Any) -> None:
        """Bring a site into the plates around the guide, which see nothing of this run."""
        below = _PYRO_STACK[: _PYRO_STACK.index(self) - 1]  # less the handler that hides it
        for handler in reversed(below):
            if isinstance(handler, BlockMessenger) and handler.hide_fn(msg):
                break
            if isinstance(handler, IndepMessenger):
                handler._process_message(msg)

    def _zeros(self, name: str, fn: Any) -> Tensor:
        shape = noise_shape(fn)
        if shape is None:
            family = type(unwrapped(fn)).__name__
            refused(f"the latent {name!r} drawn from a {family}", FAMILIES, "another guide for it")
        base = layers(fn).base
        loc = getattr(base, "joint", base)
        loc = layers(loc).base.loc
        return torch.zeros(shape, dtype=loc.dtype, device=loc.device)


class Inverted(Messenger):
    """Latents are at values; keeps the noise that makes these of their distributions. It goes right around a guide.

    Args:
        values: latent -> value.

    Attributes:
        noise: latent -> its noise, None where that is not to be had (`noise_of`).
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values
        self.noise: dict[str, Tensor | None] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["value"], msg["done"] = self.values[msg["name"]], True
            self.noise[msg["name"]] = noise_of(msg["fn"], msg["value"])


class Ended(BaseException):
    """The last latent is drawn. Not an Exception, so that no program catches it."""


def of_events(fn: Any, entries: Tensor) -> Tensor:
    """Numbers for the entries of a noise, summed to one for each copy of a site."""
    spread = layers(fn).base
    if hasattr(spread, "joint"):
        total, shares = of_events(spread.joint, entries), spread.joint.event_shape[: spread.dims]
        return (total / prod(shares))[(..., *[None] * spread.dims)].expand(*total.shape, *shares)
    dims = event_dims(fn)
    return entries.flatten(-dims).sum(-1) if dims else entries


def event_dims(fn: Any) -> int:
    """How many dims of the noise of a distribution, from the right, are those of one event."""
    fn = getattr(layers(fn).base, "joint", fn)
    return len(noise_shape(fn) or ()) - len(fn.batch_shape)


def weights(
    model: Callable, guide: Callable, args: Sequence[Any], kwargs: Mapping[str, Any], noised: Noised
) -> Iterator[tuple[Node, Tensor]]:
    """(site, its share of log p(x, z) - log q(z | x)) of a run with this noise, a number for each copy; no scales."""
    with poutine.block():
        if isinstance(guide, GuideMessenger):
            with noised:
                guide(*args, **kwargs)
            of_model, of_guide = guide.get_traces()
        else:
            with poutine.trace() as first, noised:
                guide(*args, **kwargs)
            with poutine.trace() as second, poutine.replay(trace=first.trace):
                model(*args, **kwargs)
            of_model, of_guide = second.trace, first.trace
    p, q = nodes_of(of_model, *DENSE), nodes_of(of_guide, *DENSE)
    plates = {n: {f.name: (f.size, f.full_size or f.size) for f in s["cond_indep_stack"]} for n, s in p.items()}
    check_partial({name: plates[name] for name, node in p.items() if not node["is_observed"]}, plates, q)
    for name, node in p.items():
        own, value, drawn = node["fn"], node["value"], q.get(name)
        if drawn is None or node["mask"] is not None or drawn["mask"] is not None:
            yield node, _density(node)
            if drawn is not None:
                yield drawn, -_density(drawn)
            continue
        given = drawn["fn"]
        while type(own) is type(given) is dist.TransformedDistribution and own.transforms == given.transforms:
            for transform in reversed(own.transforms):  # shared: it changes both densities alike
                value = transform.inv(value)
            own, given = own.base_dist, given.base_dist
        for sign, fn, whole in ((1, own, node), (-1, given, drawn)):
            density = sign * fn.log_prob(value)
            inside = len(fn.batch_shape) - len(whole["fn"].batch_shape)
            yield whole, density.flatten(-inside).sum(-1) if inside > 0 else density
    for name, node in q.items():
        if name not in p:
            yield node, -_density(node)


def total_weight(
    model: Callable, guide: Callable, args: Sequence[Any], kwargs: Mapping[str, Any], noised: Noised
) -> Tensor:
    """The sum of `weights`, over all data and particles."""
    return cast(Tensor, sum(share.sum() for _, share in weights(model, guide, args, kwargs, noised)))


def _density(node: Node) -> Tensor:
    density = node["fn"].log_prob(node["value"])
    return density if node["mask"] is None else scale_and_mask(density, mask=node["mask"])
