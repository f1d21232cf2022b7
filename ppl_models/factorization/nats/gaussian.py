"""`price`: what a guide's factorization throws away, in nats, where the model is linear and Gaussian."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpotrf  # ty: ignore[missing-module-member] (made of Fortran)
from scipy.optimize import OptimizeResult, minimize

from ..graph import Factorization

FAMILIES = ("full", "diagonal")
NOTHING = 1e-10  # nats: a structure that loses less is taken to lose nothing
STARTS = 6  # of L-BFGS, where there may be local minima


@dataclass(frozen=True, eq=False)
class GaussianJoint:
    """A Gaussian over blocks: latents and data, each a slice of the covariance.

    Args:
        covariance: of all nodes, `(D, D)`, positive definite.
        blocks: node -> slice of the D coordinates.
        observed: the nodes that are data.

    Raises:
        ValueError: a covariance not symmetric and positive definite, blocks not all places once, a name without block.
    """

    covariance: ndarray
    blocks: Mapping[str, slice]
    observed: tuple[str, ...]

    def __post_init__(self) -> None:
        covariance = np.asarray(self.covariance, float)
        object.__setattr__(self, "covariance", covariance)
        object.__setattr__(self, "observed", tuple(dict.fromkeys(self.observed)))
        square = covariance.ndim == 2 and len(covariance) == covariance.shape[-1]
        if not square or not np.abs(covariance - covariance.T).max() <= 1e-6 * np.abs(covariance).max():
            raise ValueError(f"Joint: found a covariance {covariance.shape}, want (D, D), symmetric and finite")
        if sorted(self.places(self.blocks)) != [*range(len(covariance))]:
            raise ValueError(f"Joint: found blocks {dict(self.blocks)}, want each of {len(covariance)} places in one")
        for node in set(self.observed) - set(self.blocks):
            raise ValueError(f"Joint: observed node {node!r} has no block (blocks: {', '.join(self.blocks)})")
        self.root(self.blocks)

    def places(self, nodes: Iterable[str]) -> list[int]:
        """The places of the coordinates of some nodes, in the order of the nodes."""
        return [place for node in nodes for place in range(len(self.covariance))[self.blocks[node]]]

    def root(self, nodes: Collection[str]) -> ndarray:
        """The lower triangular root `(d, d)` of the covariance of some nodes, in that order."""
        places = self.places(nodes)
        root, failed = dpotrf(self.covariance[places][:, places], lower=True, clean=True)
        if failed:  # the order of the first minor that is not positive
            node = next(node for node in nodes if places[failed - 1] in self.places([node]))
            raise ValueError(f"Joint: node {node!r} has no noise of its own, given the others; try leaving it out")
        return root


@dataclass(frozen=True)
class Price:
    """Cost of a structure, in nats per datum.

    Args:
        forward: min_q E_x KL( p(z | x) || q(z | x) ), the sum of `sites`.
        sites: site -> I_p( z_i ; P_i - have_i | have_i ), P_i being the data and the earlier latents of the guide;
            where the family is "diagonal", with what the coupling inside the block costs.
        edges: (site, missing parent u) -> I_p( z_i ; u | have_i ): what this edge alone would gain.
        elbo: min_q E_x KL( q(z | x) || p(z | x) ), what the best ELBO lacks of log p(x); nan if it was not asked for.
    """

    forward: float
    sites: Mapping[str, float]
    edges: Mapping[tuple[str, str], float]
    elbo: float


def price(
    joint: GaussianJoint,
    guide: Factorization,
    missing: Mapping[str, Collection[str]] | None = None,
    elbo: bool = True,
    family: str = "full",
) -> Price:
    """Loss of the best guide of a structure: in both directions, per factor and per missing edge.

        min_q E_x KL( p(z | x) || q(z | x) ) = sum_i I( z_i ; P_i - have_i | have_i )
        I( a ; b | c ) = 1/2 ( log det Cov(a | c) - log det Cov(a | b, c) )

    The factors are q(z_i | have_i) = N( A_i have_i, C_i ), A_i free. A diagonal C_i adds to the forward cost of its
    site 1/2 ( sum_j log C_jj - log det C ), C = Cov(z_i | have_i). The other direction has no closed form: L-BFGS
    minimizes its exact value over all A_i and C_i, from several starts where latent parents make it not convex; what it
    finds is some guide's, so never below the minimum. It is taken to be 0 where the forward cost is below 1e-10.

        >>> covariance = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 2.0], [1.0, 2.0, 3.0]])
        >>> joint = GaussianJoint(covariance, {"z1": slice(0, 1), "z2": slice(1, 2), "x": slice(2, 3)}, observed=("x",))
        >>> guide = Factorization({"z1": ("x",), "z2": ("x",)}, given=("x",), letter="q")
        >>> cost = price(joint, guide, missing={"z2": ("z1",)})
        >>> print(f"{cost.forward:.4f} {cost.elbo:.4f} {cost.edges['z2', 'z1']:.4f}")  # 1/2 log 4/3
        0.1438 0.1438 0.1438

    Args:
        joint: p(latents, data).
        guide: q(latents | data), the data given. Latents of the joint that it lacks are summed out. If it is fitted
            datum by datum, list all data among the parents of every site.
        missing: site -> the parents to price one by one, as the verdict's rows list them; none by default.
        elbo: whether to find that too.
        family: "full" or "diagonal", the covariance of a factor within its site.

    Raises:
        ValueError: an unknown family, a site that is no latent of the joint, a parent neither data nor earlier site.

    Source: the chain rule of information; Webb et al. 2018 (arXiv 1712.00287) for the order.
    """
    if family not in FAMILIES:
        raise ValueError(f"price: found family {family!r}, want {' or '.join(map(repr, FAMILIES))}")
    missing = missing or {}
    _check(joint, guide, missing)
    cost, gain = (_diagonal_cost, _diagonal_gain) if family == "diagonal" else (_information, _information)
    sites: dict[str, float] = {}
    edges: dict[tuple[str, str], float] = {}
    for site, have in guide.items():
        # all that the exact factor may condition on; `sites` are the latents so far
        rest = [u for u in (*joint.observed, *sites) if u not in have]
        for u in [u for u in missing.get(site, ()) if u not in have]:
            edges[site, u] = gain(*_split(joint, have, (u,), site))
        sites[site] = cost(*_split(joint, have, rest, site))
    forward = math.fsum(sites.values())
    reverse = math.nan if not elbo else _reverse(joint, guide, family) if forward >= NOTHING else 0.0
    return Price(forward, sites, edges, reverse)


def _check(joint: GaussianJoint, guide: Factorization, missing: Mapping[str, Collection[str]]) -> None:
    known = [*joint.observed]
    for site, have in guide.items():
        if site not in joint.blocks or site in joint.observed:
            raise ValueError(f"price: site {site!r} is no latent of the joint: {[*joint.blocks]} less {joint.observed}")
        for u in (*have, *missing.get(site, ())):
            if u not in known:
                raise ValueError(f"price: site {site!r} has the parent {u!r}, want data or earlier latents: {known}")
        known.append(site)
    for site in set(missing) - set(guide.parents):
        raise ValueError(f"price: found parents missing of {site!r}, which is no site of the guide: {guide}")


def _split(joint: GaussianJoint, have: Sequence[str], u: Sequence[str], site: str) -> tuple[ndarray, ndarray]:
    """B and L with Cov(site | have) = B B^T + L L^T and Cov(site | have, u) = L L^T."""
    own = len(joint.places([site]))
    last = joint.root((*have, *u, site))[-own:]
    return last[:, len(joint.places(have)) : -own], last[:, -own:]


def _information(b: ndarray, own: ndarray) -> float:
    """1/2 log det( I + L^-1 B B^T L^-T ), which is exact near 0, where a difference of determinants is not."""
    ratios = np.linalg.svd(solve_triangular(own, b, lower=True), compute_uv=False)
    return float(np.log1p(ratios**2).sum() / 2)


def _diagonal_gain(b: ndarray, own: ndarray) -> float:
    """1/2 sum_j log( Cov(site | have)_jj / Cov(site | have, u)_jj )."""
    return float(np.log1p((b**2).sum(-1) / (own**2).sum(-1)).sum() / 2)


def _diagonal_cost(b: ndarray, own: ndarray) -> float:
    """1/2 ( sum_j log Cov(site | have)_jj - log det Cov(site | have, u) )."""
    beside = (b**2).sum(-1) + (np.tril(own, -1) ** 2).sum(-1)
    return float(np.log1p(beside / own.diagonal() ** 2).sum() / 2)


def _reverse(joint: GaussianJoint, guide: Factorization, family: str) -> float:
    """min_q E_x KL( q(z | x) || p(z | x) ), by L-BFGS on its exact value.

    (x, z) is T e under p and G e under q, e standard normal and T triangular; C_i are the covariances of q's factors.

        E_x KL = 1/2 ( |R|^2 - dim z - sum_i log det C_i ) + log det T_zz,      R = T_zz^-1 (G_z - (T_zx, 0))
    """
    nodes = (*joint.observed, *guide.parents)
    order, data = joint.places(nodes), len(joint.places(joint.observed))
    place = {node: [order.index(p) for p in joint.places([node])] for node in nodes}
    exact = joint.root(nodes)
    inverse, unit = np.linalg.inv(exact[data:, data:]), np.eye(len(exact) - data)
    x, best = exact[:data].copy(), exact[data:].copy()
    best[:, data:] = 0
    # z_i = scale ( slope w + L e ), w the whitened parents: near the start all curvatures are then near 1
    frames, start, end = [], [], 0
    constant = np.log(exact.diagonal()[data:]).sum() - len(unit) / 2
    for site, have in guide.items():
        rows, columns = np.array(place[site]) - data, np.array([p for u in have for p in place[u]], int)
        root = joint.root((*have, site))
        scale, whiten = root[-len(rows) :, -len(rows) :], np.linalg.inv(root[: len(columns), : len(columns)])
        below = np.tril_indices(len(rows))
        if family == "diagonal":
            scale, below = np.diag(np.linalg.norm(scale, axis=-1)), np.diag_indices(len(rows))
        constant -= np.log(scale.diagonal()).sum()
        slope = np.linalg.solve(scale, root[-len(rows) :, : len(columns)])
        middle, stop = end + slope.size, end + slope.size + len(below[0])
        block, edge = np.ix_(rows, rows), np.ix_(rows, columns)
        frames.append((block, edge, scale, whiten, below, slice(end, middle), slice(middle, stop)))
        start, end = [*start, slope.ravel(), np.zeros(stop - middle)], stop

    def divergence(theta: np.ndarray) -> tuple[float, np.ndarray]:
        """The value and its gradient, by one adjoint solve."""
        slopes, noise, logs = np.zeros_like(best), np.zeros_like(unit), 0.0
        for block, edge, scale, whiten, below, a, b in frames:
            factor = np.zeros_like(scale)
            factor[below] = theta[b]
            logs += factor.trace()
            np.fill_diagonal(factor, np.exp(factor.diagonal()))
            slopes[edge] = scale @ theta[a].reshape(len(scale), -1) @ whiten
            noise[block] = scale @ factor
        system = unit - slopes[:, data:]
        z = np.linalg.solve(system, np.hstack([slopes[:, :data] @ x[:, :data], noise]))
        residual = inverse @ (z - best)
        adjoint = np.linalg.solve(system.T, inverse.T @ residual)
        by_slope, by_noise, gradient = adjoint @ np.vstack([x, z]).T, adjoint[:, data:], np.empty_like(theta)
        for block, edge, scale, whiten, below, a, b in frames:
            gradient[a] = (scale.T @ by_slope[edge] @ whiten.T).ravel()
            by_factor = scale.T @ by_noise[block]
            np.fill_diagonal(by_factor, by_factor.diagonal() * noise[block].diagonal() / scale.diagonal() - 1)
            gradient[b] = by_factor[below]
        return constant - logs + np.square(residual).sum() / 2, gradient

    starts = [np.concatenate(start)]
    if any(set(have) - {*joint.observed} for _, have in guide.items()):  # products of unknowns: not convex
        starts += [np.zeros(end), *np.random.default_rng(0).standard_normal((STARTS - 2, end))]
    with np.errstate(over="ignore", invalid="ignore"):  # a step too far, which the line search takes back
        best_of = min((_minimize(divergence, theta, 200) for theta in starts), key=lambda found: found.fun)
        return max(0.0, float(_minimize(divergence, best_of.x, 20000).fun))


def _minimize(f: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray, steps: int) -> OptimizeResult:
    options = {"maxiter": steps, "maxfun": steps, "maxcor": 60, "ftol": 1e-15, "gtol": 1e-9}
    return minimize(f, start, jac=True, method="L-BFGS-B", options=options)
