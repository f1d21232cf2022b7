"""`samples`, `reconstructions`, `layers`, `traversals`, `interpolations`: what a run's model makes of which codes."""

from __future__ import annotations

import numpy as np

from ppl_models.inference.display.figures import lines

from .html import note
from .rows import VALUE, curves, strips
from .subject import FEW, Subject

SAMPLES, VECTORS = 32, 1000  # images, and rows of vectors whose moments are compared
STEPS, LAYERS, UNITS, PAIRS, LATENTS = 9, 5, 3, 4, 4
VALUES = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


def samples(subject: Subject) -> str:
    """Means of the data that the model draws; of vectors their moments beside those of the data."""
    run, seed = subject.run, subject.run.config["seed"]
    if subject.shape is not None:
        images = subject.values(run.sample(SAMPLES, draws=False, seed=seed))
        told = note("Means of the data given latents from the prior, or draws where the data have no mean.")
        return told + strips({"": images}, subject.shape, "samples", columns=FEW)
    found = {"data": subject.values(subject.rows), "samples": subject.values(run.sample(VECTORS, seed=seed))}
    charts = []
    for word, moment in (("mean", np.mean), ("standard deviation", np.std)):
        both = {name: (_places(rows), moment(rows, 0).tolist()) for name, rows in found.items()}
        unit = f"{word} {VALUE.removeprefix('value ')}"
        chart = lines(both, "coordinate", unit, title=f"{word} of each coordinate", dashed=["samples"], whole=True)
        charts.append(f"<figure>{chart}</figure>")
    told = note(f"Of {VECTORS} samples, and of {len(subject.rows)} test rows, as the transform of the data gives them.")
    return f'{told}<div class="charts">{"".join(charts)}</div>'


def reconstructions(subject: Subject) -> str:
    """Test data, and the means of the data given one draw of their codes."""
    subject.latents  # noqa: B018 (which raises where there are none)
    seed = subject.run.config["seed"]
    rows = {
        "data": subject.values(subject.few),
        "model": subject.values(subject.run.reconstruct(subject.few, seed=seed)),
    }
    told = note("Test data, and below each the mean of the data given latents that the guide draws for it.")
    return told + _compared(subject, rows, "reconstructions")


def layers(subject: Subject) -> str:
    """Test data with their first latents kept, the others drawn by the model."""
    names, run, rows = subject.latents, subject.run, {"data": subject.values(subject.few)}
    for k in sorted({round(i) for i in np.linspace(0, len(names), min(LAYERS, len(names) + 1))}, reverse=True):
        means = run.reconstruct(subject.few, latents=names[:k], seed=run.config["seed"])
        kept = (
            "all" if k == len(names) else "none" if k == 0 else names[0] if k == 1 else f"{names[0]} to {names[k - 1]}"
        )
        rows[f"kept: {kept}"] = subject.values(means)
    told = note(
        f"The first of the latents {order(names)} are drawn by the guide for each datum and kept; the model draws the "
        "others."
    )
    return told + _compared(subject, rows, "layer by layer")


def traversals(subject: Subject) -> str:
    """The most active units of some layers, each moved on its own."""
    names, rows = subject.latents, {}
    chosen = dict.fromkeys(names[round(i)] for i in np.linspace(0, len(names) - 1, min(LATENTS, len(names))))
    one = {name: code[:1] for name, code in subject.codes.items()}
    refused = []
    for name in chosen:
        means = np.asarray(subject.codes[name].cpu() if hasattr(subject.codes[name], "cpu") else subject.codes[name])
        spread = means.reshape(len(means), -1).std(0)
        units = [int(unit) for unit in np.argsort(-spread, kind="stable")[:UNITS]]
        try:
            walk = subject.run.traverse(subject.few[:1], name, units=units, values=VALUES, codes=one)
        except ValueError as error:  # of this latent: others may be of another kind
            refused.append(str(error))
            continue
        moved = subject.values(walk)[:, :, 0]
        rows |= {f"{name}, unit {unit}": moved[i] for i, unit in enumerate(units)}
    if not rows:
        raise ValueError(refused[0])
    labels = [f"{value:g} sd" for value in VALUES]
    told = note(
        f"The first datum, with one unit of its code at {VALUES[0]:g} to {VALUES[-1]:g} standard deviations of the "
        "model's factor; what depends on it goes along. Of some layers the units whose means vary most over the data."
    )
    return told + strips(rows, subject.shape, "traversal", labels=labels, apart=True)


def interpolations(subject: Subject) -> str:
    """Lines between the codes of pairs of data."""
    subject.latents  # noqa: B018 (which raises where there are none)
    half = min(len(subject.few) // 2, PAIRS if subject.shape else 2)
    walk = subject.values(subject.run.interpolate(subject.few[:half], subject.few[half : 2 * half], steps=STEPS))
    labels = [f"{100 * i / (STEPS - 1):.0f} %" for i in range(STEPS)]
    rows = {f"datum {i + 1} to {i + half + 1}": walk[:, i] for i in range(half)}
    told = note(
        "Means of the data on the straight line from the codes of one datum to those of another, in all latents."
    )
    return told + strips(rows, subject.shape, "interpolation", labels=labels)


def order(names: list[str]) -> str:
    """Names in a row, those between left out where there are many."""
    return ", ".join(names if len(names) <= 6 else [*names[:2], "...", names[-1]])


def _compared(subject: Subject, rows: dict[str, np.ndarray], title: str) -> str:
    """Images under each other; of vectors a chart for each of the first data, with a curve for each name."""
    if subject.shape is not None:
        return strips(rows, subject.shape, title)
    names, count = [*rows], min(3, len(rows["data"]))
    each = [np.stack([values[i] for values in rows.values()]) for i in range(count)]
    charts = (curves(f"datum {i + 1}", each[i], names, title, ordered=False) for i in range(count))
    return f'<div class="charts">{"".join(charts)}</div>'


def _places(rows: np.ndarray) -> list[int]:
    return list(range(1, rows.shape[1] + 1))
