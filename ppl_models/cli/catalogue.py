"""`ppl-models list`: the models, guides, objectives and data sets of the collection."""

import inspect
import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.text import Text

from ppl_models.programs.legible import quoted
from ppl_models.runs.naming import names
from ppl_models.runs.naming.objectives import WORDS, objective_function

from . import completion
from .app import Debug, app, opt, out, reported, say

KINDS = "models", "guides", "objectives", "data"
MORE = {
    "folder:PATH": "the images of a directory, cut square and resized",
    "FILE.npy, .npz": "arrays (N, D), (N, H, W), (N, H, W, C) or (N, C, H, W)",
}


def entries(kind: str) -> Iterator[dict[str, Any]]:
    """What there is of a kind: name and summary, of programs formula, source and sizes too."""
    if kind in ("models", "guides"):
        for name, program in names.catalogue(kind[:-1]).items():
            summary = inspect.getdoc(program).partition("\n")[0]
            told = {"name": name, "summary": summary, "formula": program.density, "source": program.source}
            parameters = inspect.signature(program).parameters.values()
            yield {**told, "sizes": {p.name: _told(p.default) for p in parameters if p.default is not p.empty}}
    elif kind == "objectives":
        for word in WORDS:
            yield {"name": word, "summary": inspect.getdoc(objective_function(word)).partition("\n")[0]}
    else:
        from ppl_models import data

        for name in data.names():
            yield {"name": name, "summary": data.describe(name).removeprefix(f"{name}: ")}
        yield from ({"name": name, "summary": summary} for name, summary in MORE.items())


@app.command("list")
def list_(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="models, guides, objectives, data or all; or a name.",
            autocompletion=completion.listed,
        ),
    ] = "all",
    as_json: Annotated[bool, opt("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """List models, guides, objectives and data sets, a line each; of one, by its name, formula, source and sizes.

    Example: [bold]ppl-models list sere-vae[/]
    """
    with reported(debug):
        kinds = KINDS if what not in KINDS else (what,)
        found = {kind: list(entries(kind)) for kind in kinds}
        if what != "all" and what not in KINDS:
            found = {kind: [each for each in rows if each["name"] == what] for kind, rows in found.items()}
            found = {kind: rows for kind, rows in found.items() if rows}
            if not found:
                raise ValueError(f"list: found {quoted(what)}, want {', '.join(KINDS)}, all, or a name of theirs")
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        elif what in (*KINDS, "all"):
            _lines(found)
        else:
            for kind, rows in found.items():
                _one(kind, rows[0])


def _lines(found: dict[str, list[dict[str, Any]]]) -> None:
    """A line an entry, cut at the width of a terminal, whole in a pipe."""
    wide = max(len(each["name"]) for rows in found.values() for each in rows) + 2
    for kind, rows in found.items():
        say(kind, style="dim")
        for each in rows:
            line = Text.assemble((f"{each['name']:<{wide}}", "bold"), each["summary"])
            if out.is_terminal:
                line.truncate(out.width, overflow="ellipsis")
            out.print(line)
    if out.is_terminal:
        say("Of one: ppl-models list NAME. Yours go by an import string, mypkg.module:Name.", style="dim")


def _one(kind: str, entry: dict[str, Any]) -> None:
    say((entry["name"], "bold"), f"  ({kind.removesuffix('s')})")
    say(entry["summary"])
    for key, style in (("formula", "cyan"), ("source", "dim")):
        if key in entry:
            say(entry[key], style=style)
    if sizes := entry.get("sizes"):
        flag = "-m" if kind == "models" else "-g"
        say("sizes: ", " ".join(f"{flag} {name}={value}" for name, value in sizes.items()))


def _told(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
