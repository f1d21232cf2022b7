"""A chain of images that is trained to reach the data (Bordes, Honari & Vincent 2017, arXiv 1703.06975)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jax import Array
from jax.lax import stop_gradient
from jax.nn import relu, sigmoid
from numpyro import handlers
from numpyro.distributions import Distribution

from ppl_models.parts.arguments.kinds import Count, Event
from ppl_models.parts.arguments.sizes import event_size
from ppl_models.parts.checks import Criterion

from .parts import likelihoods
from .parts.distributions import diagonal_normal
from .parts.nets import LayerNorm, Linear
from .parts.program import Program, is_training

LEAST = 1e-3  # scale of z_1
VARIANCES = (1e-4, 0.1)  # of a transition: at least, and by how much more at most


class StepNet(eqx.Module):
    """Port of `ppl_models.infusion.StepNet`; `key` seeds the weights."""

    first: Linear
    norms: tuple[LayerNorm, ...]
    last: Linear

    def __init__(self, size: int, hidden: int, steps: int, *, key: Array) -> None:
        keys = jax.random.split(key)
        self.first = Linear(size, hidden, key=keys[0])
        self.norms = tuple(LayerNorm(hidden) for _ in range(steps))
        self.last = Linear(hidden, 2 * size, key=keys[1])

    def __call__(self, t: int, z: Array) -> Array:
        """(*batch, size) -> (*batch, 2 size), at step t."""
        return self.last(relu(self.norms[t](self.first(z))))


class Infusion(Program):
    """Port of `ppl_models.Infusion`: same sites, arguments and names of parameters; `key` seeds the weights.

    "per-step" trains inside `parts.training()`, as the loss of `fit` is; there is no mode of a module.
    """

    start: Array
    likelihood: likelihoods.Gaussian
    network: StepNet
    event: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    criterion: str = eqx.field(static=True)

    def __init__(
        self,
        event: Event = 784,
        steps: Count = 10,
        hidden: Count = 1200,
        criterion: Criterion = "elbo",
        *,
        key: Array,
    ) -> None:
        self.event, _ = event_size("Infusion", event)
        self.steps = steps
        self.criterion = criterion
        self.likelihood = likelihoods.Gaussian()
        self.start = jnp.concatenate([jnp.full(self.event, 0.5, float), jnp.full(self.event, -0.1, float)])
        self.network = StepNet(self.event, hidden, self.steps, key=key)

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        every = self.criterion == "per-step" and is_training() and x is not None
        with numpyro.plate("data", n):
            z = None
            for t in range(self.steps):
                # p(z1), or p(zt | z{t-1})
                step = self.transition(t, z)
                if every:
                    with handlers.scale(scale=max(t, 1) / self.steps):
                        numpyro.sample(f"x{t}", step, obs=x)
                z = numpyro.sample(f"z{t + 1}", step)
                z = stop_gradient(z) if every else z
            # p(x | zT)
            return numpyro.sample("x", self.transition(self.steps, z), obs=x)

    def transition(self, t: int, z: Array | None) -> Distribution:
        """p_t: of z_1 for t = 0, of z_{t+1} given z_t, and of x given z_T for t = T."""
        if t == 0:
            loc, raw = jnp.split(self.start, 2)
            return diagonal_normal(loc, LEAST + jnp.exp(10 * raw))
        loc, spread = jnp.split(self.network(t - 1, z), 2, -1)
        least, more = VARIANCES
        return diagonal_normal(sigmoid(loc), jnp.sqrt(least + more * sigmoid(spread)))
