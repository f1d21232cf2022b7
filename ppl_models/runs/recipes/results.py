"""`recorded()`: what the recipes gave when they were carried out; `markdown()`, the page that shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import starmap
from typing import Any, NamedTuple

from . import costs
from .recipe import HOME, Recipe, read_recipe

UNITS = {"nll": "NLL", "elbo": "bound", "bits_per_dim": "bits/dim"}


class Row(NamedTuple):
    """One evaluation of a run of a recipe.

    Attributes:
        recipe, run, name: which; "" for the name where a run has one evaluation.
        published, protocol: the number that was published, "" for none, and how it was had.
        nll: nats a datum, one a seed.
        error: their standard error over the data.
        minus: the difference from the first run of the recipe over the same data and its standard error, one a seed.
        n, particles: number of test data, and importance samples of each.
        minutes: of the training, one a seed.
    """

    recipe: str
    run: str
    name: str
    published: str
    protocol: str
    nll: tuple[float, ...]
    error: float
    minus: tuple[tuple[float, float], ...]
    n: int
    particles: int
    minutes: tuple[float, ...]


def recorded() -> dict[str, list[dict[str, Any]]]:
    """Recipe -> what `carry_out` gave (its results.json), by seed, of the recipes that were carried out."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in sorted((HOME / "results").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".json"):
            contents = json.loads(entry.read_text())
            found.setdefault(contents["recipe"], []).append(contents)
    return {name: sorted(seeds, key=lambda each: each["seed"]) for name, seeds in found.items()}


def rows_of(recipe: Recipe, seeds: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The evaluations of the runs of a recipe: one a run, or several by name, as of a model and of its relaxation."""
    found, first = [], next(iter(recipe.runs), "")
    for run in recipe.runs:
        done = [contents for contents in seeds if run in contents["rows"]]
        minutes = tuple(contents["seconds"][run] / 60 for contents in done)
        for name in _evaluations(done[0]["rows"][run]) if done else ():
            each = [_evaluations(contents["rows"][run])[name] for contents in done]
            known = {} if name else recipe.published.get(run, {})
            number = "".join(f"{UNITS[key]} {value:g}" for key, value in known.items() if key in UNITS)
            minus = tuple(tuple(row["minus"][first]) for row in each if first in row.get("minus", {}))
            nlls, errors = zip(*((row["nll"], row["nll_error"]) for row in each), strict=True)
            how = each[0]["n"], each[0]["particles"], minutes
            found.append(Row(recipe.name, run, name, number, known.get("protocol", ""), nlls, max(errors), minus, *how))
    return found


def _evaluations(row: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Name -> evaluation, with the name "" where a run has one."""
    return {"": row} if "nll" in row else {k: v for k, v in row.items() if isinstance(v, Mapping) and "nll" in v}


def cells(row: Row) -> tuple[str, ...]:
    """A row in words: run, published, NLL, less than the first run, data and samples, minutes; see `HEADINGS`."""
    nll = ", ".join(f"{value:.2f}" for value in row.nll) + f" +- {row.error:.2f}"
    minus = ", ".join(f"{value:+.2f} +- {error:.2f}" for value, error in row.minus)
    published = f"{row.published} ({row.protocol})" if row.published else ""
    minutes = ", ".join(f"{value:.0f}" for value in row.minutes)
    run = f"{row.run}: {row.name}" if row.name else row.run
    return run, published, nll, minus, f"{row.n}, {row.particles}", minutes


HEADINGS = "run", "published", "NLL here, by seed", "minus the first run", "data, samples", "minutes"


ABOUT = """# Results

What the recipes gave, printed by `ppl-models results --markdown`. An NLL is a bound on -log p(x) in nats per datum
over test data, evenly spaced in their file, by so many importance samples each; numbers stand by seed, with the
standard error over the data. The difference from the first run of a recipe is over the same data, datum by datum.
Minutes are those of the training on one thread, often beside other work. Published numbers are of trainings to
convergence, and of other networks where the recipe says so: `ppl-models recipe` tells the whole of it. Machine,
commit, commands and all other numbers are in `ppl_models/recipes/results`; `ppl-models recipe NAME --threads 1` makes
them again."""


MOST_NUMBERS = 8  # of a run that a table has room for


def numbers_of(seeds: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A table, the head first, of what other experiments ask of a run; empty where it is too much for one."""
    told: dict[str, dict[str, list[str]]] = {}
    for contents in seeds:
        for run, row in contents["rows"].items():
            for key, found in row.items():
                parts = found if isinstance(found, Mapping) else {"": found}
                for part, value in parts.items():
                    if isinstance(value, int | float):
                        told.setdefault(run, {}).setdefault(f"{key} {part}".strip(), []).append(f"{value:.4g}")
    keys = list(dict.fromkeys(key for row in told.values() for key in row))
    if len(keys) > MOST_NUMBERS:
        return []
    return [("run", *keys), *((run, *(", ".join(row.get(key, [])) for key in keys)) for run, row in told.items())]


def table(head: Sequence[str], *rows: Sequence[str]) -> str:
    """A table of Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def markdown() -> str:
    """The page docs/results.md."""
    lines = [ABOUT]
    for name, seeds in recorded().items():
        recipe = read_recipe(name)
        own = rows_of(recipe, seeds)
        rows = [HEADINGS, *map(cells, own)] if own else numbers_of(seeds)
        lines += ["", f"## {recipe.title}", "", f"`{name}`. {recipe.source}.", ""]
        lines += [table(*rows) if rows else f"See `ppl-models results {name}`."]
    lines += [
        "",
        "## What systems cost",
        "",
        costs.ABOUT,
        "",
        table(costs.HEADINGS, *starmap(costs.cells, costs.costs().items())),
    ]
    return "\n".join(lines) + "\n"
