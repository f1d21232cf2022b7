"""`ppl-models inspect`: report whether a guide mirrors the exact posterior of a model."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ppl_models.runs.naming import names

from . import completion
from .app import DataName, Debug, ModelName, ModelSizes, Quiet, Seed, app, count, opt, reported, say, trust_typed


@app.command(no_args_is_help=True)
def inspect(
    model: ModelName,
    guide: Annotated[
        str | None,
        typer.Argument(
            help="Likewise, pyro.infer.autoguide:AutoNormal among others; none of a model without latents.",
            autocompletion=completion.guides,
        ),
    ] = None,
    data: DataName = "digits",
    sizes: ModelSizes = None,
    guide_sizes: Annotated[
        list[str] | None, opt("-g", "--guide", metavar="KEY=VALUE", help="A size of the guide; repeatable.")
    ] = None,
    level: Annotated[Literal["site", "element"], opt(help="Sites, or the entries of each.")] = "site",
    rows: Annotated[int, count(metavar="N", help="Data points to run on: three tell whether plates hold.")] = 3,
    folder: Annotated[
        Path | None, opt("--out", metavar="PATH", help="Folder of the pictures.", show_default="inspection_NAMES")
    ] = None,
    strict: Annotated[bool, opt("--strict", help="Exit code 2 unless the guide is faithful.")] = False,
    seed: Seed = 0,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say whether a guide's factorization mirrors the exact posterior's, why not, and draw it.

    Example: [bold]ppl-models inspect hierarchical-vae mean-field -m latent=4,4,4[/]
    """
    from ppl_models.runs.inspection import inspect_pair, write_report

    with reported(debug):
        named = [name for name in (model, guide) if name is not None]
        trust_typed(None, *named)
        why = "; model and guide are named before the options"
        model_sizes, chosen = (
            names.parse_sizes(words or (), option, why) for words, option in ((sizes, "-m"), (guide_sizes, "-g"))
        )
        folder = folder or Path("_".join(["inspection", *(names.slug(w.rpartition(":")[2]) for w in named)]))
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--out {folder}: found a file, want a folder to write the report in; try another")
        report = inspect_pair((model, model_sizes), guide and (guide, chosen), data, rows, level, seed)
        say(str(report))
        for path in write_report(report, folder):
            if not quiet:
                say("written  ", (str(path), "bold"))
    if strict and not report.faithful:
        raise typer.Exit(2)
