"""Diagnostics of guides that are wrong in a known way: what each sees, and what it is blind to.

    python -m benchmarks.diagnostics --json benchmarks/results/diagnostics.json      # about three minutes of one core

The model is linear-Gaussian, p(z1) p(z2 | z1) p(x | z1, z2), so that its posterior and the KL divergence of each guide
from it are known in closed form. A guide is q(z1 | x) q(z2 | z1, x), the exact posterior but for one thing (`KINDS`).
Every diagnostic is given data that the model has drawn, and seeds that are fixed.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppl_models import LinearGaussian
from ppl_models.inference import ais, ancestral, sbc, terms
from ppl_models.inference.diagnostics import khat
from ppl_models.inference.evaluation.annealing.result import mean_of
from ppl_models.inference.evaluation.calibration.result import ERROR

from .table import table
from .timing import machine

SEED, DATA, DRAWS = 0, 100, 4000  # data of bounds and k-hat, and draws of the guide for each of them
SIMULATIONS, TEMPERATURES = 1000, 100
HEAVY, SHARE = 0.7, 0.1  # the k-hat that is too large, and the share of data with one that is
ERRORS = 3  # standard errors from which a gap is seen


@dataclass(frozen=True)
class Twin:
    """q(z1 | x) q(z2 | z1, x), Gaussian, z1 and z2 of one number each.

    Args:
        mean: x -> (n, 2).
        cov: (2, 2).
        factor: of both scales, given x.
        shift: of both means, in standard deviations.
    """

    mean: Callable[[Tensor], Tensor]
    cov: Tensor
    factor: Callable[[Tensor], Tensor | float] = lambda x: 1.0
    shift: float = 0.0

    def __call__(self, x: Tensor) -> None:
        tril = torch.linalg.cholesky(self.cov)
        factor = torch.as_tensor(self.factor(x), dtype=x.dtype).expand(len(x))
        loc = self.mean(x) + self.shift * self.cov.diagonal().sqrt()
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", self._normal(loc[:, 0], tril[0, 0] * factor))
            given = loc[:, 1] + tril[1, 0] / tril[0, 0] * (z1[..., 0] - loc[:, 0])
            pyro.sample("z2", self._normal(given, tril[1, 1] * factor))

    def divergence(self, model: LinearGaussian, x: Tensor) -> float:
        """Mean KL(q || p) over data, in nats."""
        factor = torch.as_tensor(self.factor(x), dtype=x.dtype).expand(len(x))
        loc = self.mean(x) + self.shift * self.cov.diagonal().sqrt()
        q = dist.MultivariateNormal(loc, self.cov * factor[:, None, None] ** 2)
        return torch.distributions.kl_divergence(q, model.posterior(x)).mean().item()

    def _normal(self, loc: Tensor, scale: Tensor) -> Any:
        return dist.Normal(loc[..., None], scale[..., None]).to_event(1)


def twin() -> LinearGaussian:
    """The model, in double precision: z2 and z1 make x together, so that they are correlated given x."""
    generator = torch.Generator().manual_seed(SEED)
    model = LinearGaussian(3, (1, 1), {"x": ("z1", "z2")}, generator=generator).double()
    values = {"z2_z1": [[0.6]], "x_z1": [[1.0], [0.8], [0.3]], "x_z2": [[0.9], [0.9], [0.5]]}
    for name, value in values.items():
        model.weight[name].data = torch.tensor(value, dtype=torch.double)
    for site, scale in {"z1": 1.0, "z2": 0.8, "x": 0.5}.items():
        model.log_scale[site].data.fill_(scale).log_()
    return model.requires_grad_(False)


def kinds(model: LinearGaussian) -> dict[str, Twin]:
    """Guides by what is wrong with them."""
    mean, cov = model.joint()
    exact = model.posterior(torch.zeros(1, 3, dtype=torch.double)).covariance_matrix[0]

    def given(columns: Sequence[int]) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """Mean and covariance of z given some of the columns of x."""
        place = [2 + c for c in columns]
        gain = cov[:2][:, place] @ torch.linalg.inv(cov[place][:, place])
        return lambda x: mean[:2] + (x[:, columns] - mean[place]) @ gain.mT, cov[:2, :2] - gain @ cov[place][:, :2]

    of_all, whole = given([0, 1, 2])
    of_one, wider = given([2])
    assert torch.allclose(whole, exact)
    uncoupled = torch.diag(whole.diagonal())
    trained = torch.diag(1 / torch.linalg.inv(whole).diagonal())
    return {
        "right": Twin(of_all, whole),
        "too narrow, scales 0.5": Twin(of_all, whole, lambda x: 0.5),
        "too wide, scales 1.5": Twin(of_all, whole, lambda x: 1.5),
        "shifted, by 0.3 standard deviations": Twin(of_all, whole, shift=0.3),
        "without z1 -> z2, marginals right": Twin(of_all, uncoupled),
        "without z1 -> z2, as trained": Twin(of_all, trained),
        "reads a third of the data": Twin(of_one, wider),
        "the prior, reads no data": Twin(lambda x: mean[:2].expand(len(x), 2), cov[:2, :2]),
        "narrow for some data, wide for others": Twin(of_all, whole, lambda x: torch.where(x[:, 0] > 0, 0.75, 1.3)),
    }


def seen(model: LinearGaussian, guide: Twin, temperatures: int = TEMPERATURES) -> dict[str, Any]:
    """What every diagnostic says of a guide, of data that the model has drawn; 0 temperatures leave annealing out."""
    x = ancestral(model, torch.zeros(DATA, 3, dtype=torch.double), seed=SEED)
    calibration = sbc(model, guide, x, simulations=SIMULATIONS, seed=SEED)
    with torch.no_grad(), torch.random.fork_rng([]):
        torch.manual_seed(SEED)
        log_w = terms(model, guide, (x,), particles=DRAWS, nesting=1, analytic=False).log_w.numpy()
    k, bounds = khat(log_w), log_w.mean(0)
    codes, p = len(calibration.marginal), calibration.p_values
    found = {
        "gap": guide.divergence(model, x),
        "khat": {"median": float(np.median(k)), "share": float((k > HEAVY).mean())},
        "marginal": min(p[name] for name in calibration.marginal) * len(p),
        "joint": {name: p[name] * len(p) for name in calibration.joint},
        "vsbc": min(calibration.vsbc.values()) * codes,
    }
    if temperatures:
        annealed = ais(model, guide, x, temperatures=temperatures, simulations=DATA, seed=SEED, progress=False)
        lost, error = mean_of(annealed.lowers - bounds)
        between = annealed.simulated
        found["ais"] = {"lost": lost, "error": error, "open": between.gap, "open_error": between.gap_error}
        exact = model.log_evidence(x).numpy()
        found["ais"]["below"], found["ais"]["below_error"] = mean_of(exact - annealed.lowers)
    return found


def verdicts(row: dict[str, Any]) -> dict[str, bool]:
    """Diagnostic -> whether it sees that the guide of a row is wrong."""
    found = {
        "k-hat": row["khat"]["share"] > SHARE,
        "SBC, marginals": row["marginal"] < ERROR,
        "SBC, log p(x, z)": row["joint"]["log p(x, z)"] < ERROR,
        "SBC, log w": row["joint"]["log w"] < ERROR,
        "VSBC": row["vsbc"] < ERROR,
    }
    if "ais" in row:
        found["AIS"] = row["ais"]["lost"] > ERRORS * row["ais"]["error"] + 1e-9
    return found


def page(found: dict[str, Any]) -> str:
    """The table of the docs: a row a guide, and what each diagnostic says; in bold what sees that it is wrong."""

    def cells(row: dict[str, Any]) -> dict[str, str]:
        joint, bounds = row["joint"], row["ais"]
        return {
            "k-hat": f"{row['khat']['median']:.2f}, {100 * row['khat']['share']:.0f} %",
            "SBC, marginals": told(row["marginal"]),
            "SBC, log p(x, z)": told(joint["log p(x, z)"]),
            "SBC, log w": told(joint["log w"]),
            "VSBC": told(row["vsbc"]),
            "AIS": f"{signless(bounds['lost'])}, {bounds['open']:+.2f}",
        }

    def signless(number: float) -> str:
        return f"{number:.2f}".replace("-0.00", "0.00")

    def told(p: float) -> str:
        return f"{min(p, 1.0):.2g}" if p > 1e-9 else "< 1e-9"

    rows = []
    for name, row in found["guides"].items():
        sees = verdicts(row)
        said = (f"**{cell}**" if sees[diagnostic] else cell for diagnostic, cell in cells(row).items())
        missed = f"{signless(row['ais']['below'])} +- {row['ais']['below_error']:.2f}"
        rows.append([name, f"{row['gap']:.2f}", *said, missed])
    return table(["guide", "KL(q, p)", *cells(next(iter(found["guides"].values()))), "log p(x) - AIS"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = twin()
    found: dict[str, Any] = {"machine": machine(), "guides": {}}
    for name, guide in kinds(model).items():
        found["guides"][name] = seen(model, guide)
        print(name, json.dumps(found["guides"][name]), flush=True)
    print(page(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
