"""`ppl-models recipe`: make a recorded result again."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from ppl_models.runs.naming import names
from ppl_models.runs.recipes.recipe import OF_RUN, read_recipe, recipe_names

from . import completion
from .app import Debug, Device, Quiet, Threads, Trust, app, opt, out, reported, say, set_threads, table_of, trust_typed
from .training_options import WithPage


@app.command()
def recipe(
    name: Annotated[
        str | None,
        typer.Argument(help="A recipe, or a .toml file of yours; none lists them.", autocompletion=completion.recipes),
    ] = None,
    folder: Annotated[
        Path | None, opt("--out", metavar="PATH", help="Where to write.", show_default="runs/NAME")
    ] = None,
    settings: Annotated[
        list[str] | None, opt("--set", metavar="KEY=VALUE", help="Change it: training.steps=100; repeatable.")
    ] = None,
    report: WithPage = True,
    trust: Trust = None,
    threads: Threads = None,
    device: Device = "cpu",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a recorded result again: its trainings, the questions asked of them, and the pictures.

    Started once more with the same folder it goes on where it was stopped.

    Example: [bold]ppl-models recipe discrete[/]
    """
    from ppl_models.runs.recipes.carry_out import RESULTS, carry_out

    with reported(debug):
        if name is None:
            table = table_of("recipe", "")
            for known in recipe_names():
                found = read_recipe(known)
                lines = [(found.title, ""), (found.about, "dim"), (found.source, "dim")]
                table.add_row(Text(known, "bold"), Text("\n").join(Text(line, style) for line, style in lines))
            out.print(table)
            return
        set_threads(threads)
        changed = _settings(settings or ())
        trust_typed(
            trust, *(str(value) for key, value in changed.items() if key.endswith(("model.name", "guide.name")))
        )
        found = read_recipe(name, changed)
        folder = folder or Path("runs") / names.slug(found.name)
        if not quiet:
            say(f"{found.title} (seed {found.seed}); to be written to {folder}")
        carry_out(found, folder, device, not quiet, say, pages=report)
        say("written  ", (str(folder / RESULTS), "bold"))
        for picture in sorted(folder.glob("*.png")):
            say(f"         {picture}")


def _settings(words: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """{"training.steps": 100} of "training.steps=100"."""
    found: dict[str, Any] = {}
    of_run = re.compile(rf"(runs\..+?\.(?:{'|'.join(OF_RUN)})\.[^=]+)(=)(.*)", re.DOTALL)  # a run's name may hold "="
    for word in words:
        in_run = of_run.fullmatch(word.strip())
        key, equals, text = in_run.groups() if in_run else word.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--set {word!r}: want section.key=value, training.steps=100")
        found[key.strip()] = names.value_of(text)
    return found
