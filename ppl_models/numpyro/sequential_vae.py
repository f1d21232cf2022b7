"""The sequential VAE: an image refined step by step (Zhao, Song & Ermon 2017, arXiv 1702.08658)."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jax import Array
from jax.lax import stop_gradient
from jax.nn import sigmoid
from numpyro.distributions import Distribution

from ppl_models.parts.arguments.kinds import Count, Event, Whole
from ppl_models.parts.arguments.sizes import Network, code_sizes, event_size
from ppl_models.parts.checks import Criterion

from .parts import likelihoods
from .parts.distributions import StandardNormal, diagonal_normal
from .parts.nets import LadderNet, Net
from .parts.program import Program, is_training


class SequentialVAE(Program):
    """Port of `ppl_models.SequentialVAE`: same sites, arguments and names of parameters; `key` seeds the weights.

    "per-step" trains inside `parts.training()`, as the loss of `fit` is; there is no mode of a module.
    """

    log_scales: Array | None
    likelihood: eqx.Module
    networks: tuple[Net | LadderNet, ...]
    predictors: tuple[Net, ...]
    prior: StandardNormal
    event: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    latent: int = eqx.field(static=True)
    criterion: str = eqx.field(static=True)

    def __init__(
        self,
        event: Event = 784,
        steps: Count = 8,
        latent: Event = 10,
        hidden: Count = 256,
        depth: Whole = 1,
        likelihood: str | eqx.Module = "bernoulli",
        network: Network = "mlp",
        shared: bool = False,
        predictor: bool = False,
        criterion: Criterion = "elbo",
        *,
        key: Array,
    ) -> None:
        self.event, image = event_size("SequentialVAE", event, network)
        self.steps = steps
        parts = code_sizes("SequentialVAE", latent, image)
        self.latent = sum(parts)
        self.criterion = criterion
        self.likelihood = likelihoods.likelihood(likelihood, "SequentialVAE", ("squash", "around"))

        def network_of(first: bool, key: Array) -> Net | LadderNet:
            """G_1, which has no image to read and no gate to give, or G_t."""
            if image is None:
                inputs, outputs = [self.latent, self.event][: 1 if first else 2], (1 if first else 2) * self.event
                return Net(inputs, outputs, hidden, depth, norm=True, key=key)
            outputs = (image[0] + (0 if first else 1), *image[1:])
            return LadderNet(parts, outputs, None if first else image[0], max(hidden // 16, 4), depth, key=key)

        each = self.steps if not shared else min(self.steps, 2)
        keys = jax.random.split(key, 2 * each)
        self.networks = tuple(network_of(t == 0, keys[t]) for t in range(each))
        self.predictors = tuple(
            Net([self.latent], 2 * self.latent, hidden, depth, gain=0.1, norm=True, key=keys[each + t])
            for t in range(each - 1 if predictor else 0)
        )
        wide = self.likelihood.count > 1  # a likelihood with a scale of its own to learn
        self.log_scales = jnp.zeros(self.steps) if wide else None
        self.prior = StandardNormal(self.latent)

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        every = self.criterion == "per-step" and is_training() and x is not None
        codes: list[Array] = []
        with numpyro.plate("data", n):
            for t in range(self.steps):
                # p(zt), or p(zt | z{t-1})
                above = codes[-1] if codes else None
                prior = self.prior_of(t, stop_gradient(above) if every and codes else above)
                codes.append(numpyro.sample(f"z{t + 1}", prior))
            mean = None
            for t, z in enumerate(codes):
                # mt = gt Gt(m{t-1}, zt) + (1 - gt) m{t-1}
                mean = self.image_of(t, mean, z)
                if every and t + 1 < self.steps:
                    # p(xt | mt), and no gradient from later steps
                    numpyro.sample(f"x{t + 1}", self.around(t, mean), obs=x)
                    mean = stop_gradient(mean)
            # p(x | z1, ..., zT)
            return numpyro.sample("x", self.around(self.steps - 1, mean), obs=x)

    def prior_of(self, t: int, above: Array | None) -> Distribution:
        """The prior of z_{t+1}, which a predictor makes of the code before it, (*batch, latent)."""
        if not t or not self.predictors:
            return self.prior()
        loc, log_scale = jnp.split(self.predictors[min(t, len(self.predictors)) - 1](above), 2, -1)
        return diagonal_normal(loc, likelihoods.bounded_exp(log_scale))

    def image_of(self, t: int, before: Array | None, z: Array) -> Array:
        """m_{t+1} of m_t and z_{t+1}: (*batch, event) and (*batch, latent) -> (*batch, event)."""
        network = self.networks[min(t, len(self.networks) - 1)]
        if not t:
            return self.likelihood.squash(network(z))
        out, gate = jnp.split(network(z, before), [self.event], -1)
        # a "conv" has one gate for all channels of a pixel
        gate = jnp.tile(sigmoid(gate), self.event // gate.shape[-1])
        return gate * self.likelihood.squash(out) + (1 - gate) * before

    def images(self, codes: Sequence[Array]) -> Array:
        """The image after every step: T codes (*batch, latent) -> (T, *batch, event)."""
        means: list[Array] = []
        for t, z in enumerate(codes):
            means.append(self.image_of(t, means[-1] if t else None, z))
        return jnp.stack(means)

    def around(self, t: int, mean: Array) -> Distribution:
        """The likelihood around an image (*batch, event)."""
        return self.likelihood(self.likelihood.around(mean, None if self.log_scales is None else self.log_scales[t]))
