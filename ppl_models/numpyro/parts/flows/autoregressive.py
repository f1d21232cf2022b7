"""`MaskedNet`, `Autoregressive`, `AutoregressiveFlow`: ports of `ppl_models.parts.flows.autoregressive`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.nn import sigmoid, silu
from numpyro.distributions import constraints
from numpyro.distributions.transforms import AffineTransform, Transform, _InverseTransform
from numpyro.distributions.util import array_equiv

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count, Number, Positive
from ppl_models.parts.checks import check_network
from ppl_models.parts.flows.orders import (
    BIAS,
    BOUND,
    Kind,
    check_contexts,
    levels_of,
    masks_of,
    numbers_of,
    passes_of,
    reads_of,
)

from ..nets.layers import Linear
from ..program import Constant
from .splines import MonotonicSpline


class MaskedLinear(eqx.Module):
    """Port of `ppl_models.parts.flows.autoregressive.MaskedLinear`; `key` seeds the weights."""

    weight: Array
    bias: Array
    mask: Constant = eqx.field(static=True)  # no leaf: in no file, as a buffer that is not persistent

    def __init__(self, reads: np.ndarray, *, key: Array) -> None:
        layer = Linear(reads.shape[1], reads.shape[0], key=key)
        self.weight, self.bias, self.mask = layer.weight, layer.bias, Constant(reads)

    def __call__(self, x: Array) -> Array:
        """(*batch, inputs) -> (*batch, outputs)."""
        return jnp.matmul(x, (self.weight * self.mask.value).T) + self.bias


class MaskedNet(eqx.Module):
    """Port of `ppl_models.parts.flows.autoregressive.MaskedNet`; `key` seeds the weights."""

    entries: MaskedLinear
    contexts: tuple[Linear, ...]
    inner: tuple[MaskedLinear, ...]
    last: MaskedLinear
    passes: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)

    def __init__(
        self,
        reads: Sequence[int] | np.ndarray,
        outputs: int,
        inputs: Sequence[int] = (),
        hidden: int = 64,
        depth: int = 1,
        gain: float = 0.1,
        *,
        key: Array,
    ) -> None:
        check_network(inputs, outputs, hidden, depth)
        self.passes, self.outputs = passes_of(reads_of(reads)), outputs
        keys = iter(jax.random.split(key, len(inputs) + depth + 1))
        first, inner, last = masks_of(reads, hidden, outputs)
        self.entries = MaskedLinear(first, key=next(keys))
        self.contexts = tuple(Linear(n, hidden, bias=False, key=next(keys)) for n in inputs)
        self.inner = tuple(MaskedLinear(inner, key=next(keys)) for _ in range(depth - 1))
        found = MaskedLinear(last, key=next(keys))
        start = gain * found.weight, jnp.zeros_like(found.bias)
        self.last = eqx.tree_at(lambda layer: (layer.weight, layer.bias), found, start)

    def __call__(self, x: Array, *context: Array) -> Array:
        """x (*batch, n) and contexts (*batch, n_j) -> (*batch, n, outputs); batches broadcast."""
        h = self.entries(x)
        for layer, c in zip(self.contexts, context, strict=True):
            h = h + layer(c)
        for layer in self.inner:
            h = layer(silu(h))
        out = self.last(silu(h))
        return out.reshape(*out.shape[:-1], -1, self.outputs)


def affine(numbers: Array) -> Transform:
    """y = m + exp(a) x with |a| < 3; the identity at 0."""
    return AffineTransform(numbers[..., 0], jnp.exp(3 * jnp.tanh(numbers[..., 1] / 3)))


def gate(numbers: Array) -> Transform:
    """y = g x + (1 - g) m, g = sigmoid(s + 2): it contracts, at the start by 0.88."""
    g = sigmoid(numbers[..., 1] + BIAS)
    return AffineTransform((1 - g) * numbers[..., 0], g)


def shift(numbers: Array) -> Transform:
    """y = m + x: volume is kept."""
    return AffineTransform(numbers[..., 0], 1.0)


@dataclass(frozen=True)
class Spline:
    """A monotone rational-quadratic spline on [-bound, bound]; the identity beyond, and at 0."""

    bound: float

    def __call__(self, numbers: Array) -> Transform:
        """The splines of numbers (*batch, n, 3 bins - 1)."""
        bins = (numbers.shape[-1] + 1) // 3
        return MonotonicSpline(*jnp.split(numbers, [bins, 2 * bins], -1), bound=self.bound)


MAPS: dict[str, Callable[[Array], Transform]] = {"affine": affine, "gate": gate, "shift": shift}


def _all_but_last(net: MaskedNet, of: Callable[[Array], Transform], context: tuple[Array, ...], y: Array) -> Array:
    """x of y after all passes but the last."""
    # the numbers of the first level read no entries: they are right in the first pass, whatever x is
    return lax.fori_loop(0, net.passes - 1, lambda _, x: of(net(x, *context))._inverse(y), jnp.zeros_like(y))


# outside of a compiled program, as in an inspection: one for all steps of a form; a loop alone is compiled each time
_compiled = eqx.filter_jit(_all_but_last)


class Autoregressive(Transform):
    """Port of `ppl_models.parts.flows.autoregressive.Autoregressive`.

    log|det| of a pair that a call has made comes from that call: as its `intermediates`, or because x and y are the
    very arrays of the last one, of which the one is known without a call from the other. Two maps are equal if their
    networks and contexts are the very same arrays.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    _made: tuple[Array, Array, Array] | None = None  # x, y and log|det| of the last call

    def __init__(self, net: MaskedNet, of: Callable[[Array], Transform], context: Sequence[Array] = ()) -> None:
        self.net, self.of, self.context = net, of, tuple(context)

    @property
    def inv(self) -> "Backward":
        """The map from y to x."""
        return Backward(self)

    def __call__(self, x: Array) -> Array:
        """y of x, (*batch, n) both."""
        if self._made is None or self._made[0] is not x:
            x = self._spread(x)
            f = self._map(x)
            self._keep(f, x, f(x))
        return self._last()[1]

    def call_with_intermediates(self, x: Array) -> tuple[Array, Array]:
        """y, and log|det dy/dx|, (*batch,)."""
        self(x)
        return self._last()[1:]

    def _inverse(self, y: Array) -> Array:
        if self._made is None or self._made[1] is not y:
            y = self._spread(y)
            passes = _all_but_last if isinstance(y, Tracer) else _compiled
            f = self._map(passes(self.net, self.of, self.context, y))
            self._keep(f, f._inverse(y), y)
        return self._last()[0]

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Any = None) -> Array:
        """log|det dy/dx|, (*batch,)."""
        if intermediates is not None:
            return intermediates
        if self._made is None or self._made[0] is not x or self._made[1] is not y:
            x = self._spread(x)
            return self._map(x).log_abs_det_jacobian(x, y).sum(-1)
        return self._made[2]

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of y, for x of a shape: batches broadcast with those of the contexts."""
        return jnp.broadcast_shapes(shape, *((*jnp.shape(c)[:-1], 1) for c in self.context))

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of x, for y of a shape."""
        return self.forward_shape(shape)

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[tuple[str, ...], dict[str, Any]]]:
        """The networks and contexts; what a call has made is left behind."""
        return (self.net, self.context), (("net", "context"), {"of": self.of})

    def eq(self, other: object, static: bool = False) -> bool | Array:
        """Whether both are known to be one map; with `static` from the identities of arrays alone."""
        if not isinstance(other, Autoregressive):
            return False
        (mine, structure), (theirs, same) = jax.tree.flatten(self), jax.tree.flatten(other)
        if structure != same:
            return False
        equal: bool | Array = True
        for one, two in zip(mine, theirs, strict=True):
            equal = equal & array_equiv(one, two, static=static)
        return equal

    def _map(self, x: Array) -> Transform:
        return self.of(self.net(x, *self.context))

    def _spread(self, x: Array) -> Array:
        """x or y in the shape and the type of what is made of it."""
        dtype = jnp.result_type(x, *jax.tree.leaves((self.net, self.context)))
        shape = self.forward_shape(jnp.shape(x))
        same = jnp.shape(x) == shape and jnp.result_type(x) == dtype
        return x if same else jnp.broadcast_to(x, shape).astype(dtype)

    def _keep(self, f: Transform, x: Array, y: Array) -> None:
        self._made = x, y, f.log_abs_det_jacobian(x, y).sum(-1)

    def _last(self) -> tuple[Array, Array, Array]:
        assert self._made is not None
        return self._made


