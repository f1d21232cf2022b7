"""`refined`: a Pyro guide whose draws go on by Hamiltonian steps, as `RefinedDraw`s; `Going`: for an evaluation."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any, ClassVar

import torch
from pyro import distributions as dist, poutine
from pyro.poutine import Trace
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.util import site_is_subsample
from torch import Size, Tensor

from .hamiltonian import Chain, Moved, defaults
from .pyro import Ended, Noised, of_events, total_weight
from .structure import refuse_scoring


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
            refuse_scoring()
        return self.fn.log_prob(value) - self.change


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
    with suppress(Ended), poutine.block(hide_fn=lambda msg: not site_is_subsample(msg)), look:
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

    def wrap(name: str, fn: Any, value: Tensor) -> RefinedDraw:
        return RefinedDraw(fn, value, of_events(fn, moved.change[name]))

    end = Noised(moved.noise, wrap, look.indices, last)

    def hidden(msg: Any) -> bool:  # the rest of a model that the guide runs, and what was seen already
        return site_is_subsample(msg) or (messenger and msg["type"] == "sample" and msg["is_observed"])

    with suppress(Ended), poutine.block(hide_fn=hidden), end:
        guide(*args, **kwargs)
    if messenger:
        guide.trace = Trace()  # else it keeps the graph of the run
    return end.values


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
