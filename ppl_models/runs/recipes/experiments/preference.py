"""Experiment "information-preference": how much the code is used, by criterion, if the decoder can do without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from ppl_models.data import Data
from ppl_models.inference import Callback, Run, ancestral, evaluate, markov_chain, mutual_information, probe
from ppl_models.views import plots
from ppl_models.views.chains import mixing
from ppl_models.views.criteria import curves

from ...folders.loaded import LoadedRun
from ...naming import names
from ...pages.pictures import noise, picture_strip, to_unit
from . import at_least

OPTIONS = {"judge": "", "watched": 2000, "tested": 500, "data": 10_000, "particles": 50}
OPTIONS |= {"images": 100, "steps": 40, "after": 5}
LABELS = (100, 1000)  # that classifiers of codes are given
LOOKED_AT = (1, 2, 5, 10, 20, 40, 100, 200)  # transitions


def watch(model: Callable, guide: Callable, parts: tuple[Data, ...], analysis: Mapping[str, Any]) -> Callback:
    """A callback that adds to each record: bounds on the information, the rate, and the reconstruction of test data.

    mi, mi_upper    nats, of the first `analysis.watched` training rows
    ceiling         of mi, log of how many rows these are
    rate            mean KL(q(z | x) || p(z)) of them
    reconstruction  -E log p(x | z), nats a test datum, of the first `analysis.tested`
    bound           negative ELBO of the same
    """
    watched, tested = analysis["watched"], analysis["tested"]
    train = parts[0].subset(slice(0, watched))
    test = parts[-1].subset(slice(0, tested))[:]

    def information(run: Run) -> None:
        found = mutual_information(model, guide, train)
        bound = evaluate(model, guide, test, particles=1, progress=False)
        run.history[-1] |= {
            "mi": found.lower,
            "mi_upper": found.upper,
            "ceiling": found.ceiling,
            "rate": found.rate,
            "bound": -bound.elbo,
            "reconstruction": -bound.elbo - sum(bound.kl.values()),
        }

    return information


def check(runs: Mapping[str, Any], analysis: Mapping[str, Any]) -> None:
    """Raise ValueError unless the judge is one of the runs, and data and chains are as many as are needed."""
    at_least(2, analysis, "watched", "data", "images")
    at_least(7, analysis, "steps")  # of the second half is asked whether they mix
    if analysis["judge"] and analysis["judge"] not in runs:
        known = ", ".join(map(repr, runs))
        raise ValueError(f"analysis.judge: found {analysis['judge']!r}, want one of the runs {known}")


def analyse(
    runs: Mapping[str, LoadedRun], analysis: Mapping[str, Any], folder: Path, seed: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """For each run: information, bounds, and samples of both kinds, scored by the run `analysis.judge` and pictured.

    The score of images is their negative ELBO under the judge, a pair trained by the ELBO: far above that of test data
    are images that make no sense, below it simple ones, which their ink tells (the mean of all pixels). Chains begin at
    noise, as published, and at test data; pictures are of those from noise, after `analysis.after` transitions. Where
    data have labels, accuracies on test data are of classifiers of the codes (`ppl_models.inference.probe`).
    """
    judge = runs[analysis["judge"] or next(iter(runs))]
    rows: dict[str, dict[str, Any]] = {}
    test = judge.load_data()[-1]
    count = analysis["images"]
    scored = _score(judge, test[:count].to(judge.example.device))
    rows["test data"] = {"score": scored, "ink": test[:count].mean().item()}
    report(f"test data: score {scored:.2f} nats, ink {rows['test data']['ink']:.3f}")
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
    ceiling = max(record["ceiling"] for history in histories.values() for record in history)  # as it was watched
    figure = curves(histories, panels, {"I(x; z), nats": ceiling}, "bounds on I from both sides; dots: log n")
    plots.save_figure(figure, folder / "curves.png")
    return rows


def _of_run(
    name: str, run: LoadedRun, analysis: Mapping[str, Any], judge: LoadedRun, folder: Path, seed: int
) -> dict[str, Any]:
    train, *_, test = run.load_data()
    shape = run.config["data"]["shape"]
    count, steps = analysis["images"], analysis["steps"]
    known = mutual_information(run.model, run.guide, train, rows=analysis["data"], seed=seed)
    part = test.subset(slice(0, analysis["tested"]))
    accuracy = (
        {} if train.labels is None else probe(run.model, run.guide, train, test, labels=LABELS, seed=seed).accuracy
    )
    bound = evaluate(run.model, run.guide, part, particles=analysis["particles"], seed=seed, progress=False)
    reconstruction = -bound.elbo - sum(bound.kl.values())
    start, x = noise(run, count, seed), test[:count].to(run.example.device)
    drawn = ancestral(run.model, start, seed=seed)
    chain, of_data = (markov_chain(run.model, run.guide, begin, steps, seed=seed) for begin in (start, x))
    mixed = mixing(of_data, burn=steps // 2)
    looked_at = [k for k in LOOKED_AT if k <= steps]
    after = min(analysis["after"], steps)
    stem = names.slug(name)
    kinds = {"from the prior": drawn, f"{after} transitions from noise": chain.states[after]}
    for kind, images in kinds.items():
        figure = plots.image_grid(to_unit(run.config, images[:100]), shape, title=f"{run.title}, {name}: {kind}")
        plots.save_figure(figure, folder / f"{stem}_{'ancestral' if images is drawn else 'chain'}.png")
    picture_strip(run, chain.states[:, :8], folder / f"{stem}_strip.png", f"{run.title}, {name}: chains from noise")
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
        "accuracy": {f"{kind}, {n} labels": list(of) for kind, found in accuracy.items() for n, of in found.items()},
        "score from the prior": _score(judge, drawn),
        "ink from the prior": drawn.mean().item(),
        "transitions": looked_at,
        "score from noise": [_score(judge, chain.states[k]) for k in looked_at],
        "ink from noise": [chain.states[k].mean().item() for k in looked_at],
        "score from data": [_score(judge, of_data.states[k]) for k in looked_at],
        "ink from data": [of_data.states[k].mean().item() for k in looked_at],
        "R-hat": mixed.rhat,
        "effective draws": mixed.ess,
        "transitions for an independent draw": mixed.time,
        "autocorrelation": mixed.autocorrelation[:11].tolist(),
    }


def _score(judge: LoadedRun, images: Tensor) -> float:
    """Mean negative ELBO of images under the judge, nats."""
    return -evaluate(judge.model, judge.guide, images, particles=1, progress=False).elbo
