"""Information preference: what criteria make of a code that the decoder could do without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log, prod
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from ppl_models.data import Data
from ppl_models.inference import Callback, Run, ancestral, evaluate, markov_chain, mutual_information
from ppl_models.views import plots
from ppl_models.views.chains import mixing
from ppl_models.views.criteria import curves

from .. import names
from ..folder import LoadedRun
from ..pictures import title, to_unit
from . import option


def watch(model: Callable, guide: Callable, parts: tuple[Data, ...], analysis: Mapping[str, Any]) -> Callback:
    """A callback that adds to each record: bounds on the information, the rate, and the reconstruction of test data.

    mi, mi_upper    nats, of the first `analysis.watched` training rows
    rate            mean KL(q(z | x) || p(z)) of them
    reconstruction  -E log p(x | z), nats a test datum, of the first `analysis.tested`
    bound           negative ELBO of the same
    """
    watched, tested = option(analysis, "watched", 2000), option(analysis, "tested", 500)
    train = parts[0].subset(slice(0, watched))
    test = parts[-1].subset(slice(0, tested))[:]

    def information(run: Run) -> None:
        found = mutual_information(model, guide, train)
        bound = evaluate(model, guide, test, particles=1, progress=False)
        record = {"mi": found.lower, "mi_upper": found.upper, "rate": found.rate, "bound": -bound.elbo}
        run.history[-1] |= record | {"reconstruction": -bound.elbo - sum(bound.kl.values())}

    return information


def analyse(
    runs: Mapping[str, LoadedRun], analysis: Mapping[str, Any], folder: Path, seed: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """For each run: information, bounds, and samples of both kinds, scored by the run `analysis.judge` and pictured.

    The score of images is their negative ELBO under the judge, a pair trained by the ELBO: sensible ones have that of
    test data, or less. It tells images that make no sense from those that do, and does not tell whether all are alike.
    """
    judge = runs[option(analysis, "judge", next(iter(runs)))]
    rows: dict[str, dict[str, Any]] = {}
    test = judge.load_data()[-1]
    count = option(analysis, "images", 100)
    scored = _score(judge, test[:count].to(judge.example.device))
    rows["test data"] = {"score": scored}
    report(f"test data: score {scored:.2f} nats")
    for name, run in runs.items():
        rows[name] = _of_run(name, run, analysis, judge, folder, seed)
        for told, value in rows[name].items():
            report(f"{name}: {told} {value if not isinstance(value, float) else f'{value:.4g}'}")
    histories = {name: run.history for name, run in runs.items()}
    panels = {
        "I(x; z), nats": ("mi", "mi_upper"),
        "rate, nats": ("rate",),
        "- E log p(x | z), nats a datum": ("reconstruction",),
        "negative ELBO, nats a datum": ("bound",),
    }
    watched = option(analysis, "watched", 2000)
    figure = curves(histories, panels, {"I(x; z), nats": log(watched)}, "bounds on I from both sides; dots: log n")
    plots.save_figure(figure, folder / "curves.png")
    return rows


def _of_run(
    name: str, run: LoadedRun, analysis: Mapping[str, Any], judge: LoadedRun, folder: Path, seed: int
) -> dict[str, Any]:
    train, test = run.load_data()[:: len(run.load_data()) - 1]
    device, shape = run.example.device, run.config["data"]["shape"]
    count, steps = option(analysis, "images", 100), option(analysis, "steps", 60)
    known = mutual_information(run.model, run.guide, train, rows=option(analysis, "data", 10_000), seed=seed)
    part = test.subset(slice(0, option(analysis, "tested", 500)))
    bound = evaluate(run.model, run.guide, part, particles=option(analysis, "particles", 20), progress=False)
    reconstruction = -bound.elbo - sum(bound.kl.values())
    generator = torch.Generator().manual_seed(seed)
    noise = (torch.rand(count, prod(shape), generator=generator) < 0.5).float().to(device)
    drawn = ancestral(run.model, noise, seed=seed)
    chain = markov_chain(run.model, run.guide, noise, steps, seed=seed)
    mixed = mixing(chain, burn=steps // 2)
    stem = names.slug(name)
    for kind, images in (("ancestral", drawn), ("chain", chain.states[-1])):
        figure = plots.image_grid(
            to_unit(run.config, images[:100]), shape, title=f"{title(run)}, {name}: {kind} samples"
        )
        plots.save_figure(figure, folder / f"{stem}_{kind}.png")
    shown = torch.cat([chain.states[:11], chain.states[11 :: max((steps - 10) // 10, 1)]])[:, :8]
    strip = to_unit(run.config, shown.flatten(0, 1)).reshape(shown.shape)
    above = f"{title(run)}, {name}: chains from noise, transitions 0 to 10 and then every {max((steps - 10) // 10, 1)}"
    plots.save_figure(plots.film_strip(strip, shape, title=above), folder / f"{stem}_strip.png")
    return {
        "information": [known.lower, known.upper],
        "ceiling": known.ceiling,
        "rate": known.rate,
        "marginal divergence": list(known.marginal),
        "negative ELBO": -bound.elbo,
        "NLL": bound.nll,
        "NLL error": bound.nll_error,
        "particles": bound.particles,
        "reconstruction": reconstruction,
        "reconstruction per pixel": reconstruction / prod(shape),
        "score of ancestral samples": _score(judge, drawn),
        "score of chain samples": _score(judge, chain.states[-1]),
        "R-hat": mixed.rhat,
        "effective draws": mixed.ess,
        "transitions an independent draw": mixed.time,
        "autocorrelation": mixed.autocorrelation[:11].tolist(),
    }


def _score(judge: LoadedRun, images: Tensor) -> float:
    """Mean negative ELBO of images under the judge, nats."""
    pyro.set_rng_seed(0)
    return -evaluate(judge.model, judge.guide, images, particles=1, progress=False).elbo
