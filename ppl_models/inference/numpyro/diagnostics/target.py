"""`Target`: log w of a NumPyro pair on some rows, as a function of the noise of chains, and their transitions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from numpyro import handlers

from ppl_models.programs.noise.numpyro import Inverted, Noised, of_events, weights as shares_of
from ppl_models.programs.numpyro import frame_of, layers
from ppl_models.programs.pairs import Pair
from ppl_models.programs.plates import is_local

from ...evaluation.annealing.pairs import refuse_inverse
from ...evaluation.annealing.transitions import State, transition
from ..passes.divergences import per_datum


class Target:
    """log w(e) of a pair on some rows; see `transitions.Target`."""

    def __init__(
        self,
        model: Callable,
        guide: Callable,
        args: Sequence[Array],
        params: Mapping[str, Any],
        pair: Pair,
        chains: int,
        whole: bool,
    ) -> None:
        self.model, self.guide, self.args, self.params, self.whole = model, guide, args, dict(params), whole
        self.plate, self.dim = pair.plate, None if pair.data is None else pair.data.dim
        self.fns = {name: site.fn for name, site in pair.guide.latents.items()}
        self.local = {name: is_local(site, pair.data) for name, site in pair.guide.latents.items()}
        self.rows = chains, 1 if whole else len(args[0])
        look = Noised()
        self._inside(lambda: self._run(look))
        self.like = look.noise

    def _run(self, around: Any) -> None:
        with around:
            self.guide(*self.args)

    def _inside(self, function: Callable[[], Any]) -> Any:
        with handlers.block(), handlers.seed(rng_seed=0), handlers.substitute(data=self.params):
            return function()

    def draw(self, key: Array) -> dict[str, Array]:
        """Standard normal noise of all sites and chains."""
        keys = random.split(key, len(self.like))
        like = zip(keys, self.like.items(), strict=True)
        return {n: random.normal(k, (self.rows[0], *e.shape), e.dtype) for k, (n, e) in like}

    def start(self, latents: Mapping[str, Array]) -> dict[str, Array]:
        """The noise of these latents, the same in all chains."""
        found = Inverted(latents)
        self._inside(lambda: self._run(found))
        for name, noise in found.noise.items():
            if noise is None:
                refuse_inverse(name, type(layers(self.fns[name]).base).__name__)
        return {n: jnp.broadcast_to(found.noise[n], (self.rows[0], *e.shape)) for n, e in self.like.items()}

    def weigh(self, noise: State) -> Array:
        """log w of each row."""
        return jax.vmap(self._weigh)(noise)

    def _weigh(self, noise: State) -> Array:
        def total() -> Array:
            shares = shares_of(self.model, self.guide, self.args, {}, Noised(noise))
            return sum(self._per_row(s, frame_of(node, self.plate, trace) is not None) for node, trace, s in shares)

        return jnp.broadcast_to(self._inside(total), self.rows[1:])

    def slopes(self, noise: State) -> State:
        """d log w / d e."""
        return jax.grad(lambda e: self.weigh(e).sum())(noise)

    def summed(self, entries: State) -> Array:
        """Numbers for entries, summed to one for each row."""

        def one(entries: State) -> Array:
            return sum(self._per_row(of_events(self.fns[n], e), self.local[n]) for n, e in entries.items())

        return jnp.broadcast_to(jax.vmap(one)(entries), self.rows)

    def spread(self, name: str, rows: Array) -> Array:
        """Numbers for rows, in a shape that goes with the noise of a site."""
        noise, inner = self.like[name], _spread_dims(self.fns[name])
        events = noise.ndim - (len(self.fns[name].batch_shape) - inner)
        shape = [1] * noise.ndim
        if not self.whole:
            shape[self.dim + inner - events] = self.rows[1]
        return rows.reshape(self.rows[0], *shape)

    def repeat(self, steps: int, function: Callable[[Any], Any], state: Any) -> Any:
        """The state after so many calls of a function."""
        return jax.lax.fori_loop(0, steps, lambda _, state: function(state), state)

    def move(self, key: Array, noise: State, log_w: Array, power: Array, size: Array, steps: int) -> Any:
        """A transition."""
        keys = random.split(key)
        log_u = jnp.log(random.uniform(keys[0], log_w.shape, log_w.dtype))
        power, size = (jnp.asarray(value, log_w.dtype) for value in (power, size))
        return transition(self, noise, log_w, power, size, steps, self.draw(keys[1]), log_u)

    def _per_row(self, values: Array, local: bool) -> Array:
        found = per_datum(values, self.dim if local else None)
        return found.sum(0, keepdims=True) if self.whole else found


def _spread_dims(fn: Any) -> int:
    """How many batch dims of a draw are event dims of a joint density of all of them."""
    base = layers(fn).base
    return base.dims if hasattr(base, "joint") else 0


def joint(pair: Pair) -> bool:
    """Whether data share a latent's noise: then no row is a chain of its own."""
    return pair.data is not None and any(_spread_dims(s.fn) >= -pair.data.dim for s in pair.guide.latents.values())
