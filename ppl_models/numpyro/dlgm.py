"""The deep latent Gaussian model (Rezende, Mohamed, Wierstra 2014, arXiv 1401.4082)."""

from collections.abc import Sequence

import equinox as eqx
import jax
import numpyro
from jax import Array

from ppl_models.parts.sizes import all_sizes, event_size, one_size

from .parts import likelihoods
from .parts.distributions import StandardNormal
from .parts.nets import Linear, Net
from .parts.program import Program


class DLGM(Program):
    """Independent noise at every layer of a deterministic decoder, in the form in which the paper infers it.

        p(x, z) = prod_l p(z_l) p(x | z_1, ..., z_L),      z_l ~ N(0, I)
        h_1 = G_1 z_1,      h_l = T_l(h_{l-1}) + G_l z_l,      x ~ likelihood(T_0(h_L))

    Latents are numbered in generation order, z_1 at the top (the paper's xi_L). Given x, every latent depends on all
    the others: see `ppl_models.DLGM` for what that means for guides.

    Shapes: x (n, event), z_l (n, latent[l - 1]); sites z1..zL and x.

    Args:
        event: number of values in a row of x, or its shape.
        latent: sizes of z1..zL.
        hidden: size of the states h_l, and width of the networks T_l.
        depth: residual blocks in each T_l.
        likelihood: see `parts.likelihoods.likelihood`.
        key: of the initial weights, a `jax.random.key`.

    Raises:
        ValueError: no latents, sizes that are none; x of the wrong width, outside the support, not finite, empty.

    Source: Rezende et al. 2014, eq. 1 to 4, and eq. 15 for the recognition model.

    >>> from numpyro.handlers import seed
    >>> seed(DLGM(event=64, latent=(4, 4), key=jax.random.key(0)), jax.random.key(1))(n=3).shape
    (3, 64)

    >>> from ppl_models.factorization import factorization
    >>> model = DLGM(event=4, latent=(2, 2, 2), hidden=8, key=jax.random.key(0))
    >>> f = factorization(model, jax.numpy.eye(4)[:3])
    >>> print(f)
    p(z1) p(z2) p(z3) p(x | z1, z2, z3)
    >>> print(f.faithful_inverse())
    q(z1 | x) q(z2 | z1, x) q(z3 | z1, z2, x)
    """

    noise: tuple[Linear, ...]
    states: tuple[Net, ...]
    decoder: Net
    likelihood: eqx.Module
    priors: tuple[StandardNormal, ...]
    event: int = eqx.field(static=True)
    latent: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        event: int | Sequence[int] = 784,
        latent: int | Sequence[int] = (50, 50),
        hidden: int = 256,
        depth: int = 1,
        likelihood: str | eqx.Module = "bernoulli",
        *,
        key: Array,
    ) -> None:
        self.event, _ = event_size("DLGM", event)
        self.latent, hidden = all_sizes("DLGM", "latent", latent), one_size("DLGM", "hidden", hidden)
        depth = one_size("DLGM", "depth", depth, least=0)
        self.likelihood = likelihoods.likelihood(likelihood, "DLGM")
        keys = iter(jax.random.split(key, 2 * len(self.latent)))
        self.priors = tuple(StandardNormal(size) for size in self.latent)
        self.noise = tuple(Linear(size, hidden, bias=False, key=next(keys)) for size in self.latent)
        self.states = tuple(Net([hidden], hidden, hidden, depth, norm=True, key=next(keys)) for _ in self.latent[1:])
        self.decoder = Net([hidden], self.likelihood.count * self.event, hidden, depth, norm=True, key=next(keys))

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        h: Array | None = None
        with numpyro.plate("data", n):
            for i, (prior, noise) in enumerate(zip(self.priors, self.noise, strict=True)):
                # p(zl), hl = Tl(h{l-1}) + Gl zl
                z = numpyro.sample(f"z{i + 1}", prior())
                h = noise(z) if h is None else self.states[i - 1](h) + noise(z)
            # p(x | z1, ..., zL)
            return numpyro.sample("x", self.likelihood(self.decoder(h)), obs=x)
