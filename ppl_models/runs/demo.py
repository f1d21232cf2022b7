"""`demo(folder)`: what the edges of a guide are worth, as the inspector says it and as training measures it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch

from ppl_models import LinearGaussian, data as datasets
from ppl_models.factorization import Report, compare
from ppl_models.inference import evaluate, fit
from ppl_models.inference.storage.files import write_json
from ppl_models.views import plots
from ppl_models.views.priced import priced

from .ablation import Ablated, ablate, drawn
from .folders.configuration import configuration
from .folders.folder import load_run, staged
from .machine import commit, machine
from .naming import names
from .naming.options import Training
from .pages.pictures import picture_run

STEPS = 1500
RESULTS, PICTURE, DIGITS = "demo.json", "demo.png", "digits"

# A model that is given: z1 has two children, and the data are of both, which is why these depend on each other.
PARENTS = {"z3": ("z1",), "x": ("z2", "z3")}
SIZE, TRAIN, TEST, DRAWS = 4, 8000, 1000, 100
GIVEN: dict[str, tuple[str, dict[str, Any]]] = {
    "mean field": ("mean-field", {}),
    "bottom-up, Markov": ("bottom-up", {"parents": "previous"}),
    "top-down, the model's edges": ("self-reflective", {"parents": {"z2": ("z1",), "z3": ("z1",)}}),
    "self-reflective": ("self-reflective", {}),
}
PLACES = {"z1": (1.0, 1.0), "z2": (0.1, 0.5), "z3": (1.9, 0.5), "x": (1.0, 0.0)}

# A model that is learned.
MODEL = ("sere-vae", {"layers": 4, "latent": 8, "hidden": 64})
LEARNED = "mean-field", "ladder", "self-reflective"
PARTICLES = 200


class Priced(NamedTuple):
    """A guide for the model that is given.

    Attributes:
        report: of the inspector, before any training.
        price: nats per datum that the structure costs at its best.
        measured, error: evidence minus ELBO of the trained guide, over test data, and its standard error.
        seconds: of the training.
    """

    report: Report
    price: float
    measured: float
    error: float
    seconds: float

    @property
    def lacks(self) -> str:
        """The edges that its factors lack."""
        return ", ".join(f"{u}→{z}" for z, found in self.report.missing.items() for u in found) or "nothing"


class Demo(NamedTuple):
    """What a demo found.

    Attributes:
        given: guide -> its price and what was measured.
        learned: the guides with which a SeRe-VAE learned digits.
    """

    given: dict[str, Priced]
    learned: list[Ablated]


def demo(
    folder: str | Path,
    steps: int | None = None,
    seed: int = 0,
    progress: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> Demo:
    """Price what guides lack, train them and measure it; then learn digits with guides that lack and do not lack edges.

    Above all integrals are known: a linear-Gaussian model, whose weights are drawn by seed 0, so that the inspector
    prices each structure and the evidence is exact. Below nothing is: the same SeRe-VAE is trained from the same
    weights with each guide.

    Args:
        folder: must not exist, or be empty; it gets demo.json, demo.png, and in digits a run folder for each guide.
        steps, seed: of each training.
        progress: show bars.
        report: is told what is done, line by line.
    """
    with staged(Path(folder), proof=RESULTS) as staging:
        given = {}
        for name, row in _given(steps or STEPS, seed, progress):
            given[name] = row
            report(f"{name}: {row.report.verdict}, {row.price:.3f} nats expected, {row.measured:.3f} measured")
        learned = _learned(staging / DIGITS, steps or STEPS, seed, progress, report)
        write_json(staging / RESULTS, _written(given, learned, steps or STEPS, seed))
        plots.save_figure(_figure(given, learned), staging / PICTURE)
    return Demo(given, learned)


def _given(steps: int, seed: int, progress: bool) -> Iterator[tuple[str, Priced]]:
    """(name, what was found) of each guide of the model that is given, one after the other."""
    drawn_by = torch.Generator().manual_seed(0)
    model = LinearGaussian(SIZE, (SIZE,) * 3, PARENTS, weight=1.0, generator=drawn_by).requires_grad_(False)
    pyro.set_rng_seed(seed)
    with torch.no_grad():
        train, test = model(n=TRAIN), model(n=TEST)
        evidence = model.log_evidence(test).numpy()
    for name, (guide, sizes) in GIVEN.items():
        pyro.set_rng_seed(seed)
        built = names.resolve("guide", guide)(model, train[:3], family="full", hidden=32, **sizes)
        about = compare(model, built, train[:3])
        run = fit(model, built, train, steps=steps, lr=1e-2, seed=seed, progress=progress)
        found = evaluate(model, built, test, particles=DRAWS, seed=seed, progress=False)
        loss = evidence - np.asarray(found.elbos)
        price = about.gap.elbo if about.gap else 0.0
        yield name, Priced(about, price, float(loss.mean()), float(loss.std(ddof=1) / TEST**0.5), run.seconds)


def _learned(folder: Path, steps: int, seed: int, progress: bool, report: Callable[[str], None]) -> list[Ablated]:
    """Guides with which digits are learned; each run folder has its pictures."""
    parts = datasets.load(DIGITS)
    training = Training(steps=steps, batch_size=64, lr=5e-3, warmup=2 * steps // 3)

    def plan(guide: str) -> dict[str, Any]:
        chosen = guide, {"hidden": 64}
        return configuration(model=MODEL, guide=chosen, data=DIGITS, parts=parts, training=training, seed=seed)

    plans = {name: [plan(name)] for name in LEARNED}
    rows = ablate(plans, parts, folder, PARTICLES, progress=progress, report=report)
    for name in LEARNED:
        pyro.set_rng_seed(seed)
        picture_run(load_run(folder / f"{name}-{seed}"), parts[-1][:20])
    return rows


def _written(given: Mapping[str, Priced], learned: list[Ablated], steps: int, seed: int) -> dict[str, Any]:
    rows = {
        name: {
            "factorization": str(row.report.guide),
            "verdict": row.report.verdict,
            "missing": {site: list(found) for site, found in row.report.missing.items()},
            "price": row.price,
            "measured": row.measured,
            "error": row.error,
            "seconds": row.seconds,
        }
        for name, row in given.items()
    }
    about = {"steps": steps, "seed": seed, "machine": machine(), "commit": commit()}
    return {**about, "given": rows, "learned": {row.name: row.to_dict(learned[0]) for row in learned}}


def _figure(given: Mapping[str, Priced], learned: list[Ablated]) -> Any:
    first = next(iter(given.values())).report
    rows = {
        name: {
            "note": row.report.verdict if row.report.faithful else f"{row.report.verdict}: lacks {row.lacks}",
            "edges": [(u, z) for z, parents in row.report.guide.items() for u in parents],
            "missing": [(u, z) for z, found in row.report.missing.items() for u in found],
            "price": row.price,
            "measured": (row.measured, row.error),
        }
        for name, row in given.items()
    }
    edges = [(u, z) for z, parents in first.model.items() for u in parents]
    titles = (
        "A model that is given, linear and Gaussian: what a guide lacks, the price of that, and what training measures",
        f"A model that is learned ({MODEL[0]} on digits): the same weights and steps, with one guide after the other",
    )
    return priced(rows, edges, PLACES, {row.name: drawn(row, learned[0]) for row in learned}, titles)
