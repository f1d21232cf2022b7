"""`refined`: a NumPyro guide whose draws go on by Hamiltonian steps, as `RefinedDraw`s; `Going`: for an evaluation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpyro
from jax import Array
from numpyro import distributions as dist, handlers

from .hamiltonian import Chain, defaults
from .numpyro import Noised, of_events, total_weight
from .structure import refuse_scoring


class RefinedDraw(dist.Distribution):
    """See `noise.pyro_refined.RefinedDraw`."""

    arg_constraints: ClassVar[dict] = {}
    pytree_data_fields = ("fn", "value", "change", "intermediates")

    def __init__(self, fn: Any, value: Array, change: Array, intermediates: list[Any]) -> None:
        self.fn, self.value, self.change, self.intermediates = fn, value, change, intermediates
        shape = jnp.broadcast_shapes(fn.batch_shape, change.shape)
        super().__init__(shape, fn.event_shape, validate_args=False)

    @property
    def masks_of(self) -> Any:
        """The distribution that has the masks: `programs.numpyro.mask_of`."""
        return self.fn

    @property
    def has_rsample(self) -> bool:
        """Gradients take the path of the draw."""
        return True

    @property
    def support(self) -> Any:
        """That of the guide's distribution."""
        return self.fn.support

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """The draw."""
        return jnp.broadcast_to(self.value, (*sample_shape, *self.value.shape))

    def log_prob(self, value: Array, intermediates: list[Any] | None = None) -> Array:
        """The density at the draw.

        Raises:
            ValueError: another value.
        """
        if value is not self.value:
            refuse_scoring()
        return self.fn.log_prob(value, *([self.intermediates] if self.intermediates else [])) - self.change


def refined(
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    chain: Chain | Callable[[Mapping[str, int]], Chain],
) -> dict[str, Array]:
    """See `noise.pyro_refined.refined`. Parameters are seen by the handlers around in every run."""
    keys = jax.random.split(cast(Array, numpyro.prng_key()), 2)
    draws = [keys[1]]

    def draw() -> dict[str, Array]:
        draws[0], *own = jax.random.split(draws[0], len(look.noise) + 1)
        return {n: jax.random.normal(k, e.shape, e.dtype) for k, (n, e) in zip(own, look.noise.items(), strict=True)}

    look = Noised()
    with handlers.block(hide_fn=lambda msg: msg["type"] not in ("param", "plate")), handlers.seed(rng_seed=keys[0]):
        with look:
            guide(*args, **kwargs)
    chain = chain if isinstance(chain, Chain) else chain(look.events)

    def log_w(noise: Mapping[str, Array]) -> Array:
        with handlers.block(hide_fn=lambda msg: msg["type"] != "param"), handlers.seed(rng_seed=keys[0]):
            return total_weight(model, guide, args, kwargs, Noised(noise, indices=look.indices))

    moved = chain.run(draw, jax.grad(log_w))

    def wrap(name: str, fn: Any, value: Array, intermediates: list[Any]) -> RefinedDraw:
        return RefinedDraw(fn, value, of_events(fn, moved.change[name]), intermediates)

    end = Noised(moved.noise, wrap, look.indices)
    with end:
        guide(*args, **kwargs)
    return end.values


class Going:
    """See `noise.pyro_refined.Going`."""

    def __init__(self, model: Callable, guide: Callable, steps: int) -> None:
        self.model, self.refines, self.chain = model, guide, defaults(steps)

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """Sample the latents given the model's arguments: {site: value}."""
        return refined(self.model, self.refines, args, kwargs, self.chain)
