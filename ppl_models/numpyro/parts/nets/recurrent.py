"""Port of `ppl_models.parts.nets.recurrent`: a step of a long short-term memory of several inputs."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid

from .layers import Linear


class LSTM(eqx.Module):
    """Port of `ppl_models.parts.LSTM`; `key` seeds the weights."""

    first: tuple[Linear, ...]
    recurrent: Linear
    beginning: Array

    def __init__(self, inputs: Sequence[int], hidden: int, *, key: Array) -> None:
        own, *keys = jax.random.split(key, len(inputs) + 1)
        self.first = tuple(
            Linear(n, 4 * hidden, i == 0, key=k) for i, (n, k) in enumerate(zip(inputs, keys, strict=True))
        )
        self.recurrent = Linear(hidden, 4 * hidden, bias=False, key=own)
        self.beginning = jnp.zeros(2 * hidden)

    def start(self, *batch: int) -> tuple[Array, Array]:
        """(h, c) before the first step, (*batch, hidden) each."""
        h, c = jnp.split(self.beginning, 2)
        return jnp.broadcast_to(h, (*batch, len(h))), jnp.broadcast_to(c, (*batch, len(c)))

    def __call__(self, state: tuple[Array, Array], *inputs: Array) -> tuple[Array, Array]:
        """(h, c) after a step, from (h, c) before it and (*batch, n_i) each; batches broadcast."""
        h, c = state
        gates = self.recurrent(h)
        for layer, x in zip(self.first, inputs, strict=True):
            gates = gates + layer(x)
        i, f, g, o = jnp.split(gates, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        return sigmoid(o) * jnp.tanh(c), c
