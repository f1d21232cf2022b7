"""Eight schools: what each family of `Faithful` makes of a posterior that is far from Gaussian.

    python -m benchmarks.eight_schools               # all families, about a minute each on one thread
    python -m benchmarks.eight_schools flow

        mu ~ N(0, 5)   tau ~ HalfCauchy(5)   eta_j ~ N(0, 1)   y_j ~ N(mu + tau eta_j, sigma_j),     j = 1..8

The posterior means and standard deviations are compared with the 10,000 reference draws of posteriordb
(eight_schools-eight_schools_noncentered). One line a family: the negative ELBO in nats, the error of the means in
posterior standard deviations and the ratio of the standard deviations for mu, tau, and the worst of eta and theta.
"""

import sys

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from guides import Faithful
from guides.parts.conditionals import FAMILIES
from ppl_models.inference import fit

Y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

# mean and standard deviation of the reference draws; eta = (theta - mu) / tau
REFERENCE = {
    "mu": (4.4105, 3.3091),
    "tau": (3.6021, 3.1983),
    "eta": (
        [0.2903, 0.0849, -0.0933, 0.0772, -0.1676, -0.0661, 0.366, 0.0861],
        [0.9918, 0.9325, 0.9764, 0.9272, 0.9282, 0.9398, 0.952, 0.9731],
    ),
    "theta": (
        [6.1505, 4.9396, 3.9059, 4.796, 3.6144, 4.0511, 6.3172, 4.884],
        [5.6156, 4.6453, 5.2804, 4.7707, 4.6145, 4.796, 5.0026, 5.3174],
    ),
}


def model(y: Tensor, sigma: Tensor) -> None:
    """Rubin 1981, non-centered."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0)).unsqueeze(-1)
    tau = pyro.sample("tau", dist.HalfCauchy(5.0)).unsqueeze(-1)
    eta = pyro.sample("eta", dist.Normal(0.0, 1.0).expand([8]).to_event(1))
    pyro.sample("y", dist.Normal(mu + tau * eta, sigma).to_event(1), obs=y)


def trained(family: str, order: str = "top-down", steps: int = 2500, seed: int = 0) -> tuple[Faithful, float]:
    """A guide, and its negative ELBO in nats: the mean over the last tenth of the steps."""
    pyro.set_rng_seed(seed)
    guide = Faithful(model, Y, SIGMA, order=order, family=family)
    options = {"steps": steps, "lr": 1e-2, "particles": 64, "every": steps // 10, "progress": False, "seed": seed}
    run = fit(model, guide, (Y, SIGMA), **options)
    return guide, len(Y) * run.history[-1]["loss"]


def compared(guide: Faithful, draws: int = 100_000, seed: int = 1) -> dict[str, tuple[Tensor, Tensor]]:
    """For each quantity: (guide mean - reference mean) / reference sd, and guide sd / reference sd.

    The ten smallest and the ten largest of 100,000 draws are left out: a flow's splines end five deviations from the
    center, and one draw beyond, where tau is the exponential of a Gaussian, would be most of its variance.
    """
    pyro.set_rng_seed(seed)
    with torch.no_grad(), pyro.plate("draws", draws):
        found = guide(Y, SIGMA)
    found["theta"] = found["mu"].unsqueeze(-1) + found["tau"].unsqueeze(-1) * found["eta"]
    results, ends = {}, draws // 10_000
    found = {name: draws_of.sort(0).values[ends : draws - ends] for name, draws_of in found.items()}
    for name, (mean, sd) in REFERENCE.items():
        mean, sd = torch.tensor(mean), torch.tensor(sd)
        results[name] = (found[name].mean(0) - mean) / sd, found[name].std(0) / sd
    return results


def worst(errors: Tensor, ratios: Tensor) -> str:
    """The entries furthest from 0 and 1."""
    errors, ratios = errors.flatten(), ratios.flatten()
    return f"{errors[errors.abs().argmax()]:+.3f} {ratios[ratios.log().abs().argmax()]:.3f}"


def main(families: list[str]) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(f"{'family':10} {'-ELBO':>7}  " + "  ".join(f"{name:>12}" for name in REFERENCE))
    for family in families or [name for name in FAMILIES if "bits" not in name]:
        guide, loss = trained(family)
        print(
            f"{family:10} {loss:7.3f}  " + "  ".join(f"{worst(*r):>12}" for r in compared(guide).values()), flush=True
        )


if __name__ == "__main__":
    main(sys.argv[1:])
