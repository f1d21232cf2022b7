"""`RelaxedBits`, `DependentBits`: logits of relaxed bits; `Discretized`: a program with the bits themselves."""

from collections.abc import Sequence
from contextlib import nullcontext
from math import log
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from .arguments.checked import checked
from .arguments.kinds import AnyProgram
from .flows.autoregressive import MaskedNet
from .states import refuse_discretized

LOGIT = 1e3  # of a bit itself: the sigmoid of +-LOGIT is exactly 1 or 0


class _Logits(type(constraints.real)):
    """-LOGIT and LOGIT, the logits of bits themselves."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is one of the two."""
        return value.abs() == LOGIT


class RelaxedBits(TorchDistribution):
    """The logit of a relaxed bit, a bit with logit a whose noise is not cut off.

        y = (a + log u - log(1 - u)) / t,      u uniform on (0, 1),      P(y > 0) = sigmoid(a) for every t > 0
        log p(y) = log t + log sigmoid(d) + log sigmoid(-d),      d = t y - a

    The relaxed bit is sigmoid(y), the binary concrete variable. A density of it is finite but wrong where float32 keeps
    it off 0 and 1, as it does with 4 of 5 draws at t = 0.1 and a = 3; that of its logit is right everywhere. At t = 0
    this is the bit itself: y is +-1000, whose sigmoid is 1 or 0, and `log_prob` is the logarithm of a probability.

    Args:
        logits: a, (*batch,).
        temperature: t, at least 0.

    Source: Maddison, Mnih, Teh 2017 (arXiv 1611.00712), appendix B.
    """

    arg_constraints = {"logits": constraints.real}

    def __init__(self, logits: Tensor, temperature: float, validate_args: bool | None = None) -> None:
        self.logits, self.temperature = logits, temperature
        super().__init__(logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: "RelaxedBits | None" = None) -> "RelaxedBits":
        """The same distribution with batch dimensions added on the left."""
        return RelaxedBits(self.logits.expand(batch_shape), self.temperature, validate_args=self._validate_args)

    @property
    def has_rsample(self) -> bool:
        """Whether draws are reparametrized: those of relaxed bits are."""
        return self.temperature > 0

    @property
    def support(self) -> constraints.Constraint:
        """R, or the two logits of a bit itself."""
        return constraints.real if self.temperature > 0 else _Logits()

    def hard(self) -> "RelaxedBits":
        """The bit itself, with the same logit."""
        return RelaxedBits(self.logits, 0.0, validate_args=self._validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean of y, (*batch,)."""
        return self.logits / self.temperature if self.temperature > 0 else LOGIT * (2 * self.logits.sigmoid() - 1)

    @property
    def variance(self) -> Tensor:
        """The variance of y, (*batch,)."""
        if self.temperature > 0:
            return torch.full_like(self.logits, torch.pi**2 / 3 / self.temperature**2)
        return LOGIT**2 - self.mean.square()

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        """Draws, (*sample_shape, *batch)."""
        return _drawn(self.logits, _noise(self._extended_shape(sample_shape), self.logits), self.temperature)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, (*batch,)."""
        if self._validate_args:
            self._validate_sample(value)
        return _log_prob(value, self.logits, self.temperature)


class DependentBits(TorchDistribution):
    """Relaxed bits of which each reads others, by a network whose masks say which.

        y_i = (a_i + f_i(b_pa(i)) + noise_i) / t,      b = sigmoid(y)

    A density takes one call of the network, a draw as many as the longest path of reading has entries. At t = 0 these
    are the bits themselves, as in `RelaxedBits`, and the network reads zeros and ones.

    Args:
        logits: a, (*batch, n).
        net: f, of one number an entry.
        context: what the network is given, (*batch, n_j) each.
        temperature: t, at least 0.
    """

    arg_constraints = {"logits": constraints.real_vector}

    def __init__(
        self,
        logits: Tensor,
        net: MaskedNet,
        context: Sequence[Tensor],
        temperature: float,
        validate_args: bool | None = None,
    ) -> None:
        self.logits, self.net, self.context, self.temperature = logits, net, tuple(context), temperature
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: "DependentBits | None" = None) -> "DependentBits":
        """The same distribution with batch dimensions added on the left."""
        return self._with(self.logits.expand(*batch_shape, -1), self.temperature)

    @property
    def has_rsample(self) -> bool:
        """Whether draws are reparametrized: those of relaxed bits are."""
        return self.temperature > 0

    @property
    def support(self) -> constraints.Constraint:
        """R^n, or the logits of bits themselves."""
        return constraints.real_vector if self.temperature > 0 else constraints.independent(_Logits(), 1)

    def hard(self) -> "DependentBits":
        """The bits themselves, with the same logits."""
        return self._with(self.logits, 0.0)

    def _with(self, logits: Tensor, temperature: float) -> "DependentBits":
        return DependentBits(logits, self.net, self.context, temperature, validate_args=self._validate_args)

    def _given(self, y: Tensor) -> Tensor:
        """The logits of all entries, given the values of those that they read."""
        return self.logits + self.net(y.sigmoid(), *self.context).squeeze(-1)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        """Draws, (*sample_shape, *batch, n)."""
        noise = _noise(self._extended_shape(sample_shape), self.logits)
        y = torch.zeros_like(noise)
        for _ in range(self.net.passes):
            y = _drawn(self._given(y), noise, self.temperature)
        return y

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, (*batch,)."""
        if self._validate_args:
            self._validate_sample(value)
        return _log_prob(value, self._given(value), self.temperature).sum(-1)


def _noise(shape: Sequence[int], like: Tensor) -> Tensor:
    """Logistic noise. A uniform draw may be 0, never 1: it is kept as far from the one as it is from the other."""
    u = torch.rand(shape, dtype=like.dtype, device=like.device).clamp(min=torch.finfo(like.dtype).eps / 4)
    return u.log() - (-u).log1p()


def _drawn(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    y = logits + noise
    return y / temperature if temperature > 0 else torch.where(y > 0, LOGIT, -LOGIT).to(y.dtype)


def _log_prob(y: Tensor, logits: Tensor, temperature: float) -> Tensor:
    if temperature > 0:
        d = temperature * y - logits
        return log(temperature) + logsigmoid(d) + logsigmoid(-d)
    return logsigmoid(torch.where(y > 0, logits, -logits))


@checked
class Discretized(nn.Module):
    """A program in which relaxed bits are the bits themselves, with the same logits and the same weights.

        b ~ Bernoulli(sigmoid(a))      in place of      sigmoid(y),  y = (a + logistic noise) / t

    A relaxed bound is a bound on the relaxed model, and above or below that of the bits. What a pair says of bits is
    said by both of its programs discretized: `evaluate(Discretized(model), Discretized(guide), x)`. Sites hold the
    logits of bits, +-1000. Only draws of `RelaxedBits` and `DependentBits` are changed, alone or `to_event`.

    Args:
        program: a model or a guide. Its parameters are its own still.

    Raises:
        ValueError: in a run, no relaxed bits.
    """

    def __init__(self, program: AnyProgram) -> None:
        super().__init__()
        self.program = program

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program."""
        runs_model = isinstance(poutine.unwrap(self.program), GuideMessenger)
        with poutine.block(hide_fn=_is_data) if runs_model else nullcontext(), _Hard() as handler:
            found = self.program(*args, **kwargs)
        if not handler.count:
            refuse_discretized(handler.others)
        return found


class _Hard(Messenger):
    """Put bits in the place of relaxed ones."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.others = 0, list[str]()

    def _pyro_sample(self, msg: Any) -> None:
        fn = _hard(msg["fn"])
        if fn is not msg["fn"]:
            msg["fn"], self.count = fn, self.count + 1
        elif not (msg["is_observed"] or site_is_subsample(msg)):
            self.others.append(msg["name"])


def _is_data(msg: Any) -> bool:
    return bool(msg.get("is_observed"))  # by the model that a guide runs, and not by the guide


def _hard(fn: Any) -> Any:
    if isinstance(fn, RelaxedBits | DependentBits):
        return fn.hard()
    if isinstance(fn, dist.Independent):
        base = _hard(fn.base_dist)
        return fn if base is fn.base_dist else base.to_event(fn.reinterpreted_batch_ndims)
    return fn
