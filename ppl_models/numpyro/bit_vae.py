"""A VAE of relaxed bits, after Webb et al. 2018 (arXiv 1712.00287) and Maddison et al. 2017 (arXiv 1611.00712)."""

import equinox as eqx
import jax.numpy as jnp
import numpyro
from jax import Array
from jax.nn import sigmoid
from jax.scipy.special import logsumexp

from ppl_models.parts.arguments.kinds import Count, Event, Positive, Whole
from ppl_models.parts.arguments.sizes import event_size
from ppl_models.parts.states import states_of

from .parts import likelihoods
from .parts.bits import LOGIT, RelaxedBits
from .parts.nets import Net
from .parts.program import Program


class BitVAE(Program):
    """Port of `ppl_models.BitVAE`: same sites, arguments and names of parameters; `key` seeds the weights."""

    logits: Array
    decoder: Net
    likelihood: eqx.Module
    event: int = eqx.field(static=True)
    latent: int = eqx.field(static=True)
    temperature: float = eqx.field(static=True)

    def __init__(
        self,
        event: Event = 784,
        latent: Count = 30,
        temperature: Positive = 0.5,
        hidden: Count = 256,
        depth: Whole = 1,
        likelihood: str | eqx.Module = "bernoulli",
        *,
        key: Array,
    ) -> None:
        self.event, _ = event_size("BitVAE", event)
        self.latent, self.temperature = latent, temperature
        self.likelihood = likelihoods.likelihood(likelihood, "BitVAE")
        self.logits = jnp.zeros(latent)
        self.decoder = Net([latent], self.likelihood.count * self.event, hidden, depth, norm=True, key=key)

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        with numpyro.plate("data", n):
            # p(z): logits of relaxed bits
            z = numpyro.sample("z1", RelaxedBits(self.logits, self.temperature).to_event(1))
            # p(x | z)
            return numpyro.sample("x", self.likelihood(self.decoder(sigmoid(z))), obs=x)

    def states(self) -> Array:
        """See `ppl_models.BitVAE.states`."""
        return jnp.asarray(2 * states_of(self.latent) - 1, self.dtype) * LOGIT

    def log_joint(self, x: Array) -> Array:
        """See `ppl_models.BitVAE.log_joint`."""
        likelihoods.rows(x, 1, self.event, self.likelihood, self.dtype)
        z = self.states()
        prior = RelaxedBits(self.logits, 0.0).to_event(1).log_prob(z)
        return prior + self.likelihood(self.decoder(sigmoid(z))).log_prob(x[..., None, :])

    def log_evidence(self, x: Array) -> Array:
        """See `ppl_models.BitVAE.log_evidence`."""
        return logsumexp(self.log_joint(x), -1)
