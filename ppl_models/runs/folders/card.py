"""`card(run)`: a page about a run in Markdown, with the header that the Hugging Face Hub reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ppl_models.factorization import compare
from ppl_models.programs.legible import legible

from ..backends import columns
from ..naming import names, trust
from .folder import LoadedRun

EVALUATIONS = "evaluation*.json"
SAMPLES = "samples.png"


def card(run: LoadedRun, config: Mapping[str, Any]) -> str:
    """The page: formulas and verdict of the pair, its data, what it reached, and the command that made it.

    Args:
        run: a trained run, with its files.
        config: what is told of its configuration.
    """
    chosen, data = names.programs_of(config), config["data"]
    pair = [each["name"].rpartition(":")[2] for each in chosen.values()]
    rows = ", ".join(f"{count} {part}" for part, count in data.get("rows", {}).items())
    options = {key: value for key, value in data["applied"].items() if key != "kind" and value is not None}
    applied = ", ".join(f"{key} {value}" for key, value in options.items())
    shape = " x ".join(map(str, data["shape"])) or ", ".join(data.get("columns") or ())
    versions = ", ".join(f"{name} {version}" for name, version in config.get("versions", {}).items() if version)
    strings = [each["import"] for each in chosen.values()]
    own = [*dict.fromkeys(string.partition(":")[0] for string in strings if not trust.is_known(string))]
    sections = [
        header([run.backend, "variational-inference", "generative-model", *pair]),
        f"# {' with '.join(map(_plain, pair))} on {_plain(names.short(data['name']))}",
        f"A generative model{' and its guide' if 'guide' in chosen else ''}, trained by `ppl-models`.",
        *([f"![Samples of the model]({SAMPLES})"] if (run.folder / SAMPLES).is_file() else []),
        "## Model and guide" if "guide" in chosen else "## Model",
        _fenced(inspected(run)),
        "## Data",
        f"{_plain(names.short(data['name']))} ({rows}), a row is {shape}; as {data['applied']['kind']}"
        f"{f' ({applied})' if applied else ''}.",
        f"`example.safetensors` holds {data['example']} rows of the training data, on which the guide was built.",
        *_numbers(run.folder),
        "## How it was made",
        _fenced(config.get("command", ""), "sh"),
        f"Seed {config['seed']}; {versions}.",
        "## How to load it",
        _fenced(_loading(own), "python"),
        "It holds tensors and JSON, and no code."
        + (f" The programs are those of {', '.join(map(_plain, own))}, which must be importable." if own else ""),
    ]
    return "\n\n".join(sections) + "\n"


def header(tags: list[str]) -> str:
    """The header of a card, in YAML, of which JSON is a part."""
    lines = [f"- {json.dumps(_plain(tag))}" for tag in dict.fromkeys(tags)]
    return "\n".join(["---", "library_name: ppl-models", "tags:", *lines, "---"])


def inspected(run: LoadedRun) -> str:
    """What the inspector says of the pair, or why it says nothing."""
    try:
        return str(compare(run.model, run.guide, *columns(run.example)))
    except (ValueError, TypeError) as error:
        return f"not inspected: {' '.join(str(error).split())}"


def _numbers(folder: Path) -> Iterator[str]:
    """A table of the evaluations that are in a folder."""
    rows = []
    for path in sorted(folder.glob(EVALUATIONS)):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            bits = "" if found["bits_per_dim"] is None else f"{found['bits_per_dim']:.4f}"
            nll = f"{found['nll']:.3f} ± {found['nll_error']:.3f}"
            how = f"{found['particles']:d}" + (f", refined {found['refined']:d}" if found.get("refined") else "")
            rows.append(f"| {_plain(found['data'])} | {found['n']:d} | {how} | {found['elbo']:.3f} | {nll} | {bits} |")
        except (ValueError, KeyError, TypeError):  # numbers that are not finite, or a file of another kind
            continue
    if rows:
        yield "## Numbers"
        yield "\n".join(
            [
                "| data | rows | importance samples | ELBO | NLL | bits/dim |",
                "|---|---|---|---|---|---|",
                *rows,
            ]
        )
        yield "ELBO and NLL in nats per datum; the error is the standard error over the data."


def _loading(own: list[str]) -> str:
    more = f", trust={tuple(own)!r}" if own else ""
    return (
        "from ppl_models.runs import load_run\n\n"
        f'run = load_run("PATH"{more})  # the path of this folder, or hf://owner/name\n'
        "run.model, run.guide"
    )


def _fenced(text: str, language: str = "text") -> str:
    """A block as it is, whatever it holds."""
    lines = [legible(line) for line in text.splitlines()]
    fence = "```"
    while any(fence in line for line in lines):
        fence += "`"
    return "\n".join([f"{fence}{language}", *lines, fence])


def _plain(text: Any) -> str:
    """A word in a line of Markdown: without what it would read as more."""
    return "".join(c if c.isalnum() or c in " ._-:/" else " " for c in legible(str(text)))
