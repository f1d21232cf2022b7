"""`Target`: log w of a Pyro pair on some rows, as a function of the noise of chains, and their transitions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ppl_models.programs.noise.pyro import Inverted, Noised, of_events, weights
from ppl_models.programs.pairs import Pair
from ppl_models.programs.plates import is_local
from ppl_models.programs.pyro import PARTICLES, frame_of, layers

from ...evaluation.annealing.pairs import refuse_inverse
from ...evaluation.annealing.transitions import State, transition
from ..sites.divergences import per_datum


class Target:
    """log w(e) of a pair on some rows; see `transitions.Target`."""

    def __init__(
        self,
        model: Callable,
        guide: Callable,
        args: Sequence[Any],
        pair: Pair,
        chains: int,
        leapfrogs: int,
        whole: bool,
    ) -> None:
        self.model, self.guide, self.args, self.whole, self.leapfrogs = model, guide, args, whole, leapfrogs
        self.plate, self.particle_dim, self.batch_dims = pair.plate, -1 - pair.nesting, pair.nesting + 1
        self.data_dim = None if pair.data is None else pair.data.dim
        self.fns = {name: site.fn for name, site in pair.guide.latents.items()}
        self.local = {name: is_local(site, pair.data) for name, site in pair.guide.latents.items()}
        self.rows = chains, 1 if whole else len(args[0])
        look = Noised()
        with pyro.plate(PARTICLES, chains, dim=self.particle_dim), poutine.block(), look:
            guide(*args)
        self.like = look.noise

    def draw(self) -> dict[str, Tensor]:
        """Standard normal noise of all sites."""
        return {name: torch.randn_like(e) for name, e in self.like.items()}

    def start(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The noise of these latents, the same in all chains."""
        found = Inverted(latents)
        with poutine.block(), found:
            self.guide(*self.args)
        for name, noise in found.noise.items():
            if noise is None:
                refuse_inverse(name, type(layers(self.fns[name]).base).__name__)
        return {name: found.noise[name].expand(e.shape) for name, e in self.like.items()}

    def weigh(self, noise: State) -> Tensor:
        """log w of each row."""
        total = 0.0
        for node, share in weights(self.model, self.guide, self.args, {}, Noised(noise)):
            total = total + self._per_row(share, frame_of(node, self.plate) is not None)
        return total.expand(self.rows)

    def slopes(self, noise: State) -> dict[str, Tensor]:
        """d log w / d e."""
        with torch.enable_grad():
            at = {name: e.detach().requires_grad_() for name, e in noise.items()}
            total = self.weigh(at).sum()
            found = torch.autograd.grad(total, [*at.values()], allow_unused=True, materialize_grads=True)
        return dict(zip(at, found, strict=True))

    def summed(self, entries: State) -> Tensor:
        """Numbers for entries, summed to one for each row."""
        found = (self._per_row(of_events(self.fns[n], e), self.local[n]) for n, e in entries.items())
        return sum(found).expand(self.rows)

    def spread(self, name: str, rows: Tensor) -> Tensor:
        """Numbers for rows, in a shape that goes with the noise of a site."""
        shape = [1] * self.batch_dims
        shape[0] = self.rows[0]
        if not self.whole:
            shape[self.data_dim] = self.rows[1]
        shape = shape[: self.batch_dims - _spread_dims(self.fns[name])]
        return rows.reshape(*shape, *[1] * (self.like[name].dim() - len(shape)))

    def repeat(self, steps: int, function: Callable[[Any], Any], state: Any) -> Any:
        """The state after so many calls of a function."""
        for _ in range(steps):
            state = function(state)
        return state

    def move(self, noise: State, log_w: Tensor, power: float, size: float) -> tuple[State, Tensor, Tensor]:
        """A transition."""
        log_u = torch.rand_like(log_w).log()
        return transition(self, noise, log_w, float(power), size, self.leapfrogs, self.draw(), log_u)

    def _per_row(self, values: Tensor, local: bool) -> Tensor:
        found = per_datum(values, self.data_dim if local else None, self.particle_dim)
        return found.sum(1, keepdim=True) if self.whole else found


def _spread_dims(fn: Any) -> int:
    """How many batch dims of a draw are event dims of a joint density of all of them."""
    base = layers(fn).base
    return base.dims if hasattr(base, "joint") else 0


def joint(pair: Pair) -> bool:
    """Whether data share a latent's noise: then no row is a chain of its own."""
    return pair.data is not None and any(_spread_dims(s.fn) >= -pair.data.dim for s in pair.guide.latents.values())
