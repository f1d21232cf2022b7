"""Eleven posteriors of posteriordb as programs: the densities of its Stan code, in Pyro and NumPyro alike.

A program takes the language as its first argument, `pyro` or `numpyro`; columns of data stay in raw units. Where the
Stan code has a flat prior there is a Gaussian of scale 1000 (half of one for a scale), which moves no mean by more than
a thousandth of its standard deviation. Nothing is in a plate: every latent is global.
"""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import numpy as np
from array_api_compat import array_namespace

FLAT = 1000.0


class Posterior(NamedTuple):
    """One posterior.

    Attributes:
        model: model(language, *columns).
        data: name of its data set.
        columns: what posteriordb says of the data -> the arguments of the model, with a row a datum each.
        quantities: draws of the latents (draws, *event) by name -> {quantity: draws}, named as in the reference.
    """

    model: Callable
    data: str
    columns: Callable[[dict[str, np.ndarray]], list[np.ndarray]]
    quantities: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def root() -> Path:
    """The folder of posteriordb."""
    return Path(os.environ.get("PPL_MODELS_DATA", "data")) / "posteriordb" / "posterior_database"


def unzipped(path: Path) -> Any:
    """The JSON in a zip file."""
    with ZipFile(path) as archive:
        return json.loads(archive.read(archive.namelist()[0]))


def columns_of(name: str) -> list[np.ndarray]:
    """The arguments of the model of a posterior, float64."""
    posterior = POSTERIORS[name]
    found = unzipped(root() / "data" / "data" / f"{posterior.data}.json.zip")
    return posterior.columns({key: np.asarray(value, float) for key, value in found.items()})


def reference_of(name: str) -> dict[str, tuple[float, float]]:
    """Quantity -> mean and standard deviation of the reference draws."""
    about = json.loads((root() / "posteriors" / f"{POSTERIORS[name].data}-{name}.json").read_text())
    folder = root() / "reference_posteriors" / "draws" / "draws"
    chains = unzipped(folder / f"{about['reference_posterior_name']}.json.zip")
    draws = {key: np.concatenate([chain[key] for chain in chains]) for key in chains[0]}
    return {key: (float(each.mean()), float(each.std())) for key, each in draws.items()}


def eight_schools_centered(pyro: Any, y: Any, sigma: Any) -> None:
    """mu ~ N(0, 5), tau ~ HalfCauchy(5), theta_j ~ N(mu, tau), y_j ~ N(theta_j, sigma_j)."""
    dist = pyro.distributions
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))[..., None]
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))[..., None]
    theta = pyro.sample("theta", dist.Normal(mu + 0.0 * y, tau).to_event(1))
    pyro.sample("y", dist.Normal(theta, sigma).to_event(1), obs=y)


def eight_schools_noncentered(pyro: Any, y: Any, sigma: Any) -> None:
    """The same with theta_j = mu + tau eta_j, eta_j ~ N(0, 1)."""
    dist = pyro.distributions
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))[..., None]
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))[..., None]
    eta = pyro.sample("eta", dist.Normal(0.0 * y, 1.0).to_event(1))
    pyro.sample("y", dist.Normal(mu + tau * eta, sigma).to_event(1), obs=y)


def _root(x: Any, alpha: Any, rho: Any, noise: Any) -> Any:
    """The Cholesky factor of alpha^2 exp(-(x_i - x_j)^2 / (2 rho^2)) + noise I."""
    xp = array_namespace(x)
    alpha, rho, noise = (t[..., None, None] if hasattr(t, "ndim") else t for t in (alpha, rho, noise))
    squares = (x[:, None] - x) ** 2
    return xp.linalg.cholesky(alpha**2 * xp.exp(-squares / (2 * rho**2)) + noise * xp.eye(len(x), dtype=x.dtype))


