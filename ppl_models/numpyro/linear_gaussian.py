"""The linear-Gaussian model: the one deep model in which every integral is a line of linear algebra."""

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jax import Array
from jax.scipy.linalg import solve_triangular
from numpyro.distributions import Independent, MultivariateNormal

from ppl_models.parts.sizes import all_sizes, event_size
from ppl_models.parts.structure import FAMILIES as FAMILIES, STRUCTURES as STRUCTURES, check_gap, parents_of

from .parts.distributions import diagonal_normal
from .parts.likelihoods import check_count, check_data
from .parts.program import Program


class LinearGaussian(Program):
    """Gaussian latents on a directed acyclic graph of linear maps, with exact evidence, posterior and gaps.

        p(z_l | pa) = N( sum_{u in pa(l)} W_lu z_u + b_l, diag(s_l^2) ),      l = 1 ... L
        p(x | pa)   = N( sum_{u in pa(x)} W_xu z_u + b_x, diag(s_x^2) )

    A site without parents, as z1, has the mean b. One standard normal latent gives factor analysis, and with
    all s_x equal probabilistic PCA. Use it as the truth to hold a guide or an estimator against.

    `latent` lists the sizes of z1 ... zL in generation order, `event` is the size (or the shape) of a row of
    x. `parents` maps sites to the earlier latents they depend on, as `{"x": ("z3", "z1")}`; a site that it
    leaves out keeps its parent in the chain z1 -> z2 -> ... -> zL -> x. x is `(N, event)`; z_l is
    `(..., N, size)`.

    Weights are `weight` times a standard normal draw, noise variances uniform on (0.3, 1.3), biases zero, all
    drawn from `key`; all can be learned.

    Raises `ValueError` for a size that is no positive integer and for parents that are unknown, later or
    repeated; what takes x raises `ValueError` or `TypeError` for data that the model cannot have made.

    Source: Roweis and Ghahramani 1999, "A unifying review of linear Gaussian models", Neural Computation 11(2);
    Tipping and Bishop 1999, "Probabilistic principal component analysis", JRSS B 61(3).

    >>> model = LinearGaussian(key=jax.random.key(0))
    >>> gaps = [model.gap(structure, "diagonal") for structure in STRUCTURES]
    >>> bool(gaps[0] > gaps[1] > 0), bool(abs(model.gap("top-down")) < 1e-5)
    (True, True)

    >>> from ppl_models.factorization import factorization
    >>> print(factorization(model, jnp.eye(3)))
    p(z1) p(z2 | z1) p(z3 | z2) p(x | z3)
    >>> model = LinearGaussian(parents={"z3": ("z1",), "x": ("z2", "z3")}, key=jax.random.key(0))
    >>> print(factorization(model, jnp.eye(3)))
    p(z1) p(z2 | z1) p(z3 | z1) p(x | z2, z3)
    """

    weight: dict[str, Array]  # "z2_z1": W of the edge z1 -> z2, (size of z2, size of z1)
    log_scale: dict[str, Array]
    bias: dict[str, Array]
    event: int = eqx.field(static=True)
    latents: tuple[str, ...] = eqx.field(static=True)
    edges: tuple[tuple[str, tuple[str, ...]], ...] = eqx.field(static=True)  # `parents`, hashable

    def __init__(
        self,
        event: int | Sequence[int] = 3,
        latent: int | Sequence[int] = (2, 2, 2),
        parents: Mapping[str, Sequence[str]] | None = None,
        weight: float = 0.9,
        *,
        key: Array,
    ) -> None:
        self.event, _ = event_size("LinearGaussian", event)
        latent = all_sizes("LinearGaussian", "latent", latent)
        self.latents = tuple(f"z{layer}" for layer in range(1, len(latent) + 1))
        sizes = {**dict(zip(self.latents, latent, strict=True)), "x": self.event}
        self.edges = tuple(parents_of(self.latents, {} if parents is None else parents).items())
        self.weight, self.log_scale, self.bias = {}, {}, {}
        for site, names in self.edges:
            key, own, *keys = jax.random.split(key, 2 + len(names))
            for parent, edge in zip(names, keys, strict=True):
                self.weight[f"{site}_{parent}"] = weight * jax.random.normal(edge, (sizes[site], sizes[parent]))
            self.log_scale[site] = jnp.log(0.3 + jax.random.uniform(own, (sizes[site],))) / 2
            self.bias[site] = jnp.zeros(sizes[site])

    @property
    def sizes(self) -> dict[str, int]:
        """The size of every site, in model order."""
        return {site: self.bias[site].shape[0] for site, _ in self.edges}

    @property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """The parents of every site, in model order."""
        return dict(self.edges)

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Sample z1 ... zL, then observe x, or generate n of it; returns x, `(N, event)`."""
        if x is not None:
            x = self._data(x)
        z: dict[str, Array] = {}
        with numpyro.plate("data", check_count(n) if x is None else len(x), dim=-1):
            for site in self.latents:
                # p(z_l | pa(z_l))
                z[site] = numpyro.sample(site, self._conditional(site, z))
            # p(x | pa(x))
            return numpyro.sample("x", self._conditional("x", z), obs=x)

    def blocks(self) -> dict[str, slice]:
        """Where each site lies in the concatenation (z1, ..., zL, x) that the closed forms are written in."""
        blocks, start = {}, 0
        for site, size in self.sizes.items():
            blocks[site] = slice(start, start + size)
            start += size
        return blocks

    def joint(self) -> tuple[Array, Array]:
        """Mean `(D,)` and covariance `(D, D)` of v = (z1, ..., zL, x), where D sums the sizes.

        v = A v + b + s * noise, hence the mean (I - A)^-1 b and the covariance R R^T, R = (I - A)^-1 diag(s).
        """
        mean, root = self._moments()
        return mean, root @ root.T

    def log_evidence(self, x: Array) -> Array:
        """Exact log p(x) = log N(x; E x, Cov x), in nats; `(N, event)` to `(N,)`."""
        x = self._data(x)
        mean, root = self._moments()
        block = self.blocks()["x"]
        triangle = _positive(jnp.linalg.qr(root[block].T)[1].T)
        return MultivariateNormal(mean[block], scale_tril=triangle).log_prob(x)

    def posterior(self, x: Array) -> MultivariateNormal:
        """Exact p(z | x) over the concatenation (z1, ..., zL), batch shape `(N,)`.

        With P the precision of (z, x), p(z | x) = N( E z - P_zz^-1 P_zx (x - E x), P_zz^-1 ). The covariance
        does not depend on x. `blocks()` finds the layers.
        """
        x = self._data(x)
        mean, _ = self._moments()
        whitening = self._whitening()
        block = self.blocks()["x"]
        # P = W^T W and W_z = Q R: least squares for the mean, and R^-1 R^-T for the covariance. Both flips
        # together turn the upper triangle R^-1 into the lower one that a scale_tril has to be.
        q, r = jnp.linalg.qr(whitening[:, : block.start][:, ::-1])
        inverse = solve_triangular(r, jnp.eye(len(r), dtype=r.dtype))
        shift = (inverse @ (q.T @ (whitening[:, block] @ (x - mean[block]).T)))[::-1]
        return MultivariateNormal(mean[: block.start] - shift.T, scale_tril=_positive(inverse[::-1, ::-1]))

    def gap(self, structure: str = "mean-field", family: str = "full") -> Array:
        """What the best guide of a structure loses, min_q E_x KL( q(z | x) || p(z | x) ): a scalar, in nats.

        Lambda is the precision of the exact posterior, Lambda_l that of a layer given all its factor sees
        (mean field: given all other layers too, the block l of Lambda; the reverse KL is as narrow as that):

            "mean-field"    q = prod_l q(z_l | x)          Lambda_l of p(z_l | all others, x)
            "top-down"      q = prod_l q(z_l | z_<l, x)    Lambda_l of p(z_l | z_<l, x)
            "bottom-up"     q = prod_l q(z_l | z_>l, x)    Lambda_l of p(z_l | z_>l, x)

            "full"          gap = 1/2 ( sum_l log det Lambda_l           - log det Lambda )
            "diagonal"      gap = 1/2 ( sum_l sum_j log (Lambda_l)_jj    - log det Lambda )

        The family is that of one factor, within its layer. Means are linear in all that the factor sees, so
        the optimum is the same amortized and datum by datum; "top-down" and "bottom-up" are exact when full.
        Raises `ValueError` for other words.
        """
        check_gap(structure, family)
        # Lambda = W^T W with W = Q R, columns in the order of elimination: R_ll^T R_ll is what is left for
        # layer l once the layers before it are integrated out, and W_l^T W_l is block l of Lambda itself.
        blocks, whitening = self.blocks(), self._whitening()
        order = self.latents[::-1] if structure == "top-down" else self.latents
        r = jnp.linalg.qr(jnp.concatenate([whitening[:, blocks[site]] for site in order], -1))[1]
        gap, start = jnp.zeros((), r.dtype), 0
        for site in order:
            own = slice(start, start + self.sizes[site])
            exact = _log_det(r[own, own])
            factor = whitening[:, blocks[site]] if structure == "mean-field" else r[own, own]
            if family == "diagonal":
                kept = jnp.log(jnp.square(factor).sum(0)).sum()
            elif structure == "mean-field":
                kept = _log_det(jnp.linalg.qr(factor)[1])
            else:
                kept = exact
            gap, start = gap + (kept - exact) / 2, own.stop
        return gap

    def _conditional(self, site: str, z: Mapping[str, Array]) -> Independent:
        """p(site | its parents), event shape `(size,)`, batch shape that of the parents."""
        loc = self.bias[site]
        for parent in self.parents[site]:
            loc = loc + z[parent] @ self.weight[f"{site}_{parent}"].T
        return diagonal_normal(loc, jnp.exp(self.log_scale[site]))

    def _system(self) -> tuple[Array, Array, Array]:
        """I - A, b and s of v = A v + b + s * noise, v = (z1, ..., zL, x); I - A is unit lower triangular."""
        blocks = self.blocks()
        bias = jnp.concatenate([self.bias[site] for site in blocks])
        scale = jnp.exp(jnp.concatenate([self.log_scale[site] for site in blocks]))
        system = jnp.eye(len(bias), dtype=bias.dtype)
        for site, names in self.edges:
            for parent in names:
                system = system.at[blocks[site], blocks[parent]].set(-self.weight[f"{site}_{parent}"])
        return system, bias, scale

    def _moments(self) -> tuple[Array, Array]:
        """Mean `(D,)` of v and a lower triangular root `(D, D)` of its covariance.

        The closed forms work with roots, by QR: a covariance has the squared condition number of its root.
        """
        system, bias, scale = self._system()
        right = jnp.concatenate([bias[:, None], jnp.diag(scale)], -1)
        solved = solve_triangular(system, right, lower=True, unit_diagonal=True)
        return solved[:, 0], solved[:, 1:]

    def _whitening(self) -> Array:
        """W = diag(1 / s) (I - A), `(D, D)`: W^T W is the precision of v, its z block that of p(z | x)."""
        system, _, scale = self._system()
        return system / scale[:, None]

    def _data(self, x: Array) -> Array:
        """x, after the checks that all models make."""
        return check_data(x, self.event, dtype=self.dtype)


def _log_det(triangle: Array) -> Array:
    """log det T^T T."""
    return jnp.log(jnp.square(jnp.diagonal(triangle))).sum()


def _positive(triangle: Array) -> Array:
    """The same square, T T^T, with a positive diagonal."""
    return triangle * jnp.sign(jnp.diagonal(triangle))
