"""The linear-Gaussian model: the one deep model in which every integral is a line of linear algebra."""

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jax import Array
from jax.scipy.linalg import solve_triangular
from numpyro.distributions import Independent, MultivariateNormal

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Event, Several
from ppl_models.parts.arguments.sizes import event_size, slices_of
from ppl_models.parts.checks import FAMILIES as FAMILIES, STRUCTURES as STRUCTURES, Family, Structure, parents_of

from .parts.distributions import diagonal_normal
from .parts.likelihoods import check_count, check_data
from .parts.program import Program


class LinearGaussian(Program):
    """Port of `ppl_models.LinearGaussian`: same sites, arguments and names of parameters; `key` draws the weights."""

    weight: dict[str, Array]  # "z2_z1": W of the edge z1 -> z2, (size of z2, size of z1)
    log_scale: dict[str, Array]
    bias: dict[str, Array]
    event: int = eqx.field(static=True)
    latents: tuple[str, ...] = eqx.field(static=True)
    edges: tuple[tuple[str, tuple[str, ...]], ...] = eqx.field(static=True)  # `parents`, hashable

    def __init__(
        self,
        event: Event = 3,
        latent: Several = (2, 2, 2),
        parents: Mapping[str, Sequence[str]] | None = None,
        weight: float = 0.9,
        *,
        key: Array,
    ) -> None:
        self.event, _ = event_size("LinearGaussian", event)
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
        """The place of each site in the concatenation (z1, ..., zL, x) that the closed forms are written in."""
        return slices_of(self.sizes)

    def joint(self) -> tuple[Array, Array]:
        """Mean `(D,)` and covariance `(D, D)` of v = (z1, ..., zL, x), where D sums the sizes."""
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
        """Exact p(z | x) over the concatenation (z1, ..., zL), batch shape `(N,)`."""
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

    @checked
    def gap(self, structure: Structure = "mean-field", family: Family = "full") -> Array:
        """Gap of the best guide of a structure, min_q E_x KL( q(z | x) || p(z | x) ): a scalar, in nats."""
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
        """Mean `(D,)` of v and a lower triangular root `(D, D)` of its covariance."""
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
