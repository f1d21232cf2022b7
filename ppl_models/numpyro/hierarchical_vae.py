"""A hierarchy of Gaussian latents: the generative half of the ladder VAE (Sonderby et al. 2016, arXiv 1602.02282)."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jax import Array

from ppl_models.parts.sizes import all_sizes, event_size, one_size

from .parts import likelihoods
from .parts.distributions import StandardNormal, diagonal_normal
from .parts.nets import Net
from .parts.program import Program


class HierarchicalVAE(Program):
    """A Markov chain of latent vectors, the last of which, or all of which, give the data.

        p(x, z) = p(z1) prod_{l=2..L} p(z_l | z_{l-1}) p(x | z_L)                skip=False
        p(x, z) = p(z1) prod_{l=2..L} p(z_l | z_{l-1}) p(x | z_1, ..., z_L)      skip=True

    z_1 ~ N(0, I), z_l ~ N(mu(z_{l-1}), sigma(z_{l-1})^2). Latents are numbered in generation order: z_1 is the top,
    which most papers call z_L.

    Shapes: x (n, event), z_l (n, latent[l - 1]); sites z1..zL and x.

    Args:
        event: number of values in a row of x, or its shape.
        latent: sizes of z1..zL, smallest first in the ladder VAE.
        hidden: width of the networks, one for all or one a layer (z_1 -> z_2, ..., z_L -> x).
        depth: residual blocks in each network.
        likelihood: see `parts.likelihoods.likelihood`.
        skip: whether x reads every latent, not the last alone.
        key: of the initial weights, a `jax.random.key`.

    Raises:
        ValueError: no latents, sizes that are none, or widths that do not match the latents; x of the wrong width,
            outside the support, not finite, empty.

    Source: Sonderby et al. 2016, eq. 1 to 3, for `skip=False`; Maaloe et al. 2019 (arXiv 1902.02102) for skips.

    >>> from numpyro.handlers import seed
    >>> seed(HierarchicalVAE(event=64, latent=(2, 4, 8), key=jax.random.key(0)), jax.random.key(1))(n=3).shape
    (3, 64)

    >>> from ppl_models.factorization import factorization
    >>> for skip in (False, True):
    ...     model = HierarchicalVAE(event=4, latent=(2, 2, 2), hidden=8, skip=skip, key=jax.random.key(0))
    ...     print(factorization(model, jnp.eye(4)[:3]))
    p(z1) p(z2 | z1) p(z3 | z2) p(x | z3)
    p(z1) p(z2 | z1) p(z3 | z2) p(x | z1, z2, z3)
    """

    priors: tuple[Net, ...]
    decoder: Net
    likelihood: eqx.Module
    prior: StandardNormal
    event: int = eqx.field(static=True)
    latent: tuple[int, ...] = eqx.field(static=True)
    skip: bool = eqx.field(static=True)

    def __init__(
        self,
        event: int | Sequence[int] = 784,
        latent: int | Sequence[int] = (4, 8, 16, 32, 64),
        hidden: int | Sequence[int] = 256,
        depth: int = 1,
        likelihood: str | eqx.Module = "bernoulli",
        skip: bool = False,
        *,
        key: Array,
    ) -> None:
        self.event, _ = event_size("HierarchicalVAE", event)
        self.latent = latent = all_sizes("HierarchicalVAE", "latent", latent)
        widths = all_sizes("HierarchicalVAE", "hidden", hidden)
        widths = widths * len(latent) if len(widths) == 1 else widths
        if len(widths) != len(latent):
            raise ValueError(
                f"HierarchicalVAE: found hidden={hidden!r} for latent={latent}, want one width for all networks or one "
                "a latent"
            )
        depth = one_size("HierarchicalVAE", "depth", depth, least=0)
        self.skip = skip
        self.likelihood = likelihoods.likelihood(likelihood, "HierarchicalVAE")
        *keys, last = jax.random.split(key, len(latent))
        layers = zip(latent, latent[1:], widths, keys, strict=False)
        self.priors = tuple(
            Net([above], 2 * size, width, depth, gain=0.1, norm=True, key=own) for above, size, width, own in layers
        )
        inputs = latent if skip else latent[-1:]
        self.decoder = Net(inputs, self.likelihood.count * self.event, widths[-1], depth, norm=True, key=last)
        self.prior = StandardNormal(latent[0])

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        with numpyro.plate("data", n):
            # p(z1)
            z = [numpyro.sample("z1", self.prior())]
            for i, prior in enumerate(self.priors):
                # p(zl | z{l-1})
                loc, log_scale = jnp.split(prior(z[-1]), 2, -1)
                z.append(numpyro.sample(f"z{i + 2}", diagonal_normal(loc, likelihoods.bounded_exp(log_scale))))
            # p(x | zL), or p(x | z1, ..., zL)
            params = self.decoder(*z) if self.skip else self.decoder(z[-1])
            return numpyro.sample("x", self.likelihood(params), obs=x)
