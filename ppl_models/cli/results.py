"""`ppl-models results`: what the recipes gave, beside what was published."""

from itertools import starmap
from typing import Annotated, Any

import typer
from rich.text import Text

from ppl_models.programs.legible import quoted
from ppl_models.runs.recipes import costs
from ppl_models.runs.recipes.recipe import read_recipe
from ppl_models.runs.recipes.results import HEADINGS, cells, markdown, recorded, rows_of

from . import completion
from .app import Debug, app, opt, out, reported, say, table_of


@app.command()
def results(
    name: Annotated[
        str | None,
        typer.Argument(help="A recipe, for all that is known of it.", autocompletion=completion.recipes),
    ] = None,
    page: Annotated[bool, opt("--markdown", help="Print the page docs/results.md.")] = False,
    debug: Debug = False,
) -> None:
    """Show what the recipes gave when they were carried out, beside what was published, and what systems cost.

    Example: [bold]ppl-models results vamp[/]
    """
    with reported(debug):
        if page:
            typer.echo(markdown(), nl=False)
            return
        known = recorded()
        if name is not None and name not in known:
            read_recipe(name)  # which says if there is none
            raise ValueError(f"results: the recipe {quoted(name)} was not carried out; there are {', '.join(known)}")
        recipes = map(read_recipe, [name] if name else known)
        tables = [(recipe.title, HEADINGS, map(cells, rows_of(recipe, known[recipe.name]))) for recipe in recipes]
        if name is None:
            tables.append(("What systems cost", costs.HEADINGS, starmap(costs.cells, costs.costs().items())))
        for title, head, rows in tables:
            table = table_of(*head)
            for row in rows:
                table.add_row(*map(Text, row))
            if table.row_count:
                say(title, style="bold")
                out.print(table)
        for contents in known[name] if name else ():
            of = contents.get("machine", {}).get("processor", "")
            say(f"seed {contents['seed']}  {of}  {contents.get('commit', '')}", style="dim")
            for run, command in contents["commands"].items():
                say((f"{run}: ", "bold"), command)
            for run, row in contents["rows"].items():
                for key, value in row.items():
                    say(f"  {run}: {key} {_told(value)}")


def _told(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
