"""Linear regressions of posteriordb as Pyro programs, and their reference draws."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor


def columns(*found) -> Tensor:
    return torch.stack([torch.as_tensor(c, dtype=torch.double) for c in found], -1)


def ages(d: dict) -> list[Tensor]:
    return [(torch.tensor(d["age_discrete"]) == k).double() for k in (2, 3, 4)]


def interaction(a: list, b: list) -> list:
    return [u * v for u, v in zip(a, b, strict=True)]


def logs(d: dict, *names: str) -> list[Tensor]:
    return [torch.tensor(d[name], dtype=torch.double).log() for name in names]


MESQUITE = ("diam1", "diam2", "canopy_height", "total_height", "density")
# (predictors besides the constant, response)
DESIGNS: dict[str, Callable[[dict], tuple[Tensor, Tensor]]] = {
    "kidiq-kidscore_interaction": lambda d: (
        columns(d["mom_hs"], d["mom_iq"], interaction(d["mom_hs"], d["mom_iq"])),
        columns(d["kid_score"])[:, 0],
    ),
    "earnings-logearn_interaction": lambda d: (
        columns(d["height"], d["male"], interaction(d["height"], d["male"])),
        columns(*logs(d, "earn"))[:, 0],
    ),
    "mesquite-logmesquite": lambda d: (columns(*logs(d, *MESQUITE), d["group"]), columns(*logs(d, "weight"))[:, 0]),
    "nes1980-nes": lambda d: (
        columns(d["real_ideo"], d["race_adj"], *ages(d), d["educ1"], d["gender"], d["income"]),
        columns(d["partyid7"])[:, 0],
    ),
    "kilpisjarvi_mod-kilpisjarvi": lambda d: (columns(d["x"]), columns(d["y"])[:, 0]),
    "sblri-blr": lambda d: (torch.tensor(d["X"], dtype=torch.double), columns(d["y"])[:, 0]),
}
FLAT = 1e3  # a prior this many residual deviations wide is as good as flat


class Regression:
    """y ~ N(X beta, sigma) in coordinates near the answer: beta = fit + scale * back @ b, sigma = scale * s.

    `fit` are the least squares, `scale` is their residual deviation, and `back` undoes the centering (where there is a
    constant) and scaling of the predictors; b keeps their correlations, but for one case.
    `original` takes draws back, exactly.
    """

    def __init__(self, name: str, root: Path) -> None:
        base = root / "posteriordb" / "posterior_database"
        d = read(base / "data" / "data" / f"{name.split('-')[0]}.json.zip")
        x, y = DESIGNS[name](d)
        constant = name != "sblri-blr"
        middle = x.mean(0) * constant
        spread = (x - middle).square().mean(0).sqrt()
        self.x, self.back, raw = (x - middle) / spread, torch.diag(1 / spread), x
        if constant:
            one = torch.ones(len(x), 1).double()
            self.x, raw = torch.cat([one, self.x], 1), torch.cat([one, x], 1)
            self.back = torch.block_diag(torch.ones(1, 1).double(), self.back)
            self.back[0, 1:] = -middle / spread
        if name == "earnings-logearn_interaction":  # two of them correlate at 0.9985: orthogonal ones instead
            q, r = torch.linalg.qr(self.x)
            self.x, self.back = q * len(x) ** 0.5, self.back @ torch.linalg.inv(r) * len(x) ** 0.5
        self.fit = torch.linalg.lstsq(raw, y).solution
        residual = y - raw @ self.fit
        self.scale = residual.std()
        self.y = residual / self.scale
        n = raw.shape[1]
        mean, sd = {
            "kilpisjarvi_mod-kilpisjarvi": lambda: ([d["pmualpha"], d["pmubeta"]], [d["psalpha"], d["psbeta"]]),
            "sblri-blr": lambda: ([0.0] * n, [10.0] * n),
        }.get(name, lambda: (self.fit, self.scale * FLAT * self.back.abs().sum(1)))()
        inverse = torch.linalg.inv(self.back) / self.scale
        self.mean = inverse @ (columns(mean)[:, 0] - self.fit)
        self.tril = torch.linalg.cholesky(inverse @ columns(sd)[:, 0].square().diag() @ inverse.T)
        self.sigma = {
            "kidiq-kidscore_interaction": dist.HalfCauchy(2.5 / self.scale),
            "sblri-blr": dist.HalfNormal(10 / self.scale),
        }.get(name, dist.HalfNormal(torch.tensor(FLAT).double()))
        draws = read(base / "reference_posteriors" / "draws" / "draws" / f"{name}.json.zip")
        self.reference = torch.stack([torch.tensor([c[k] for c in draws]).flatten() for k in draws[0]], -1).double()

    def __call__(self, y: Tensor) -> None:
        b = pyro.sample("b", dist.MultivariateNormal(self.mean, scale_tril=self.tril))
        sigma = pyro.sample("sigma", self.sigma)
        pyro.sample("y", dist.Normal(b @ self.x.T, sigma.unsqueeze(-1)).to_event(1), obs=y)

    def original(self, draws: dict[str, Tensor]) -> Tensor:
        """(draws, coefficients and sigma) of the regression as posteriordb has it."""
        beta = self.fit + self.scale * (draws["b"] @ self.back.T)
        return torch.cat([beta, self.scale * draws["sigma"].unsqueeze(-1)], 1)


def read(path: Path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(archive.namelist()[0]))
