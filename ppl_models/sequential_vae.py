"""The sequential VAE: an image refined step by step (Zhao, Song & Ermon 2017, arXiv 1702.08658)."""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .parts import likelihoods
from .parts.arguments.kinds import Count, Event, Whole
from .parts.arguments.sizes import Network, code_sizes, event_size
from .parts.checks import Criterion
from .parts.distributions import StandardNormal, diagonal_normal
from .parts.nets import LadderNet, Net
from .parts.program import Program


class SequentialVAE(Program):
    """A chain of images, each step of which has a code of its own and keeps what it likes of the image before.

        p(x, z) = prod_t p(z_t) p(x | z_1, ..., z_T)                                    z_t ~ N(0, I)
        p(x, z) = p(z_1) prod_{t>1} p(z_t | z_{t-1}) p(x | z_1, ..., z_T)               predictor=True
        m_1 = G_1(z_1),     m_t = g_t * G_t(m_{t-1}, z_t) + (1 - g_t) * m_{t-1},        x ~ likelihood around m_T

    The image m_t is a mean, with no noise of pixels in it; the network of a step gives the gate g_t, too.

    **Two criteria.** "elbo" is the model above, and its ELBO a bound. "per-step" trains as it was published: in
    training mode (`model.train()`, as inside `fit`) the data are observed at every step, at sites x1..x{T-1} and x, and
    no gradient goes from a step to the networks of those before (a predictor's code before included). With q_t(z_t | x)
    in `MeanField` the ELBO of that program is

        sum_t  E [ log p(x; G_t(m_{t-1}, z_t)) - KL(q_t(z_t | x) || p(z_t)) ],     m_{t-1} held fixed

    each term a bound of a conditional VAE, but their sum, which scores x T times, is no bound of p(x): a surrogate. A
    guide that reads the codes before, as `SelfReflective` does, has gradients through them: its factors are trained by
    later steps, too. In evaluation mode (as inside `evaluate`, and for the validation in `fit`) the model is the one
    above with either.

    Shapes: x (n, event), z_t (n, latent); sites z1..zT and x.

    Args:
        event: number of values in a row of x, or its shape: (channels, height, width) for `network="conv"`.
        steps: T.
        latent: size of each z_t; with "conv" it is shared evenly among the scales of the ladder, or given for each,
            that of the largest map first.
        hidden: width of the networks; of a "conv" hidden // 16 (at least 4) are the channels of the largest map.
        depth: residual blocks, of a "conv" at each scale.
        likelihood: "bernoulli", "logistic:LEVELS" (m in [0, 1]), "unit-gaussian:SCALE" (m in [0, 1], as
            published), "gaussian:SCALE" (m real), or "gaussian", whose scale is one learned number a step.
        network: "mlp", or "conv", a ladder that reads codes at several scales.
        shared: whether the steps after the first share their weights.
        predictor: whether the prior of a code reads the code before it.
        criterion: "elbo" or "per-step".

    Raises:
        ValueError: a size that is not a positive integer; an unknown network, likelihood or criterion; x of the wrong
            width, outside the support, not finite, empty.

    Source: section 6 and the released code. There the predictor's divergence is added to the one from N(0, I); here it
    is the prior. For the published 64 x 64 networks (T = 8, codes of 10 at each of four scales) see the recipes
    `sequential-celeba` and `sequential-lsun`; ours have residual blocks in place of batch normalization.

    >>> SequentialVAE(event=(1, 8, 8), steps=3, latent=4, network="conv")(n=3).shape
    torch.Size([3, 64])

    >>> from ppl_models.factorization import factorization
    >>> f = factorization(SequentialVAE(event=4, steps=3, latent=2, hidden=8), torch.eye(4)[:3])
    >>> print(f)
    p(z1) p(z2) p(z3) p(x | z1, z2, z3)
    >>> print(f.faithful_inverse())
    q(z1 | x) q(z2 | z1, x) q(z3 | z1, z2, x)
    """

    density = "p(x, z) = prod_t p(z_t) p(x | z_1, ..., z_T)"
    source = "Zhao, Song & Ermon 2017, arXiv 1702.08658"

    def __init__(
        self,
        event: Event = 784,
        steps: Count = 8,
        latent: Event = 10,
        hidden: Count = 256,
        depth: Whole = 1,
        likelihood: str | nn.Module = "bernoulli",
        network: Network = "mlp",
        shared: bool = False,
        predictor: bool = False,
        criterion: Criterion = "elbo",
    ) -> None:
        super().__init__()
        self.event, image = event_size("SequentialVAE", event, network)
        self.steps = steps
        parts = code_sizes("SequentialVAE", latent, image)
        self.latent = sum(parts)
        self.criterion = criterion
        self.likelihood = likelihoods.likelihood(likelihood, "SequentialVAE", ("squash", "around"))

        def network_of(first: bool) -> nn.Module:
            """G_1, which has no image to read and no gate to give, or G_t."""
            if image is None:
                inputs, outputs = [self.latent, self.event][: 1 if first else 2], (1 if first else 2) * self.event
                return Net(inputs, outputs, hidden, depth, norm=True)
            outputs = (image[0] + (0 if first else 1), *image[1:])
            return LadderNet(parts, outputs, None if first else image[0], max(hidden // 16, 4), depth)

        each = self.steps if not shared else min(self.steps, 2)
        self.networks = nn.ModuleList(network_of(first=t == 0) for t in range(each))
        self.predictors = nn.ModuleList(
            Net([self.latent], 2 * self.latent, hidden, depth, gain=0.1, norm=True)
            for _ in range(each - 1 if predictor else 0)
        )
        wide = self.likelihood.count > 1  # a likelihood with a scale of its own to learn
        self.log_scales = nn.Parameter(torch.zeros(self.steps)) if wide else None
        self.prior = StandardNormal(self.latent)

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.prior.loc.dtype)
        every = self.criterion == "per-step" and self.training and x is not None
        codes: list[Tensor] = []
        with pyro.plate("data", n):
            for t in range(self.steps):
                # p(zt), or p(zt | z{t-1})
                above = codes[-1] if codes else None
                prior = self.prior_of(t, above.detach() if every and codes else above)
                codes.append(pyro.sample(f"z{t + 1}", prior))
            mean = None
            for t, z in enumerate(codes):
                # mt = gt Gt(m{t-1}, zt) + (1 - gt) m{t-1}
                mean = self.image_of(t, mean, z)
                if every and t + 1 < self.steps:
                    # p(xt | mt), and no gradient from later steps
                    pyro.sample(f"x{t + 1}", self.around(t, mean), obs=x)
                    mean = mean.detach()
            # p(x | z1, ..., zT)
            return pyro.sample("x", self.around(self.steps - 1, mean), obs=x)

    def prior_of(self, t: int, above: Tensor | None) -> dist.Independent:
        """The prior of z_{t+1}, which a predictor makes of the code before it, (*batch, latent)."""
        if not t or not self.predictors:
            return self.prior()
        loc, log_scale = self.predictors[min(t, len(self.predictors)) - 1](above).chunk(2, -1)
        return diagonal_normal(loc, likelihoods.bounded_exp(log_scale))

    def image_of(self, t: int, before: Tensor | None, z: Tensor) -> Tensor:
        """m_{t+1} of m_t and z_{t+1}: (*batch, event) and (*batch, latent) -> (*batch, event)."""
        network = self.networks[min(t, len(self.networks) - 1)]
        if not t:
            return self.likelihood.squash(network(z))
        out, gate = network(z, before).tensor_split([self.event], -1)
        gate = gate.sigmoid().tile(self.event // gate.shape[-1])  # a "conv" has one gate for all channels of a pixel
        return gate * self.likelihood.squash(out) + (1 - gate) * before

    def images(self, codes: Sequence[Tensor]) -> Tensor:
        """The image after every step: T codes (*batch, latent) -> (T, *batch, event)."""
        means: list[Tensor] = []
        for t, z in enumerate(codes):
            means.append(self.image_of(t, means[-1] if t else None, z))
        return torch.stack(means)

    def around(self, t: int, mean: Tensor) -> dist.TorchDistribution:
        """The likelihood around an image (*batch, event)."""
        return self.likelihood(self.likelihood.around(mean, None if self.log_scales is None else self.log_scales[t]))
