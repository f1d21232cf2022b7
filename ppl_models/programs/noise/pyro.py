"""`refined`: a Pyro guide whose draws go on by Hamiltonian steps; `Noised`: a program whose noise is given.

Of every latent that a guide draws, the noise is the standard normal one inside its distribution: z = f(loc + scale e).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from math import prod
from typing import Any, ClassVar

import torch
from pyro import distributions as dist, poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.util import site_is_subsample
from torch import Size, Tensor

from ..pairs import DENSE
from ..pyro import is_point, layers, nodes_of, unwrapped
from .hamiltonian import Chain, Moved, defaults
from .structure import FAMILIES, check_partial, refused


def noise_shape(fn: Any) -> Size | None:
    """The shape of the noise that a draw is made of, (*batch, *entries); None where it is none that is known here."""
    found = layers(fn)
    if hasattr(found.base, "joint"):  # spread over its batch (`guides.parts.families.Spread`)
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


class RefinedDraw(dist.TorchDistribution):
    """What a refined draw is from, of whose density the draw itself alone is known.

        log q(z) = log q(z_K | ...) of the guide at the end of the chain - what the chain has changed

    Args:
        fn: the guide's distribution, given the other latents at the end of the chain.
        value: the draw.
        change: of the noise of this site (`Moved`), summed over the entries of an event.
    """

    arg_constraints: ClassVar[dict] = {}
    has_rsample = True

    def __init__(self, fn: Any, value: Tensor, change: Tensor) -> None:
        self.fn, self.value, self.change = fn, value, change
        self.masks_of = fn  # `programs.pyro.mask_of`
        shape = torch.broadcast_shapes(fn.batch_shape, change.shape)
        super().__init__(shape, fn.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """That of the guide's distribution."""
        return self.fn.support

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The draw, whose path its gradients take."""
        return self.value.expand(torch.Size(sample_shape) + self.value.shape)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "RefinedDraw":
        """Itself over its own batch, which has the particles and plates of the run already."""
        if Size(batch_shape) != self.batch_shape:
            raise NotImplementedError(f"a refined draw of batch {tuple(self.batch_shape)} cannot be expanded")
        return self

    def log_prob(self, value: Tensor) -> Tensor:
        """The density at the draw, with which the log weight of the pair is that of the chain.

        Raises:
            ValueError: another value.
        """
        if value is not self.value:
            refused(
                "a refined guide where densities of other values than its draw are asked for",
                "a guide whose density is known",
                "the guide that it refines, its attribute `refines`",
                "log q",
            )
        return self.fn.log_prob(value) - self.change


class Noised(Messenger):
    """Latents are what given noise makes of their distributions. It goes right around a guide.

    With a `change` they are `RefinedDraw`s.

    Args:
        noise: site -> noise; None to find out which there is, all zeros, in the plates around the guide, too.
        change: site -> that of `Moved`.
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
        change: Mapping[str, Tensor] | None = None,
        indices: Mapping[str, Tensor] | None = None,
        last: str = "",
    ) -> None:
        super().__init__()
        self.given, self.change, self.last = noise, change, last
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
        if self.change is not None:
            msg["fn"] = RefinedDraw(fn, value, of_events(fn, self.change[name]))
        msg["value"], msg["done"], self.values[name] = value, True, value

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            self.indices[msg["name"]] = msg["value"]
        elif not msg["is_observed"]:
            self.latents.append(msg["name"])
            if msg["name"] == self.last:
                raise _Ended

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


class Going:
    """A guide whose draws go on by a chain in which nothing is learned, for an evaluation.

    Args:
        model, guide: the pair.
        steps: of the chain.
    """

    def __init__(self, model: Callable, guide: Callable, steps: int) -> None:
        self.model, self.refines, self.chain = model, guide, defaults(steps)

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample the latents given the model's arguments: {site: value}."""
        with getattr(self.refines, "reading_once", nullcontext)():
            return refined(self.model, self.refines, args, kwargs, self.chain)


class _Ended(BaseException):
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


def refined(
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    chain: Chain | Callable[[Mapping[str, int]], Chain],
) -> dict[str, Tensor]:
    """Run a guide whose draws go on by a chain: {site: value}, its sites `RefinedDraw`s.

    Its sites are seen around, as those of the guide would be, and nothing else is. Each force runs guide and model.

    Args:
        model, guide: the pair; the guide draws all latents of the model.
        args, kwargs: of both.
        chain: the chain, or what makes one once the guide has run; it is given `Noised.events`.

    Raises:
        ValueError: a latent that is not made of Gaussian noise, or that the guide does not draw; one outside of a plate
            that draws some of the data: the steps would follow these alone.
    """
    messenger = isinstance(guide, GuideMessenger)
    known = [*getattr(getattr(guide, "layout", None), "latents", ())] if messenger else []
    look = Noised(last=known[-1] if known else "")
    with suppress(_Ended), poutine.block(hide_fn=lambda msg: not site_is_subsample(msg)), look:
        guide(*args, **kwargs)
    chain = chain if isinstance(chain, Chain) else chain(look.events)

    def draw() -> dict[str, Tensor]:
        return {n: torch.randn(e.shape, dtype=e.dtype, device=e.device) for n, e in look.noise.items()}

    def slopes(noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        learning = torch.is_grad_enabled()
        with torch.enable_grad():
            # leaves where nothing is learned by what came before
            at = {n: e if learning and e.requires_grad else e.detach().requires_grad_() for n, e in noise.items()}
            log_w = total_weight(model, guide, args, kwargs, Noised(at, indices=look.indices))
            found = torch.autograd.grad(
                log_w, [*at.values()], create_graph=learning, allow_unused=True, materialize_grads=True
            )
        return dict(zip(at, found, strict=True))

    moved: Moved = chain.run(draw, slopes)
    last = look.latents[-1] if messenger and look.latents else ""
    end = Noised(moved.noise, moved.change, look.indices, last)

    def hidden(msg: Any) -> bool:  # the rest of a model that the guide runs, and what was seen already
        return site_is_subsample(msg) or (messenger and msg["type"] == "sample" and msg["is_observed"])

    with suppress(_Ended), poutine.block(hide_fn=hidden), end:
        guide(*args, **kwargs)
    if messenger:
        guide.trace = Trace()  # else it keeps the graph of the run
    return end.values


def total_weight(
    model: Callable, guide: Callable, args: Sequence[Any], kwargs: Mapping[str, Any], noised: Noised
) -> Tensor:
    """log p(x, z) - log q(z | x) of a run with this noise, summed over all its data and particles; scales left out."""
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
    total: Any = 0.0
    for name, node in p.items():
        own, value, drawn = node["fn"], node["value"], q.get(name)
        if drawn is None or node["mask"] is not None or drawn["mask"] is not None:
            total = total + _summed(node) - (0.0 if drawn is None else _summed(drawn))
            continue
        given = drawn["fn"]
        while type(own) is type(given) is dist.TransformedDistribution and own.transforms == given.transforms:
            for transform in reversed(own.transforms):  # shared: it changes both densities alike
                value = transform.inv(value)
            own, given = own.base_dist, given.base_dist
        total = total + own.log_prob(value).sum() - given.log_prob(value).sum()
    return total - sum(_summed(node) for name, node in q.items() if name not in p)


def _summed(node: Mapping[str, Any]) -> Tensor:
    density = node["fn"].log_prob(node["value"])
    return (density if node["mask"] is None else scale_and_mask(density, mask=node["mask"])).sum()