def gp_regr(pyro: Any, x: Any, y: Any) -> None:
    """rho ~ Gamma(25, 4), alpha ~ HalfN(2), sigma ~ HalfN(1), y ~ N(0, K + sigma I)."""
    dist = pyro.distributions
    rho = pyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = pyro.sample("alpha", dist.HalfNormal(2.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    pyro.sample("y", dist.MultivariateNormal(0.0 * x, scale_tril=_root(x, alpha, rho, sigma)), obs=y)


def gp_pois_regr(pyro: Any, x: Any, k: Any) -> None:
    """rho ~ Gamma(25, 4), alpha ~ HalfN(2), f = chol(K) eta with eta ~ N(0, I), k_i ~ Poisson(exp(f_i))."""
    dist = pyro.distributions
    rho = pyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = pyro.sample("alpha", dist.HalfNormal(2.0))
    eta = pyro.sample("eta", dist.Normal(0.0 * x, 1.0).to_event(1))
    f = (_root(x, alpha, rho, 1e-10) @ eta[..., None])[..., 0]
    pyro.sample("k", dist.Poisson(array_namespace(x).exp(f)).to_event(1), obs=k)


def arK(pyro: Any, before: Any, y: Any) -> None:
    """alpha, beta_k ~ N(0, 10), sigma ~ HalfCauchy(2.5), y_t ~ N(alpha + sum_k beta_k y_{t-k}, sigma)."""
    dist = pyro.distributions
    alpha = pyro.sample("alpha", dist.Normal(0.0, 10.0))[..., None]
    beta = pyro.sample("beta", dist.Normal(0.0 * before[0], 10.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfCauchy(2.5))[..., None]
    pyro.sample("y", dist.Normal(alpha + beta @ before.T, sigma).to_event(1), obs=y)


def low_dim_gauss_mix(pyro: Any, y: Any) -> None:
    """Two ordered means ~ N(0, 2), two scales ~ HalfN(2), theta ~ Beta(5, 5), y_n from their mixture.

    Two draws of N(0, 2) in order are their centre, N(0, sqrt 2), and half their distance, HalfN(2 sqrt 2), around it.
    """
    dist = pyro.distributions
    centre = pyro.sample("centre", dist.Normal(0.0, 2**0.5))
    gap = pyro.sample("gap", dist.HalfNormal(2 * 2**0.5))
    scales = pyro.sample("sigma", dist.HalfNormal(2.0 + 0.0 * y[:2]).to_event(1))
    theta = pyro.sample("theta", dist.Beta(5.0, 5.0))
    xp, alone = array_namespace(y), 0.0 * y[:, None]
    weights = xp.stack([theta, 1 - theta], axis=-1)[..., None, :] + alone
    means = xp.stack([centre - gap / 2, centre + gap / 2], axis=-1)[..., None, :] + alone
    parts = dist.Normal(means, scales[..., None, :] + alone)
    pyro.sample("y", dist.MixtureSameFamily(dist.Categorical(weights), parts).to_event(1), obs=y)


def regression(pyro: Any, x: Any, y: Any, beta_scale: float = FLAT, scale: Callable | None = None) -> None:
    """beta_d ~ N(0, beta_scale), sigma ~ HalfN(1000) or `scale`, y ~ N(x beta, sigma)."""
    dist = pyro.distributions
    beta = pyro.sample("beta", dist.Normal(0.0 * x[0], beta_scale).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(FLAT) if scale is None else scale(dist))[..., None]
    pyro.sample("y", dist.Normal(beta @ x.T, sigma).to_event(1), obs=y)


def _design(*columns: np.ndarray) -> np.ndarray:
    return np.stack([np.ones(len(columns[0])), *columns], -1)


def _nes(d: dict) -> list[np.ndarray]:
    age = [(d["age_discrete"] == k).astype(float) for k in (2, 3, 4)]
    rest = d["educ1"], d["gender"], d["income"]
    return [_design(d["real_ideo"], d["race_adj"], *age, *rest), d["partyid7"]]


def _mesquite(d: dict) -> list[np.ndarray]:
    logs = [np.log(d[key]) for key in ("diam1", "diam2", "canopy_height", "total_height", "density")]
    return [_design(*logs, d["group"]), np.log(d["weight"])]


def _lagged(d: dict) -> list[np.ndarray]:
    k, y = int(d["K"]), d["y"]
    return [np.stack([y[k - i : len(y) - i] for i in range(1, k + 1)], -1), y[k:]]


def _interacting(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return _design(x, z, x * z)


def _listed(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{name}[{i + 1}]": values[:, i] for i in range(values.shape[1])}


def _as_drawn(d: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name, values in d.items():
        found |= {name: values} if values.ndim == 1 else _listed(name, values)
    return found


def _schools(d: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    theta = d["theta"] if "theta" in d else d["mu"][:, None] + d["tau"][:, None] * d["eta"]
    return _listed("theta", theta) | {"mu": d["mu"], "tau": d["tau"]}


def _curve(d: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    x = columns_of("gp_pois_regr")[0]
    f = (_root(x, d["alpha"], d["rho"], 1e-10) @ d["eta"][..., None])[..., 0]
    return {"rho": d["rho"], "alpha": d["alpha"]} | _listed("f", f)


def _mixture(d: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    means = {f"mu[{i}]": d["centre"] + sign * d["gap"] / 2 for i, sign in ((1, -1), (2, 1))}
    return means | _listed("sigma", d["sigma"]) | {"theta": d["theta"]}


_cauchy = partial(regression, scale=lambda dist: dist.HalfCauchy(2.5))
_vague = partial(regression, beta_scale=10.0, scale=lambda dist: dist.HalfNormal(10.0))
POSTERIORS = {
    "eight_schools_centered": Posterior(
        eight_schools_centered, "eight_schools", lambda d: [d["y"], d["sigma"]], _schools
    ),
    "eight_schools_noncentered": Posterior(
        eight_schools_noncentered, "eight_schools", lambda d: [d["y"], d["sigma"]], _schools
    ),
    "gp_regr": Posterior(gp_regr, "gp_pois_regr", lambda d: [d["x"], d["y"]], _as_drawn),
    "gp_pois_regr": Posterior(gp_pois_regr, "gp_pois_regr", lambda d: [d["x"], d["k"]], _curve),
    "arK": Posterior(arK, "arK", _lagged, _as_drawn),
    "nes": Posterior(regression, "nes1980", _nes, _as_drawn),
    "low_dim_gauss_mix": Posterior(low_dim_gauss_mix, "low_dim_gauss_mix", lambda d: [d["y"]], _mixture),
    "logmesquite": Posterior(regression, "mesquite", _mesquite, _as_drawn),
    "blr": Posterior(_vague, "sblri", lambda d: [d["X"], d["y"]], _as_drawn),
    "kidscore_interaction": Posterior(
        _cauchy, "kidiq", lambda d: [_interacting(d["mom_hs"], d["mom_iq"]), d["kid_score"]], _as_drawn
    ),
    "logearn_interaction": Posterior(
        regression, "earnings", lambda d: [_interacting(d["height"], d["male"]), np.log(d["earn"])], _as_drawn
    ),
}
