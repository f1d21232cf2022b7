"""`run_html`, `evaluation_html`: a training and an evaluation as a notebook shows them; `run_words`: one in a line."""

from html import escape
from math import isfinite
from typing import TYPE_CHECKING

from ppl_models.programs.legible import legible

from .figures import lines

if TYPE_CHECKING:
    from ..results import Evaluation, Run

CURVES = {"training bound": "negative_elbo", "validation bound": "valid", "loss": "loss"}
BOUND = "negative ELBO (nats per datum)"


def run_words(run: "Run") -> str:
    """How long a training was, where its bounds ended, and where it lies."""
    from ..results import as_records

    records = as_records(run.history)
    told = [f"{record['step']:g} steps" for record in records[-1:]] + [f"{run.seconds:.1f} s"]
    told += [f"{name} {values[-1]:.3f} nats per datum" for name, (_, values) in bounds_of(records).items()]
    return legible("; ".join([*told, *([] if run.folder is None else [f"folder {run.folder}"])]))


def run_html(run: "Run") -> str:
    """The curve of a training, and a line with its end."""
    from ..results import as_records

    curves = bounds_of(as_records(run.history))
    picture = lines(curves, "step", BOUND, title="bounds over the steps", dashed=["loss"]) if curves else ""
    notes = "".join(f"<li>{_shown(note)}</li>" for note in run.notes)
    return f"<div>{picture}<p>{escape(run_words(run))}</p>{f'<ul>{notes}</ul>' if notes else ''}</div>"


def evaluation_html(found: "Evaluation") -> str:
    """The bounds as a table."""
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left">{_shown(name)}</th>'
        f'<td style="text-align:right">{_shown(value)}</td><td style="text-align:left">{_shown(unit)}</td></tr>'
        for name, value, unit in found.rows()
    )
    notes = "".join(f"<li>{_shown(note)}</li>" for note in found.notes)
    return f"<table>{rows}</table>{f'<ul>{notes}</ul>' if notes else ''}"


def bounds_of(records: list[dict[str, float]]) -> dict[str, tuple[list[float], list[float]]]:
    """Name -> curve of each bound, and of the loss where it is another number (a warm-up)."""
    curves = {name: curve for name, key in CURVES.items() if (curve := curve_of(records, key))}
    if "loss" in curves and "training bound" in curves and _alike(curves["loss"][1], curves["training bound"][1]):
        del curves["loss"]
    return curves


def curve_of(records: list[dict[str, float]], key: str) -> tuple[list[float], list[float]] | None:
    """(steps, values) of a number of the records, where it is finite; None where it never is."""
    found = [(record["step"], record[key]) for record in records if isfinite(record.get(key, float("nan")))]
    return ([step for step, _ in found], [value for _, value in found]) if found else None


def _alike(one: list[float], other: list[float]) -> bool:
    """Whether a loss is the bound itself, as without a warm-up."""
    return len(one) == len(other) and all(
        abs(a - b) <= 1e-3 * max(abs(a), abs(b)) for a, b in zip(one, other, strict=True)
    )


def _shown(text: str) -> str:
    return escape(legible(text))
