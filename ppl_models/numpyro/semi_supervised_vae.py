"""The generative model of semi-supervised learning, M2: a class and a code (Kingma et al. 2014, arXiv 1406.5298)."""

import equinox as eqx
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.core import Tracer

from ppl_models.parts.arguments.kinds import Count, Event, Whole
from ppl_models.parts.arguments.sizes import event_size
from ppl_models.parts.states import check_classes, check_labels

from .parts import likelihoods
from .parts.distributions import StandardNormal
from .parts.nets import Net
from .parts.program import Program


class SemiSupervisedVAE(Program):
    """Port of `ppl_models.SemiSupervisedVAE`: same sites, arguments and parameters; `key` seeds the weights."""

    decoder: Net
    likelihood: eqx.Module
    prior: StandardNormal
    event: int = eqx.field(static=True)
    latent: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)

    def __init__(
        self,
        event: Event = 784,
        latent: Count = 50,
        classes: Count = 10,
        hidden: Count = 500,
        depth: Whole = 1,
        likelihood: str | eqx.Module = "bernoulli",
        *,
        key: Array,
    ) -> None:
        self.event, _ = event_size("SemiSupervisedVAE", event)
        self.latent, self.classes = latent, classes
        self.likelihood = likelihoods.likelihood(likelihood, "SemiSupervisedVAE")
        self.prior = StandardNormal(latent)
        count = self.likelihood.count * self.event
        self.decoder = Net([latent, classes], count, hidden, depth, norm=True, key=key)

    def forward(self, x: Array | None = None, labels: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), some of them with labels (n,), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        with numpyro.plate("data", n):
            # p(y), 1/K, or 1 for the label that is known
            y = numpyro.sample("y", dist.Categorical(self.masses(labels, n)))
            # p(z)
            z = numpyro.sample("z1", self.prior())
            # p(x | y, z)
            code = (y[..., None] == jnp.arange(self.classes)).astype(self.dtype)
            return numpyro.sample("x", self.likelihood(self.decoder(z, code)), obs=x)

    def masses(self, labels: Array | None, n: int) -> Array:
        """The prior masses of the classes: (classes,), or (n, classes) where there are labels."""
        even = jnp.full((self.classes,), 1 / self.classes, self.dtype)
        if labels is None:
            return even
        check_labels(likelihoods.ARRAYS, labels, n)
        if not isinstance(labels, Tracer):
            check_classes(labels[(labels < -1) | (labels >= self.classes)], self.classes)
        labels = labels[..., None]
        return jnp.where(labels < 0, even, (labels == jnp.arange(self.classes)).astype(self.dtype))
