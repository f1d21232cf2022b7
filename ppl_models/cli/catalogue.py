"""`ppl-models list`: the models, guides and data sets of the collection."""

import inspect
from typing import Annotated, Literal

import typer
from rich.text import Text

from ppl_models import data as datasets
from ppl_models.runs import names

from .app import app, out, say, table_of


@app.command("list")
def list_(
    what: Annotated[Literal["models", "guides", "data", "all"], typer.Argument(help="What to list.")] = "all",
) -> None:
    """List models, guides and data sets, with formulas and sources.

    Example: [bold]ppl-models list guides[/]
    """
    for kind in ("model", "guide"):
        if what in (f"{kind}s", "all"):
            table = table_of(f"{kind}s", "")
            for name, program in names.catalogue(kind).items():
                lines = [(inspect.getdoc(program).partition("\n")[0], ""), (program.density, "cyan")]
                lines.append((program.source, "dim"))
                table.add_row(Text(name, "bold"), Text("\n").join(Text(line, style) for line, style in lines))
            out.print(table)
    if what in ("data", "all"):
        table = table_of("data", "")
        for name in datasets.names():
            table.add_row(Text(name, "bold"), datasets.describe(name).removeprefix(f"{name}: "))
        table.add_row(Text("folder:PATH", "bold"), "the images of a directory, cut square and resized")
        table.add_row(Text("FILE.npy, .npz", "bold"), "arrays (N, D), (N, H, W), (N, H, W, C) or (N, C, H, W)")
        out.print(table)
    if what != "data":
        say("Yours go by an import string, mypkg.module:Name; the current directory is searched too.", style="dim")
