"""`masses`: the factor of a discrete latent, by logits that a network gives; `coded`: its value as others read it."""

from collections.abc import Sequence
from math import prod
from typing import Any, cast

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.runtime import InferDict
from torch import Tensor

from ppl_models.programs.pyro import unwrapped

from ..looks.latents import Latent
from .states import TEMPERATURE, Discrete


class States(dist.Independent):
    """A discrete distribution over vectors whose support is every combination of its entries' states."""

    has_enumerate_support = True

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All states, (states, *batch, *event); batch dims are of size 1 unless expanded."""
        n = prod(self.event_shape[: self.reinterpreted_batch_ndims])
        own = self.base_dist.enumerate_support(expand=False)
        own = own.reshape(len(own), *own.shape[own.dim() - len(self.base_dist.event_shape) :])  # of one entry
        index = torch.cartesian_prod(*[torch.arange(len(own), device=own.device)] * n)
        found = own[index.reshape(-1, n)]
        found = found.reshape(len(found), *[1] * len(self.batch_shape), *self.event_shape)
        return found.expand(len(found), *self.batch_shape, *self.event_shape) if expand else found


class RelaxedBernoulli(dist.Bernoulli):
    """A Bernoulli whose draws, 0 or 1, have the gradient of relaxed ones.

    A draw is that of a Bernoulli, by a logistic variable, and its density is the mass. Its gradient is that of
    sigmoid((logits + logistic) / temperature), which makes the gradient of a bound biased, but not the bound.

    Source: Jang et al. 2017 (arXiv 1611.01144), section 2.2; Maddison et al. 2017 (arXiv 1611.00712).
    """

    has_rsample = True
    density_of = dist.Bernoulli

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw, (*sample_shape, *batch)."""
        shape = self._extended_shape(torch.Size(sample_shape))
        tiny = torch.finfo(self.logits.dtype).tiny
        u = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device).clamp(tiny, 1 - 1e-7)
        noisy = self.logits + u.log() - (-u).log1p()
        soft = (noisy / TEMPERATURE).sigmoid()
        return (noisy > 0).to(soft.dtype) + (soft - soft.detach())

    sample = dist.Bernoulli.sample


class RelaxedOneHot(dist.OneHotCategorical):
    """A one-hot Categorical whose draws have the gradient of relaxed ones; see `RelaxedBernoulli`.

    A draw is the largest of logits + Gumbel noise, and its gradient that of softmax((logits + noise) / temperature).
    """

    has_rsample = True
    density_of = dist.OneHotCategorical

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw, (*sample_shape, *batch, states)."""
        shape = self._extended_shape(torch.Size(sample_shape))
        tiny = torch.finfo(self.logits.dtype).tiny
        u = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device).clamp(tiny, 1 - 1e-7)
        noisy = self.logits - (-u.log()).log()
        soft = (noisy / TEMPERATURE).softmax(-1)
        index = torch.arange(shape[-1], device=soft.device)
        return (noisy.argmax(-1, keepdim=True) == index).to(soft.dtype) + (soft - soft.detach())

    def log_prob(self, value: Tensor) -> Tensor:
        """The log mass of a state, linear in its one-hot vector."""
        return (value * self.logits).sum(-1)


class Limited(dist.Categorical):
    """A Categorical over those states alone that a prior does not leave out.

    Args:
        logits: of all states, (*batch, states).
        allowed: the states that count, likewise; one of them at least everywhere.
    """

    density_of = dist.Categorical

    def __init__(self, logits: Tensor, allowed: Tensor, validate_args: bool | None = None) -> None:
        self.free, self.allowed = torch.broadcast_tensors(logits, allowed)
        super().__init__(logits=self.free.masked_fill(~self.allowed, -torch.inf), validate_args=validate_args)

    @property
    def log_support(self) -> Tensor:
        """log of the mass that the logits alone give to the states that count, (*batch,)."""
        return self.free.masked_fill(~self.allowed, -torch.inf).logsumexp(-1) - self.free.logsumexp(-1)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Limited":
        """The same over more batch dims."""
        shape = (*batch_shape, self.free.shape[-1])
        return Limited(self.free.expand(shape), self.allowed.expand(shape), validate_args=self._validate_args)


def masses(latent: Latent, raw: Tensor, discrete: Discrete) -> TorchDistributionMixin:
    """The factor of a discrete latent.

    Args:
        latent: it.
        raw: logits, (*batch, n), n the numbers of a code.
        discrete: how it is trained.
    """
    facts, relaxed = latent.facts, discrete == "relax"
    logits = raw.reshape(*raw.shape[:-1], *facts.unconstrained_shape)
    if facts.states == "categorical":
        q: Any = dist.Categorical(logits=logits)
    elif facts.states == "one-hot":
        q = RelaxedOneHot(logits=logits) if relaxed else dist.OneHotCategorical(logits=logits)
    else:
        q = RelaxedBernoulli(logits=logits) if relaxed else dist.Bernoulli(logits=logits)
    dims = len(latent.event_shape) - len(q.event_shape) - latent.unplated_dims
    if not dims:
        return q
    return q.to_event(dims) if relaxed else cast(TorchDistributionMixin, States(q, dims))


def coded(latent: Latent, value: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The value of a discrete latent as numbers that networks read, (*batch, *code): one-hot, or 0 and 1."""
    if latent.facts.states != "categorical":
        return value.to(dtype)
    states = torch.arange(latent.facts.unconstrained_shape[-1], device=value.device)
    return (value.unsqueeze(-1) == states).to(dtype)


def enumerated(q: TorchDistributionMixin) -> InferDict:
    """What a site of a factor of a discrete latent tells those who sum over its states; nothing where it is relaxed."""
    return {} if q.has_rsample else {"enumerate": "parallel"}


def limited(q: TorchDistributionMixin, prior: TorchDistributionMixin) -> TorchDistributionMixin:
    """A factor over whole numbers, without the states that its prior leaves out."""
    own, other = cast(Any, q), cast(Any, unwrapped(prior))
    return Limited(own.logits, other.probs > 0)
