"""The sequential VAE: what more steps are worth, and how far the chain of codes from the prior is from that of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from ppl_models.inference import evaluate, mutual_information, sharpness
from ppl_models.inference.densities import looking
from ppl_models.inference.messengers import Substitute, UntilDrawn
from ppl_models.views import plots

from .. import names
from ..folder import LoadedRun
from ..pictures import title, to_unit

OPTIONS = {"tested": 1000, "particles": 100, "data": 5000}


def chains(model: nn.Module, guide: Callable, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The images of a `SequentialVAE` after every step, (T, n, D) each, along three chains of codes.

        posterior  z_t ~ q(z_t | z_<t, x)
        mixed      z_<t ~ p, and z_t ~ q(z_t | z_<t, x): one step of the posterior's on an image of the prior's chain
        prior      z_t ~ p(z_t | z_<t)

    A step is trained on images that the posterior's chain has made, and generates from those of the prior's: the
    difference of the first two, in what is left to reconstruct, is what that costs.
    """
    sites = [f"z{t + 1}" for t in range(model.steps)]

    def values(program: Callable, *args: Any) -> dict[str, Tensor]:
        return {name: node["value"] for name, node in UntilDrawn(sites).run(program, args).items()}

    with looking(model, guide, 0):
        inferred, drawn = values(guide, x), values(model, None, len(x))
        posterior, prior = (model.images([codes[site] for site in sites]) for codes in (inferred, drawn))
        mixed = [posterior[0]]
        for t in range(1, model.steps):
            before = {site: drawn[site] for site in sites[:t]}
            with Substitute(before):
                code = values(guide, x)[sites[t]]
            mixed.append(model.image_of(t, prior[t - 1], code))
    return posterior, torch.stack(mixed), prior


def analyse(
    runs: Mapping[str, LoadedRun], analysis: Mapping[str, Any], folder: Path, seed: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """For each run: bounds, errors and sharpness step by step, along the chains of `chains`; and film strips.

    Squared errors are sums over the values of a datum; sharpness is relative to that of the test data. "gap" is the
    error of the mixed chain less that of the posterior's, at the last step.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        train, test = run.load_data()[0], run.load_data()[-1]
        x = test[: analysis["tested"]].to(run.example.device)
        shape = run.config["data"]["shape"]
        bound = evaluate(run.model, run.guide, x, particles=analysis["particles"], progress=False)
        posterior, mixed, prior = chains(run.model, run.guide, x)
        errors, mixed_errors = ((m - x).square().sum(-1).mean(-1).tolist() for m in (posterior, mixed))
        level = sharpness(x, shape)
        sharp, sharp_samples = ([sharpness(m, shape) / level for m in chain] for chain in (posterior, prior))
        known = mutual_information(run.model, run.guide, train, rows=analysis["data"], seed=seed)
        rows[name] = {
            "negative ELBO": -bound.elbo,
            "NLL": bound.nll,
            "NLL error": bound.nll_error,
            "particles": bound.particles,
            "KL": list(bound.kl.values()),
            "error": errors[-1],
            "error by step": errors,
            "error by step, mixed": mixed_errors,
            "gap": mixed_errors[-1] - errors[-1],
            "sharpness of reconstructions": sharp[-1],
            "sharpness of reconstructions by step": sharp,
            "sharpness of samples": sharp_samples[-1],
            "sharpness of samples by step": sharp_samples,
            "information": [known.lower, known.upper],
            "ceiling": known.ceiling,
            "rate": known.rate,
            "marginal divergence": list(known.marginal),
        }
        for told in ("negative ELBO", "NLL", "error", "gap", "sharpness of reconstructions", "sharpness of samples"):
            report(f"{name}: {told} {rows[name][told]:.4g}")
        report(f"{name}: rate {known.rate:.4g}, information {known.lower:.4g} to {known.upper:.4g} nats")
        pyro.set_rng_seed(seed)
        _pictures(name, run, prior, folder)
    return rows


def _pictures(name: str, run: LoadedRun, prior: Tensor, folder: Path) -> None:
    """Samples, and how some of them come about."""
    shape, stem = run.config["data"]["shape"], names.slug(name)
    unit = to_unit(run.config, prior.flatten(0, 1)).reshape(prior.shape)
    figure = plots.image_grid(unit[-1, :64], shape, title=f"{title(run)}, {name}: samples")
    plots.save_figure(figure, folder / f"{stem}_samples.png")
    if len(prior) > 1:
        figure = plots.film_strip(unit[:, :8], shape, title=f"{title(run)}, {name}: samples step by step")
        plots.save_figure(figure, folder / f"{stem}_strip.png")
