"""Posteriors of posteriordb by guide: errors against the reference draws, beside autoguides and NUTS.

    python -m benchmarks.posteriordb                                  # the whole table
    python -m benchmarks.posteriordb blr nes --ways diagonal full     # some of it
    python -m benchmarks.posteriordb --json posteriordb.json          # what is in there is not done again
    python -m benchmarks.posteriordb --language numpyro               # by the ports, in a quarter of the time

An error is the largest over the quantities of a posterior of |mean - reference mean| / reference sd and
|sd - reference sd| / reference sd. `Faithful` and the autoguides take the same steps of `fit`; of the guides there are
100,000 draws, and k is the Pareto k-hat of 10,000 weights. NUTS is NumPyro's.
"""

import argparse
import json
import warnings
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np
import pyro
import torch
from pyro.infer import autoguide

from guides import Faithful
from ppl_models.inference import evaluate, fit

from .posteriors import POSTERIORS, columns_of, reference_of
from .table import table

FAMILIES = "diagonal", "full", "flow", "iaf", "nsf"
AUTO = "AutoNormal", "AutoMultivariateNormal"
WAYS = *FAMILIES, *AUTO, "NUTS"
DRAWS, WEIGHTS = 100_000, 10_000


def by_pyro(name: str, way: str, options: dict) -> tuple[dict[str, np.ndarray], float]:
    """Draws of the latents by a guide of Pyro's, or of ours, trained by `fit`, and the k-hat of its weights."""
    columns = [torch.tensor(column) for column in columns_of(name)]
    model = partial(POSTERIORS[name].model, pyro)
    pyro.clear_param_store()
    pyro.set_rng_seed(options["seed"])
    guide = getattr(autoguide, way)(model) if way in AUTO else Faithful(model, *columns, family=way)
    fit(model, guide, tuple(columns), batch_size=len(columns[0]), progress=False, **options)
    weighed = evaluate(model, guide, tuple(columns), particles=WEIGHTS, seed=options["seed"], progress=False)
    with torch.no_grad(), pyro.plate("draws", DRAWS, dim=-1):
        return {key: _drawn(value.numpy()) for key, value in guide(*columns).items()}, weighed.khats.item()


def by_numpyro(name: str, way: str, options: dict) -> tuple[dict[str, np.ndarray], float]:
    """The same by NumPyro's guides and the ports."""
    import jax
    import numpyro
    import numpyro.infer.autoguide

    from guides.numpyro import Faithful
    from ppl_models.inference.numpyro import evaluate, fit

    jax.config.update("jax_enable_x64", True)
    columns, key = columns_of(name), jax.random.key(options["seed"])
    model = partial(POSTERIORS[name].model, numpyro)
    columns = [jax.numpy.asarray(column) for column in columns]
    ours = way in FAMILIES
    guide = Faithful(model, *columns, family=way, key=key) if ours else getattr(numpyro.infer.autoguide, way)(model)
    run = fit(model, guide, tuple(columns), batch_size=len(columns[0]), progress=False, **options)
    how = {"particles": WEIGHTS, "seed": options["seed"], "progress": False}
    khat = evaluate(run.model, run.guide, tuple(columns), **how).khats.item()
    if ours:
        with numpyro.handlers.seed(rng_seed=1), numpyro.plate("draws", DRAWS, dim=-1):
            return {key: _drawn(np.asarray(value)) for key, value in run.guide(*columns).items()}, khat
    drawn = guide.sample_posterior(jax.random.key(1), run.params, sample_shape=(DRAWS,))
    return {key: np.asarray(value) for key, value in drawn.items()}, khat


def _drawn(values: np.ndarray) -> np.ndarray:
    """Draws of events of one dim at most, (DRAWS,) or (DRAWS, n)."""
    return values.reshape(DRAWS) if values.size == DRAWS else values.reshape(DRAWS, -1)


def by_nuts(name: str, seed: int) -> dict[str, np.ndarray]:
    """Draws of the latents by NumPyro's NUTS: 4 chains of 2000, after as many to warm up."""
    import jax
    import numpyro
    from numpyro.infer import MCMC, NUTS

    jax.config.update("jax_enable_x64", True)
    columns = [jax.numpy.asarray(column) for column in columns_of(name)]
    kernel = NUTS(partial(POSTERIORS[name].model, numpyro), target_accept_prob=0.95)
    chains = MCMC(
        kernel, num_warmup=2000, num_samples=2000, num_chains=4, chain_method="sequential", progress_bar=False
    )
    chains.run(jax.random.key(seed), *columns)
    return {key: np.asarray(value) for key, value in chains.get_samples().items()}


def error(name: str, draws: dict[str, np.ndarray]) -> tuple[float, str]:
    """The largest error over the quantities, and which one has it."""
    found, errors = POSTERIORS[name].quantities(draws), {}
    for key, (mean, sd) in reference_of(name).items():
        errors[key] = max(abs(found[key].mean() - mean) / sd, abs(found[key].std() - sd) / sd)
    worst = max(errors, key=errors.get)
    return float(errors[worst]), worst


def measured(name: str, way: str, language: str, options: dict) -> dict:
    """One entry of the table: error, the quantity that has it, the k-hat of a guide, seconds of the processor."""
    start = process_time()
    by_guide = by_pyro if language == "pyro" else by_numpyro
    draws, khat = (by_nuts(name, options["seed"]), None) if way == "NUTS" else by_guide(name, way, options)
    seconds = process_time() - start
    worst, quantity = error(name, draws)
    return {"error": worst, "quantity": quantity, "khat": khat, "seconds": seconds}


def posterior_table(found: dict) -> str:
    """One row a posterior: error of each way, with the k-hat of a guide, and seconds."""

    def cell(row: dict | None) -> str:
        if not row:
            return ""
        khat = "" if row.get("khat") is None else f", k {row['khat']:.2f}"
        return f"{row['error']:.3f}{khat} ({row['seconds']:.0f} s)"

    return table(["posterior", *WAYS], [[name, *(cell(rows.get(w)) for w in WAYS)] for name, rows in found.items()])


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(POSTERIORS), help=", ".join(POSTERIORS))
    parser.add_argument("--ways", nargs="*", default=list(WAYS), help=", ".join(WAYS))
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--language", choices=["pyro", "numpyro"], default="pyro")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    how = {"steps": options.steps, "every": options.steps, "lr": options.lr, "seed": options.seed, "particles": 32}
    about = {**how, "language": options.language}
    kept = json.loads(options.json.read_text()) if options.json and options.json.exists() else {"posteriors": {}}
    found = kept["posteriors"]
    for way in options.ways:
        for name in options.names:
            if way not in found.setdefault(name, {}):
                found[name][way] = measured(name, way, options.language, how)
                print(f"{name:28} {way:24} {found[name][way]}", flush=True)
                if options.json:
                    options.json.write_text(json.dumps({"about": about, **kept}, indent=1) + "\n")
    print(posterior_table({name: found[name] for name in options.names}))


if __name__ == "__main__":
    main()
