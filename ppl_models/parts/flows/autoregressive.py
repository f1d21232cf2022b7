"""`MaskedNet`, `Autoregressive`, `AutoregressiveFlow`: networks and bijections in which entries read those before them.

The same steps serve as a family of guides, as a prior, as a layer of data and as a density model: parallel from x to y,
one entry after another back. A coupling is the step of two levels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import AffineTransform, Transform, constraints
from torch.nn.functional import linear, silu

from ..arguments.checked import checked
from ..arguments.kinds import Count, Number, Positive
from ..checks import check_network
from .orders import BIAS, BOUND, Kind, check_contexts, levels_of, masks_of, numbers_of, passes_of, reads_of
from .splines import MonotonicSpline


class MaskedLinear(nn.Linear):
    """A linear layer whose output j reads the inputs i with `reads[j, i]` alone."""

    mask: Tensor

    def __init__(self, reads: Tensor) -> None:
        super().__init__(reads.shape[1], reads.shape[0])
        self.register_buffer("mask", reads.to(self.weight.dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(*batch, inputs) -> (*batch, outputs)."""
        return linear(x, self.weight * self.mask, self.bias)


class MaskedNet(nn.Module):
    """Perceptron that gives numbers for each entry of x from the entries that it reads, and from all of a context.

        h = silu(M x + sum_j C_j c_j + b);   h <- silu(M' h + b'), depth - 1 times;   out = M'' h + b''

    Each hidden unit is given the set of entries that some output may read: it reads those entries, and units whose sets
    lie within its own. The numbers of an entry read the units whose sets lie within what that entry may read. Units of
    the empty set read the context alone. With fewer units than different sets, an entry reads less than it might.

    Args:
        reads: the level of each entry, from 0 on, of which it reads all that are lower; or a matrix, (n, n), whether
            entry i reads entry j.
        outputs: numbers for each entry.
        inputs: width of each context.
        hidden, depth: width and number of hidden layers, at least one.
        gain: factor on the initial weights of the last layer.

    Source: Germain et al. 2015 (MADE, arXiv 1502.03509), with degree 0 added.
    """

    def __init__(
        self,
        reads: Sequence[int] | np.ndarray,
        outputs: int,
        inputs: Sequence[int] = (),
        hidden: int = 64,
        depth: int = 1,
        gain: float = 0.1,
    ) -> None:
        super().__init__()
        check_network(inputs, outputs, hidden, depth)
        self.passes, self.outputs = passes_of(reads_of(reads)), outputs
        first, inner, last = map(torch.from_numpy, masks_of(reads, hidden, outputs))
        self.entries = MaskedLinear(first)
        self.contexts = nn.ModuleList(nn.Linear(n, hidden, bias=False) for n in inputs)
        self.inner = nn.ModuleList(MaskedLinear(inner) for _ in range(depth - 1))
        self.last = MaskedLinear(last)
        with torch.no_grad():
            self.last.weight.mul_(gain)
            self.last.bias.zero_()

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """x (*batch, n) and contexts (*batch, n_j) -> (*batch, n, outputs); batches broadcast."""
        h = self.entries(x)
        for layer, c in zip(self.contexts, context, strict=True):
            h = h + layer(c)
        for layer in self.inner:
            h = layer(silu(h))
        return self.last(silu(h)).unflatten(-1, (-1, self.outputs))


def affine(numbers: Tensor) -> Transform:
    """y = m + exp(a) x with |a| < 3; the identity at 0."""
    shift, log_scale = numbers.unbind(-1)
    return AffineTransform(shift, (3 * torch.tanh(log_scale / 3)).exp())


def gate(numbers: Tensor) -> Transform:
    """y = g x + (1 - g) m, g = sigmoid(s + 2): it contracts, at the start by 0.88 (Kingma et al. 2016, alg. 1)."""
    shift, score = numbers.unbind(-1)
    return AffineTransform((1 - (g := torch.sigmoid(score + BIAS))) * shift, g)


def shift(numbers: Tensor) -> Transform:
    """y = m + x: volume is kept (Chen et al. 2017, appendix A)."""
    return AffineTransform(numbers.squeeze(-1), 1.0)


