"""`VampPrior`: the mixture of an encoder's densities at learned pseudo-inputs; `EncoderMixture`, the distribution."""

from collections.abc import Callable, Sequence
from math import log, pi

import torch
from pyro.distributions.torch_distribution import TorchDistribution, TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from .distributions import diagonal_normal
from .likelihoods import bounded_exp

LARGEST = 2**21  # numbers that the density of a mixture holds at once
Encoder = Callable[[Tensor], TorchDistributionMixin]


class EncoderMixture(TorchDistribution):
    """Equal parts of K diagonal Gaussians, which an encoder of data gives at K rows.

        log p(z) = log sum_k exp log N(z; m_k, diag s_k^2) - log K

    A draw is of a component, so that it is not reparametrized.

    Args:
        loc, scale: m and s, (K, n).
        encoder: rows (*batch, encodes) -> the Gaussian q(z | row), for guides that take it as their own.
        encodes: number of values in a row.
        batch_shape: of the distribution.
    """

    arg_constraints = {
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
    }
    support = constraints.real_vector
    has_rsample = False

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        encoder: Encoder,
        encodes: int,
        batch_shape: Sequence[int] = (),
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.scale, self.encoder, self.encodes = loc, scale, encoder, encodes
        super().__init__(torch.Size(batch_shape), loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: "EncoderMixture | None" = None) -> "EncoderMixture":
        """The same distribution over this batch shape, of the same K components."""
        new = self._get_checked_instance(EncoderMixture, _instance)
        new.loc, new.scale, new.encoder, new.encodes = self.loc, self.scale, self.encoder, self.encodes
        super(EncoderMixture, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """The mean, (*batch, n)."""
        return self.loc.mean(0).expand(self._extended_shape())

    @property
    def variance(self) -> Tensor:
        """The variance of each entry, (*batch, n): that within components and that of their means."""
        found = self.scale.square().mean(0) + self.loc.var(0, correction=0)
        return found.expand(self._extended_shape())

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        """Draws, (*sample_shape, *batch, n)."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            k = torch.randint(len(self.loc), shape[:-1], device=self.loc.device)
            return self.loc[k] + self.scale[k] * torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, (*batch,)."""
        if self._validate_args:
            self._validate_sample(value)
        n, k = self.event_shape[0], len(self.loc)
        values = value.reshape(-1, n)
        # a slice at a time, which bounds memory: an evaluation scores all its particles at once
        parts = values.split(max(LARGEST // (n * k), 1)) if values.numel() * k > LARGEST else [values]
        found = torch.cat([self._sums(part) for part in parts]) if len(parts) > 1 else self._sums(values)
        found = found.reshape(value.shape[:-1]) - 0.5 * n * log(2 * pi) - log(k)
        shape = torch.broadcast_shapes(found.shape, self.batch_shape)
        return found if found.shape == shape else found.expand(shape)

    def _sums(self, values: Tensor) -> Tensor:
        """log sum_k exp(...) of values (m, n), without constants, (m,)."""
        # (m, n, K), summed over n: a product of matrices would lose digits where components are narrow
        miss = ((values.unsqueeze(-1) - self.loc.mT) * self.scale.reciprocal().mT).square().sum(-2)
        return (-0.5 * miss - self.scale.log().sum(-1)).logsumexp(-1)


class VampPrior(nn.Module):
    """A prior that is the encoder's posterior, averaged over K learned pseudo-inputs in place of the data.

        p(z) = (1/K) sum_k q(z | u_k),      q(z | u) = N(m(u), diag s(u)^2),      (m, log s) = network(u)

    With all data for pseudo-inputs it is the encoder's own aggregate posterior, and E[KL(q(z | x) || p)] the mutual
    information of x and z on them, at most log K. With K = 1 it is a Gaussian.

    The pseudo-inputs are encoded when the prior is asked for, once in a run of a model whatever the particles. The
    encoder is in its evaluation mode for that: dropout would give another prior at each call.

    Args:
        network: rows (*batch, event) -> (*batch, 2 n), locations and log scales.
        event: number of values in a row.
        components: K.
        unit: whether data are in [0, 1], and with them pseudo-inputs, which are clipped to it.

    Attributes:
        rows: the K pseudo-inputs before they are clipped, (K, event), at first N(0.05, 0.01^2); `rows.data.copy_(x)`
            makes them data.

    Source: Tomczak & Welling 2018 (arXiv 1705.07120), eq. 11 and 12; the start is that of its code.
    """

    def __init__(self, network: nn.Module, event: int, components: int, unit: bool = True) -> None:
        super().__init__()
        self.network, self.unit = network, unit
        self.rows = nn.Parameter(0.05 + 0.01 * torch.randn(components, event))

    @property
    def pseudo_inputs(self) -> Tensor:
        """u, (K, event)."""
        return self.rows.clamp(0, 1) if self.unit else self.rows

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """m and s of rows, (*batch, n) each."""
        loc, log_scale = self.network(x).chunk(2, -1)
        return loc, bounded_exp(log_scale)

    def encode(self, x: Tensor) -> TorchDistributionMixin:
        """q(z | x) of rows (*batch, event)."""
        return diagonal_normal(*self.moments(x))

    def forward(self) -> EncoderMixture:
        """The distribution, event shape (n,)."""
        modes = [(module, module.training) for module in self.network.modules() if module.training]
        for module, _ in modes:
            module.training = False
        try:
            loc, scale = self.moments(self.pseudo_inputs)
        finally:
            for module, mode in modes:
                module.training = mode
        return EncoderMixture(loc, scale, self.encode, self.rows.shape[-1])
