"""`structure`, `made`: the inspector's report on a run's pair; its configuration, command and versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ppl_models.factorization import compare

from ..backends import columns as columns_of
from .html import columns, missing, note, shown, table
from .subject import Subject

APART = "format", "command", "versions"  # what is not shown among the options


def structure(subject: Subject) -> str:
    """Model, exact posterior and guide, and whether the guide mirrors the posterior."""
    run = subject.run
    if run.config["guide"] is None:
        return missing("the model has no latents, and no guide")
    report = compare(run.model, run.guide, *columns_of(run.example))
    return f'<div class="paper">{report._repr_html_()}</div>'


def made(subjects: Sequence[Subject]) -> str:
    """What the runs are made of, side by side; where two differ, it is marked."""
    head = ["", *(s.name for s in subjects)] if len(subjects) > 1 else []
    commands = columns([(s.name, f"<pre>{shown(s.run.config.get('command', ''))}</pre>") for s in subjects])
    groups: dict[str, list[dict[str, str]]] = {"the run": [{"folder": str(s.run.folder)} for s in subjects]}
    for i, subject in enumerate(subjects):
        for key, value in subject.run.config.items():
            if key not in APART:
                group = key if isinstance(value, Mapping) else "the run"
                found = _flat(value) if isinstance(value, Mapping) else _flat({key: value})
                groups.setdefault(group, [{} for _ in subjects])[i] |= found
    versions = [
        _flat({k: v or "from a checkout" for k, v in (s.run.config.get("versions") or {}).items()}) for s in subjects
    ]
    groups["versions at the start of the training"] = versions
    tables = (f"<div><h3>{shown(name)}</h3>{_table(head, found)}</div>" for name, found in groups.items())
    wide = "charts" if len(subjects) == 1 else "columns"
    told = "" if len(subjects) == 1 else note("What differs is marked.")
    return f'{commands}{told}<div class="{wide}">{"".join(tables)}</div>'


def _table(head: Sequence[str], found: Sequence[Mapping[str, str]]) -> str:
    """One row for each name, one column for each run."""
    keys = dict.fromkeys(key for each in found for key in each)
    rows = [(key, *(each.get(key, "") for each in found)) for key in keys]
    return table(head, rows, marked=[i for i, (_, *cells) in enumerate(rows) if len(set(cells)) > 1])


def _flat(found: Mapping[str, Any], start: str = "") -> dict[str, str]:
    """Name with dots -> value as text."""
    flat: dict[str, str] = {}
    for key, value in found.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{start}{key}.")
        elif value is not None:
            flat[f"{start}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat
