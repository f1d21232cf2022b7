"""Conditional bijections: modules that give a `torch.distributions` transform, whose parameters networks compute."""

from collections.abc import Sequence
from math import expm1, log

import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints
from torch.nn.functional import softplus

from .flows.autoregressive import AutoregressiveFlow
from .flows.words import Bijection
from .nets import Net


class RankOneAffine(Transform):
    """z = c + (diag(d) + u u^T) eps, d > 0: the bijection of the self-reflective VAE. Everything is O(n).

        inverse       w = (z - c) / d,   eps = w - (u / d) (u^T w) / (1 + sum_i u_i^2 / d_i)
        log|det|      sum_i log d_i + log(1 + sum_i u_i^2 / d_i)

    d > 0, not d >= 0: two zeros make the matrix singular.

    Args:
        shift: c, (*batch, n).
        scale: d, (*batch, n).
        vector: u, (*batch, n).

    Source: Apostolopoulou, Rosenfeld, Dubrawski 2020 (arXiv 2007.05166), section 4.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, shift: Tensor, scale: Tensor, vector: Tensor, cache_size: int = 1) -> None:
        super().__init__(cache_size=cache_size)
        self.shift, self.scale, self.vector = shift, scale, vector

    def _call(self, eps: Tensor) -> Tensor:
        along = (self.vector * eps).sum(-1, keepdim=True)
        return self.shift + self.scale * eps + self.vector * along

    def _inverse(self, z: Tensor) -> Tensor:
        w = (z - self.shift) / self.scale
        ratio = self.vector / self.scale
        along = (self.vector * w).sum(-1, keepdim=True)
        return w - ratio * along / (1 + (self.vector * ratio).sum(-1, keepdim=True))

    def log_abs_det_jacobian(self, eps: Tensor, z: Tensor) -> Tensor:
        """log|det dz/deps|, (*batch,)."""
        log_det = self.scale.log().sum(-1) + (self.vector.square() / self.scale).sum(-1).log1p()
        return log_det.expand(torch.broadcast_shapes(log_det.shape, eps.shape[:-1]))

    def with_cache(self, cache_size: int = 1) -> "RankOneAffine":
        """The same map with another cache size; the map itself if it is the one asked for."""
        if cache_size == self._cache_size:
            return self
        return RankOneAffine(self.shift, self.scale, self.vector, cache_size)


class ConditionalRankOneAffine(nn.Module):
    """A network that gives the `RankOneAffine` of a context: (c, d, u) = net(context), d = softplus(.) + 1e-3.

    It starts near the identity: c = 0, d = 1, u small (at u = 0 exactly its gradient would vanish).

    Args:
        size: n, the size of the transformed vector.
        inputs: width of each context; none of them for a constant transform.
        hidden, depth: of the network.
    """

    def __init__(self, size: int, inputs: Sequence[int] = (), hidden: int = 64, depth: int = 1) -> None:
        super().__init__()
        # normalized: u enters squared, and a chain of layers would square it again and again
        self.net = Net(inputs, 3 * size, hidden, depth, gain=0.1, norm=True)
        with torch.no_grad():
            shift, scale, vector = self.net.bias.chunk(3)
            shift.zero_()
            scale.fill_(log(expm1(1 - 1e-3)))
            vector.normal_(0, 0.1)

    def forward(self, *context: Tensor) -> RankOneAffine:
        """The transform for contexts (*batch, n_i)."""
        shift, scale, vector = self.net(*context).chunk(3, -1)
        return RankOneAffine(shift, softplus(scale) + 1e-3, vector)

    def transforms(self, *context: Tensor) -> list[Transform]:
        """The same, as the one of a list."""
        return [self(*context)]


class Identity(nn.Module):
    """No bijection: z = eps."""

    def transforms(self, *context: Tensor) -> list[Transform]:
        """An empty list."""
        return []


def bijection(word: Bijection, size: int, inputs: Sequence[int], hidden: int, depth: int) -> nn.Module:
    """The bijection of a word: a module whose `transforms` are those of vectors of a size, for contexts (*batch, n_i).

    "rank-one" is `ConditionalRankOneAffine`; "spline" are two couplings of monotone splines, the halves swapped; both
    read all of the context.
    """
    if word == "identity":
        return Identity()
    if word == "spline":
        return AutoregressiveFlow(size, 2, inputs, hidden, max(depth, 1), "spline", passes=2)
    return ConditionalRankOneAffine(size, inputs, hidden, depth)
