"""Experiment "sequential": bounds by number of steps, and the distance of samples from reconstructions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ppl_models.inference import evaluate, mutual_information, sharpness
from ppl_models.inference.pyro.evaluation.densities import looking
from ppl_models.inference.pyro.passes.messengers import UntilDrawn
from ppl_models.views import plots

from ...folders.loaded import LoadedRun
from ...naming import names
from ...pages.pictures import to_unit
from ..energy import energy_distance
from . import at_least

TOLD = "negative ELBO", "NLL", "error", "sharpness of reconstructions", "sharpness of samples", "gap", "distance"
OPTIONS = {"tested": 1000, "particles": 100, "data": 2000}


def chains(model: nn.Module, guide: Callable, x: Tensor, seed: int | None = 0) -> tuple[Tensor, Tensor]:
    """The images of a `SequentialVAE` after every step, (T, n, D) each, along two chains of codes.

        posterior  z_t ~ q(z_t | z_<t, x)
        prior      z_t ~ p(z_t | z_<t)

    A step is trained on images that the posterior's chain has made, and generates from those of the prior's.
    """
    sites = [f"z{t + 1}" for t in range(model.steps)]
    with looking(model, guide, seed, x):
        found = []
        for program, args in ((guide, (x,)), (model, (None, len(x)))):
            nodes = UntilDrawn(sites).run(program, args)
            found.append(model.images([nodes[site]["value"] for site in sites]))
    return found[0], found[1]


def check(runs: Mapping[str, Any], analysis: Mapping[str, Any]) -> None:
    """Raise ValueError unless every model has images step by step, and there are data enough to compare."""
    at_least(2, analysis, "tested", "data")
    for name, chosen in runs.items():
        program = names.resolve("model", chosen["model"]["name"])
        if not hasattr(program, "images"):
            told = f"experiment sequential: run {name!r} has model.name = {chosen['model']['name']}"
            raise ValueError(f"{told}, want sequential-vae, or a model with its steps and images(codes)")


def analyse(
    runs: Mapping[str, LoadedRun], analysis: Mapping[str, Any], folder: Path, seed: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """For each run: bounds; errors, sharpness and the gap between the two `chains` step by step; and film strips.

    Squared errors are sums over the values of a datum; sharpness is relative to that of the test data. "gap" is the
    energy distance of the images of the prior's chain from those of the posterior's, "distance" that of the samples
    from the test data themselves.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        train, *_, test = run.load_data()
        x = test[: analysis["tested"]].to(run.example.device)
        shape = run.config["data"]["shape"]
        bound = evaluate(run.model, run.guide, x, particles=analysis["particles"], seed=seed, progress=False)
        posterior, prior = chains(run.model, run.guide, x, seed)
        errors = (posterior - x).square().sum(-1).mean(-1).tolist()
        sharp, sharp_samples = ([sharpness(m, shape) / sharpness(x, shape) for m in c] for c in (posterior, prior))
        gaps = [energy_distance(a, b) for a, b in zip(prior, posterior, strict=True)]
        known = mutual_information(run.model, run.guide, train, rows=analysis["data"], seed=seed)
        rows[name] = {
            "negative ELBO": -bound.elbo,
            "NLL": bound.nll,
            "NLL error": bound.nll_error,
            "particles": bound.particles,
            "KL": list(bound.kl.values()),
            "error": errors[-1],
            "error by step": errors,
            "sharpness of reconstructions": sharp[-1],
            "sharpness of reconstructions by step": sharp,
            "sharpness of samples": sharp_samples[-1],
            "sharpness of samples by step": sharp_samples,
            "gap": gaps[-1],
            "gap by step": gaps,
            "distance": energy_distance(prior[-1], x),
            "information": [known.lower, known.upper],
            "ceiling": known.ceiling,
            "rate": known.rate,
            "marginal divergence": list(known.marginal),
        }
        for key in TOLD:
            report(f"{name}: {key} {rows[name][key]:.4g}")
        report(f"{name}: rate {known.rate:.4g}, information {known.lower:.4g} to {known.upper:.4g} nats")
        _pictures(name, run, prior, folder)
    return rows


def _pictures(name: str, run: LoadedRun, prior: Tensor, folder: Path) -> None:
    """Samples, and how some of them come about."""
    shape, stem = run.config["data"]["shape"], names.slug(name)
    unit = to_unit(run.config, prior.flatten(0, 1)).reshape(prior.shape)
    figure = plots.image_grid(unit[-1, :64], shape, title=f"{run.title}, {name}: samples")
    plots.save_figure(figure, folder / f"{stem}_samples.png")
    if len(prior) > 1:
        figure = plots.film_strip(unit[:, :8], shape, title=f"{run.title}, {name}: samples step by step")
        plots.save_figure(figure, folder / f"{stem}_strip.png")