@dataclass(frozen=True)
class Spline:
    """A monotone rational-quadratic spline on [-bound, bound] (Durkan et al. 2019); the identity beyond, and at 0."""

    bound: float

    def __call__(self, numbers: Tensor) -> Transform:
        """The splines of numbers (*batch, n, 3 bins - 1)."""
        bins = (numbers.shape[-1] + 1) // 3
        return MonotonicSpline(*numbers.split([bins, bins, bins - 1], -1), bound=self.bound)


MAPS: dict[str, Callable[[Tensor], Transform]] = {"affine": affine, "gate": gate, "shift": shift}


class Autoregressive(Transform):
    """y_i = f(x_i; numbers_i), the numbers of a `MaskedNet` of the entries before and of contexts.

    From x to y it takes one call of the network, from y to x as many as there are levels. log|det dy/dx| is kept from
    the call that made x and y; for any other pair it takes one more call.

    Args:
        net: the network that gives the numbers.
        of: makes the elementwise transform of these numbers.
        context: further inputs of the network, (*batch, n_j) each.

    Source: Kingma et al. 2016 (arXiv 1606.04934) in the direction of its calls, Papamakarios et al. 2017 (arXiv
    1705.07057) in the other.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(
        self, net: MaskedNet, of: Callable[[Tensor], Transform], context: Sequence[Tensor] = (), cache_size: int = 1
    ) -> None:
        super().__init__(cache_size=cache_size)
        self.net, self.of, self.context = net, of, tuple(context)
        self._made: tuple[Tensor, Tensor, Tensor] | None = None  # x, y and log|det| of the last call

    def _map(self, x: Tensor) -> Transform:
        return self.of(self.net(x, *self.context))

    def _call(self, x: Tensor) -> Tensor:
        f = self._map(x)
        y = f(x)
        self._made = x, y, _volume(f, x, y)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x = y.new_zeros(self.inverse_shape(y.shape))
        for _ in range(self.net.passes):
            f = self._map(x)
            x = f.inv(y)
        self._made = x, y, _volume(f, x, y)
        return x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log|det dy/dx|, (*batch,)."""
        if self._made is None or self._made[0] is not x or self._made[1] is not y:
            self._made = x, y, _volume(self._map(x), x, y)
        return self._made[2]

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """Of y, for x of a shape: batches broadcast with those of the contexts."""
        return torch.broadcast_shapes(shape, *((*c.shape[:-1], 1) for c in self.context))

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        """Of x, for y of a shape."""
        return self.forward_shape(shape)

    def with_cache(self, cache_size: int = 1) -> "Autoregressive":
        """The same map with another cache size; the map itself if it is the one asked for."""
        if cache_size == self._cache_size:
            return self
        return Autoregressive(self.net, self.of, self.context, cache_size)


def _volume(f: Transform, x: Tensor, y: Tensor) -> Tensor:
    """log|det dy/dx| of an elementwise map, (*batch,): of the batch of the context where one of the two lacks it."""
    return f.log_abs_det_jacobian(*torch.broadcast_tensors(x, y)).sum(-1)


@checked
class AutoregressiveFlow(nn.Module):
    """Several `Autoregressive` steps on R^n, the order of the entries reversed from one to the next.

    Args:
        size: n.
        steps: number of steps.
        inputs: width of each context.
        hidden, depth: width and number of hidden layers of the networks, see `MaskedNet`.
        kind: of the map of an entry: "affine", "gate", "shift" or "spline".
        passes: levels of the entries; 2 is a coupling, None gives each entry its own.
        bins, bound: of splines, each on [-bound, bound].
        gain: see `MaskedNet`; small ones start near the identity (a "gate" at a contraction by 0.88 a step).
    """

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
    ) -> None:
        super().__init__()
        of = Spline(bound) if kind == "spline" else MAPS[kind]
        self.of, self.size, self.inputs, levels = of, size, tuple(inputs), levels_of(size, passes)
        outputs, orders = numbers_of(kind, bins), [levels, levels[::-1]]
        self.nets = nn.ModuleList(MaskedNet(orders[i % 2], outputs, inputs, hidden, depth, gain) for i in range(steps))

    def transforms(self, *context: Tensor) -> list[Transform]:
        """The steps for contexts (*batch, n_j), the first to be called first.

        Raises:
            ValueError: contexts of another number or width than the `inputs`.
        """
        check_contexts([c.shape[-1] for c in context], self.inputs, self.size)
        return [Autoregressive(net, self.of, context) for net in self.nets]