class Backward(_InverseTransform):
    """The inverse of an `Autoregressive`, whose calls give log|det|, too."""

    _inv: Autoregressive

    def call_with_intermediates(self, x: Array) -> tuple[Array, Array]:
        """y, and log|det dy/dx|, (*batch,)."""
        y = self(x)
        return y, -self._inv._last()[2]

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Any = None) -> Array:
        """log|det dy/dx|, (*batch,)."""
        return super().log_abs_det_jacobian(x, y) if intermediates is None else intermediates


@checked
class AutoregressiveFlow(eqx.Module):
    """Port of `ppl_models.parts.flows.autoregressive.AutoregressiveFlow`; `key` seeds the weights."""

    nets: tuple[MaskedNet, ...]
    of: Callable[[Array], Transform] = eqx.field(static=True)
    size: int = eqx.field(static=True)
    inputs: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        size: Count,
        steps: Count = 2,
        inputs: Sequence[int] = (),
        hidden: Count = 64,
        depth: Count = 1,
        kind: Kind = "affine",
        passes: Count | None = None,
        bins: Annotated[int, Number(whole=True, least=2)] = 8,
        gain: float = 0.1,
        bound: Positive = BOUND,
        *,
        key: Array,
    ) -> None:
        of = Spline(bound) if kind == "spline" else MAPS[kind]
        self.of, self.size, self.inputs, levels = of, size, tuple(inputs), levels_of(size, passes)
        outputs, orders = numbers_of(kind, bins), [levels, levels[::-1]]
        keys = jax.random.split(key, steps)
        self.nets = tuple(
            MaskedNet(orders[i % 2], outputs, inputs, hidden, depth, gain, key=own) for i, own in enumerate(keys)
        )

    def transforms(self, *context: Array) -> list[Transform]:
        """The steps for contexts (*batch, n_j), the first to be called first.

        Raises:
            ValueError: contexts of another number or width than the `inputs`.
        """
        check_contexts([c.shape[-1] for c in context], self.inputs, self.size)
        return [Autoregressive(net, self.of, context) for net in self.nets]
