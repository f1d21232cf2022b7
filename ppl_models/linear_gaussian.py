"""The linear-Gaussian model: the one deep model in which every integral is a line of linear algebra."""

from collections.abc import Mapping, Sequence

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from .parts.arguments.checked import checked
from .parts.arguments.kinds import Event, Several
from .parts.arguments.sizes import event_size, slices_of
from .parts.checks import FAMILIES as FAMILIES, STRUCTURES as STRUCTURES, Family, Structure, parents_of
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

    Weights are `weight` times a standard normal draw, noise variances uniform on (0.3, 1.3), biases zero.
    They are drawn in double precision and in model order, from `generator` or else from torch's global one,
    and rounded to the default dtype. All can be learned; `requires_grad_(False)` freezes them.

    Raises `ValueError` for a size that is no positive integer and for parents that are unknown, later or
    repeated; what takes x raises `ValueError` or `TypeError` for data that the model cannot have made.

    Source: Roweis and Ghahramani 1999, "A unifying review of linear Gaussian models", Neural Computation 11(2);
    Tipping and Bishop 1999, "Probabilistic principal component analysis", JRSS B 61(3).

    >>> model = LinearGaussian(generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    >>> print(f"{model.gap('mean-field', 'diagonal'):.4f} {model.gap('top-down', 'diagonal'):.4f}")
    1.3233 0.1031
    >>> print(f"{model.log_evidence(torch.zeros(1, 3)).item():.4f}")
    -4.3188

    >>> from ppl_models.factorization import factorization
    >>> print(factorization(model, torch.eye(3)))
    p(z1) p(z2 | z1) p(z3 | z2) p(x | z3)
    >>> print(factorization(LinearGaussian(parents={"z3": ("z1",), "x": ("z2", "z3")}), torch.eye(3)))
    p(z1) p(z2 | z1) p(z3 | z1) p(x | z2, z3)
    """

    density = "p(z_l | pa) = N( sum_{u in pa(l)} W_lu z_u + b_l, diag(s_l^2) )"
    source = (
        'Roweis and Ghahramani 1999, "A unifying review of linear Gaussian models", Neural Computation 11(2); Tipping'
        ' and Bishop 1999, "Probabilistic principal component analysis", JRSS B 61(3).'
    )

    def __init__(
        self,
        event: Event = 3,
        latent: Several = (2, 2, 2),
        parents: Mapping[str, Sequence[str]] | None = None,
        weight: float = 0.9,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.event, _ = event_size("LinearGaussian", event)
        self.latents = tuple(f"z{layer}" for layer in range(1, len(latent) + 1))
        self.sizes = {**dict(zip(self.latents, latent, strict=True)), "x": self.event}
        self.parents = parents_of(self.latents, {} if parents is None else parents)
        self.weight = nn.ParameterDict()  # "z2_z1": W of the edge z1 -> z2, (size of z2, size of z1)
        self.log_scale = nn.ParameterDict()
        self.bias = nn.ParameterDict()
        device = "cpu" if generator is None else generator.device
        draw = {"generator": generator, "dtype": torch.double, "device": device}
        for site, size in self.sizes.items():
            for parent in self.parents[site]:
                noise = torch.randn(size, self.sizes[parent], **draw)
                self.weight[f"{site}_{parent}"] = _parameter(weight * noise)
            self.log_scale[site] = _parameter((0.3 + torch.rand(size, **draw)).log() / 2)
            self.bias[site] = _parameter(torch.zeros(size))

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Sample z1 ... zL, then observe x, or generate n of it; returns x, `(N, event)`."""
        if x is not None:
            x = self._data(x)
        z: dict[str, Tensor] = {}
        with pyro.plate("data", check_count(n) if x is None else len(x), dim=-1):
            for site in self.latents:
                # p(z_l | pa(z_l))
                z[site] = pyro.sample(site, self._conditional(site, z))
            # p(x | pa(x))
            return pyro.sample("x", self._conditional("x", z), obs=x)

    def blocks(self) -> dict[str, slice]:
        """The place of each site in the concatenation (z1, ..., zL, x) that the closed forms are written in."""
        return slices_of(self.sizes)

    def joint(self) -> tuple[Tensor, Tensor]:
        """Mean `(D,)` and covariance `(D, D)` of v = (z1, ..., zL, x), where D sums the sizes.

        v = A v + b + s * noise, hence the mean (I - A)^-1 b and the covariance R R^T, R = (I - A)^-1 diag(s).
        """
        mean, root = self._moments()
        return mean, root @ root.mT

    def log_evidence(self, x: Tensor) -> Tensor:
        """Exact log p(x) = log N(x; E x, Cov x), in nats; `(N, event)` to `(N,)`."""
        x = self._data(x)
        mean, root = self._moments()
        block = self.blocks()["x"]
        triangle = _positive(torch.linalg.qr(root[block].mT).R.mT)
        return MultivariateNormal(mean[block], scale_tril=triangle).log_prob(x)

    def posterior(self, x: Tensor) -> MultivariateNormal:
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
        q, r = torch.linalg.qr(whitening[:, : block.start].flip(-1))
        identity = torch.eye(len(r), dtype=r.dtype, device=r.device)
        inverse = torch.linalg.solve_triangular(r, identity, upper=True)
        shift = (inverse @ (q.mT @ (whitening[:, block] @ (x - mean[block]).mT))).flip(0)
        return MultivariateNormal(mean[: block.start] - shift.mT, scale_tril=_positive(inverse.flip(0, 1)))

    @checked
    def gap(self, structure: Structure = "mean-field", family: Family = "full") -> Tensor:
        """Gap of the best guide of a structure, min_q E_x KL( q(z | x) || p(z | x) ): a scalar, in nats.

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
        # Lambda = W^T W with W = Q R, columns in the order of elimination: R_ll^T R_ll is what is left for
        # layer l once the layers before it are integrated out, and W_l^T W_l is block l of Lambda itself.
        blocks, whitening = self.blocks(), self._whitening()
        order = self.latents[::-1] if structure == "top-down" else self.latents
        r = torch.linalg.qr(torch.cat([whitening[:, blocks[site]] for site in order], -1)).R
        gap, start = r.new_zeros(()), 0
        for site in order:
            own = slice(start, start + self.sizes[site])
            exact = r[own, own].diagonal().square().log().sum()
            factor = whitening[:, blocks[site]] if structure == "mean-field" else r[own, own]
            if family == "diagonal":
                kept = factor.square().sum(0).log().sum()
            elif structure == "mean-field":
                kept = torch.linalg.qr(factor).R.diagonal().square().log().sum()
            else:
                kept = exact
            gap, start = gap + (kept - exact) / 2, own.stop
        return gap

    def _conditional(self, site: str, z: Mapping[str, Tensor]) -> dist.Independent:
        """p(site | its parents), event shape `(size,)`, batch shape that of the parents."""
        loc = self.bias[site]
        for parent in self.parents[site]:
            loc = loc + F.linear(z[parent], self.weight[f"{site}_{parent}"])
        return dist.Normal(loc, self.log_scale[site].exp()).to_event(1)

    def _system(self) -> tuple[Tensor, Tensor, Tensor]:
        """I - A, b and s of v = A v + b + s * noise, v = (z1, ..., zL, x); I - A is unit lower triangular."""
        blocks = self.blocks()
        bias = torch.cat([self.bias[site] for site in blocks])
        scale = torch.cat([self.log_scale[site] for site in blocks]).exp()
        system = torch.eye(len(bias), dtype=bias.dtype, device=bias.device)
        for site, names in self.parents.items():
            for parent in names:
                system[blocks[site], blocks[parent]] = -self.weight[f"{site}_{parent}"]
        return system, bias, scale

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean `(D,)` of v and a lower triangular root `(D, D)` of its covariance.

        The closed forms work with roots, by QR: a covariance has the squared condition number of its root.
        """
        system, bias, scale = self._system()
        right = torch.cat([bias.unsqueeze(-1), scale.diag()], -1)
        solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
        return solved[:, 0], solved[:, 1:]

    def _whitening(self) -> Tensor:
        """W = diag(1 / s) (I - A), `(D, D)`: W^T W is the precision of v, its z block that of p(z | x)."""
        system, _, scale = self._system()
        return system / scale.unsqueeze(-1)

    def _data(self, x: Tensor) -> Tensor:
        """x, after the checks that all models make."""
        return check_data(x, self.event, dtype=self.bias["x"].dtype)


def _positive(triangle: Tensor) -> Tensor:
    """The same square, T T^T, with a positive diagonal."""
    return triangle * triangle.diagonal().sign()


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(torch.get_default_device(), torch.get_default_dtype()))
