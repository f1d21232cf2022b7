"""`learning`, `divergences`, `bounds`: a run's curves over its training, and what its evaluations found."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from ppl_models.inference.display.figures import lines
from ppl_models.inference.display.notebook import BOUND, bounds_of, curve_of

from .html import columns, missing, note, table
from .subject import Subject

BOUNDS = {
    "elbo": "ELBO (nats per datum)",
    "nll": "NLL (nats per datum)",
    "nll_error": "its standard error over the data",
    "reconstruction": "distortion (nats per datum)",
    "bits_per_dim": "bits per dimension",
    "particles": "importance samples",
    "n": "data",
}


def learning(subjects: Sequence[Subject]) -> str:
    """The bounds over the steps, of all runs in one chart, and the gradients."""
    curves, dashed = {}, []
    charts = []
    for subject in subjects:
        start = f"{subject.name}: " if len(subjects) > 1 else ""
        found = bounds_of(subject.run.history)
        if len(subjects) > 1:
            found.pop("loss", None)
        curves |= {f"{start}{name}": curve for name, curve in found.items()}
        dashed += [f"{start}validation bound"] if found.get("validation bound") else []
    if not curves:
        return missing("the history has no bound that is finite")
    charts.append(lines(curves, "step", BOUND, title="bounds over the steps", dashed=dashed))
    gradients = {s.name or "gradient": curve for s in subjects if (curve := curve_of(s.run.history, "grad_norm"))}
    if gradients:
        charts.append(lines(gradients, "step", "norm of the gradient (nats)", title="gradients over the steps"))
    told = note("Means over the steps since the record before. What is far above all else at the start is cut off.")
    return told + _charts(charts)


def divergences(subjects: Sequence[Subject]) -> str:
    """The divergence of each layer over the steps, and at the end."""
    return columns([(s.name, s.attempt(_divergences)) for s in subjects])


def _divergences(subject: Subject) -> str:
    records = subject.run.history
    names = [key for key in dict.fromkeys(k for record in records for k in record) if key.startswith("kl.")]
    curves = {name.removeprefix("kl."): curve for name in names if (curve := curve_of(records, name))}
    at_end = {site: kl for each in subject.evaluations().values() for site, kl in (each.get("kl") or {}).items()}
    if subject.run.config["guide"] is None:
        return missing("the model has no latents")
    parts: list[str] = []
    if curves:
        chart = lines(curves, "step", "KL(q || p) (nats per datum)", title="divergences over the steps")
        parts.append(_charts([chart]))
    else:
        parts.append(note("The divergences over the training were not recorded; train with --record-kl to have them."))
    if at_end:
        rows = [(site, f"{kl:.3f}") for site, kl in at_end.items() if isinstance(kl, float | int)]
        parts.append(table(("layer", "KL at the end (nats per datum)"), rows, numbers=True))
    return "".join(parts)


def bounds(subjects: Sequence[Subject]) -> str:
    """What the evaluations found, one column each."""
    found = [(s, name, each) for s in subjects for name, each in s.evaluations().items()]
    if not found:
        return missing("no evaluation yet; try ppl-models evaluate RUN")
    several = len(subjects) > 1
    head = ["", *(f"{s.name}: {_of(name, each)}" if several else _of(name, each) for s, name, each in found)]
    rows = []
    for key, label in BOUNDS.items():
        cells = [_number(each.get(key)) for _, _, each in found]
        if any(cells):
            rows.append((label, *cells))
    notes = dict.fromkeys(str(each) for _, _, found_ in found for each in found_.get("notes") or ())
    told = (
        "The NLL is a bound by importance sampling, which falls to -log p(x) as there are more samples; less is better."
    )
    if several:
        told += " Whether two runs differ is told by `ppl-models compare-runs`, datum by datum."
    return note(told) + table(head, rows, numbers=True) + "".join(note(each) for each in notes)


def _of(name: str, found: dict[str, Any]) -> str:
    """The data, and what the name of a file tells beyond."""
    more = name.removeprefix("evaluation").replace("_", " ").strip()
    return ", ".join(dict.fromkeys(part for part in (str(found.get("data", "test data")), more) if part))


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, float | int) or not isfinite(value):
        return ""
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _charts(charts: Sequence[str]) -> str:
    return f'<div class="charts">{"".join(f"<figure>{chart}</figure>" for chart in charts)}</div>'
