"""The workloads' bounds written by hand in PyTorch: no Pyro, no `torch.distributions`, the very same networks.

Each class takes the networks of a (model, guide) pair and writes the pair's densities as one would without a language
for them. Noise is drawn in the order in which the pair draws it, so that the same seed gives the same number.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus


def bounded_exp(s: Tensor) -> Tensor:
    """exp(5 tanh(s / 5)), the scales of the collection."""
    return (5.0 * torch.tanh(s / 5.0)).exp()


def log_bernoulli(logits: Tensor, x: Tensor) -> Tensor:
    """log p(x | logits), summed over the pixels."""
    return -binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)


def kl_normal(m: Tensor, s: Tensor, loc: Tensor | float, scale: Tensor | float) -> Tensor:
    """KL(N(m, s^2) || N(loc, scale^2)), summed over the entries."""
    ratio = (s / scale) ** 2
    return 0.5 * (ratio + ((m - loc) / scale) ** 2 - 1 - ratio.log()).sum(-1)


def draw(m: Tensor, s: Tensor, x: Tensor, particles: int | None) -> tuple[Tensor, Tensor]:
    """(draw, noise) of N(m, s^2), one for each datum and particle, whatever m lacks of these dims."""
    shape = (len(x), m.shape[-1]) if particles is None else (particles, len(x), m.shape[-1])
    noise = torch.randn(shape, dtype=m.dtype, device=m.device)
    return m + s * noise, noise


class Bound(nn.Module):
    """log p(x | z) - KL for each datum, (n,), or (particles, n); with analytic=False the log importance weights."""

    def layer(self, m, s, loc, scale, x, particles, analytic):
        """(draw, divergence) of one Gaussian factor N(m, s^2) against N(loc, scale^2)."""
        z, noise = draw(m, s, x, particles)
        if analytic:
            return z, kl_normal(m, s, loc, scale)
        if isinstance(scale, float):  # the standard normal
            return z, (0.5 * (z**2 - noise**2) - s.log()).sum(-1)
        return z, (0.5 * (((z - loc) / scale) ** 2 - noise**2) + (scale / s).log()).sum(-1)


class MeanFieldVAE(Bound):
    """z ~ N(0, I), x | z ~ Bernoulli; q(z | x) = N(m(x), s(x)^2)."""

    def __init__(self, model: nn.Module, guide: nn.Module) -> None:
        super().__init__()
        self.decoder = model.decoder
        self.encoder, self.head = guide.factors.encoders[0].nets[0], guide.factors.q_z1

    def forward(self, x: Tensor, particles: int | None = None, analytic: bool = True) -> Tensor:
        m, log_s = self.head(self.encoder(x)).chunk(2, -1)
        z, kl = self.layer(m, bounded_exp(log_s), 0.0, 1.0, x, particles, analytic)
        return log_bernoulli(self.decoder(z), x) - kl


class LadderVAE(Bound):
    """A Markov chain of latents; each factor is the product of the prior and a bottom-up estimate."""

    def __init__(self, model: nn.Module, guide: nn.Module) -> None:
        super().__init__()
        self.priors, self.decoder = model.priors, model.decoder
        encoder = guide.factors.encoders[0]
        self.up, self.norms = encoder.nets, encoder.norms
        self.heads = nn.ModuleList(guide.factors.get_submodule(f"q_{name}") for name in guide.order)

    def forward(self, x: Tensor, particles: int | None = None, analytic: bool = True) -> Tensor:
        d, read, features = None, x, []
        for net, norm in zip(self.up, self.norms, strict=True):
            d = net(read) if d is None else d + net(read)
            read = norm(d)
            features.append(read)
        features.reverse()  # the last level of the bottom-up pass is the first on the way down
        bound, above = 0.0, []
        for i, (head, h) in enumerate(zip(self.heads, features, strict=True)):
            shift, spread = head(h, *above).chunk(2, -1)
            tau = 1 / (softplus(spread) + 1e-5)
            if i:
                loc, log_scale = self.priors[i - 1](*above).chunk(2, -1)
                scale = bounded_exp(log_scale)
                weight = scale**-2
            else:
                loc, scale, weight = 0.0, 1.0, 1e-6  # the top is the estimate
            precision = tau + weight
            m, s = shift + loc * weight / precision, precision.rsqrt()
            z, kl = self.layer(m, s, loc, scale, x, particles, analytic)
            bound, above = bound - kl, [z]
        return bound + log_bernoulli(self.decoder(z), x)


class SelfReflectiveVAE(Bound):
    """Layers of codes and blocks; the factors have bases of their own, and share the bijections of the priors."""

    def __init__(self, model: nn.Module, guide: nn.Module) -> None:
        super().__init__()
        self.sizes = model.blocks
        self.priors, self.bijectors = model.priors, nn.ModuleList(b.net for b in model.bijectors)
        self.estimates, self.corrections = model.estimates, model.corrections
        self.encoders = guide.factors.encoders[0].nets
        self.heads = nn.ModuleList(guide.factors.get_submodule(f"q_{name}") for name in guide.order)
        self.starts = nn.ModuleList(guide.factors.get_submodule(f"base_q_{name}") for name in guide.order)

    def forward(self, x: Tensor, particles: int | None = None, analytic: bool = True) -> Tensor:
        blocks = x.split(self.sizes, -1)
        features = [net(x) for net in self.encoders]
        bound, above = 0.0, []
        for i, block in enumerate(blocks):
            loc, log_scale = self.priors[i](*above).chunk(2, -1)
            scale = bounded_exp(log_scale)
            shift, log_s = self.heads[i](features[i], *above).chunk(2, -1)
            start = self.starts[i]
            own = start.loc + shift, start.spread * bounded_exp(log_s)
            eps, kl = self.layer(*own, loc, scale, x, particles, analytic)
            c, d, u = self.bijectors[i](*above).chunk(3, -1)
            z = c + (softplus(d) + 1e-3) * eps + u * (u * eps).sum(-1, keepdim=True)
            logits = self.estimates[i](z)
            if i:
                logits = logits + self.corrections[i - 1](z, blocks[i - 1])
            bound, above = bound - kl + log_bernoulli(logits, block), [z]
        return bound
