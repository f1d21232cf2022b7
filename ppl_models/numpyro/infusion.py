"""A chain of images that is trained to reach the data (Bordes, Honari & Vincent 2017, arXiv 1703.06975)."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jax import Array
from jax.lax import stop_gradient
from jax.nn import relu, sigmoid
from numpyro import handlers
from numpyro.distributions import Distribution

from ppl_models.parts.sizes import event_size, one_size
from ppl_models.parts.structure import check_criterion

from .parts import likelihoods
from .parts.distributions import diagonal_normal
from .parts.nets import LayerNorm, Linear
from .parts.program import Program, is_training

LEAST = 1e-3  # scale of z_1
VARIANCES = (1e-4, 0.1)  # of a transition: at least, and by how much more at most


class StepNet(eqx.Module):
    """One hidden layer for all steps of a chain, normalized with numbers of each step's own.

    h = relu(norm_t(W z + b)),      output = V h + c
    """

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
    """A Markov chain of noisy images, the last of which is the datum.

        p(x, z) = p(z_1) prod_{t=2..T} p(z_t | z_{t-1}) p(x | z_T)
        z_1 ~ N(m, diag s^2),      z_{t+1}, x ~ N(sigmoid(a_t(z_t)), 1e-4 + 0.1 sigmoid(b_t(z_t)))

    Every latent has the shape of the data, in [0, 1] or nearly.

    **Two criteria.** "elbo" is the model above. "per-step" is infusion training: in training mode (inside
    `parts.training()`, as the loss of `fit` is) every transition is also scored at the datum, with weight t / T, and
    gradients stay within a step,

        sum_{t=0..T}  w_t log p_t(x | z_t),      w_0 = 1 / T,  w_t = t / T,      z_t of the guide, held fixed

    (p_0 has no z to read.) With the guide `Infused` this, without any divergence, is what the paper maximizes:
    `fit(..., objective=unregularized)`. So infusion training is the criterion of Zhao et al. with R = 0 and an encoder
    without parameters. In evaluation mode the model is the one above with either, and the ELBO with `Infused` is the
    paper's lower bound.

    Shapes: x (n, event), z_t (n, event); sites z1..zT and x (x0..x{T-1} besides, while "per-step" trains).

    Args:
        event: number of values in a row of x, or its shape.
        steps: T.
        hidden: width of the one hidden layer, which all steps share.
        criterion: "elbo" or "per-step".
        key: of the initial weights, a `jax.random.key`.

    Raises:
        ValueError: sizes that are none; an unknown criterion; x of the wrong width, not finite, empty.

    Source: sections 2 and 3, and the official code. There z_1 has the mean and variance of the training set; here they
    are learned, s = 1e-3 + exp(10 r) of a parameter r, so that its scales can fall by orders of magnitude in a training
    whose other weights move by a fraction; and layers are normalized instead of batches.

    >>> from numpyro.handlers import seed
    >>> seed(Infusion(event=64, steps=3, hidden=16, key=jax.random.key(0)), jax.random.key(1))(n=3).shape
    (3, 64)

    >>> from ppl_models.factorization import factorization
    >>> x = jax.random.uniform(jax.random.key(2), (3, 4))
    >>> f = factorization(Infusion(event=4, steps=3, hidden=8, key=jax.random.key(0)), x)
    >>> print(f)
    p(z1) p(z2 | z1) p(z3 | z2) p(x | z3)
    >>> print(f.faithful_inverse())
    q(z1 | x) q(z2 | z1, x) q(z3 | z2, x)
    """

    start: Array
    likelihood: likelihoods.Gaussian
    network: StepNet
    event: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    criterion: str = eqx.field(static=True)

    def __init__(
        self,
        event: int | Sequence[int] = 784,
        steps: int = 10,
        hidden: int = 1200,
        criterion: str = "elbo",
        *,
        key: Array,
    ) -> None:
        self.event, _ = event_size("Infusion", event)
        self.steps, hidden = one_size("Infusion", "steps", steps), one_size("Infusion", "hidden", hidden)
        self.criterion = check_criterion("Infusion", criterion)
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
